//! Finds the processes of a group and the files that each of them reads. Touches nothing.

mod built;
mod config;
pub(crate) mod found;
mod inspect;
mod leaders;
mod lookup;
mod membership;
mod mounts;
pub(crate) mod new_processes;
mod options;
mod owner;
mod pidfile;
mod reason;
pub(crate) mod renewal;
mod scan;
pub(crate) mod title;
mod unit;

pub(crate) use self::{
    config::{ConfigPaths, all_configs, configs_of, fixed_of},
    membership::{Membership, is_named, process},
    reason::{ConfigRefusal, MatchRefusal},
    scan::Scan,
};
#[cfg(test)]
pub(crate) use self::{inspect::InspectError, reason::MatchReason};
