//! Frames from a coordinator to an agent.

use serde::{Deserialize, Serialize};

/// The most bytes of a candidate in one frame: a line has room for them in base64.
pub(crate) const PIECE: usize = 48 << 10;

/// A frame to an agent. Queries are answered one after another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "q", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Chooses the dialect, and says which operator the coordinator works for. Without an answer.
    Take {
        /// The chosen dialect.
        v: u32,
        /// The operator, as the coordinator claims.
        operator: Operator,
        /// The key of a later [`Request::Attach`]: 128 random bits, in hex. None if the coordinator
        /// begins no run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// The longest time that the coordinator waits for a sign of life, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        silence_ms: Option<u64>,
    },
    /// Takes over the session of a run on this connection. The answer has its fencing token and the
    /// number of its last request.
    Attach {
        /// The run.
        run: String,
        /// The key of the connection that began it.
        key: String,
    },
    /// Ends sessions of another coordinator, as the end of their lease does. The answer comes once
    /// they hold no lock.
    TakeOver(TakeOver),
    /// The coordinator is there. Without an answer.
    Beat {
        /// The run.
        run: String,
        /// Rises with each beat of a run.
        b: u64,
    },
    /// Asks for the present state of every instance. The answer has the rows of `hello status`.
    Status {
        /// The groups; all if it is empty.
        #[serde(default)]
        groups: Vec<String>,
    },
    /// Asks for the checks of `hello doctor`.
    Doctor {
        /// The groups; all if it is empty.
        #[serde(default)]
        groups: Vec<String>,
        /// A process, instead of every instance of the groups.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
    },
    /// Asks for runs that the host keeps, the newest first. The answer has the rows of `hello
    /// history`, and in `kept` the number of all that fit.
    History(RunQuery),
    /// Asks the host to remove a run or a content, or whether it could.
    Forget {
        /// The run or content.
        item: KeptItem,
        /// Give up an open run.
        #[serde(default)]
        abandon: bool,
        /// Check alone; nothing is removed.
        #[serde(default)]
        check: bool,
    },
    /// Bytes of a candidate. Without an answer.
    Blob {
        /// The run.
        run: String,
        /// The digest of the whole candidate.
        sha256: String,
        /// The place of the bytes in it.
        at: usize,
        /// The bytes, in base64; at most [`PIECE`].
        b64: String,
    },
    /// The operator has interrupted the run so many times. Without an answer.
    Interrupt {
        /// The run.
        run: String,
        /// 1: no new signal, and a rollback. 2: leave now.
        level: u8,
    },
    /// Ends the connection. Without an answer.
    Bye,
}

/// The sessions that another coordinator ends: those that fit one of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TakeOver {
    /// The ids of their runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) runs: Vec<String>,
    /// A run, also of a session that continues it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) of: Option<String>,
    /// Groups, of which the session has one; every session if the list is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) groups: Option<Vec<String>>,
    /// The operator of the other coordinator, as it claims.
    pub(crate) operator: Operator,
}

/// The key of an answer about one run: true where the host has surveyed the run, and never begun
/// it.
pub(crate) const NEVER_BEGAN: &str = "never_began";

/// The runs of a host that a coordinator asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunQuery {
    /// The most runs. A host may give fewer.
    pub(crate) last: usize,
    /// The id of a run, or its first digits; none for every run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<String>,
    /// True for the runs alone that are open or under way.
    #[serde(default)]
    pub(crate) open: bool,
    /// The most events of the journal, the last ones, if there is one run: they follow its row. A
    /// host may give fewer.
    #[serde(default)]
    pub(crate) events: usize,
}

/// A run or a content that a host keeps, by its whole name: the same first digits may mean another
/// one on each host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeptItem {
    /// The id of a run.
    Run(String),
    /// The digest of a content.
    Sha256(String),
}

/// The operator, as a coordinator claims: an agent records it and decides nothing by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Operator {
    /// The user of the coordinator.
    pub(crate) uid: u32,
    /// The login user, before any `su` or `sudo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) login_uid: Option<u32>,
    /// The user that called sudo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sudo_user: Option<String>,
    /// The job of a CI system, as its environment names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ci_job: Option<String>,
    /// The host of the coordinator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// The version of the coordinator.
    pub(crate) version: String,
}
