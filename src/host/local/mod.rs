//! The verbs on this machine.

pub(crate) mod check;
pub(crate) mod commit;
pub(crate) mod examine;
pub(crate) mod host;
pub(crate) mod newcomers;
pub(crate) mod prepare;
#[cfg(test)]
pub(crate) mod script;
pub(crate) mod steady;
pub(crate) mod survey;
