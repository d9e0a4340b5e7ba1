//! The causes that end the session of a run on a host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The cause that ended the session of a run on a host before its `finish`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionEnd {
    /// The coordinator left.
    Coordinator,
    /// Nothing was heard of the coordinator for the time of the lease.
    Lease,
    /// The commit-confirmed timer came to its end; the host rolls back.
    Timer,
    /// Another coordinator took the session over.
    TakeOver,
    /// SIGTERM to the agent.
    Terminated,
}
