//! What the kernel says of processes.

pub(crate) mod argument;
pub(crate) mod cmdline;
pub(crate) mod guard;
pub(crate) mod inside;
pub(crate) mod kernel;
pub(crate) mod pidfd;
pub(crate) mod sigwait;
pub(crate) mod snapshot;
pub(crate) mod tree;
pub(crate) mod user;
