//! Finds the processes of a group and the files that each of them reads. Touches nothing.

mod built;
mod config;
pub(crate) mod found;
mod leaders;
mod look;
mod lookup;
mod mounts;
pub(crate) mod newest;
mod options;
mod owner;
mod pidfile;
pub(crate) mod renewal;
mod scan;
mod standing;
pub(crate) mod title;
mod unit;

pub(crate) use self::{
    config::{Ways, all_configs, configs_of, fixed_of},
    scan::Scan,
    standing::{Standing, is_named, process},
};
