//! What a run holds on one host: its plan, its locks and staged files, and its journal. It carries
//! out the requests of an engine, which sees none of that.

mod arrange;
mod broadcast;
mod commit;
mod context;
mod emit;
mod end;
mod explain;
mod finish;
mod host_plan;
mod host_session;
mod log;
mod prepared;
mod preview;
mod proofs;
mod record;
mod recover;
mod request;
mod rollback;
mod rows;
mod survey;
mod touched;

#[cfg(test)]
pub(crate) use self::host_session::HostSession;
#[cfg(test)]
pub(crate) use self::log::EventStore;
pub(crate) use self::{
    broadcast::{BroadcastOrder, survey_broadcast},
    context::{RunContext, SessionOptions},
    prepared::{Prepared, RunningSession},
    recover::{Caller, RecoverOrder, survey_recovery},
};
