//! `hello broadcast`: the recipe of a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use crate::{
    change::{Asked, Changes},
    engine,
    event::{Becomes, EntryReport, Event, Halts, State, Stop, Verdict},
    fleet::{Count, Fleet, Speaks},
    host::{Host, Look},
    plan::{Plan, Wish},
    report::{Output, Reporter, Summary},
    runs::{self, Proven, Record, Run, Stand},
    step::Shift,
    tree::{Difference, Node, shown},
};

/// A difference that is not found within this is shown less finely.
const DIFF_LIMIT: Duration = Duration::from_secs(2);

/// Why nobody is signalled where some cannot tell what they run.
const PROVEN: &str =
    "every instance was proven on it, and nobody has touched it since; what it includes from elsewhere was not looked at (`touch` it to reload)";

/// Whether a validator must pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validate {
    /// Where a validator is known; who went unvalidated is named.
    Auto,
    /// Every instance must have one and pass it.
    Strict,
    /// None is run.
    Off,
}

/// Checked options of the command.
#[derive(Debug, Clone)]
pub struct Options {
    /// The fleet, read and selected.
    pub fleet: Fleet,
    /// The change, not yet read.
    pub change: Asked,
    /// One `--config` is taken for targets that differ now.
    pub overwrite: bool,
    /// What validation must give.
    pub validate: Validate,
    /// Prepare, show, and drop what was staged.
    pub dry_run: bool,
    /// Instead of each group's own count.
    pub count: Option<Count>,
    /// Instead of each group's own timeout.
    pub timeout: Option<Duration>,
    /// How long another run's lock is waited for.
    pub lock_timeout: Duration,
    /// Why; kept in the journal.
    pub reason: Option<String>,
    /// Where runs are kept.
    pub state: PathBuf,
    /// What stdout carries.
    pub output: Output,
    /// No progress lines.
    pub quiet: bool,
    /// Every instance a line.
    pub verbose: bool,
}

/// Runs the command to its verdict; every end is reported.
pub async fn run(mut options: Options, mut halts: Halts) -> Verdict {
    let mut reporter = Reporter::new(options.output, options.quiet, options.verbose);
    if options.validate == Validate::Off {
        options.fleet.groups.iter_mut().for_each(|g| g.validate.clear());
    }
    let mut summary = attempt(&options, &mut halts, &mut |event| reporter.event(event)).await.unwrap_or_else(Summary::stopped);
    summary.look = match &options.fleet.path {
        Some(path) => format!("hello status --fleet {}", path.display()),
        None => format!("hello status {}", options.fleet.groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>().join(" ")),
    };
    reporter.finish(&summary);
    summary.verdict
}

async fn attempt(options: &Options, halts: &mut Halts, on_event: &mut impl FnMut(&Event)) -> Result<Summary, Stop> {
    let changes = Changes::read(&options.change)?;
    let id = runs::new_id();
    let mut host = Host::local(&id);
    let groups: Vec<_> = options.fleet.groups.iter().cloned().map(Arc::new).collect();
    let look = Look { lock: (!options.dry_run).then_some(options.lock_timeout), timeout: options.timeout };
    let seen = tokio::select! {
        seen = host.survey(&groups, look) => seen,
        Ok(_) = halts.wait_for(|n| *n > 0) => return Err(Stop::new(Verdict::Failed, "halted by the operator")),
    };
    for (pid, why) in &seen.left_out {
        on_event(&Event::LeftOut { pid: *pid, why: why.clone() });
    }
    on_event(&Event::Survey { instances: seen.members.len() + seen.refused.len(), fleet: options.fleet.path.clone() });
    for group in options.fleet.groups.iter().filter(|g| seen.members.iter().any(|m| m.instance.group == g.name)) {
        let urls: BTreeSet<&str> = group.confirm.iter().chain(&group.reject).filter_map(|fact| fact.source.unchecked()).collect();
        urls.into_iter().for_each(|url| on_event(&Event::Insecure { group: group.name.clone(), url: url.into() }));
    }
    let proven = Proven::load(&options.state);
    let wish = Wish { fleet: &options.fleet, changes: &changes, count: options.count, overwrite: options.overwrite, proven: &proven };
    let mut plan = Plan::new(seen, &wish, |sha256| runs::stored(&options.state, sha256))?;
    let mut steps: Vec<_> = plan.waves.iter_mut().flatten().collect();
    let prepared = host.prepare(&mut steps, options.validate == Validate::Strict, halts, &mut |event| on_event(&event)).await;
    match (prepared, plan.restart.take()) {
        // Whether it is valid is said first, and that it needs a restart before anything else.
        (Err(stop), restart) => return Err(restart.filter(|_| stop.verdict != Verdict::Invalid).unwrap_or(stop)),
        (Ok(()), Some(restart)) => return Err(restart),
        (Ok(()), None) => {}
    }
    if options.dry_run {
        return Ok(rehearsed(&plan, &host));
    }
    if !plan.steps().any(|s| s.is_work()) {
        let by_record = plan.instances().any(|i| i.before.is_none() && !i.targets.is_empty());
        let why = if by_record { PROVEN } else { "every instance runs it already" };
        return Ok(summary(String::new(), Verdict::Converged, why.into(), &plan, &host));
    }
    if *halts.borrow() > 0 {
        return Err(Stop::new(Verdict::Failed, "halted by the operator"));
    }
    let (mut journal, superseded) = Run::begin(&options.state, &record(options, &id, &plan))
        .map_err(|e| Stop::new(Verdict::Failed, format!("the state directory `{}` cannot be written: {e}", options.state.display())))?;
    superseded.into_iter().for_each(|run| on_event(&Event::Superseded { run }));
    let mut why = String::new();
    let ended = engine::run(&mut plan, &mut host, halts, &mut |event| {
        if let Event::UndoBegan { why: said } = &event {
            why.clone_from(said);
        }
        on_event(&event);
        journal.record(&event).is_ok()
    })
    .await;
    let verdict = ended.as_ref().map_or_else(|stop| stop.verdict, |verdict| *verdict);
    on_event(&Event::Finished { verdict });
    journal.finish(verdict);
    // What cannot be kept costs the next run a signal.
    let _ = Proven::keep(&options.state, proofs(&plan, &host));
    ended?;
    let reason = match verdict {
        Verdict::Converged => "every instance proved the new config".to_owned(),
        _ if why.is_empty() => "the run did not converge, and there is no way back".to_owned(),
        _ => why,
    };
    Ok(summary(id, verdict, reason, &plan, &host))
}

/// What was proven of every touched process that cannot tell it itself; nothing where nothing was.
fn proofs(plan: &Plan, host: &Host) -> impl Iterator<Item = (i32, u64, BTreeMap<PathBuf, Stand>)> {
    let touched = plan.steps().flat_map(|step| step.members.iter().map(move |m| (step, m))).filter(|(_, m)| m.group.speaks == Speaks::None && m.is_touched());
    touched.map(|(step, member)| {
        let stand = |shift: &Shift| {
            let blob = match member.instance.state {
                State::Confirmed => Some(&shift.to),
                State::Reverted => shift.from.as_ref(),
                _ => None,
            }?;
            let sha256 = host.reads(&shift.path).filter(|now| *now == blob.sha256)?;
            Some((shift.path.clone(), Stand { sha256, ctime: host.ctime(&shift.path)? }))
        };
        let stands: Option<BTreeMap<_, _>> = step.shifts.iter().map(stand).collect();
        (member.instance.pid, member.instance.started, stands.unwrap_or_default())
    })
}

fn summary(run: String, verdict: Verdict, reason: String, plan: &Plan, host: &Host) -> Summary {
    let targets = plan.targets().into_iter().map(|s| s.report(host.reads(&s.path))).collect();
    Summary::new(run, verdict, reason, targets, plan.instances().cloned().collect())
}

/// What would be done, with the difference of every config that is no secret.
fn rehearsed(plan: &Plan, host: &Host) -> Summary {
    let mut summary = summary(String::new(), Verdict::Converged, "dry run: nothing was touched".into(), plan, host);
    for (report, shift) in summary.targets.iter_mut().zip(plan.targets()) {
        let Some(from) = &shift.from else { continue };
        let diff = match (&from.tree, &shift.to.tree) {
            (Some(old), Some(new)) => {
                let all = old.differences(new);
                report.entries = all.iter().map(entry).collect();
                Some(all.iter().filter_map(|d| unified(bytes(d.old)?, bytes(d.new)?, &shown(&d.path))).collect()).filter(|text: &String| !text.is_empty())
            }
            _ => unified(&from.bytes, &shift.to.bytes, ""),
        };
        report.diff = diff.filter(|_| !shift.secret);
    }
    summary.rehearsal = true;
    summary
}

fn entry(difference: &Difference<'_>) -> EntryReport {
    let becomes = match (difference.old, difference.new) {
        (None, _) => Becomes::Added,
        (Some(_), None) => Becomes::Removed,
        (Some(_), Some(_)) => Becomes::Changed,
    };
    let end = if matches!(difference.new.or(difference.old), Some(Node::Tree(_))) { "/" } else { "" };
    EntryReport { path: shown(&difference.path) + end, becomes }
}

/// The bytes of a file, none of what is not there; `None` is what has none.
fn bytes(node: Option<&Node>) -> Option<&[u8]> {
    match node {
        None => Some(b""),
        Some(Node::File(_, bytes)) => Some(bytes),
        Some(Node::Link(_) | Node::Tree(_)) => None,
    }
}

/// The difference of two texts, line by line; `below` is their place in a directory.
fn unified(old: &[u8], new: &[u8], below: &str) -> Option<String> {
    let (old, new) = (std::str::from_utf8(old).ok()?, std::str::from_utf8(new).ok()?);
    let name = |which: &str| if below.is_empty() { which.to_owned() } else { format!("{which}/{below}") };
    let diff = similar::TextDiff::configure().timeout(DIFF_LIMIT).diff_lines(old, new);
    Some(diff.unified_diff().header(&name("now"), &name("new")).to_string())
}

/// What is kept of a plan in the journal.
fn record<'a>(options: &'a Options, id: &'a str, plan: &'a Plan) -> Record<'a> {
    let blobs = plan.steps().flat_map(|s| &s.shifts).flat_map(|s| [s.from.as_ref(), Some(&s.to)]).flatten();
    Record {
        id,
        reason: options.reason.as_deref(),
        command: secretless(std::env::args()),
        groups: &options.fleet.groups,
        targets: plan.targets().into_iter().map(|s| s.report(None)).collect(),
        instances: plan.instances().collect(),
        blobs: blobs.collect(),
    }
}

/// The command line less the values of `--set`.
fn secretless(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut set = false;
    args.map(|arg| {
        let value = std::mem::replace(&mut set, arg == "--set");
        match arg.strip_prefix("--set=").map(|pair| ("--set=", pair)).or_else(|| value.then_some(("", arg.as_str()))) {
            Some((flag, pair)) => format!("{flag}{}=..", pair.split('=').next().unwrap_or_default()),
            None => arg,
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_set_are_not_kept() {
        let args = ["hello", "broadcast", "--set", "a=b=c", "--set=d=e", "--reason", "f=g"].map(String::from);
        assert_eq!(secretless(args.into_iter()), ["hello", "broadcast", "--set", "a=..", "--set=d=..", "--reason", "f=g"]);
    }
}
