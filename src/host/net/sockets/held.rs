//! The sockets that a process and its descendants hold.

use std::{collections::BTreeSet, io};

use crate::{
    host::proc::{
        guard::{Namespace, shared},
        tree::{family, lives},
    },
    kernel::{descriptors, socket, unread_hint},
};

/// Why the sockets of a process are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketsError {
    #[error("is in another network namespace, where this host cannot probe it")]
    OtherNetwork,
    #[error("its sockets cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("its children cannot be read: {0}")]
    Children(io::Error),
    #[error("the sockets of pid {0}, which it started, cannot be read: {1}")]
    Descendant(i32, io::Error),
}

impl SocketsError {
    /// Returns the next step for the operator.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::OtherNetwork => "run `hello` in the network namespace of that process",
            Self::Unreadable(e) | Self::Children(e) | Self::Descendant(_, e) => unread_hint(e),
        }
    }
}

/// Returns the inodes of the sockets that a process itself holds.
///
/// # Errors
/// Fails if they cannot be read, or if the process is in another network namespace, whose sockets
/// this host does not see.
pub(crate) fn sockets_of(pid: i32) -> Result<Vec<u64>, SocketsError> {
    if !shared(pid, Namespace::Network)? {
        return Err(SocketsError::OtherNetwork);
    }
    let mut inodes = Vec::new();
    let mut unread = None;
    let read = descriptors(pid, |_, target| match target {
        Ok(target) => inodes.extend(socket(target)),
        Err(e) => unread = Some(e),
    });
    // A descriptor that cannot be read must not count as no socket.
    match read.err().or(unread) {
        Some(e) => Err(e.into()),
        None => Ok(inodes),
    }
}

/// Returns the inodes of the sockets that a descendant of an instance holds. One that has ended, or
/// is in another network namespace, has no socket that could be probed.
///
/// # Errors
/// Fails as [`sockets_of`] does.
pub(super) fn sockets_of_descendant(pid: i32) -> Result<Vec<u64>, SocketsError> {
    match sockets_of(pid) {
        Err(SocketsError::OtherNetwork) => Ok(Vec::new()),
        // An ordinary user may not list the descriptors of a process that is just ending.
        Err(_) if lives(pid).is_ok_and(|stat| stat.is_none()) => Ok(Vec::new()),
        Err(SocketsError::Unreadable(e)) => Err(SocketsError::Descendant(pid, e)),
        sockets => sockets,
    }
}

/// Returns the inodes of the sockets that a process and those of its descendants hold for which
/// `counts` is true.
///
/// # Errors
/// Fails if one of them cannot be read.
pub(crate) fn sockets_of_family(
    pid: i32,
    counts: impl Fn(i32) -> bool,
) -> Result<BTreeSet<u64>, SocketsError> {
    let mut held: BTreeSet<u64> = sockets_of(pid)?.into_iter().collect();
    let family = family(pid).map_err(SocketsError::Children)?;
    for child in family.into_iter().skip(1).filter(|child| counts(*child)) {
        held.extend(sockets_of_descendant(child)?);
    }
    Ok(held)
}
