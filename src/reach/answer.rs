//! The answer of `hello hosts`, as JSON and as an exit code.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value};

use super::row::{HostRow, State};
use crate::event::{VERSION, Verdict};

/// The answer of `hello hosts`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Hosts")]
pub(super) struct Answer<'a> {
    /// Version of this shape.
    #[schemars(extend("const" = VERSION))]
    v: u32,
    /// Always false.
    dry_run: bool,
    /// `converged`: every host is ready. `unreachable`, or `refused`: one cannot be used.
    verdict: Verdict,
    /// The exit code of the verdict.
    exit: u8,
    /// Why the verdict is no success.
    reason: Option<String>,
    /// The commands to type next; always empty, since each host has its own repair.
    next: [&'static str; 0],
    /// Every selected host.
    hosts: &'a [HostRow],
}

/// Returns the schema of the answer.
#[must_use]
pub(crate) fn schema(mut generator: SchemaGenerator) -> Schema {
    generator.root_schema_for::<Answer<'_>>()
}

/// Returns the lists of an answer that asked no host.
#[must_use]
pub(crate) fn no_rows() -> Map<String, Value> {
    Map::from_iter([("hosts".to_owned(), Value::Array(Vec::new()))])
}

impl<'a> Answer<'a> {
    pub(super) fn of(hosts: &'a [HostRow]) -> Self {
        let worst = |state| hosts.iter().find(|host| host.state == state);
        let bad = [State::Unreachable, State::Skewed, State::Refused]
            .into_iter()
            .find_map(worst);
        let verdict = match bad.map(|host| host.state) {
            None | Some(State::Ready) => Verdict::Converged,
            Some(State::Unreachable) => Verdict::Unreachable,
            Some(State::Skewed | State::Refused) => Verdict::Refused,
        };
        let reason = bad.map(|host| {
            let why = host.why.as_deref().unwrap_or("cannot be used");
            let others = hosts.iter().filter(|h| h.state != State::Ready).count() - 1;
            let more = crate::names::and_more(others);
            format!("{}{more}: {why}", host.name)
        });
        Self {
            v: VERSION,
            dry_run: false,
            verdict,
            exit: verdict.exit(),
            reason,
            next: [],
            hosts,
        }
    }

    pub(super) fn exit(&self) -> u8 {
        self.exit
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}
