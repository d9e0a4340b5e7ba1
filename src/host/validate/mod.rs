//! Finds out whether a process would load a new config.

pub(crate) mod case;
pub(crate) mod complaints;
pub(crate) mod current;
pub(crate) mod overridden;
pub(crate) mod readable;
pub(crate) mod restart;
pub(crate) mod run;
pub(crate) mod title;
pub(crate) mod verdicts;
