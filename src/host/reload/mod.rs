//! Signals an instance, proves what it runs, and starts it again.

pub(crate) mod fresh;
pub(crate) mod opened;
pub(crate) mod prove;
pub(crate) mod revive;
pub(crate) mod second_end;
pub(crate) mod signal;
pub(crate) mod successor;
