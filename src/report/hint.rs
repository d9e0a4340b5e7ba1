//! The advice after a run that did not converge.

use super::run_report::{CommandContext, RunReport};
use crate::{
    event::{HostState, Instance, Outcome, TargetReport, Verdict, process},
    names,
    refusal::Hint,
};

/// Returns the hint after a run that converged; none if it changed nothing.
pub(super) fn undo(report: &RunReport, context: &CommandContext) -> Option<Hint> {
    report.can_be_undone().then(|| Hint {
        what: "to restore the config from before this run:".into(),
        commands: vec![format!(
            "hello revert {}{}",
            context.short_run, context.state_args
        )],
    })
}

/// Returns the hint after a run; none if it converged.
pub(super) fn next_step(report: &RunReport, context: &CommandContext) -> Option<Hint> {
    let own = || Advisor { report, context }.hint();
    let is_well = report.verdict == Verdict::Converged;
    (!is_well).then(|| report.hint.clone().unwrap_or_else(own))
}

/// The facts that a hint depends on.
struct Advisor<'a> {
    report: &'a RunReport,
    context: &'a CommandContext,
}

impl Advisor<'_> {
    fn hint(&self) -> Hint {
        let refused = self.report.instances.first();
        match self.report.verdict {
            Verdict::Usage => Hint {
                what: "see the arguments:".into(),
                commands: vec![format!("{} --help", self.context.command)],
            },
            Verdict::Refused if let Some(first) = refused => {
                let doctor = self.context.doctor.clone();
                Hint {
                    what: "nothing was touched; why, and what to do about it:".into(),
                    commands: vec![doctor.unwrap_or_else(|| doctor_of(first))],
                }
            }
            Verdict::Partial => self.partial(),
            Verdict::Unproven => self.unproven(),
            Verdict::Mixed => self.mixed(),
            verdict => self.look(&self.untouched_text(verdict)),
        }
    }

    /// Only the command that reads.
    fn look(&self, what: &str) -> Hint {
        Hint {
            what: what.into(),
            commands: vec![self.context.look.command()],
        }
    }

    fn partial(&self) -> Hint {
        let is_other = |outcome| {
            !matches!(
                outcome,
                Outcome::Confirmed | Outcome::Unconfirmed | Outcome::Unchanged
            )
        };
        match self.list(is_other).as_str() {
            "" if self.misses_hosts() => self.look_or_revert(
                "every instance of the hosts that were reached is proven on the new config, and \
                 what the others run is not known; the same command again includes them",
            ),
            "" => self.look_or_revert(
                "every instance is proven on the new config, and the run stopped before its end",
            ),
            others => self.look_or_revert(&format!(
                "every touched instance is proven, but not all on the new config: {others}; the \
                 next broadcast includes them"
            )),
        }
    }

    /// Tells whether the run went without a host that was not reached.
    fn misses_hosts(&self) -> bool {
        let hosts = &self.report.hosts;
        hosts
            .iter()
            .any(|host| host.state == HostState::Unreachable)
    }

    fn unproven(&self) -> Hint {
        let unconfirmed = self.list(|outcome| outcome == Outcome::Unconfirmed);
        self.look_or_revert(&format!(
            "every instance was signalled and lives, and nothing proves which config it runs: \
             {unconfirmed}; add a [[group.confirm]] that shows it, or `unproven = \"accept\"` to \
             its group"
        ))
    }

    /// The command that reads, and the one that restores the old config where that is possible.
    fn look_or_revert(&self, what: &str) -> Hint {
        let look = self.context.look.command();
        match self.revert_command() {
            Some(revert) => Hint {
                what: format!(
                    "{what}; {}, and then to restore the old config everywhere:",
                    self.context.look.what()
                ),
                commands: vec![look, revert],
            },
            None => Hint {
                what: format!("{what}; {}:", self.context.look.what()),
                commands: vec![look],
            },
        }
    }

    fn mixed(&self) -> Hint {
        let failed = self.list(|outcome| {
            matches!(
                outcome,
                Outcome::RevertFailed | Outcome::TimedOut | Outcome::Rejected | Outcome::Died
            )
        });
        let failed = if failed.is_empty() {
            self.misplaced()
        } else {
            failed
        };
        // An instance that died is started again first, on the config that is on disk now.
        let ended = |i: &&Instance| matches!(i.outcome, Outcome::Died | Outcome::RevertFailed);
        let mut startable = self.report.instances.iter().filter(ended);
        let start = startable.find_map(|i| Some((&i.host, i.start.clone()?)));
        // The command is of that host: typed here, it would start another process.
        let (start, elsewhere) = match start {
            Some((host, start)) if !host.is_local() => {
                (None, format!("; `{start}` on {host} starts it again there"))
            }
            start => (start.map(|(_, start)| start), String::new()),
        };
        let resume = format!(
            "hello resume {}{}",
            self.report.run, self.context.state_args
        );
        let revert = self.revert_command();
        let then = match (start.is_some(), revert.is_some()) {
            (true, true) => "to start it again; then to resume, or to revert:",
            (true, false) => "to start it again; then to resume:",
            (false, true) => "then to resume when the cause is fixed, or to revert:",
            (false, false) => "then to resume when the cause is fixed:",
        };
        let look = self.context.look.command();
        let commands = [Some(look), start, Some(resume), revert];
        Hint {
            what: format!(
                "this needs you: {failed}{elsewhere}; {}; {then}",
                self.context.look.what()
            ),
            commands: commands.into_iter().flatten().collect(),
        }
    }

    /// Names the targets that do not hold the new config, or that hold it though the run has not
    /// converged.
    fn misplaced(&self) -> String {
        let (new, old): (Vec<&TargetReport>, Vec<&TargetReport>) = self
            .report
            .targets
            .iter()
            .partition(|t| t.disk.as_ref() == Some(&t.to));
        match (new.as_slice(), old.as_slice()) {
            ([], []) => "not everything was checked".into(),
            (new, []) => format!("{} holds what this run installed", paths(new)),
            ([], old) => format!("{} does not hold what this run installed", paths(old)),
            (new, old) => format!(
                "{} holds what this run installed, and {} does not",
                paths(new),
                paths(old)
            ),
        }
    }

    /// Returns the command that reverts the run, if all old bytes are known. A run that installed
    /// an old config is resumed instead: to revert it would do the same.
    fn revert_command(&self) -> Option<String> {
        let report = self.report;
        let possible = !report.back && report.has_rollback_content();
        possible.then(|| format!("hello revert {}{}", report.run, self.context.state_args))
    }

    /// Leads to the command that only reads, after a run that left nothing else to do.
    fn untouched_text(&self, verdict: Verdict) -> String {
        let what = self.context.look.what();
        match verdict {
            Verdict::NoMatch => "nothing was touched; see what there is:".into(),
            Verdict::Invalid => format!(
                "nothing was touched; fix the config and run the same command again; {what}:"
            ),
            Verdict::Busy => format!(
                "nothing was touched; wait for the other run with --lock-timeout 60s; {what}:"
            ),
            Verdict::Reverted => "every touched instance is proven on the old config; when the \
                                  cause is fixed, look again:"
                .into(),
            _ => "nothing was touched; when it is fixed, look again:".into(),
        }
    }

    /// Lists the instances with such an outcome.
    fn list(&self, is: impl Fn(Outcome) -> bool) -> String {
        let instances = self.report.instances.iter().filter(|i| is(i.outcome));
        let texts = instances.map(|i| {
            let process = process(&i.host, i.pid);
            format!("{process} {}", outcome_text(i.outcome))
        });
        names::list(texts, ", ", names::MOST)
    }
}

/// Returns the command that examines an instance.
fn doctor_of(instance: &Instance) -> String {
    if instance.host.is_local() {
        format!("hello doctor {}", instance.pid)
    } else {
        format!("hello doctor {}:{}", instance.host, instance.pid)
    }
}

fn paths(targets: &[&TargetReport]) -> String {
    let paths = targets.iter().map(|t| {
        let path = t.path.display();
        if t.host.is_local() {
            format!("`{path}`")
        } else {
            format!("`{path}` on {}", t.host)
        }
    });
    names::list(paths, ", ", names::MOST)
}

/// Returns the end of a sentence that begins with an instance.
fn outcome_text(outcome: Outcome) -> &'static str {
    match outcome {
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
