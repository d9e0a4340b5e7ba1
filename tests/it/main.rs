//! Real `hello serve` processes, real signals, real files.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says so by failing, and why it is skipped"
)]
#![allow(clippy::exit, reason = "rogues end as they like")]

mod any;
mod assertions;
mod attacks;
mod broadcast;
mod claims;
mod config_logs;
mod crash;
mod daemons;
mod demo_hosts;
mod diff;
mod discover;
mod doctor;
mod doctor_group;
mod documented;
mod doubtful;
mod endpoints;
mod help;
mod history;
mod hosts;
mod house;
mod inputs;
mod install;
mod limits;
mod load;
mod locks;
mod logs;
mod loss;
mod odd_names;
mod opened;
mod pages;
mod paths;
mod peculiar;
mod pids;
mod placeholders;
mod points;
mod progress;
mod pty;
mod readings;
mod recovery;
mod reload_by;
mod reports;
mod resume;
mod rogue;
mod rollout;
mod routes;
mod schema;
mod serve;
mod show;
mod status;
mod stores;
mod successor;
mod support;
mod targets;
mod terminal;
mod trust;
mod truth;
mod undo;
mod unresponsive;
mod users;
mod validators;
mod watch;
mod watching;
mod waves;

// The rogues of `tests/faults`, and helpers that inspect processes without `hello`.
#[path = "../chaos/mode.rs"]
#[expect(dead_code, reason = "a round of faults needs more of it")]
mod mode;
#[path = "../chaos/random.rs"]
#[expect(dead_code, reason = "a round of faults needs more of it")]
mod random;
#[path = "../chaos/rogue.rs"]
#[expect(dead_code, reason = "a round of faults needs more of it")]
mod rogues;
#[path = "../chaos/world.rs"]
#[expect(dead_code, reason = "a round of faults needs more of it")]
mod world;
