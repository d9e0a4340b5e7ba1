//! The first and the last line of a journal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Verb;

/// The first line of a journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields carry the names of the journal")]
pub struct RunBegan {
    pub verb: Verb,
    /// The run that it goes on with, or undoes.
    pub of: Option<String>,
    pub operator: Operator,
    pub boot_id: String,
    /// The command line, less its secrets; cut where it is very long.
    pub command: Vec<String>,
    /// Why, in the operator's own words.
    pub reason: Option<String>,
    /// Their names.
    pub groups: Vec<String>,
    pub instances: usize,
    pub targets: usize,
    pub waves: usize,
}

/// On whose behalf a run was.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields carry the names of the journal")]
pub struct Operator {
    pub uid: u32,
    /// Who logged in, whoever they have become since.
    pub login_uid: Option<u32>,
    pub sudo_user: Option<String>,
    pub ci_job: Option<String>,
}

/// The last line of a journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields carry the names of the journal")]
pub enum RunEnded {
    Finished {
        at: jiff::Timestamp,
        verdict: String,
        reason: String,
        counts: BTreeMap<String, usize>,
    },
    SupersededBy {
        at: jiff::Timestamp,
        run: String,
    },
}
