//! Signals an instance, proves what it runs, and starts it again.

pub(crate) mod context;
pub(crate) mod opened;
pub(crate) mod prove;
pub(crate) mod restart_command;
pub(crate) mod second_end;
pub(crate) mod signal;
pub(crate) mod successor;
