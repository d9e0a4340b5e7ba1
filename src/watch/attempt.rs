//! One attempt: open runs of an earlier watch are repaired, then a run takes the wanted content.

use std::{collections::BTreeSet, path::PathBuf};

use super::{metrics::Contents, repair::left_open, schedule::touches};
use crate::{
    broadcast,
    change::ChangeRequest,
    event::{Event, Instance, Interrupts, Outcome, TargetReport, Verdict, check_interrupts},
    execute::RunOptions,
    fleet::Fleet,
    inventory::{Expression, HostName},
    names,
    report::{Reporter, RunReport, Summary},
    resume,
    runs::Verb,
    step::short,
};

/// How an attempt ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) verdict: Verdict,
    /// The id of its last run; empty if that ended before one began.
    pub(super) run: String,
    /// Why, as the run says it.
    pub(super) reason: String,
    pub(super) targets: Vec<TargetReport>,
    pub(super) instances: Vec<Instance>,
    /// The commands to type next.
    pub(super) next: Vec<String>,
    /// Why a target could not be rolled back, if that is so.
    pub(super) no_rollback: Option<String>,
}

/// The parts of an attempt that stay the same.
pub(super) struct Attempt<'a> {
    /// The groups of this attempt.
    pub(super) fleet: Fleet,
    pub(super) shared: &'a RunOptions,
    pub(super) reporter: &'a mut Reporter,
    pub(super) interrupts: &'a mut Interrupts,
}

impl Attempt<'_> {
    /// Repairs what is open, then takes the wanted content of every group.
    pub(super) async fn run(mut self) -> Ended {
        let names = |fleet: &Fleet| -> Vec<String> {
            fleet
                .groups
                .iter()
                .map(|group| group.name.clone())
                .collect()
        };
        let names = names(&self.fleet);
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let left = left_open(&self.shared.state, &names);
        let mut replaces = left.replace;
        for run in left.revert {
            // An earlier revert may have closed this one.
            if !left_open(&self.shared.state, &names).revert.contains(&run) {
                continue;
            }
            let ended = self.revert(&run).await;
            self.say_repair(&run, &ended);
            let is_interrupted = check_interrupts(self.interrupts).is_err();
            // A run that ends unproven has closed the open one: the old config is on the disk, and
            // the wanted content is still to be installed.
            let is_closed = matches!(ended.verdict, Verdict::Converged | Verdict::Unproven);
            if is_interrupted || (touches(ended.verdict) && !is_closed) {
                return ended;
            }
            // Nothing was touched: the guards of the next run decide.
            replaces.extend((!is_closed).then_some(run));
        }
        self.broadcast(replaces).await
    }

    /// Rolls an open run back, and proves that.
    async fn revert(&mut self, run: &str) -> Ended {
        let options = resume::Options {
            verb: Verb::Revert,
            run: Some(run.to_owned()),
            fleet: None,
            usual: None,
            on: Expression::default(),
            except: Expression::default(),
            max_unreachable: None,
            take_over: false,
            shared: self.shared.clone(),
        };
        self.reporter.begin();
        let reporter = &mut *self.reporter;
        let mut on_event = |_: &HostName, event: &Event| reporter.event(event);
        let report = resume::carry_out(&options, self.interrupts, &mut on_event).await;
        self.end(report, |report| resume::summarize(&options, report))
    }

    fn say_repair(&self, run: &str, ended: &Ended) {
        let short = short(run);
        if ended.verdict == Verdict::Converged {
            let text =
                format!("run {short}, which an earlier watch left open; the old config is proven");
            self.reporter.say("Rolled back", &text);
        } else {
            let why = one_line(&ended.reason);
            let text =
                format!("run {short}, which an earlier watch left open, is not rolled back: {why}");
            self.reporter.say("FAILED", &text);
        }
    }

    async fn broadcast(&mut self, replaces: Vec<String>) -> Ended {
        let options = broadcast::Options {
            fleet: self.fleet.clone(),
            change: ChangeRequest::default(),
            overwrite: false,
            count: None,
            now: false,
            verb: Verb::Watch,
            replaces,
            selection: broadcast::Selection::default(),
            shared: self.shared.clone(),
        };
        self.reporter.begin();
        let reporter = &mut *self.reporter;
        let mut no_rollback = None;
        let mut on_event = |_: &HostName, event: &Event| {
            if let Event::NoRollbackContent { path, why } = event {
                no_rollback.get_or_insert_with(|| format!("`{}`: {why}", path.display()));
            }
            reporter.event(event);
        };
        let report = broadcast::carry_out(&options, self.interrupts, &mut on_event).await;
        Ended {
            no_rollback,
            ..self.end(report, |report| broadcast::summarize(&options, report))
        }
    }

    fn end(&mut self, report: RunReport, summarize: impl FnOnce(RunReport) -> Summary) -> Ended {
        let mut ended = Ended {
            verdict: report.verdict,
            run: report.run.clone(),
            reason: report.reason.clone(),
            targets: report.targets.clone(),
            instances: report.instances.clone(),
            next: Vec::new(),
            no_rollback: None,
        };
        let summary = summarize(report);
        self.reporter.end(&summary);
        ended.next = summary.next().to_vec();
        ended
    }
}

/// The most characters of a reason in one line. The journal and `hello history` have all of it.
const MAX_REASON: usize = 600;

/// Returns a text on one line, without the lines that show a place in a file.
pub(super) fn one_line(text: &str) -> String {
    let is_drawn = |line: &&str| {
        let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.trim_start().starts_with('|')
    };
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !is_drawn(line));
    let text = lines.collect::<Vec<_>>().join("; ");
    match text.char_indices().nth(MAX_REASON) {
        Some((end, _)) => format!("{} ..", &text[..end]),
        None => text,
    }
}

/// What is proven of a group after an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Proven {
    /// Every instance runs these contents.
    Contents(Contents),
    /// It is what it was before: nothing was touched.
    AsBefore,
    /// It is not known of every instance.
    Unknown,
}

impl Ended {
    /// Returns what every instance of a group is proven to run.
    pub(super) fn proven(&self, group: &str) -> Proven {
        let digest = |target: &TargetReport| match self.verdict {
            Verdict::Reverted => target.from.clone(),
            _ => Some(target.to.clone()),
        };
        match self.verdict {
            Verdict::Converged | Verdict::Reverted => {
                let targets = self.targets_of(group);
                let contents = self.targets.iter().filter(|t| targets.contains(&t.path));
                let contents = contents.map(|t| Some((t.path.clone(), digest(t)?)));
                contents
                    .collect::<Option<Contents>>()
                    .map_or(Proven::Unknown, Proven::Contents)
            }
            verdict if touches(verdict) => Proven::Unknown,
            _ => Proven::AsBefore,
        }
    }

    fn targets_of(&self, group: &str) -> BTreeSet<PathBuf> {
        let instances = self.instances.iter().filter(|i| i.group == group);
        instances.flat_map(|i| i.targets.iter().cloned()).collect()
    }

    /// Says which config the instances run after an attempt that did not converge; none if no
    /// instance is known.
    pub(super) fn runs(&self) -> Option<String> {
        let mut parts: Vec<(String, Vec<i32>)> = Vec::new();
        for instance in &self.instances {
            let runs = self.config_of(instance);
            match parts.iter_mut().find(|(known, _)| *known == runs) {
                Some((_, pids)) => pids.push(instance.pid),
                None => parts.push((runs, vec![instance.pid])),
            }
        }
        let texts = parts
            .into_iter()
            .map(|(runs, pids)| format!("pid {} {runs}", names::pids(&pids)));
        let text = names::list(texts, ", ", names::MOST);
        (!text.is_empty()).then_some(text)
    }

    fn config_of(&self, instance: &Instance) -> String {
        let to = instance
            .targets
            .first()
            .and_then(|path| self.targets.iter().find(|target| target.path == *path))
            .map(|target| target.to.as_str());
        let old = || match instance.before.as_deref() {
            Some(sha256) => format!("runs sha256:{}", short(sha256)),
            None => "runs the config from before".to_owned(),
        };
        match instance.outcome {
            Outcome::Confirmed | Outcome::Unchanged => match to {
                Some(sha256) => format!("runs sha256:{}", short(sha256)),
                None => "runs the new config".into(),
            },
            Outcome::Rejected | Outcome::Reverted | Outcome::Untouched | Outcome::Refused => old(),
            Outcome::Died => "has ended".into(),
            Outcome::Unconfirmed | Outcome::TimedOut | Outcome::RevertFailed => {
                "runs a config that is not known".into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_is_one_line_without_its_drawing() {
        let text = "not valid: `x`\nerror: unknown field\n --> x:1:1\n  |\n1 | messag\n  | ^^^\n";
        let line = one_line(text);
        assert_eq!(line, "not valid: `x`; error: unknown field; --> x:1:1");
    }

    #[test]
    fn a_long_reason_is_cut() {
        assert_eq!(one_line(&"ä".repeat(1000)).chars().count(), MAX_REASON + 3);
    }
}
