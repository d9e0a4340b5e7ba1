//! The files of a run: one type each, which is written and read.
//!
//! Version 1 had other names for some keys. It is not read any more; see [`OldPlan`].

use std::{borrow::Cow, collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::{
    Verb,
    operator::{ClaimedOperator, Operator},
};
use crate::{
    event::{Event, TargetReport},
    fleet::{Group, Order},
    inventory::HostName,
    names::json_word,
    protocol::PartOf,
};

/// `plan.json`. `I` is an instance: borrowed from the plan, or read back.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PlanFile<'a, I> {
    pub(super) v: u32,
    /// The counter of the host at its beginning; none in a run of a version without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) epoch: Option<u64>,
    pub(super) verb: Verb,
    pub(super) of: Option<String>,
    pub(super) boot_id: String,
    #[serde(flatten)]
    pub(super) operator: Operator,
    pub(super) reason: Option<String>,
    pub(super) command: Vec<String>,
    pub(super) groups: Cow<'a, [Group]>,
    #[serde(default, skip_serializing_if = "Order::is_empty")]
    pub(super) order: Cow<'a, Order>,
    pub(super) targets: Cow<'a, [TargetReport]>,
    pub(super) instances: Vec<I>,
    pub(super) readings: Cow<'a, [Readings<'a>]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) over: Option<OverHosts>,
}

/// The hosts of a run over other machines. Their own journals have its instances and bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OverHosts {
    /// The coordinator's fleet file.
    #[serde(with = "crate::exact")]
    pub(crate) fleet: PathBuf,
    /// The hosts that the run has begun on.
    pub(crate) hosts: Vec<HostName>,
    /// The groups of the run.
    pub(crate) groups: Vec<String>,
}

/// The answers of one process from before the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Readings<'a> {
    pub pid: i32,
    pub started: u64,
    /// One for each assertion; none where there was no answer.
    pub answers: Cow<'a, [Option<String>]>,
}

/// One line of `events.jsonl`. `E` is a [`FirstEvent`] in the first line, and an [`Event`] in every
/// other line.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JournalLine<E> {
    #[serde(flatten)]
    pub(super) event: E,
    /// The host that the event is about; `local` in a journal of a version that did not record it.
    #[serde(default = "HostName::local")]
    pub(super) host: HostName,
    pub(super) v: u32,
    pub(super) at: Timestamp,
}

/// The event of the first line.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum FirstEvent {
    /// The run began.
    Began(RunBegan),
}

/// Returns the schema of the event of the first line.
#[must_use]
pub(crate) fn first_event_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<FirstEvent>()
}

/// The beginning of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RunBegan {
    pub verb: Verb,
    /// The earlier run that it continues or reverts.
    pub of: Option<String>,
    /// True if it installs an old config.
    #[serde(default)]
    pub back: bool,
    /// Unknown for a run of version 1.
    #[serde(default)]
    pub operator: Operator,
    /// The operator that the coordinator of a run over hosts claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<ClaimedOperator>,
    pub boot_id: String,
    /// The command line, without its secrets; cut where it is very long.
    pub command: Vec<String>,
    /// The operator's reason.
    pub reason: Option<String>,
    /// The names of the groups.
    pub groups: Vec<String>,
    pub instances: usize,
    pub targets: usize,
    pub waves: usize,
    /// The number of hosts that a run over other machines has begun on; absent in any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_hosts: Option<usize>,
    /// The run over hosts that this one is a part of; absent in any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<PartOf>,
}

/// The end of a run, as `history` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum RunEnded {
    Finished {
        at: Timestamp,
        verdict: String,
        reason: String,
        counts: BTreeMap<String, usize>,
    },
    SupersededBy {
        at: Timestamp,
        run: String,
    },
}

impl RunEnded {
    /// Returns the end of a run where the line `value` of its journal is one.
    #[must_use]
    pub(crate) fn of(value: serde_json::Value) -> Option<Self> {
        let line: JournalLine<Event> = serde_json::from_value(value).ok()?;
        let at = line.at;
        match line.event {
            Event::Finished {
                verdict,
                reason,
                counts,
            } => Some(Self::Finished {
                at,
                verdict: json_word(verdict),
                reason,
                counts: counts.into_iter().map(|(o, n)| (json_word(o), n)).collect(),
            }),
            Event::SupersededBy { run } => Some(Self::SupersededBy { at, run }),
            _ => None,
        }
    }
}

/// `open/ID`, the mark of an open run.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct OpenMark {
    #[serde(with = "crate::exact")]
    pub(super) targets: Vec<PathBuf>,
}

/// The part of a `plan.json` of version 1 that is read: enough to find the old bytes, and the
/// processes that it may have signalled.
#[derive(Debug, Deserialize)]
pub(super) struct OldPlan {
    pub(super) v: u32,
    #[serde(default)]
    pub(super) boot_id: String,
    #[serde(default)]
    pub(super) targets: Vec<OldTarget>,
    #[serde(default)]
    pub(super) instances: Vec<OldInstance>,
}

/// An instance of version 1.
#[derive(Debug, Deserialize)]
pub(super) struct OldInstance {
    pub(super) pid: i32,
    pub(super) started: u64,
}

/// A target of version 1.
#[derive(Debug, Deserialize)]
pub(super) struct OldTarget {
    #[serde(with = "crate::exact")]
    pub(super) path: PathBuf,
    pub(super) from: Option<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};

    use serde::de::DeserializeOwned;

    use super::*;
    use crate::event::{Direction, Instance, Outcome, TargetKind, Verdict};

    fn assert_round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T) {
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<T>(&json).unwrap(), value, "{json}");
    }

    fn operator() -> Operator {
        Operator {
            uid: 1,
            login_uid: Some(2),
            sudo_user: Some("root".into()),
            ci_job: None,
        }
    }

    fn target() -> TargetReport {
        TargetReport {
            key: None,
            host: HostName::new("edge-081").unwrap(),
            path: "/a".into(),
            kind: TargetKind::Directory,
            from: None,
            to: "bb".into(),
            disk: None,
            secret: Some(true),
            source: None,
            entries: Vec::new(),
            diff: None,
        }
    }

    #[test]
    fn a_plan_is_read_back_as_it_was() {
        let instance = Instance {
            exe: "/bin/x".into(),
            targets: vec!["/a".into()],
            host: HostName::new("edge-081").unwrap(),
            ..Instance::new("web", 7, 11)
        };
        let readings = Readings {
            pid: 7,
            started: 11,
            answers: vec![Some("x".into()), None].into(),
        };
        assert_round_trip(PlanFile {
            v: 2,
            epoch: Some(7),
            verb: Verb::Revert,
            of: Some("1".into()),
            boot_id: "boot".into(),
            operator: operator(),
            reason: None,
            command: vec!["hello".into()],
            groups: Cow::Owned(crate::fleet::Fleet::of_kind("nginx").unwrap().groups),
            order: Cow::Owned(Order::from([("web".into(), vec!["api".into()])])),
            targets: vec![target()].into(),
            instances: vec![instance],
            readings: vec![readings].into(),
            over: Some(OverHosts {
                fleet: "/etc/hello/fleet.toml".into(),
                hosts: vec![HostName::local()],
                groups: vec!["web".into()],
            }),
        });
    }

    fn line<E>(event: E) -> JournalLine<E> {
        JournalLine {
            event,
            host: HostName::new("edge-081").unwrap(),
            v: 2,
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_first_line_of_a_journal_is_read_back_as_it_was() {
        assert_round_trip(line(FirstEvent::Began(RunBegan {
            verb: Verb::Broadcast,
            of: None,
            back: false,
            operator: operator(),
            claimed: Some(ClaimedOperator {
                uid: 1000,
                host: Some("laptop".into()),
                ..ClaimedOperator::default()
            }),
            boot_id: "boot".into(),
            command: vec!["hello".into()],
            reason: Some("why".into()),
            groups: vec!["web".into()],
            instances: 1,
            targets: 1,
            waves: 1,
            over_hosts: Some(3),
            part_of: Some(PartOf {
                coordinator: Some(HostName::local()),
                hosts: 3,
            }),
        })));
    }

    #[test]
    fn a_line_of_a_journal_is_read_back_as_it_was() {
        assert_round_trip(line(Event::Intent {
            direction: Direction::Back,
            wave: 1,
            targets: Vec::new(),
            pids: vec![(1, 5)],
            armed_s: Some(60),
        }));
        let instance = Instance {
            outcome: Outcome::TimedOut,
            ..Instance::new("web", 7, 11)
        };
        assert_round_trip(line(Event::of(&instance)));
        assert_round_trip(line(Event::Finished {
            verdict: Verdict::Mixed,
            reason: "why".into(),
            counts: BTreeMap::from([(Outcome::TimedOut, 1)]),
        }));
    }

    #[test]
    fn a_line_a_target_and_an_instance_without_a_host_are_of_this_machine() {
        fn read<T: DeserializeOwned>(value: impl Serialize) -> T {
            let mut value = serde_json::to_value(value).unwrap();
            value.as_object_mut().unwrap().remove("host").unwrap();
            serde_json::from_value(value).unwrap()
        }
        let old: JournalLine<Event> = read(line(Event::FinalCheck));
        assert_eq!(old.host, HostName::local());
        let old: Instance = read(Instance::new("web", 7, 11));
        assert_eq!(old.host, HostName::local());
        let old: TargetReport = read(target());
        assert_eq!(old.host, HostName::local());
    }

    #[test]
    fn a_path_that_is_not_utf_8_is_read_back_from_every_event() {
        let path = PathBuf::from(OsString::from_vec(b"/a\xff".to_vec()));
        let text = String::new;
        assert_round_trip(line(Event::ForeignLock {
            path: path.clone(),
            holder: text(),
        }));
        assert_round_trip(line(Event::LeftBeside {
            path: path.clone(),
            why: text(),
        }));
        assert_round_trip(line(Event::LateEdit {
            path: path.clone(),
            what: text(),
            kept: Some(path),
        }));
    }

    #[test]
    fn a_mark_is_read_back_as_it_was() {
        assert_round_trip(OpenMark {
            targets: vec!["/a".into()],
        });
    }
}
