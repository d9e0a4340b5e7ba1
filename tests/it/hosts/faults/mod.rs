//! Faults between a coordinator and the agents of its hosts, in each phase of a run. After every
//! case a check from outside asks processes, files and journals, and never `hello`.

mod check;
mod end;
mod evidence;
mod fault;
mod matrix;
mod mounts;
mod schedules;
mod second;

pub(super) use mounts::{Mounts, has_namespaces};
