//! Signals an instance, proves which config it runs, and starts it again.

mod baseline;
pub(crate) mod command;
pub(crate) mod context;
pub(crate) mod evidence;
pub(crate) mod expectation;
pub(crate) mod opened;
pub(crate) mod prove;
mod remains;
pub(crate) mod restart_command;
pub(crate) mod second_end;
pub(crate) mod signal;
pub(crate) mod successor;
mod young_clock;
