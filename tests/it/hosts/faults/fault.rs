//! The faults and the phases of the matrix, and the rules of `between.py` that make each cell.

use serde_json::{Value, json};

use crate::hosts::bed::Bed;

/// The seconds of a pause that outlasts two leases.
pub(super) const TWO_LEASES: f64 = 8.5;
/// The commit-confirmed timer of a run that has one.
pub(super) const TIMER: &str = "3s";
/// The seconds of a link that is down for longer than the timer, and not until its host is lost.
const PAST_THE_TIMER: f64 = 4.5;
/// The seconds of a line that comes late, and not so late that its host is silent.
const LATE: f64 = 0.7;
/// The bytes of a line that is too long.
const LONG: usize = 2 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection ends; the next one is made at once.
    CutBack,
    /// The connection ends; the host learns of it a second later.
    HalfOpenBack,
    /// The connection ends, and the next two are refused.
    DownBack,
    /// The connection ends, and no other one is made.
    CutForGood,
    /// The agent is killed, and the next connection starts a new one.
    AgentKilled,
    /// The agent is killed, and no connection is made after it.
    AgentKilledForGood,
    /// The host is reset: its agent and its servers end, and it has another boot id.
    Rebooted,
    CoordinatorKilled,
    /// The coordinator is stopped for two leases.
    CoordinatorPaused,
    /// No room is left in the state directory of the host.
    StateFull,
    /// Nothing more is passed on, and neither side learns of it.
    Silent,
    /// The line is lost, and the connection is not.
    Dropped,
    Doubled,
    Late,
    /// The line goes behind the next one.
    Reordered,
    Garbled,
    Long,
    /// A word in the line is one that no version knows.
    Unknown,
    /// As above, in a run whose hosts roll back by themselves.
    ArmedCutForGood,
    /// The connection ends, and the next one is made after the end of the timer.
    ArmedDown,
    ArmedCoordinatorKilled,
    ArmedAgentKilledForGood,
    ArmedRebooted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Survey,
    Plan,
    BeforeInstall,
    BeforeSignal,
    AfterSignal,
    BetweenWaves,
    Rollback,
    Conclude,
    Finish,
}

/// Which line of the phase is the one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The request, or the earlier line.
    First,
    /// The answer, or the later line.
    Second,
}

pub(super) const FAULTS: [Fault; 23] = [
    Fault::CutBack,
    Fault::HalfOpenBack,
    Fault::DownBack,
    Fault::CutForGood,
    Fault::AgentKilled,
    Fault::AgentKilledForGood,
    Fault::Rebooted,
    Fault::CoordinatorKilled,
    Fault::CoordinatorPaused,
    Fault::StateFull,
    Fault::Silent,
    Fault::Dropped,
    Fault::Doubled,
    Fault::Late,
    Fault::Reordered,
    Fault::Garbled,
    Fault::Long,
    Fault::Unknown,
    Fault::ArmedCutForGood,
    Fault::ArmedDown,
    Fault::ArmedCoordinatorKilled,
    Fault::ArmedAgentKilledForGood,
    Fault::ArmedRebooted,
];

pub(super) const PHASES: [Phase; 9] = [
    Phase::Survey,
    Phase::Plan,
    Phase::BeforeInstall,
    Phase::BeforeSignal,
    Phase::AfterSignal,
    Phase::BetweenWaves,
    Phase::Rollback,
    Phase::Conclude,
    Phase::Finish,
];

/// One line of the wire of one host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) host: usize,
    pub(super) way: &'static str,
    line: &'static str,
}

impl Place {
    /// Returns an act as a rule for the line.
    pub(super) fn rule(self, mut act: Value) -> Value {
        act["way"] = json!(self.way);
        act["line"] = json!(self.line);
        act
    }

    /// Returns true if the line is progress, which may be lost.
    pub(super) fn is_progress(self) -> bool {
        self.line.starts_with(r#""event""#) || self.line.starts_with(r#""phase""#)
    }
}

impl Phase {
    /// Returns the line that stands for the phase.
    pub(super) fn place(self, side: Side) -> Place {
        let (host, first, second) = match self {
            Self::Survey => (1, (">", r#""q":"survey""#), ("<", r#""a":1,"#)),
            Self::Plan => (1, (">", r#""q":"plan""#), ("<", r#""a":2,"#)),
            Self::BeforeInstall => (1, (">", r#""verb":"commit""#), ("<", r#""event":"intent""#)),
            Self::BeforeSignal => (
                1,
                ("<", r#""phase":"confirming""#),
                ("<", r#""event":"installed""#),
            ),
            Self::AfterSignal => (1, ("<", r#""event":"instance""#), ("<", r#""a":3,"#)),
            Self::BetweenWaves => (0, (">", r#""verb":"recheck""#), ("<", r#""a":4,"#)),
            Self::Rollback => (0, (">", r#""verb":"roll_back""#), ("<", r#""a":4,"#)),
            Self::Conclude => (1, (">", r#""verb":"conclude""#), ("<", r#""concluded""#)),
            Self::Finish => (1, (">", r#""q":"finish""#), ("<", r#""finished""#)),
        };
        let (way, line) = if side == Side::First { first } else { second };
        Place { host, way, line }
    }

    /// Returns the lines of the coordinator's fleet file.
    pub(super) fn rollout(self) -> &'static str {
        match self {
            Self::BetweenWaves => "[rollout]\nwaves = [\"1\", \"100%\"]\nbake = \"100ms\"\n",
            Self::Rollback => {
                "[rollout]\nwaves = [\"1\", \"100%\"]\nbake = \"0s\"\n\
                 gate = [\"sh\", \"-c\", \"exit 1\"]\n"
            }
            _ => "[rollout]\nwaves = [\"1\", \"100%\"]\nbake = \"0s\"\n",
        }
    }
}

impl Fault {
    /// Returns true if the host needs a mount namespace.
    pub(super) fn needs_namespaces(self) -> bool {
        matches!(self, Self::Rebooted | Self::ArmedRebooted | Self::StateFull)
    }

    /// Returns true if the agent ends where it stands: what it has staged stays until the next one.
    pub(super) fn ends_the_agent(self) -> bool {
        matches!(
            self,
            Self::AgentKilled
                | Self::AgentKilledForGood
                | Self::ArmedAgentKilledForGood
                | Self::Rebooted
                | Self::ArmedRebooted
        )
    }

    /// Returns true if the host has another boot id afterwards.
    pub(super) fn reboots(self) -> bool {
        matches!(self, Self::Rebooted | Self::ArmedRebooted)
    }

    /// Returns true if the hosts of the run roll back by themselves after [`TIMER`].
    pub(super) fn is_armed(self) -> bool {
        matches!(
            self,
            Self::ArmedCutForGood
                | Self::ArmedDown
                | Self::ArmedCoordinatorKilled
                | Self::ArmedAgentKilledForGood
                | Self::ArmedRebooted
        )
    }

    /// Returns the rule that makes the fault at a place.
    pub(super) fn rule(self, bed: &Bed, place: Place) -> Value {
        let mut rule = match self {
            Self::CutBack => json!({ "act": "cut" }),
            Self::HalfOpenBack => json!({ "act": "cut", "open": 1 }),
            Self::DownBack => json!({ "act": "cut", "down": { "refuse": 1 } }),
            Self::CutForGood | Self::ArmedCutForGood => json!({ "act": "cut", "down": {} }),
            Self::AgentKilled => json!({ "act": "end", "lost": true }),
            Self::ArmedDown => json!({ "act": "cut", "down": { "seconds": PAST_THE_TIMER } }),
            Self::AgentKilledForGood | Self::ArmedAgentKilledForGood => {
                json!({ "act": "end", "lost": true, "down": {} })
            }
            Self::Rebooted | Self::ArmedRebooted => {
                let text = format!("kill -9 {}", bed.hosts[place.host].pid(0));
                json!({ "act": "end", "lost": true, "down": {}, "text": text })
            }
            Self::CoordinatorKilled | Self::ArmedCoordinatorKilled => json!({ "act": "kill" }),
            Self::CoordinatorPaused => json!({ "act": "pause", "seconds": TWO_LEASES }),
            Self::StateFull => {
                json!({ "act": "shell", "text": bed.mounts(place.host).fill() })
            }
            Self::Silent => json!({ "act": "stop" }),
            Self::Dropped => json!({ "act": "drop" }),
            Self::Doubled => json!({ "act": "double" }),
            Self::Late => json!({ "act": "hold", "seconds": LATE }),
            Self::Reordered => json!({ "act": "swap" }),
            Self::Garbled => json!({ "act": "garble" }),
            Self::Long => json!({ "act": "long", "bytes": LONG }),
            Self::Unknown => unknown(place),
        };
        rule["back"] = json!(true);
        place.rule(rule)
    }
}

/// Returns the rule that replaces a word by one that no version knows.
fn unknown(place: Place) -> Value {
    let (old, new) = if place.way == ">" {
        (r#""q":""#, r#""q":"x_"#)
    } else if place.is_progress() {
        (r#""event":""#, r#""event":"x_"#)
    } else {
        (r#""ok":"#, r#""yes":"#)
    };
    json!({ "act": "replace", "old": old, "new": new })
}
