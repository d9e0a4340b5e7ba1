//! Reads processes: identity, masks, command lines, descent, namespaces.

pub(crate) mod argument;
pub(crate) mod cmdline;
pub(crate) mod guard;
pub(crate) mod inside;
pub(crate) mod pidfd;
pub(crate) mod sigwait;
pub(crate) mod snapshot;
pub(crate) mod table;
pub(crate) mod title;
pub(crate) mod tree;
pub(crate) mod user;
