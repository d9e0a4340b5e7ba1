//! The end of a run as data, and what to type next.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::names::{LISTED, NAMED, and_more, instances, named};
use crate::{
    event::{Abort, Event, FailureKind, Instance, Outcome, TargetReport, Verdict},
    exact::absent,
    screen::{line as plain, quoted},
    step::short,
};

/// The end of a run, as `-o json` prints it.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Version of this shape.
    pub v: u32,
    /// The run's id; empty when it ended before one began.
    #[serde(serialize_with = "absent::text")]
    pub run: String,
    /// Whether it was only to show what it would do.
    pub dry_run: bool,
    /// How it ended.
    pub verdict: Verdict,
    /// Its exit code.
    pub exit: u8,
    /// Why, in one line.
    pub reason: String,
    /// The commands to type next; those that only read come first.
    pub next: Vec<String>,
    /// Every target.
    pub targets: Vec<TargetReport>,
    /// Every instance.
    pub instances: Vec<Instance>,
    /// Instances by state.
    pub counts: BTreeMap<Outcome, usize>,
    /// In the order in which they would go; only of a dry run.
    #[serde(serialize_with = "absent::list")]
    pub waves: Vec<WaveReport>,
    /// What the operator's own commands said of the waves.
    #[serde(serialize_with = "absent::list")]
    pub gates: Vec<Event>,
    /// What the operator should know, and what ended nothing: foreign locks, leftovers, late edits.
    #[serde(serialize_with = "absent::list")]
    pub notes: Vec<Event>,
    /// The command that shows what each instance runs now.
    #[serde(skip)]
    pub status_command: String,
    /// The command that shows the arguments.
    #[serde(skip)]
    pub help: String,
    /// The command that says of each instance whether it can be reloaded.
    #[serde(skip)]
    pub doctor: Option<String>,
    /// What commands that are named for its run need besides.
    #[serde(skip)]
    pub state_args: String,
    /// Whether it only shows what would be done.
    #[serde(skip)]
    pub dry_run_text: bool,
    /// Whether what it brought is an old config.
    #[serde(skip)]
    pub back: bool,
}

/// What the command line of a run says of the commands that come after it.
#[derive(Debug, Clone)]
pub struct CommandContext {
    /// The command that shows what each instance runs now.
    pub status_command: String,
    /// The command that shows the arguments.
    pub help: String,
    /// The command that says of each instance whether it can be reloaded; without one, it is asked
    /// of the first.
    pub doctor: Option<String>,
    /// What commands that are named for its run need besides.
    pub state_args: String,
    /// Whether it was only to show what it would do.
    pub dry_run: bool,
}

/// What to do after a run that did not converge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// A sentence that leads to the command.
    pub what: String,
    /// The commands to type; those that only read come first.
    pub commands: Vec<String>,
}

/// What a dry run says of a wave besides its instances, which carry its number.
#[derive(Debug, Serialize)]
pub struct WaveReport {
    /// From 1.
    pub wave: usize,
    /// How many would be signalled.
    pub instances: usize,
    /// How long it would be left alone before every proven instance is looked at again.
    pub bake_seconds: f64,
    /// Commands that would have to exit 0 before the next wave.
    pub gates: Vec<Vec<String>>,
}

impl Summary {
    /// Counts the instances.
    #[must_use]
    pub fn new(
        run: String,
        verdict: Verdict,
        reason: String,
        targets: Vec<TargetReport>,
        instances: Vec<Instance>,
    ) -> Self {
        let mut counts = BTreeMap::new();
        for instance in &instances {
            *counts.entry(instance.outcome).or_insert(0) += 1;
        }
        let (look, flag, waves, gates, notes) = (
            "hello status".into(),
            String::new(),
            Vec::new(),
            Vec::new(),
            Vec::new(),
        );
        Self {
            v: 1,
            run,
            dry_run: false,
            verdict,
            exit: verdict.exit(),
            reason,
            next: Vec::new(),
            targets,
            instances,
            counts,
            waves,
            gates,
            notes,
            status_command: look,
            help: "hello --help".into(),
            doctor: None,
            state_args: flag,
            dry_run_text: false,
            back: false,
        }
    }

    /// The same, with the commands that fit the command line it was asked by.
    #[must_use]
    pub fn addressed(mut self, asked: CommandContext) -> Self {
        (self.status_command, self.help, self.doctor) =
            (asked.status_command, asked.help, asked.doctor);
        (self.state_args, self.dry_run) = (asked.state_args, asked.dry_run);
        self.next = self.hint().map(|hint| hint.commands).unwrap_or_default();
        self
    }

    /// An end before anything was touched.
    #[must_use]
    pub fn aborted(stop: Abort) -> Self {
        Self::new(
            String::new(),
            stop.verdict,
            stop.reason,
            Vec::new(),
            stop.instances,
        )
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        let look = self.status_command.clone();
        let one = |what: &str, command: String| {
            Some(Hint {
                what: what.into(),
                commands: vec![command],
            })
        };
        match self.verdict {
            Verdict::Converged => None,
            Verdict::Usage => one("see the arguments:", self.help.clone()),
            Verdict::NoMatch => one("nothing was touched; see what there is:", look),
            Verdict::Invalid => one(
                "nothing was touched; mend the config and run the same command again; what each \
                 runs now:",
                look,
            ),
            Verdict::Busy => one(
                "nothing was touched; wait for the other run with --lock-timeout 60s; what each \
                 runs now:",
                look,
            ),
            Verdict::Refused if let Some(first) = self.instances.first() => {
                let doctor = self
                    .doctor
                    .clone()
                    .unwrap_or_else(|| format!("hello doctor {}", first.pid));
                one("nothing was touched; why, and what to do about it:", doctor)
            }
            Verdict::Failed | Verdict::Refused | Verdict::RestartRequired => {
                one("nothing was touched; when it is mended, look again:", look)
            }
            Verdict::Reverted => one(
                "every touched instance is proven on the old config; when the cause is mended, \
                 look again:",
                look,
            ),
            Verdict::Partial => {
                let off = self.named(|s| {
                    !matches!(
                        s,
                        Outcome::Confirmed | Outcome::Unconfirmed | Outcome::Unchanged
                    )
                });
                let what = match off.as_str() {
                    "" => {
                        "every instance is proven on the new config, and the run was not to its end"
                            .into()
                    }
                    off => format!(
                        "every touched instance is proven, but not all on the new config: {off}; \
                         the next broadcast takes them along"
                    ),
                };
                Some(self.look_or_revert(&what))
            }
            Verdict::Unproven => {
                let unseen = self.named(|s| s == Outcome::Unconfirmed);
                Some(self.look_or_revert(&format!(
                    "every instance was signalled and lives, and nothing proves which config it \
                     runs: {unseen}; \
                     say what can be seen with [[group.confirm]], or `unproven = \"accept\"` in \
                     its group"
                )))
            }
            Verdict::Mixed => Some(self.mixed()),
        }
    }

    /// The command that reads, and the one that brings the old config back where there is one.
    fn look_or_revert(&self, what: &str) -> Hint {
        let look = self.status_command.clone();
        match self.rollback_command().filter(|_| !self.back) {
            Some(revert) => Hint {
                what: format!(
                    "{what}; what each runs now, and then to put the old config back everywhere:"
                ),
                commands: vec![look, revert],
            },
            None => Hint {
                what: format!("{what}; what each runs now:"),
                commands: vec![look],
            },
        }
    }

    fn mixed(&self) -> Hint {
        let dead = self.named(|s| {
            matches!(
                s,
                Outcome::RevertFailed | Outcome::TimedOut | Outcome::Rejected | Outcome::Died
            )
        });
        let who = if dead.is_empty() {
            self.misplaced()
        } else {
            dead
        };
        let what = format!("a person must look: {who}; what there is now;");
        let resume = format!("hello resume {}{}", self.run, self.state_args);
        // Who is gone is started again first, on the file that stands there now.
        let start = self.instances.iter().find_map(|i| {
            i.start
                .clone()
                .filter(|_| matches!(i.outcome, Outcome::Died | Outcome::RevertFailed))
        });
        // A revert of a run that goes back goes on with that, as resume does.
        let back = self.rollback_command().filter(|_| !self.back);
        let then = match (start.is_some(), back.is_some()) {
            (true, true) => "to start it again; then to go on, or to go back:",
            (true, false) => "to start it again; then to go on:",
            (false, true) => "then to go on when the cause is mended, or to go back:",
            (false, false) => "then to go on when the cause is mended:",
        };
        let commands = [Some(self.status_command.clone()), start, Some(resume), back];
        Hint {
            what: format!("{what} {then}"),
            commands: commands.into_iter().flatten().collect(),
        }
    }

    /// The targets that do not hold the new config, or hold it though the run has not converged.
    fn misplaced(&self) -> String {
        let (new, old): (Vec<&TargetReport>, Vec<&TargetReport>) = self
            .targets
            .iter()
            .partition(|t| t.disk.as_ref() == Some(&t.to));
        let named = |all: &[&TargetReport]| {
            all.iter()
                .take(NAMED)
                .map(|t| format!("`{}`", t.path.display()))
                .collect::<Vec<_>>()
                .join(", ")
        };
        match (new.as_slice(), old.as_slice()) {
            ([], []) => "not everything was looked at".into(),
            (new, []) => format!("{} holds what this run brought", named(new)),
            ([], old) => format!("{} does not hold what this run brought", named(old)),
            (new, old) => format!(
                "{} holds what this run brought, and {} does not",
                named(new),
                named(old)
            ),
        }
    }

    /// The command that undoes the run, where somebody has the bytes of before.
    fn rollback_command(&self) -> Option<String> {
        let all = !self.run.is_empty()
            && !self.targets.is_empty()
            && self.targets.iter().all(|t| t.from.is_some());
        all.then(|| format!("hello revert {}{}", self.run, self.state_args))
    }

    /// The first of those in such a state, each with it.
    fn named(&self, is: impl Fn(Outcome) -> bool) -> String {
        let all: Vec<String> = self
            .instances
            .iter()
            .filter(|i| is(i.outcome))
            .map(|i| format!("pid {} {}", i.pid, outcome_text(i.outcome)))
            .collect();
        let more = and_more(all.len().saturating_sub(NAMED));
        all.into_iter().take(NAMED).collect::<Vec<_>>().join(", ") + &more
    }

    /// What a dry run answers on stdout when people read it; with `all`, every instance is a line.
    #[must_use]
    pub fn rehearsal(&self, all: bool) -> String {
        let mut text = String::new();
        for target in &self.targets {
            let from = target.from.as_deref().map_or("?", short);
            let adopted = target.disk.as_ref() == Some(&target.to);
            let back = match &target.from {
                None => "no way back: nobody has the bytes that are served now",
                Some(_) if adopted => {
                    "adopted as it is; on a failure the config of before is put back"
                }
                Some(_) => "on a failure it is put back",
            };
            text += &format!(
                "{}: sha256:{from} -> sha256:{}; {back}\n",
                plain(&target.path.to_string_lossy()),
                short(&target.to)
            );
            if !adopted {
                text += &self.shared_target_note(target);
            }
            for entry in &target.entries {
                text += &format!("  {:<7} {}\n", name(entry.change), plain(&entry.path));
            }
            text += &quoted(target.diff.as_deref().unwrap_or_default());
        }
        for wave in &self.waves {
            let bake = if wave.bake_seconds > 0.0 {
                format!(", then {}s of bake", wave.bake_seconds)
            } else {
                String::new()
            };
            let gates: Vec<String> = wave
                .gates
                .iter()
                .map(|gate| format!(", then the gate `{}`", plain(&gate.join(" "))))
                .collect();
            text += &format!(
                "wave {}/{}: {}{bake}{}\n",
                wave.wave,
                self.waves.len(),
                instances(wave.instances),
                gates.concat()
            );
            let mine: Vec<&Instance> = self
                .instances
                .iter()
                .filter(|i| i.wave == wave.wave)
                .collect();
            text += &if all || mine.len() <= LISTED {
                mine.into_iter().map(line).collect()
            } else {
                grouped(&mine)
            };
        }
        for i in self.instances.iter().filter(|i| i.wave == 0) {
            let why = i.failure.as_ref().map_or("", |t| &t.text);
            let shared = self
                .targets
                .iter()
                .any(|t| i.targets.contains(&t.path) && t.from.as_ref() != Some(&t.to));
            let more = if shared {
                "; what it reads changes for the others, so it would start on the new config"
            } else {
                ""
            };
            text += &format!(
                "left out: {} pid {}: {}{more}\n",
                plain(&i.group),
                i.pid,
                plain(why)
            );
        }
        text
    }

    /// What it means that a target is read by instances of several waves; nothing where it is not.
    fn shared_target_note(&self, target: &TargetReport) -> String {
        let reads = |i: &&Instance| {
            i.outcome != Outcome::Unchanged && i.wave != 0 && i.targets.contains(&target.path)
        };
        let waves: BTreeSet<usize> = self
            .instances
            .iter()
            .filter(reads)
            .map(|i| i.wave)
            .collect();
        let mut waves = waves.into_iter();
        let (Some(first), later) = (
            waves.next(),
            waves.map(|wave| wave.to_string()).collect::<Vec<_>>(),
        ) else {
            return String::new();
        };
        if later.is_empty() {
            return String::new();
        }
        let word = if later.len() == 1 { "wave" } else { "waves" };
        let why = "an instance of these that starts again before its wave starts on the new \
                   config, and must then prove it like any other";
        format!(
            "  is installed with wave {first} and read in {word} {} too: {why}\n",
            later.join(", ")
        )
    }
}

/// What would be done with an instance.
fn next_outcome(i: &Instance) -> String {
    let what = match i.outcome {
        Outcome::Unchanged => "runs it already, no signal",
        _ if i
            .failure
            .as_ref()
            .is_some_and(|t| t.kind == FailureKind::Unresponsive) =>
        {
            "is silent and would be signalled"
        }
        _ => "would be signalled",
    };
    format!(
        "{what}, {}",
        if i.validated {
            "validated"
        } else {
            "not validated"
        }
    )
}

fn line(i: &Instance) -> String {
    let targets: Vec<String> = i.targets.iter().map(|t| t.display().to_string()).collect();
    let target = if targets.is_empty() {
        String::new()
    } else {
        format!(" reads {}", targets.join(", "))
    };
    let place = if i.endpoint.is_empty() {
        String::new()
    } else {
        format!(" {}", i.endpoint)
    };
    format!(
        "  {}\n",
        plain(&format!(
            "{} pid {}{place}{target}: {}",
            i.group,
            i.pid,
            next_outcome(i)
        ))
    )
}

/// Those of a large wave, counted; who went unvalidated is named.
fn grouped(all: &[&Instance]) -> String {
    let mut groups: BTreeMap<(&str, String), Vec<&Instance>> = BTreeMap::new();
    all.iter().for_each(|i| {
        groups
            .entry((&i.group, next_outcome(i)))
            .or_default()
            .push(i)
    });
    let one = |((group, becomes), all): ((&str, String), Vec<&Instance>)| {
        let unsure: Vec<i32> = all.iter().filter(|i| !i.validated).map(|i| i.pid).collect();
        let who = if unsure.is_empty() {
            String::new()
        } else {
            format!(": pid {}", named(&unsure))
        };
        format!("  {}: {} {becomes}{who}\n", plain(group), all.len())
    };
    groups.into_iter().map(one).collect()
}

/// The end of a sentence that begins with an instance.
fn outcome_text(state: Outcome) -> &'static str {
    match state {
        Outcome::Untouched => "was not touched",
        Outcome::Unchanged => "is unchanged",
        Outcome::Confirmed => "is confirmed",
        Outcome::Unconfirmed => "is unconfirmed",
        Outcome::Refused => "was refused",
        Outcome::Rejected => "rejected the new config",
        Outcome::TimedOut => "timed out",
        Outcome::Died => "died",
        Outcome::Reverted => "is reverted",
        Outcome::RevertFailed => "is not proven on the old config",
    }
}

/// A state or verdict as people and JSON name it.
pub(super) fn name(what: impl Serialize) -> String {
    serde_json::to_value(what)
        .ok()
        .and_then(|v| v.as_str().map(|s| s.replace('_', " ")))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
