//! Files, directories and keys of stores that a run replaces.

mod access;
pub(crate) mod as_started;
pub(crate) mod behind;
pub(crate) mod changed;
mod folder;
pub(crate) mod install;
pub(crate) mod lock;
pub(crate) mod mentions;
pub(crate) mod source;
