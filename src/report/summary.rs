//! The end of a run as data, and what to type next.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    event::{Event, Instance, State, Stop, TargetReport, Verdict},
    step::short,
};

/// The end of a run, as `-o json` prints it.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Version of this shape.
    pub v: u32,
    /// The run's id; empty when it ended before one began.
    pub run: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Its exit code.
    pub exit: u8,
    /// Why, in one line.
    pub reason: String,
    /// Every target.
    pub targets: Vec<TargetReport>,
    /// Every instance.
    pub instances: Vec<Instance>,
    /// Instances by state.
    pub counts: BTreeMap<State, usize>,
    /// What the operator's own commands said of the waves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Event>,
    /// The command that shows what each instance runs now.
    #[serde(skip)]
    pub look: String,
    /// Whether it only shows what would be done.
    #[serde(skip)]
    pub rehearsal: bool,
}

impl Summary {
    /// Counts the instances.
    #[must_use]
    pub fn new(run: String, verdict: Verdict, reason: String, targets: Vec<TargetReport>, instances: Vec<Instance>) -> Self {
        let mut counts = BTreeMap::new();
        for instance in &instances {
            *counts.entry(instance.state).or_insert(0) += 1;
        }
        Self { v: 1, run, verdict, exit: verdict.exit(), reason, targets, instances, counts, gates: Vec::new(), look: "hello status".into(), rehearsal: false }
    }

    /// An end before anything was touched.
    #[must_use]
    pub fn stopped(stop: Stop) -> Self {
        Self::new(String::new(), stop.verdict, stop.reason, Vec::new(), stop.instances)
    }

    /// What to do next: a sentence, and as its last line the command to type.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let look = &self.look;
        Some(match self.verdict {
            Verdict::Converged => return None,
            Verdict::Usage => "see the arguments:\n  hello broadcast --help".into(),
            Verdict::NoMatch => format!("nothing was touched; see who is there:\n  {look}"),
            Verdict::Invalid => format!("nothing was touched; mend the config and run the same command again; what each runs now:\n  {look}"),
            Verdict::Busy => format!("nothing was touched; wait for the other run with --lock-timeout 60s; what each runs now:\n  {look}"),
            // Somebody in particular was refused.
            Verdict::Refused if !self.instances.is_empty() => {
                format!("nothing was touched; why, and what to do about it:\n  {}", look.replacen("hello status", "hello doctor", 1))
            }
            Verdict::Failed | Verdict::Refused | Verdict::RestartRequired => format!("nothing was touched; when it is mended, look again:\n  {look}"),
            Verdict::Reverted => format!("every touched instance is proven on the old config; when the cause is mended, look again:\n  {look}"),
            Verdict::Partial => {
                let off = |i: &&Instance| !matches!(i.state, State::Confirmed | State::Unconfirmed | State::Unchanged);
                let pids: Vec<String> = self.instances.iter().filter(off).take(10).map(|i| format!("pid {} is {}", i.pid, name(i.state))).collect();
                format!("every touched instance is proven, but not all on the new config: {}; what each runs now:\n  {look}", pids.join(", "))
            }
            Verdict::Mixed => {
                let dead = |i: &&Instance| matches!(i.state, State::RevertFailed | State::TimedOut | State::Rejected | State::Died);
                let pids: Vec<String> = self.instances.iter().filter(dead).take(10).map(|i| format!("pid {} is {}", i.pid, name(i.state))).collect();
                // Who is gone is started again first, on the file that stands there now.
                if let Some(start) = self.instances.iter().find_map(|i| i.start.as_ref().filter(|_| matches!(i.state, State::Died | State::RevertFailed))) {
                    return Some(format!("a person must look: {}; then `{look}` shows what each runs; to start it again:\n  {start}", pids.join(", ")));
                }
                format!(
                    "a person must look: {}; what each runs now:\n  {look}",
                    if pids.is_empty() { "a file is not what it should be".into() } else { pids.join(", ") }
                )
            }
        })
    }

    /// What a dry run answers on stdout when people read it.
    #[must_use]
    pub fn rehearsal(&self) -> String {
        let mut text = String::new();
        for target in &self.targets {
            let from = target.from.as_deref().map_or("?", short);
            let back = match (&target.from, &target.disk) {
                (None, _) => "no way back: nobody has the bytes that are served now",
                (Some(_), Some(disk)) if *disk == target.to => "adopted as it is; on a failure the config of before is put back",
                (Some(_), _) => "on a failure it is put back",
            };
            text += &format!("{}: sha256:{from} -> sha256:{}; {back}\n", target.path.display(), short(&target.to));
            for entry in &target.entries {
                text += &format!("  {:<7} {}\n", name(entry.becomes), entry.path);
            }
            text += target.diff.as_deref().unwrap_or_default();
        }
        for i in &self.instances {
            let validated = if i.validated { "validated" } else { "not validated" };
            let what = if i.state == State::Unchanged { "runs it already, no signal" } else { "would be signalled" };
            let targets: Vec<String> = i.targets.iter().map(|t| t.display().to_string()).collect();
            let target = if targets.is_empty() { String::new() } else { format!(" reads {}", targets.join(", ")) };
            let place = if i.endpoint.is_empty() { String::new() } else { format!(" {}", i.endpoint) };
            text += &format!("wave {}: {} pid {}{place}{target}: {what}, {validated}\n", i.wave, i.group, i.pid);
        }
        text
    }
}

/// A state or verdict as people and JSON name it.
pub(super) fn name(what: impl Serialize) -> String {
    serde_json::to_value(what).ok().and_then(|v| v.as_str().map(|s| s.replace('_', " "))).unwrap_or_default()
}
