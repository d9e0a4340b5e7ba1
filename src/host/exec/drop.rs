//! Takes the identity of another process, for good.

use std::io;

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities,
};

use crate::{host::proc::kernel::Proc, identity::Credentials};

/// The identity of this process.
///
/// # Errors
/// The system's: `/proc` does not tell.
pub(super) fn own() -> io::Result<Credentials> {
    let pid = std::fs::read_link("/proc/self")?;
    let pid = pid
        .to_str()
        .and_then(|pid| pid.parse().ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    Ok(Proc::open(pid)?.status()?.1)
}

/// Becomes `person`. Capabilities only ever get fewer. An ordinary user has found only its own
/// processes, and stays what it is.
///
/// # Errors
/// The system's: this process may not.
pub(super) fn become_person(own: &Credentials, person: &Credentials) -> io::Result<()> {
    if !Uid::effective().is_root() || own == person {
        return Ok(());
    }
    let is_root = person.has_root();
    // A program that root executes has all that its bounding set leaves.
    bound(
        own,
        if is_root {
            person.permitted & person.bounding
        } else {
            person.bounding
        },
    )?;
    let ambient = person.ambient & own.permitted;
    set_keep_capabilities(true)?;
    let (gids, uids) = (
        person.gids.map(Gid::from_raw),
        person.uids.map(Uid::from_raw),
    );
    let mut groups = own.groups.clone();
    groups.sort_unstable();
    if groups != person.groups {
        setgroups(
            &person
                .groups
                .iter()
                .map(|gid| Gid::from_raw(*gid))
                .collect::<Vec<_>>(),
        )?;
    }
    if own.gids != person.gids {
        setresgid(gids[0], gids[1], gids[2])?;
    }
    if own.uids != person.uids {
        setresuid(uids[0], uids[1], uids[2])?;
    }
    let kept = CapabilitySet::from_bits_retain(if is_root {
        person.permitted & own.permitted
    } else {
        ambient
    });
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::from_bits_retain(ambient),
        },
    )?;
    clear_ambient_capability_set()?;
    for one in each(ambient) {
        configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}

/// Takes from the bounding set whatever is not in `most`.
fn bound(own: &Credentials, most: u64) -> io::Result<()> {
    for one in each(own.bounding & !most) {
        if capability_is_in_bounding_set(one)? {
            remove_capability_from_bounding_set(one)?;
        }
    }
    Ok(())
}

fn each(set: u64) -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS)
        .map(|bit| 1 << bit)
        .filter(move |bit| set & bit != 0)
        .map(CapabilitySet::from_bits_retain)
}
