//! The only room that starts other programs. Nothing outside it names `Command`.
//!
//! Each command runs in a session and a session keyring of its own, with the limits that `hello`
//! was started with. [`Policy`] decides its identity:
//!
//! - *Judge*: validators, exec assertions and restart keys. The process that the survey saw is
//!   opened once, through one descriptor of its `/proc/PID`, and compared with what the survey
//!   recorded. The command enters its namespaces, root and working directory by descriptor. It gets
//!   its users, its groups and at most its capabilities.
//! - *Start*: a process that ended is started again as the user that it ran as. It may leave
//!   children behind.
//! - *Own*: a command of the operator, with the operator's identity and environment.
//!
//! *Judge* and *Own* have a supervisor, which is this binary (`exec-supervise`). It keeps the
//! identity of the caller, so that the command can neither read nor signal it. Each process that
//! the command leaves behind becomes a child of the supervisor, which ends it. The supervisor
//! starts this binary again (`exec-become`), which drops privileges and becomes the command. The
//! stages exchange messages over a socket on stdin, which the command does not inherit.

use std::time::Duration;

mod assume;
mod become_command;
mod connect;
mod descend;
mod environ;
mod error;
pub(crate) mod gate;
mod held;
mod layers;
mod limits;
mod mount_calls;
mod mounts;
mod numbers;
mod own;
pub(crate) mod placeholders;
mod program;
mod request;
mod run;
mod shell;
mod spaces;
mod start;
mod supervise;
mod trusted;
mod users;
mod view;

pub(crate) use self::{
    become_command::become_command,
    connect::{Conversation, Pipes, converse},
    environ::{identity as environment_identity, of as environment, variable, variables},
    limits::remember,
    own::{fetch, operators, query},
    request::Bind,
    run::{Output, RunError, Subject, ask, inform, judge, judge_in_view, read},
    shell::{quoted, typed},
    spaces::{sees, surroundings},
    start::start,
    supervise::supervise,
    trusted::{Unusable, usable},
    users::map_users,
};

/// The longest time in which a supervisor ends the processes that a command left behind.
const ENDING: Duration = Duration::from_secs(5);

/// The hidden subcommand that supervises a command.
const SUPERVISE: &str = "exec-supervise";

/// The hidden subcommand that becomes a command.
const BECOME: &str = "exec-become";

/// The hidden subcommand that maps the users of a user namespace.
const MAP_USERS: &str = "exec-map-users";
