//! `hello` reloads the configuration of a whole fleet by `SIGHUP`, and proves that it took effect.
//!
//! ```text
//! doors    main -> cli -+-> broadcast -+-> execute -+-> engine (entries and answers)
//!                       |   resume    -+            +-> hosts, session
//!                       |              +-> report
//!                       +-> watch -> broadcast, resume, serve
//!                       +-> diff -> status ------> host
//!                       +-> doctor --------------> host
//!                       +-> show ----------------> report
//!                       +-> history, forget -----> report, hosts
//!                       +-> reach --------------> hosts -> host
//!                       +-> agent -> status, doctor, history, forget, session
//!                       +-> serve
//!                       +-> check
//! ----------------------------------------------------------------------------------------------
//! hosts    the other machines: inventory command, connections, one fan-out
//! session  what a run holds on this machine; carries out what an engine asks -> plan
//! ----------------------------------------------------------------------------------------------
//! host     local        the verbs on this machine: survey, prepare, commit, check
//!          reload       signal or command, what proves it, starts again
//!          probe        what an instance serves; confirms until its assertions hold
//!          validate     whether a new config would be loaded
//!          discover     which processes are in the fleet, and what each reads
//!          target       the file, directory or key that is replaced; the lock of a file
//!          store        services that hold keys: read, write, wait
//!          net          listening sockets, HTTP, TLS
//!          exec         every command, by three policies
//!          proc         what the kernel says of processes
//!          parallel     many things at once
//! ----------------------------------------------------------------------------------------------
//! words    runs (journal, stored bytes)   change -> step -> event · kernel (what /proc/PID says)
//!          protocol (frames between coordinator and agent) -> inventory (names, labels, terms)
//!          waves (which instances are signalled together) -> fleet
//!          fleet -> assertion · tree -> config -> diagnostic · identity · self_report · trust
//!          runtime
//! floor    screen (all that is printed)   exact (paths in JSON)   names (lists in sentences)
//!          refusal (reason and next step)
//! ```
//!
//! An arrow goes right or down, never back; a test holds every file to it. The engine and the
//! report never see each other: both see `event`.

mod agent;
mod assertion;
mod broadcast;
mod change;
mod check;
pub mod cli;
pub mod config;
mod diagnostic;
mod diff;
mod doctor;
mod engine;
mod event;
mod exact;
mod execute;
pub mod fleet;
mod forget;
mod history;
pub mod host;
mod hosts;
mod identity;
pub mod inventory;
mod kernel;
mod names;
mod plan;
mod protocol;
mod reach;
mod refusal;
mod report;
mod resume;
mod runs;
mod runtime;
mod screen;
mod self_report;
pub mod serve;
mod session;
mod show;
mod status;
mod step;
#[cfg(test)]
mod tests;
mod tree;
mod trust;
mod watch;
mod waves;
