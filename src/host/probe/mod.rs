//! Probes of the config that an instance serves. `confirm` is the loop that waits until every
//! assertion holds; `reload::evidence` says what they prove.

pub(crate) mod answer;
mod attempt;
mod children;
pub(crate) mod confirm;
pub(crate) mod endpoint;
pub(crate) mod expected;
pub(crate) mod layers;
pub(crate) mod limits;
pub(crate) mod log;
pub(crate) mod lost_listeners;
pub(crate) mod old_workers;
pub(crate) mod port_sharing;
pub(crate) mod readings;
pub(crate) mod results;
pub(crate) mod samples;
mod source;
mod tcp;
pub(crate) mod values;
pub(crate) mod workers;
