//! From a plan to its verdict: prepare, journal, engine, summary. What a broadcast, a resume and a
//! revert share.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    engine::{self, EngineOptions, RunEnd},
    event::{Abort, Event, Instance, Interrupts, Outcome, Verdict},
    fact::Expectation,
    fleet::{Group, Order, Speaks, outside_order},
    host::{Host, local::check::Recheck},
    plan::{Plan, Wave},
    report::{Summary, named},
    runs::{
        self, Journal, LastSeen, ProofCache, ProvenInstance, ProvenTarget, Record, Reload,
        Retention, Verb,
    },
    step::{PlannedInstance, PriorReadings, Survey, TargetChange},
};

mod rehearse;
mod summarize;

use self::summarize::summary;

/// Why nobody is signalled where some cannot tell what they run.
const PROVEN: &str = "every instance was proven on it, and neither it nor what is known to be \
                      read through it was changed since (`touch` it to reload)";

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

/// What is decided of a run besides its plan.
#[derive(Debug, Clone, Copy)]
pub struct RunContext<'a> {
    /// The run's id.
    pub id: &'a str,
    /// What it does.
    pub verb: Verb,
    /// The run that it goes on with, or undoes.
    pub of: Option<&'a str>,
    /// Where runs are kept.
    pub state: &'a Path,
    /// The groups, with every default filled in.
    pub groups: &'a [Group],
    /// What every group of the fleet comes after.
    pub order: &'a Order,
    /// Every instance must have a validator and pass it.
    pub strict: bool,
    /// Prepare, show, and drop what was staged.
    pub dry_run: bool,
    /// No bake, no gate, and nothing goes back by itself.
    pub now: bool,
    /// What it brings is an old config.
    pub back: bool,
    /// Why; kept in the journal.
    pub reason: Option<&'a str>,
    /// Which runs are kept.
    pub keep: Retention,
}

/// Tells what a survey found; `fleet` is the file that it was asked by.
pub fn emit_survey(
    seen: &Survey,
    groups: &[Group],
    fleet: Option<&Path>,
    on_event: &mut impl FnMut(&Event),
) {
    for (pid, why) in &seen.skipped {
        on_event(&Event::Skipped {
            pid: *pid,
            why: why.clone(),
        });
    }
    seen.notes.iter().for_each(&mut *on_event);
    on_event(&Event::Survey {
        instances: seen.instances.len() + seen.unresponsive.len() + seen.refused.len(),
        fleet: fleet.map(Path::to_owned),
    });
    let found: BTreeSet<&str> = seen
        .instances
        .iter()
        .chain(&seen.unresponsive)
        .map(|m| m.instance.group.as_str())
        .collect();
    for group in groups.iter().filter(|g| found.contains(g.name.as_str())) {
        let urls: BTreeSet<&str> = group
            .confirm
            .iter()
            .chain(&group.reject)
            .filter_map(|fact| fact.source.unchecked())
            .collect();
        urls.into_iter().for_each(|url| {
            on_event(&Event::Insecure {
                group: group.name.clone(),
                url: url.into(),
            })
        });
    }
}

/// Carries out `plan`, or shows what it would do.
///
/// # Errors
/// The run ended before it had touched anything.
pub async fn execute(
    terms: RunContext<'_>,
    mut plan: Plan,
    mut host: Host,
    halts: &mut Interrupts,
    on_event: &mut impl FnMut(&Event),
) -> Result<Summary, Abort> {
    emit_unresponsive(&plan, on_event);
    let mut steps: Vec<_> = plan.waves.iter_mut().flat_map(|w| &mut w.steps).collect();
    let prepared = host
        .prepare(&mut steps, terms.strict, halts, &mut |event| {
            on_event(&event)
        })
        .await;
    match (prepared, plan.restart.take()) {
        // Whether it is valid is said first, and that it needs a restart before anything else.
        (Err(stop), restart) => {
            return Err(restart
                .filter(|_| stop.verdict != Verdict::Invalid)
                .unwrap_or(stop));
        }
        (Ok(()), Some(restart)) => return Err(restart),
        (Ok(()), None) => {}
    }
    if terms.dry_run {
        return Ok(rehearse::dry_run_summary(&plan, &host, terms.now));
    }
    let is_work = plan.steps().any(|s| s.is_work() || host.needs_install(s));
    // A run that is gone on with has its end in another, though there is nothing left to do. So has
    // one that was left open over the same targets.
    let groups: Vec<&str> = terms
        .groups
        .iter()
        .map(|group| group.name.as_str())
        .collect();
    if !is_work && terms.of.is_none() && !runs::is_left(terms.state, &plan.paths(), &groups) {
        recheck_unchanged(&mut plan, &mut host, halts).await?;
        let by_record = plan
            .instances()
            .any(|i| i.before.is_none() && !i.targets.is_empty());
        let why = if by_record {
            PROVEN
        } else {
            "every instance runs it already"
        };
        let verdict = Verdict::of(plan.ends(), false);
        let _ = LastSeen::keep(terms.state, terms.groups, plan.instances());
        return Ok(summary(
            String::new(),
            verdict,
            unresponsive_hint(why, &plan),
            &plan,
            &host,
        ));
    }
    if *halts.borrow() > 0 {
        return Err(Abort::interrupted());
    }
    let mut journal = Journal::begin(terms.state, &record(&terms, &plan)).map_err(|e| {
        Abort::new(
            Verdict::Failed,
            format!(
                "the state directory `{}` cannot be used: {e}",
                terms.state.display()
            ),
        )
    })?;
    for note in host.notes() {
        let _ = journal.record(note);
    }
    on_event(&Event::Waves {
        instances: plan.waves.iter().map(Wave::instances).collect(),
    });
    let ended = engine::run(
        &mut plan,
        &mut host,
        EngineOptions {
            run: terms.id,
            immediate: terms.now,
            recovering: terms.of.is_some(),
        },
        halts,
        &mut |event| {
            on_event(&event);
            // What is only shown while it lasts is not kept.
            matches!(event, Event::Phase { .. }) || journal.record(&event).is_ok()
        },
    )
    .await;
    for event in final_look(&mut host, &journal) {
        on_event(&event);
        let _ = journal.record(&event);
        host.note(event);
    }
    let verdict = ended
        .as_ref()
        .map_or_else(|stop| stop.verdict, |end| end.verdict);
    let gates = ended
        .as_ref()
        .map_or_else(|_| Vec::new(), |end| end.gates.clone());
    let reason = match &ended {
        Err(stop) => stop.reason.clone(),
        Ok(end) if end.verdict == Verdict::Converged && !is_work => {
            "every instance runs it already".to_owned()
        }
        Ok(end) if end.verdict == Verdict::Converged => converged(&plan, terms.back),
        Ok(end) => end
            .reason
            .clone()
            .unwrap_or_else(|| unproven(&plan, end.verdict, terms.back)),
    };
    let summary = Summary {
        gates,
        back: terms.back,
        ..summary(terms.id.into(), verdict, reason.clone(), &plan, &host)
    };
    let end = Event::Finished {
        verdict,
        reason,
        counts: summary.counts.clone(),
    };
    for run in superseded(&terms, &ended, &plan, &groups) {
        let event = Event::Superseded { run };
        on_event(&event);
        // What it says stands in that run's journal too.
        let _ = journal.record(&event);
    }
    // The verdict stands, whether or not the last line of the journal can be written.
    let _ = journal.record(&end);
    // What cannot be kept costs the next run a signal. Until the run is closed, nobody takes away
    // the bytes that this names.
    let _ = ProofCache::keep(terms.state, proofs_of(&plan, &host));
    let _ = LastSeen::keep(terms.state, terms.groups, plan.instances());
    journal.close(&end);
    if let Err(e) = runs::prune(terms.state, terms.keep, terms.id) {
        on_event(&Event::NotPruned { why: e.to_string() });
    }
    on_event(&end);
    ended?;
    Ok(summary)
}

/// The runs that were left open and that this one closes: the one that it goes on with, and, where
/// it has proven everything, those over the same targets. What they have touched is where it was,
/// if this one has touched nothing.
fn superseded(
    terms: &RunContext<'_>,
    ended: &Result<RunEnd, Abort>,
    plan: &Plan,
    groups: &[&str],
) -> Vec<String> {
    let is_proven = |i: &Instance| matches!(i.outcome, Outcome::Confirmed | Outcome::Unchanged);
    match ended {
        Ok(end) if end.verdict == Verdict::Converged && plan.instances().all(is_proven) => {
            runs::supersede(terms.state, terms.id, terms.of, &plan.paths(), groups)
        }
        Ok(_) => runs::supersede(terms.state, terms.id, terms.of, &[], &[]),
        Err(_) => Vec::new(),
    }
}

/// Looks once more at what a run without work says of its instances and files: validators may have
/// taken their time since the survey.
///
/// # Errors
/// `Refused` where it is not so any more; nothing was touched.
async fn recheck_unchanged(
    plan: &mut Plan,
    host: &mut Host,
    halts: &mut Interrupts,
) -> Result<(), Abort> {
    let mut steps: Vec<_> = plan.waves.iter_mut().flat_map(|w| &mut w.steps).collect();
    if !host
        .check(&mut steps, Recheck::All, (halts, 0), &mut |_| {})
        .await
    {
        return Err(Abort::interrupted());
    }
    let not = plan
        .steps()
        .flat_map(|s| &s.instances)
        .filter(|m| m.instance.outcome != Outcome::Unchanged);
    let refused = |m: &PlannedInstance| {
        if m.failed_unsignalled() {
            Outcome::Refused
        } else {
            m.instance.outcome
        }
    };
    let not: Vec<Instance> = not
        .map(|m| Instance {
            outcome: refused(m),
            ..m.instance.clone()
        })
        .collect();
    if not.is_empty() {
        Ok(())
    } else {
        Err(Abort::refused(not))
    }
}

/// The end of a run on its host: edits that arrived too late are kept in the run's folder, and what
/// was staged goes.
fn final_look(host: &mut Host, journal: &Journal) -> Vec<Event> {
    let end = host.late_edits();
    let keep = |(at, (path, what, bytes)): (usize, (PathBuf, String, Option<Vec<u8>>))| {
        let kept = bytes.map(|bytes| journal.keep_late(at + 1, &bytes));
        let (kept, what) = match kept {
            Some(Err(e)) => (None, format!("{what}, which could not be kept: {e}")),
            kept => (kept.and_then(Result::ok), what),
        };
        Event::LateEdit { path, what, kept }
    };
    let mut events: Vec<Event> = end.late.into_iter().enumerate().map(keep).collect();
    events.extend((end.not_held > 0).then_some(Event::NotHeld {
        targets: end.not_held,
    }));
    events.extend(
        host.clear()
            .into_iter()
            .map(|(path, why)| Event::LeftBeside { path, why }),
    );
    events
}

/// Removes what runs that were killed have staged; answers what stays, to be told.
pub fn sweep(state: &Path) -> Vec<Event> {
    runs::sweep(state)
        .into_iter()
        .map(|(path, why)| Event::LeftBeside { path, why })
        .collect()
}

/// The config that a run brings.
fn brought_text(back: bool) -> &'static str {
    if back { "old" } else { "new" }
}

/// The instances that were signalled and live, and of which nothing is proven.
fn unproven_pids(plan: &Plan) -> Vec<i32> {
    plan.instances()
        .filter(|i| i.outcome == Outcome::Unconfirmed)
        .map(|i| i.pid)
        .collect()
}

/// Why a run converged.
fn converged(plan: &Plan, back: bool) -> String {
    let (unseen, config) = (unproven_pids(plan), brought_text(back));
    match unseen.as_slice() {
        [] => format!("every instance proved the {config} config"),
        pids => format!(
            "every instance proved the {config} config, or its group accepts that nothing proves \
             it: pid {}",
            named(pids)
        ),
    }
}

/// Why a run that went to its end did not converge.
fn unproven(plan: &Plan, verdict: Verdict, back: bool) -> String {
    if verdict == Verdict::Unproven {
        return format!(
            "nothing proves that pid {} took the {} config",
            named(&unproven_pids(plan)),
            brought_text(back)
        );
    }
    let lost = plan.skipped.iter().filter(|m| !m.unresponsive);
    let mut bad = plan
        .steps()
        .flat_map(|s| &s.instances)
        .chain(&plan.newcomers)
        .filter(|m| !m.is_good())
        .chain(lost);
    match bad.find_map(|m| {
        Some(format!(
            "pid {}: {}",
            m.instance.pid,
            m.instance.failure.as_ref()?.text
        ))
    }) {
        Some(bad) => bad,
        None if verdict == Verdict::Partial && !plan.skipped.is_empty() => {
            unresponsive_hint(&converged(plan, back), plan)
        }
        None => "a config is not what this run left there".into(),
    }
}

/// Tells who is silent, and whether that one goes along.
fn emit_unresponsive(plan: &Plan, on_event: &mut impl FnMut(&Event)) {
    let included = plan
        .steps()
        .flat_map(|s| &s.instances)
        .filter(|m| m.unresponsive);
    for (member, skipped) in plan
        .skipped
        .iter()
        .filter(|m| m.unresponsive)
        .map(|m| (m, true))
        .chain(included.map(|m| (m, false)))
    {
        let (i, why) = (
            &member.instance,
            member
                .instance
                .failure
                .as_ref()
                .map_or(String::new(), |t| t.text.clone()),
        );
        on_event(&Event::Unresponsive {
            group: i.group.clone(),
            pid: i.pid,
            endpoint: i.endpoint.clone(),
            why,
            skipped: skipped,
        });
    }
}

/// `why`, which speaks of every instance; where some were left out, of every other one, and who
/// these are.
fn unresponsive_hint(why: &str, plan: &Plan) -> String {
    let sick: Vec<Instance> = plan
        .skipped
        .iter()
        .filter(|m| m.unresponsive)
        .map(|m| m.instance.clone())
        .collect();
    if sick.is_empty() {
        return why.into();
    }
    format!(
        "{}; silent and left out: {}",
        why.replacen("every instance", "every other instance", 1),
        Abort::refused(sick).reason
    )
}

/// What the run leaves behind of every touched process that cannot tell itself what it runs.
fn proofs_of(plan: &Plan, host: &Host) -> impl Iterator<Item = ProvenInstance> {
    let touched = plan
        .steps()
        .flat_map(|step| step.instances.iter().map(move |m| (step, m)))
        .filter(|(_, m)| m.group.speaks == Speaks::None && m.is_touched());
    touched.map(|(step, member)| {
        let stand = |shift: &TargetChange| {
            let blob = match member.instance.outcome {
                Outcome::Confirmed => Some(&shift.to),
                Outcome::Reverted if !member.is_back_by_answers_alone() => shift.from.as_ref(),
                _ => None,
            }?;
            let sha256 = host
                .disk_digest(&shift.path)
                .filter(|now| *now == blob.sha256)?;
            Some((
                shift.path.clone(),
                ProvenTarget {
                    sha256,
                    ctime: host.ctime(&shift.path)?,
                    behind: host.behind(&shift.path),
                },
            ))
        };
        let stands: Option<BTreeMap<_, _>> = step.changes.iter().map(stand).collect();
        let signalled = member.signalled.unwrap_or(jiff::Timestamp::MIN);
        let reload = if member.instance.outcome.is_settled() {
            Reload::Over(signalled)
        } else {
            Reload::Open
        };
        ProvenInstance {
            pid: member.instance.pid,
            started: member.instance.started,
            stands: stands.unwrap_or_default(),
            reload,
        }
    })
}

/// What is kept of a plan in the journal.
fn record<'a>(terms: &RunContext<'a>, plan: &'a Plan) -> Record<'a> {
    let blobs = plan
        .steps()
        .flat_map(|s| &s.changes)
        .flat_map(|s| [s.from.as_ref(), Some(&s.to)])
        .flatten();
    Record {
        id: terms.id,
        verb: terms.verb,
        of: terms.of,
        reason: terms.reason,
        command: secretless(std::env::args_os().map(|arg| arg.to_string_lossy().into_owned())),
        groups: terms.groups,
        order: outside_order(terms.groups, terms.order),
        targets: plan.targets().into_iter().map(|s| s.report(None)).collect(),
        instances: plan.instances().collect(),
        readings: plan
            .steps()
            .flat_map(|s| &s.instances)
            .filter_map(|m| readings(terms, m))
            .collect(),
        waves: plan.waves.len(),
        blobs: blobs.collect(),
    }
}

/// What a run that goes on with this one must know of an instance's answers from before.
fn readings<'a>(
    terms: &RunContext<'_>,
    member: &'a PlannedInstance,
) -> Option<(i32, u64, &'a [Option<String>])> {
    let changes = member
        .group
        .confirm
        .iter()
        .any(|fact| fact.expectation == Expectation::Changed);
    let known = match &member.prior_readings {
        PriorReadings::Before(kept) | PriorReadings::After(kept) => kept,
        // What it runs by now, nobody knows.
        PriorReadings::None if terms.of.is_some() => return None,
        PriorReadings::None => &member.baseline,
    };
    changes.then_some((member.id.0, member.id.1, known))
}

/// The command line less the values of `--set`.
fn secretless(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut set = false;
    args.map(|arg| {
        let value = std::mem::replace(&mut set, arg == "--set");
        match arg
            .strip_prefix("--set=")
            .map(|pair| ("--set=", pair))
            .or_else(|| value.then_some(("", arg.as_str())))
        {
            Some((flag, pair)) => {
                format!("{flag}{}=..", pair.split('=').next().unwrap_or_default())
            }
            None => arg,
        }
    })
    .collect()
}

#[cfg(test)]
mod tests;
