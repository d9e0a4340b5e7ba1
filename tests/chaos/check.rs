//! Compares the claims of a command with the processes and files that exist.

use serde_json::Value;

use crate::{
    claims::{self, Claim, Files},
    command::{Before, Ran, open_marks},
    inject::Done,
    journal::Journal,
    live::Live,
    mode::Mode,
    plan::{Program, Verb, What, Write},
    tally::Tally,
    world::{hidden, lives, message_of, seen},
};

/// The number of probes of one instance, each over a fresh connection. One answer could be a
/// coincidence.
const SAMPLES: usize = 4;
/// The number of probes if two processes may accept the connection. More, since each side must be
/// met.
const SAMPLES_OF_WORKERS: usize = 16;

/// One command with everything that its judgement needs.
pub(crate) struct Judge<'a> {
    pub(crate) live: &'a Live,
    pub(crate) before: &'a Before,
    pub(crate) ran: &'a Ran,
    pub(crate) journal: Journal,
    /// The time of the last check. A verdict does not cover later events.
    final_check: f64,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(live: &'a Live, before: &'a Before, ran: &'a Ran) -> Self {
        let run = ran.json["run"].as_str().unwrap_or_default();
        let journal =
            Journal::read(
                &live
                    .state
                    .join("runs")
                    .join(if run.is_empty() { "none" } else { run }),
            );
        let final_check = journal.final_check().unwrap_or(ran.began);
        Self {
            live,
            before,
            ran,
            journal,
            final_check,
        }
    }

    /// Checks every claim right after the command. Returns the claims that must also hold later.
    pub(crate) fn now(&self, tally: &mut Tally) -> Vec<(usize, Claim, String)> {
        let ran = self.ran;
        tally.claim(
            "a command ends in time",
            !ran.timed_out,
            || "hang",
            || ran.line.clone(),
        );
        tally.claim(
            "a command does not panic",
            ran.code != Some(101) && !ran.stderr.contains("panicked at"),
            || "panic",
            || ran.stderr.clone(),
        );
        let Some(exit) = ran.code else {
            self.intents(tally);
            return Vec::new();
        };
        let kind = if ran.starved { "verdict" } else { "tester" };
        tally.claim(
            "the fleet.toml is good",
            exit != 2,
            || kind,
            || format!("exit 2: {}", ran.stderr),
        );
        if exit == 2 {
            return Vec::new();
        }
        if ran.verb == Verb::Status {
            self.status(exit, tally);
            return Vec::new();
        }
        // Actions of a concurrent coordinator are not claims of this one.
        if ran.beside {
            return Vec::new();
        }
        let outcomes = ran.json["instances"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if !ran.dry {
            self.exit(exit, &outcomes, tally);
            self.intents(tally);
            self.report(exit, &outcomes, tally);
            self.named(exit, &outcomes, tally);
            self.edits(exit, tally);
        }
        if claims::of_exit(exit) == Some(Files::Untouched) || ran.dry {
            self.untouched(exit, tally);
        }
        let mut later = Vec::new();
        if !ran.dry {
            for outcome in &outcomes {
                later.extend(self.outcome(exit, outcome, tally));
            }
            self.targets(exit, tally);
        }
        later
    }

    /// Returns the faults that came too late for the verdict.
    fn late(&self) -> impl Iterator<Item = &Done> {
        self.ran
            .done
            .iter()
            .filter(|d| lasts_until(d) >= self.final_check)
    }

    fn is_late_for(&self, slot: usize) -> bool {
        let target = self.live.slots[slot].target;
        self.late().any(|d| match d.what {
            What::Kill(at)
            | What::Restart(at)
            | What::Hangup(at)
            | What::Steal(at)
            | What::Share(at)
            | What::Pause(at, _) => at == slot,
            What::Write(at, _) => at == target,
            _ => false,
        })
    }

    fn had(&self, is: impl Fn(What) -> bool) -> bool {
        self.ran.done.iter().any(|d| is(d.what))
    }

    fn exit(&self, exit: i32, outcomes: &[Value], tally: &mut Tally) {
        let states: Vec<&str> = outcomes
            .iter()
            .filter_map(|o| o["outcome"].as_str())
            .collect();
        let unconfirmed = outcomes.iter().filter(|o| o["outcome"] == "unconfirmed");
        let accepted = unconfirmed
            .filter_map(|o| o["group"].as_str()?.strip_prefix('g')?.parse().ok())
            .all(|at: usize| self.live.plan.groups[at].accepts);
        let starved = self.ran.starved && exit == 1 && self.ran.json.is_null();
        let fits =
            claims::fits(exit, &states, accepted) && (self.ran.json["exit"] == exit || starved);
        tally.claim(
            "exit code and outcomes agree",
            fits,
            || "verdict",
            || format!("exit {exit} of JSON {}: {states:?}", self.ran.json["exit"]),
        );
        // The lock belongs to another run.
        tally.claim(
            "busy means that another run holds the lock",
            exit != 9,
            || "busy",
            || format!("exit 9, and no other run: {}", self.ran.stderr),
        );
        let lives = |(pid, started): &(i32, u64)| lives(*pid, *started);
        let nothing_happened = self.ran.done.is_empty()
            && self.before.processes.iter().all(lives)
            && matches!(self.ran.verb, Verb::Broadcast(_));
        tally.claim(
            "instances that live are found",
            !(exit == 3 && nothing_happened),
            || "verdict",
            || self.ran.stderr.clone(),
        );
    }

    /// An instance that was signalled must be in an intent that is older than the signal.
    fn intents(&self, tally: &mut Tally) {
        let journals: Vec<Journal> = self.ran.runs.iter().map(|run| Journal::read(run)).collect();
        for (at, slot) in self.live.slots.iter().enumerate() {
            let foreign = self.had(
                |what| matches!(what, What::Hangup(other) | What::Restart(other) if other == at),
            );
            if foreign || slot.program == Program::Serve {
                continue;
            }
            for note in slot
                .notes()
                .iter()
                .filter(|n| n.what == "hup" && (self.ran.began..=self.ran.ended).contains(&n.at))
            {
                let id = self.before.processes[at];
                let intended = journals
                    .iter()
                    .filter_map(|j| j.intended(id.0, id.1))
                    .any(|when| when <= note.at);
                tally.claim(
                    "an intent is on the disk before a signal",
                    intended || slot.member.mode == Mode::Successor,
                    || "journal",
                    || {
                        format!(
                            "pid {} was signalled at {:.3}, and no intent names it",
                            note.pid, note.at
                        )
                    },
                );
            }
        }
    }

    /// Checks that the journal and the report agree.
    fn report(&self, exit: i32, outcomes: &[Value], tally: &mut Tally) {
        let Some(finished) = self.journal.finished() else {
            let open = !self.ran.cut
                && matches!(exit, 0 | 6 | 7 | 8 | 12)
                && !self.had(|w| w == What::Fill);
            return tally.claim(
                "a run that ended has its end in the journal",
                !open,
                || "journal",
                || format!("exit {exit}, and no `finished`"),
            );
        };
        let agrees = finished["verdict"] == self.ran.json["verdict"];
        tally.claim(
            "journal and report agree on the verdict",
            agrees,
            || "journal",
            || format!("{finished} and {}", self.ran.json["verdict"]),
        );
        // A second interrupt or a full disk keeps a run from writing its outcomes.
        for outcome in outcomes
            .iter()
            .filter(|_| !self.ran.cut && !self.had(|what| what == What::Fill))
        {
            let last = self
                .journal
                .named("instance")
                .filter(|e| e["pid"] == outcome["pid"] && e["started"] == outcome["started"])
                .last();
            if let Some(last) = last {
                tally.claim(
                    "journal and report agree on an outcome",
                    last["outcome"] == outcome["outcome"],
                    || "journal",
                    || {
                        format!(
                            "pid {}: {} in the journal, {} in the report",
                            outcome["pid"], last["outcome"], outcome["outcome"]
                        )
                    },
                );
            }
        }
    }

    /// Checks that the report has every signalled instance. With exit 0, every instance of the
    /// groups is on the new config.
    fn named(&self, exit: i32, outcomes: &[Value], tally: &mut Tally) {
        // A successor stands for its instance, and so does the successor of that.
        let of = |id: (i32, u64)| {
            let own = outcomes
                .iter()
                .find(|o| o["pid"] == id.0 && o["started"] == id.1);
            own.or_else(|| {
                let places = self.journal.places_of(id.0);
                outcomes.iter().find(|o| {
                    o["successor_of"]
                        .as_i64()
                        .is_some_and(|pid| places.contains(&pid))
                })
            })
        };
        for (at, slot) in self.live.slots.iter().enumerate() {
            let (id, foreign) = (self.before.processes[at], self.had(|what| matches!(what, What::Hangup(other) | What::Restart(other) if other == at)));
            let is_signalled = slot.notes().iter().any(|n| {
                n.pid == id.0
                    && n.what == "hup"
                    && (self.ran.began..=self.ran.ended).contains(&n.at)
            });
            if is_signalled && !foreign && slot.program != Program::Serve {
                let state = of(id).map(|o| o["outcome"].clone());
                let told = state
                    .as_ref()
                    .is_some_and(|s| s != "untouched" && s != "refused" && s != "unchanged");
                tally.claim(
                    "a signalled instance is in the report as such",
                    told,
                    || "outcome",
                    || format!("exit {exit}: pid {} was signalled, and is {state:?}", id.0),
                );
            }
            let leader = slot.leader();
            let mine = self.ran.json["targets"].as_array().is_some_and(|all| {
                all.iter().any(|t| {
                    t["path"].as_str().and_then(|p| self.live.target_of(p)) == Some(slot.target)
                })
            });
            if exit == 0 && mine && lives(leader.0, leader.1) && !self.is_late_for(at) {
                tally.claim(
                    "exit 0 speaks of every instance",
                    of(leader).is_some(),
                    || "outcome",
                    || {
                        format!(
                            "exit 0, and pid {} ({}) is not in the report",
                            leader.0,
                            self.mode(Some(at))
                        )
                    },
                );
            }
        }
    }

    /// Checks the outcome of an instance.
    fn outcome(
        &self,
        exit: i32,
        outcome: &Value,
        tally: &mut Tally,
    ) -> Option<(usize, Claim, String)> {
        let state = outcome["outcome"].as_str().unwrap_or_default();
        let pid = i32::try_from(outcome["pid"].as_i64()?).ok()?;
        let started = outcome["started"].as_u64()?;
        let at = self.live.slot_of(pid, started);
        let named = format!(
            "pid {pid} ({}) is `{state}` by `{}` with exit {exit}",
            self.mode(at),
            outcome["proof"].as_str().unwrap_or("-")
        );
        tally.claim(
            "an outcome is of an instance",
            at.is_some(),
            || "outcome",
            || format!("{named}, and is no instance"),
        );
        let (at, claim) = (at?, claims::of_outcome(state));
        tally.claim(
            "an outcome has a known name",
            claim.is_some(),
            || "tester",
            || named.clone(),
        );
        let (slot, claim) = (&self.live.slots[at], claim?);
        if claim == Claim::Gone {
            let alive = lives(pid, started);
            tally.claim(
                "what died is gone",
                !alive,
                || "died",
                || format!("{named}, and it lives"),
            );
            return None;
        }
        if claim == Claim::NoSignal {
            self.no_signal(at, &named, tally);
            return None;
        }
        if claim == Claim::Failed || self.is_late_for(at) {
            return None;
        }
        let alive = lives(pid, started)
            || slot
                .notes()
                .iter()
                .any(|n| n.pid == pid && n.what == "ends" && n.at >= self.final_check);
        tally.claim(
            "an instance of that outcome lives",
            alive,
            || "alive",
            || format!("{named}, and the process is gone"),
        );
        if !alive || claim == Claim::Alive || !self.is_believable(at, outcome) {
            return None;
        }
        let shared = self.had(|what| what == What::Share(at));
        tally.claim(
            "nothing is proven on a shared port",
            !shared,
            || "serves",
            || format!("{named}, and another program listens on its port"),
        );
        self.serves(at, claim, outcome, &named, "right after the run", tally);
        Some((at, claim, named))
    }

    fn mode(&self, slot: Option<usize>) -> String {
        slot.map(|at| &self.live.slots[at])
            .map_or("unknown".into(), |s| match s.program {
                Program::Serve => "hello serve".into(),
                program => format!(
                    "{program:?} {:?} {} ms",
                    s.member.mode,
                    s.member.slow.as_millis()
                ),
            })
    }

    /// Excludes what no coordinator can know. A counter or a stamp shows a reload and no content. A
    /// liar reports the digest on the disk; only another message refutes it.
    fn is_believable(&self, at: usize, outcome: &Value) -> bool {
        let slot = &self.live.slots[at];
        match slot.member.mode {
            Mode::Liar => {
                outcome["proof"] != "reloaded"
                    && slot.answer()
                        != seen(&self.live.targets[slot.target].path)
                            .and_then(|s| message_of(&s.bytes))
            }
            Mode::Alternates => outcome["proof"] != "reloaded",
            _ => true,
        }
    }

    /// Returns the digest that a claim is about, if it is known.
    fn wanted(&self, slot: usize, claim: Claim, outcome: &Value) -> Option<String> {
        let path = outcome["targets"][0].as_str()?;
        let target = self.ran.json["targets"]
            .as_array()?
            .iter()
            .find(|t| t["path"] == path)?;
        let key = if claim == Claim::Old { "from" } else { "to" };
        if target["kind"] != "directory" {
            return target[key].as_str().map(str::to_owned);
        }
        // Only the file in the directory is read. Its bytes are those on the disk if the digest
        // says so.
        let is_there = target["disk"] == target[key];
        is_there
            .then(|| seen(&self.live.targets[self.live.slots[slot].target].path))
            .flatten()
            .map(|s| s.sha256)
    }

    fn serves(
        &self,
        at: usize,
        claim: Claim,
        outcome: &Value,
        named: &str,
        when: &str,
        tally: &mut Tally,
    ) {
        let slot = &self.live.slots[at];
        let slow = slot.member.mode.is_slow() && self.had(|what| what == What::Hangup(at));
        let Some(wanted) = self.wanted(at, claim, outcome).filter(|_| !slow) else {
            return;
        };
        let many = if slot.member.mode.has_workers() {
            SAMPLES_OF_WORKERS
        } else {
            SAMPLES
        };
        let answers: Vec<Option<String>> =
            (0..many).map(|_| slot.truth().map(|t| t.sha256)).collect();
        let holds = |answer: &Option<String>| match claim {
            Claim::Kept => answer.as_ref() != Some(&wanted),
            _ => answer.as_ref() == Some(&wanted),
        };
        tally.claim(
            "it serves what its outcome says",
            answers.iter().all(holds),
            || {
                if claim == Claim::Old {
                    "serves-old"
                } else {
                    "serves-new"
                }
            },
            || {
                let short = |a: &Option<String>| {
                    a.as_ref()
                        .map_or("no answer".into(), |a| a[..8.min(a.len())].to_owned())
                };
                let mut told: Vec<String> = answers.iter().map(short).collect();
                told.dedup();
                format!(
                    "{named}, which means {}; {when} it serves {}",
                    &wanted[..8.min(wanted.len())],
                    told.join(", ")
                )
            },
        );
    }

    fn no_signal(&self, at: usize, named: &str, tally: &mut Tally) {
        let foreign = self
            .ran
            .done
            .iter()
            .filter(|d| d.what == What::Hangup(at))
            .count() as u64;
        let other = self.had(|what| matches!(what, What::Restart(slot) | What::Kill(slot) | What::Steal(slot) if slot == at));
        let slot = &self.live.slots[at];
        let (Some(before), Some(after)) = (
            self.before.sighups[at],
            slot.lives().then(|| slot.sighups()).flatten(),
        ) else {
            return;
        };
        if other {
            return;
        }
        tally.claim(
            "no signal reaches what is untouched",
            after <= before + foreign,
            || "signal",
            || format!("{named}; {} signals arrived", after - before),
        );
    }

    /// Checks that files are unchanged and no signal arrived.
    fn untouched(&self, exit: i32, tally: &mut Tally) {
        for at in 0..self.live.slots.len() {
            self.no_signal(
                at,
                &format!(
                    "exit {exit} touches nothing, slot {at} ({})",
                    self.mode(Some(at))
                ),
                tally,
            );
        }
        for (at, target) in self.live.targets.iter().enumerate() {
            let path = target.path.display();
            let (Some(was), is) = (&self.before.files[at], seen(&target.path)) else {
                continue;
            };
            let Some(is) = is else {
                tally.claim(
                    "exit without effect: the file is there",
                    false,
                    || "touched",
                    || format!("exit {exit}, and `{path}` is gone"),
                );
                continue;
            };
            let writes: Vec<&Done> = self
                .ran
                .done
                .iter()
                .filter(|d| matches!(d.what, What::Write(other, _) if other == at))
                .collect();
            let bytes = is.sha256 == was.sha256
                || writes.iter().any(|w| w.bytes.as_ref() == Some(&is.bytes));
            tally.claim(
                "exit without effect: bytes",
                bytes,
                || "touched",
                || format!("exit {exit}, and `{path}` has other bytes"),
            );
            let renamed = writes
                .iter()
                .any(|w| matches!(w.what, What::Write(_, Write::Rename)));
            tally.claim(
                "exit without effect: inode",
                is.inode == was.inode || renamed,
                || "touched",
                || format!("exit {exit}, and `{path}` is another file"),
            );
            let changed = renamed
                || self.had(
                    |what| matches!(what, What::Chmod(other) | What::Chown(other) if other == at),
                );
            let same = (is.mode, is.owner) == (was.mode, was.owner);
            tally.claim(
                "exit without effect: mode and owner",
                same || changed,
                || "touched",
                || format!("exit {exit}, and `{path}` has another mode"),
            );
        }
    }

    /// Checks the report about the targets.
    fn targets(&self, exit: i32, tally: &mut Tally) {
        for target in self.ran.json["targets"].as_array().into_iter().flatten() {
            let Some(at) = target["path"]
                .as_str()
                .and_then(|path| self.live.target_of(path))
            else {
                continue;
            };
            let late = self
                .late()
                .any(|d| matches!(d.what, What::Write(other, _) if other == at));
            if late || target["disk"].is_null() {
                continue;
            }
            let path = &self.live.targets[at].path;
            let named = || {
                format!(
                    "exit {exit}: `{}` from {} to {} disk {}",
                    path.display(),
                    target["from"],
                    target["to"],
                    target["disk"]
                )
            };
            if target["kind"] != "directory" {
                let is = seen(path).map(|s| s.sha256);
                tally.claim(
                    "the digest of a target is that of its bytes",
                    target["disk"].as_str() == is.as_deref(),
                    || "disk",
                    || format!("{}, and its bytes are {is:?}", named()),
                );
            }
            let good = match claims::of_exit(exit) {
                Some(Files::New) => target["disk"] == target["to"],
                Some(Files::Old) if self.is_touched(target) => target["disk"] == target["from"],
                Some(Files::Old) => self.stands_as_before(at),
                _ => true,
            };
            tally.claim(
                "the targets are what the exit code says",
                good,
                || "disk",
                named,
            );
        }
    }

    /// Whether the run has replaced a target, or signalled an instance that reads it.
    fn is_touched(&self, target: &Value) -> bool {
        let of = |o: &&Value| {
            o["targets"]
                .as_array()
                .is_some_and(|all| all.contains(&target["path"]))
        };
        let got_none = |o: &Value| {
            o["outcome"].as_str().and_then(claims::of_outcome) == Some(Claim::NoSignal)
                || o["outcome"] == "unchanged"
        };
        let outcomes = self.ran.json["instances"].as_array();
        target["path"]
            .as_str()
            .is_some_and(|path| self.journal.installed(path))
            || outcomes.is_some_and(|all| all.iter().filter(of).any(|o| !got_none(o)))
    }

    /// Whether a target is unchanged, or changed by another writer only.
    fn stands_as_before(&self, at: usize) -> bool {
        let is = seen(&self.live.targets[at].path).map(|s| s.bytes);
        let edits = self
            .ran
            .done
            .iter()
            .filter(|d| matches!(d.what, What::Write(other, _) if other == at))
            .filter_map(|d| d.bytes.as_ref());
        let before = self.before.files[at].as_ref().map(|s| &s.bytes);
        before
            .into_iter()
            .chain(edits)
            .any(|bytes| Some(bytes) == is.as_ref())
            || (is.is_none() && before.is_none())
    }

    /// Checks that no byte and no mode of another writer is lost silently.
    fn edits(&self, exit: i32, tally: &mut Tally) {
        let kept = self.live.kept();
        let is_kept = |bytes: &[u8]| {
            kept.iter().any(|content| {
                content
                    .windows(bytes.len().max(1))
                    .any(|window| window == bytes)
            })
        };
        for (at, target) in self.live.targets.iter().enumerate() {
            let done: Vec<&Done> =
                self.ran.done.iter().filter(|d| matches!(d.what, What::Write(other, _) | What::Chmod(other) | What::Chown(other) if other == at)).collect();
            let replaced = |after: &Done| {
                done.iter()
                    .any(|d| d.began > after.began && matches!(d.what, What::Write(..)))
            };
            let again = |after: &Done| {
                done.iter()
                    .any(|d| d.began > after.began && d.what == after.what)
            };
            let renamed = |before: &Done| {
                done.iter().any(|d| {
                    d.began < before.began && matches!(d.what, What::Write(_, Write::Rename))
                })
            };
            for edit in &done {
                if self.ran.cut || edit.began >= self.final_check || replaced(edit) || again(edit) {
                    continue;
                }
                let path = target.path.display();
                match edit.what {
                    What::Write(_, Write::Descriptor) if renamed(edit) => {}
                    What::Write(_, how) => {
                        let bytes = edit.bytes.as_deref().unwrap_or_default();
                        tally.claim(
                            "an edit of another writer is kept",
                            is_kept(bytes),
                            || "lost",
                            || format!("exit {exit}: `{path}` was edited ({how:?}) at {:.3}, and the bytes are nowhere", edit.began),
                        );
                    }
                    _ => {
                        let is = seen(&target.path).zip(edit.attributes);
                        let same = is.is_some_and(|(is, (mode, owner))| match edit.what {
                            What::Chmod(_) => is.mode == mode,
                            _ => is.owner == owner,
                        });
                        let named = matches!(exit, 5 | 7) || same;
                        tally.claim(
                            "a mode that another gave is kept",
                            named,
                            || "lost",
                            || format!("exit {exit}: `{path}` was given {:?} at {:.3}, and has it no more", edit.attributes, edit.began),
                        );
                    }
                }
            }
            // A writer that came before the copy of the run has overwritten these bytes itself.
            let overwritten = done.iter().any(|d| matches!(d.what, What::Write(..)));
            let before = self.before.files[at].as_ref().filter(|_| !overwritten);
            if let Some(was) = before.filter(|was| message_of(&was.bytes).is_some()) {
                tally.claim(
                    "what stood there before is kept",
                    is_kept(&was.bytes),
                    || "lost",
                    || {
                        format!(
                            "the bytes of `{}` before are nowhere",
                            target.path.display()
                        )
                    },
                );
            }
        }
    }

    /// Checks that `hello status` exits 0 only if each instance runs the content of its disk, as
    /// far as known.
    fn status(&self, exit: i32, tally: &mut Tally) {
        for row in self.ran.json["instances"].as_array().into_iter().flatten() {
            let (Some(pid), Some(started)) = (
                row["pid"].as_i64().and_then(|p| i32::try_from(p).ok()),
                row["started"].as_u64(),
            ) else {
                continue;
            };
            let at = self.live.slot_of(pid, started);
            let Some(at) = at.filter(|at| self.live.slots[*at].member.mode != Mode::Liar) else {
                continue;
            };
            let named = format!(
                "status, exit {exit}: pid {pid} ({}) runs {}",
                self.mode(Some(at)),
                row["runs"]
            );
            tally.claim(
                "status speaks of what lives",
                lives(pid, started),
                || "status",
                || format!("{named}, and is gone"),
            );
            let told = row["targets"][0]["known"] == "told";
            if let Some(runs) = row["runs"].as_str().filter(|_| told) {
                let is = self.live.slots[at].truth().map(|t| t.sha256);
                let stable = !self.live.slots[at].member.mode.has_workers()
                    && self.live.slots[at].member.mode != Mode::Alternates;
                tally.claim(
                    "status says what runs",
                    !stable || is.as_deref() == Some(runs),
                    || "status",
                    || format!("{named}, and it is {is:?}"),
                );
            }
        }
    }

    /// Checks the claims that must hold once every signal is handled. No pending reload may
    /// invalidate them.
    pub(crate) fn later(&self, held: &[(usize, Claim, String)], tally: &mut Tally) {
        for (at, claim, named) in held {
            let slot = &self.live.slots[*at];
            let (pid, started) = slot.leader();
            let of = |o: &&Value| o["pid"] == pid && o["started"] == started;
            let outcome = self.ran.json["instances"]
                .as_array()
                .and_then(|all| all.iter().find(of));
            let foreign = self.had(|what| what == What::Hangup(*at));
            let Some(outcome) = outcome.filter(|_| !foreign && *claim != Claim::Kept) else {
                continue;
            };
            let Some(wanted) = self.wanted(*at, *claim, outcome) else {
                continue;
            };
            let other = |n: &&crate::live::Note| {
                n.at > self.ran.ended && n.what.starts_with("serves ") && !n.what.contains(&wanted)
            };
            let notes = slot.notes();
            let took_back = notes.iter().find(other);
            tally.claim(
                "nothing takes an outcome back",
                took_back.is_none(),
                || "later",
                || {
                    let late = took_back.map_or(0.0, |n| n.at - self.ran.ended);
                    format!(
                        "{named}; {late:.2} s after the run it began to serve `{}`",
                        took_back.map_or("", |n| n.what.as_str())
                    )
                },
            );
            self.serves(
                *at,
                *claim,
                outcome,
                named,
                "when every reload was over",
                tally,
            );
        }
    }

    /// Checks which files and marks remain after a command. After a killed command, the next one
    /// removes them.
    pub(crate) fn leftovers(&self, tally: &mut Tally) {
        let ran = self.ran;
        let acts = !ran.dry && ran.verb != Verb::Status && !matches!(ran.code, None | Some(2 | 9));
        // A command that cannot start for lack of descriptors does nothing.
        let starts = !(ran.starved && ran.code == Some(1));
        if !acts || !starts || ran.cut || ran.beside {
            return;
        }
        // A run without an instance of a target does not touch the target.
        let mine = |path: &str| {
            ran.json["targets"]
                .as_array()
                .is_some_and(|all| all.iter().any(|t| t["path"] == path))
        };
        for target in &self.live.targets {
            let path = target.path.display().to_string();
            let left = hidden(&target.path);
            let whole = !ran.line.contains(" g0 ") || target.group == 0 || mine(&path);
            tally.claim(
                "nothing hidden stays beside a target",
                left.iter()
                    .all(|left| ran.stderr.contains(&left.display().to_string()))
                    || !whole,
                || "leftover",
                || format!("after exit {:?} of `{}`: {left:?}", ran.code, ran.line),
            );
        }
        for id in open_marks(self.live) {
            let journal = Journal::read(&self.live.state.join("runs").join(&id));
            let closed = journal.finished().is_some_and(|f| f["verdict"] != "mixed")
                || journal.named("superseded_by").next().is_some();
            tally.claim(
                "a closed run has no open mark",
                !closed,
                || "leftover",
                || format!("run {id} is closed, and its mark is there"),
            );
        }
    }
}

/// The time from which a fault has no more effect of its own.
fn lasts_until(done: &Done) -> f64 {
    match done.what {
        What::Pause(_, time) => done.began + time.as_secs_f64(),
        _ => done.ended,
    }
}
