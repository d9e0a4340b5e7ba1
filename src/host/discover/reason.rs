//! The reasons for which a process is not part of a run, or its config is not replaced. Each text
//! has no subject: that is the process.

mod config;
mod matching;

pub(crate) use self::{
    config::{Absent, Attempts, ConfigReason, ConfigRefusal},
    matching::{MatchReason, MatchRefusal, NotMeant, Users},
};
