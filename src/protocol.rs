//! The messages between a coordinator and an agent: JSON objects, one per line.
//!
//! The coordinator sends [`Request`]s. The agent greets first, and then answers each query. A
//! reader checks the length and the depth of a line before it parses it; an unknown field is
//! ignored, and an unknown frame is an error.

mod answer;
mod framing;
mod greeting;
mod order;
mod ranges;
mod request;
mod run_frames;
mod session;
#[cfg(feature = "nats")]
mod subjects;
#[cfg(test)]
mod tests;

#[cfg(feature = "nats")]
pub(crate) use self::subjects::{GREET, next_payload, subject_of};
pub(crate) use self::{
    answer::{Answer, Refused, RefusedKind},
    framing::{FrameError, FrameReader, FrameWriter, MAX_BLOB, MAX_LINE},
    greeting::{Greeting, GroupGreeting, Limits, OpenRun, VERSION, common_version},
    order::{ChangeOrder, ContinuedRun, CountedGroups, PartOf, SurveyOrder, Validate},
    request::{KeptItem, NEVER_BEGAN, Operator, PIECE, Request, RunQuery, TakeOver},
    run_frames::{Need, Progress, RunAnswer, RunFrame, RunLine, RunVerb},
    session::{
        Concluded, Finish, Freshness, HostLink, HostPlan, HostRows, InstanceEntry, Lost, Moment,
        Numbers, Returned, Scope, SessionAnswer, SessionRequest,
    },
};
