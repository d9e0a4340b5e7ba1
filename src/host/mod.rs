//! What is done on one machine: find its instances, stage and install a file, hang up a process, see what it runs.

pub mod confirm;
pub mod discover;
pub mod hangup;
pub mod install;
pub mod validate;
