//! Files and directories that a run replaces.

mod access;
pub(crate) mod as_started;
pub(crate) mod behind;
pub(crate) mod changed;
pub(crate) mod install;
pub(crate) mod lock;
pub(crate) mod mentions;
pub(crate) mod source;
