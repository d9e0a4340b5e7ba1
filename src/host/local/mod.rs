//! The verbs on this machine.

pub(crate) mod baseline;
pub(crate) mod check;
pub(crate) mod commit;
pub(crate) mod draft;
pub(crate) mod examine;
mod failed;
pub(crate) mod guards;
pub(crate) mod host;
pub(crate) mod newcomers;
pub(crate) mod prepare;
mod refusals;
pub(crate) mod reload_command;
#[cfg(test)]
pub(crate) mod script;
pub(crate) mod sources;
pub(crate) mod steady;
pub(crate) mod survey;
