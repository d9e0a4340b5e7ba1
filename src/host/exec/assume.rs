//! Assumes the credentials of another process, irrevocably.

use std::io;

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities,
};

use crate::{identity::Credentials, kernel::Proc};

/// Returns the credentials of this process.
///
/// # Errors
/// Fails if `/proc` cannot be read.
pub(super) fn own() -> io::Result<Credentials> {
    Ok(Proc::own()?.status()?.1)
}

/// Assumes `credentials`. The process never gains a capability. An ordinary user finds only its own
/// processes, so its credentials stay as they are.
///
/// # Errors
/// Fails if this process may not change its credentials.
pub(super) fn assume_credentials(own: &Credentials, credentials: &Credentials) -> io::Result<()> {
    if !Uid::effective().is_root() || own == credentials {
        return Ok(());
    }
    let is_root = credentials.has_root();
    // A program that root executes gets every capability in its bounding set (capabilities(7)).
    limit_bounding_set(
        own,
        if is_root {
            credentials.permitted & credentials.bounding
        } else {
            credentials.bounding
        },
    )?;
    let ambient = credentials.ambient & own.permitted;
    set_keep_capabilities(true)?;
    let gids = credentials.gids.map(Gid::from_raw);
    let uids = credentials.uids.map(Uid::from_raw);
    let mut groups = own.groups.clone();
    groups.sort_unstable();
    if groups != credentials.groups {
        setgroups(
            &credentials
                .groups
                .iter()
                .map(|gid| Gid::from_raw(*gid))
                .collect::<Vec<_>>(),
        )?;
    }
    if own.gids != credentials.gids {
        setresgid(gids[0], gids[1], gids[2])?;
    }
    if own.uids != credentials.uids {
        setresuid(uids[0], uids[1], uids[2])?;
    }
    let kept = CapabilitySet::from_bits_retain(if is_root {
        credentials.permitted & own.permitted
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
    for capability in each(ambient) {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Removes every capability that is not in `allowed` from the bounding set.
fn limit_bounding_set(own: &Credentials, allowed: u64) -> io::Result<()> {
    for capability in each(own.bounding & !allowed) {
        if capability_is_in_bounding_set(capability)? {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    Ok(())
}

/// Returns each capability of a set.
fn each(set: u64) -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS)
        .map(|bit| 1 << bit)
        .filter(move |bit| set & bit != 0)
        .map(CapabilitySet::from_bits_retain)
}
