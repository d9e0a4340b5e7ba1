//! The hosts of a fleet as the coordinator reaches them: the inventory, connections by a command,
//! and one fan-out with its limit.

mod connection;
mod failure;
mod inventory;
mod operator;
mod query;
mod selected;
mod stderr;

pub(crate) use self::{
    connection::Answered,
    failure::{ConnectFailure, Fault},
    operator::claimed_operator,
    query::{Absence, Gathered, QueryError, for_each_host, gather_answers, of_host},
    selected::{SelectFault, select},
};
