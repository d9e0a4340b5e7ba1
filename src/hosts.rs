//! The hosts of a fleet as the coordinator reaches them: the inventory, connections by a command,
//! and one fan-out with its limit.

mod beats;
mod blobs;
#[cfg(feature = "nats")]
mod bus;
mod carrier;
mod connection;
mod failure;
mod inventory;
mod link;
mod memory;
mod operator;
mod query;
mod remote;
mod running;
mod selected;
mod settled;
mod stderr;
mod survey;

pub(crate) use self::{
    connection::Answered,
    failure::{ConnectFailure, Fault},
    operator::{claimed_operator, this_machine},
    query::{Absence, Gathered, QueryError, for_each_host, gather_answers, of_host, worst},
    remote::{CandidateBytes, RemoteRun, dismiss},
    running::NotFinished,
    selected::{SelectFault, select},
    settled::{ClosedIndex, close_indexes},
    survey::{FleetSurvey, ReadyHost, UnreadyHost, survey_hosts},
};
