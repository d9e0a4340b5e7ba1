//! The one room that starts foreign processes. Nothing outside it names `Command`.
//!
//! Each command runs in a session and a session keyring of its own, with the limits that `hello`
//! was started with. [`Policy`] says with which identity:
//!
//! - *Judge*: validators, exec assertions and restart keys. The process that the survey saw is
//!   opened once, through one descriptor of its `/proc/PID`, and compared with what the survey
//!   recorded. The command enters its namespaces, root and working directory by descriptor, and has
//!   its users, groups and at most its capabilities.
//! - *Start*: a process that ended is started again as the user that it ran as. It may leave
//!   children.
//! - *Own*: a command of the operator's: the operator's identity and environment.
//!
//! A command of the first and the last sort has a supervisor, which is this binary again
//! (`exec-supervise`). It keeps the identity of the caller, so that the command can neither read
//! nor signal it. Every process that the command leaves behind becomes its child, and is ended by
//! it. It starts this binary once more (`exec-become`), which gives up what it must and becomes the
//! command. All of them talk over a socket on stdin, which the command never sees.

use std::time::Duration;

mod become_it;
mod descend;
mod drop;
mod environ;
pub(crate) mod gate;
mod held;
mod layers;
mod limits;
mod mounts;
mod numbers;
pub(crate) mod placeholders;
mod program;
mod request;
mod run;
mod shell;
mod spaces;
mod start;
mod supervise;
mod users;
mod view;

pub(crate) use self::{
    become_it::become_it,
    environ::{identity as environment_identity, of as environment, variable, variables},
    limits::remember,
    request::Bind,
    run::{Output, RunError, Subject, inform, judge, look, operators, query, read},
    shell::{quoted, typed},
    spaces::{sees, surroundings},
    start::start,
    supervise::supervise,
    users::map_users,
};

/// How long a supervisor may take to end what a command left behind.
const ENDING: Duration = Duration::from_secs(5);

/// The hidden command that supervises a command.
const SUPERVISE: &str = "exec-supervise";

/// The hidden command that becomes a command.
const BECOME: &str = "exec-become";

/// The hidden command that gives a user namespace its users.
const MAP_USERS: &str = "exec-map-users";
