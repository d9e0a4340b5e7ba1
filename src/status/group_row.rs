//! One group in the output of `hello status`: whether it has its number of instances, and which of
//! them ended since the last run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::row::{NONE, Row, State};
use crate::{
    fleet::Group,
    inventory::HostName,
    runs::{LastInstance, LastSeen},
    screen::{self, Table},
};

/// One group of the fleet.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Group")]
pub(super) struct GroupRow {
    /// Its host; `local` is this machine.
    pub(super) host: HostName,
    /// Its name.
    pub(super) group: String,
    /// The number of instances that it must have, in words.
    pub(super) count: String,
    /// The number of matches.
    pub(super) instances: usize,
    /// Instances that ended since the last run, and that no other process replaced.
    pub(super) ended: Vec<LastInstance>,
    /// Everything about the group that the operator should check.
    pub(super) faults: Vec<String>,
}

impl GroupRow {
    /// Compares the matches of a group with its `count` and with the last run; `sure` of the
    /// `found` matches are not refused, and `rows` are those of the group.
    pub(super) fn of(
        group: &Group,
        (found, sure): (usize, usize),
        rows: &[Row],
        last: &LastSeen,
    ) -> Self {
        let mut faults = Vec::new();
        if !group.count.holds(found, sure) {
            faults.push(format!(
                "has {}, not {}",
                screen::counted(found, "instance"),
                group.count
            ));
        }
        let now: Vec<LastInstance> = rows
            .iter()
            .filter(|row| row.started > 0)
            .map(|row| LastInstance {
                pid: row.pid,
                started: row.started,
                targets: row.targets.iter().map(|t| t.path.clone()).collect(),
            })
            .collect();
        let ended = last.ended(group, &now);
        faults.extend(ended.iter().map(|instance| {
            format!(
                "pid {} ended since the last run, and no process has taken its place",
                instance.pid
            )
        }));
        Self {
            host: HostName::local(),
            group: group.name.clone(),
            count: group.count.to_string(),
            instances: found,
            ended,
            faults,
        }
    }

    /// Appends its faults to the table of the instances.
    pub(super) fn add_to(&self, table: &mut Table) {
        if self.faults.is_empty() {
            return;
        }
        let word = State::Fault.word();
        table.row([word, &self.group, NONE, NONE, NONE]);
        self.faults.iter().for_each(|fault| table.below(fault));
    }
}
