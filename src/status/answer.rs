//! The answer of `hello status` for programs, and the one of an agent for its coordinator.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{group_row::GroupRow, row::Row};
use crate::{
    event::{VERSION, Verdict},
    inventory::HostName,
    protocol::PartOf,
    screen,
};

/// The answer of `hello status`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Status")]
pub(super) struct Answer<'a> {
    /// Version of this shape.
    #[schemars(extend("const" = VERSION))]
    v: u32,
    /// Always false.
    dry_run: bool,
    /// `converged`, `mixed` (a fault), `no_match`, `busy` or `unreachable`; `failed` or `usage` of
    /// a command that looked at nothing.
    verdict: Verdict,
    /// The exit code of the verdict.
    exit: u8,
    /// Why the verdict is no success.
    reason: Option<&'a str>,
    /// The commands to type next; those that only read come first.
    next: &'a [String],
    #[serde(flatten)]
    rows: &'a Rows,
}

/// The lists of the answer.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(super) struct Rows {
    /// Every instance, and every process that is refused or missing.
    pub(super) instances: Vec<Row>,
    /// Every group.
    pub(super) groups: Vec<GroupRow>,
    /// Processes that match and are no instances.
    pub(super) skipped: Vec<Skipped>,
    /// Open runs that concern these groups.
    pub(super) open: Vec<OpenRun>,
    /// Runs that are under way.
    pub(super) running: Vec<Running>,
    /// The hosts that did not answer; always empty where the fleet is this machine.
    #[serde(default)]
    pub(super) hosts: Vec<AbsentHost>,
}

/// A process that matches and is no instance.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Skipped {
    /// Its host; `local` is this machine.
    pub(super) host: HostName,
    /// Process number.
    pub(super) pid: i32,
    /// The reason.
    pub(super) why: String,
}

/// An open run.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct OpenRun {
    /// Its host; `local` is this machine.
    pub(super) host: HostName,
    /// Its id.
    pub(super) run: String,
    /// How it ended: a verdict, or `open` or `unknown`.
    pub(super) verdict: String,
    /// The commands that finish it, typed on its host; empty for a run of an earlier version, and
    /// for the part of a run over hosts. Those of `local` are typed here.
    pub(super) next: Vec<String>,
    /// The run over hosts that it is a part of; absent in any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) part_of: Option<PartOf>,
}

/// A run that holds a lock, or writes its journal, now.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Running {
    /// Its host; `local` is this machine.
    pub(super) host: HostName,
    /// The id of the run, if the state directory has it.
    pub(super) run: Option<String>,
    /// The process, user, age and command of the run, as far as they are known.
    pub(super) owner: String,
}

/// A host that did not answer.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct AbsentHost {
    /// Its name.
    pub(super) host: HostName,
    /// Why there is no answer.
    pub(super) why: String,
}

/// Returns the schema of the answer.
#[must_use]
pub(crate) fn schema(mut generator: SchemaGenerator) -> Schema {
    generator.root_schema_for::<Answer<'_>>()
}

/// Returns the lists of an answer that looked at nothing.
#[must_use]
pub(crate) fn no_rows() -> Map<String, Value> {
    match serde_json::to_value(Rows::default()) {
        Ok(Value::Object(lists)) => lists,
        _ => Map::new(),
    }
}

impl<'a> Answer<'a> {
    /// Returns the answer as JSON; an empty `reason` is none.
    pub(super) fn json(
        verdict: Verdict,
        reason: &'a str,
        next: &'a [String],
        rows: &'a Rows,
    ) -> Value {
        let answer = Self {
            v: VERSION,
            dry_run: false,
            verdict,
            exit: verdict.exit(),
            reason: Some(reason).filter(|reason| !reason.is_empty()),
            next,
            rows,
        };
        serde_json::to_value(answer).unwrap_or_default()
    }
}

/// Returns the lines that name processes which match and are no part of the fleet. The operator
/// must see that these were not checked.
pub(crate) fn skipped_lines(skipped: &[(i32, String)]) -> impl Iterator<Item = String> {
    skipped
        .iter()
        .map(|(pid, why)| screen::worded("Skipped", &format!("pid {pid} {why}")))
}
