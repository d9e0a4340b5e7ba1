//! From a plan to its verdict: prepare, journal, engine, summary. What a broadcast, a resume and a
//! revert share.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    engine::{self, Conduct, RunEnd},
    event::{Event, Halts, Instance, State, Stop, Verdict},
    fact::Wants,
    fleet::{Group, Order, Speaks, beyond},
    host::{Host, local::check::Ask},
    plan::{Plan, Wave},
    report::{Summary, named},
    runs::{self, Keep, Last, Proven, Record, Reload, Remains, Run, Stand, Verb},
    step::{Member, Readings, Seen, Shift},
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
pub struct Terms<'a> {
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
    pub keep: Keep,
}

/// Tells what a survey found; `fleet` is the file that it was asked by.
pub fn tell_survey(
    seen: &Seen,
    groups: &[Group],
    fleet: Option<&Path>,
    on_event: &mut impl FnMut(&Event),
) {
    for (pid, why) in &seen.left_out {
        on_event(&Event::LeftOut {
            pid: *pid,
            why: why.clone(),
        });
    }
    seen.notes.iter().for_each(&mut *on_event);
    on_event(&Event::Survey {
        instances: seen.members.len() + seen.sick.len() + seen.refused.len(),
        fleet: fleet.map(Path::to_owned),
    });
    let found: BTreeSet<&str> = seen
        .members
        .iter()
        .chain(&seen.sick)
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
pub async fn carry_out(
    terms: Terms<'_>,
    mut plan: Plan,
    mut host: Host,
    halts: &mut Halts,
    on_event: &mut impl FnMut(&Event),
) -> Result<Summary, Stop> {
    tell_sick(&plan, on_event);
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
        return Ok(rehearse::rehearsed(&plan, &host, terms.now));
    }
    let is_work = plan.steps().any(|s| s.is_work() || host.lags(s));
    // A run that is gone on with has its end in another, though there is nothing left to do. So has
    // one that was left open over the same targets.
    let groups: Vec<&str> = terms
        .groups
        .iter()
        .map(|group| group.name.as_str())
        .collect();
    if !is_work && terms.of.is_none() && !runs::is_left(terms.state, &plan.paths(), &groups) {
        still_so(&mut plan, &mut host, halts).await?;
        let by_record = plan
            .instances()
            .any(|i| i.before.is_none() && !i.targets.is_empty());
        let why = if by_record {
            PROVEN
        } else {
            "every instance runs it already"
        };
        let verdict = Verdict::of(plan.ends(), false);
        let _ = Last::keep(terms.state, terms.groups, plan.instances());
        return Ok(summary(
            String::new(),
            verdict,
            less_sick(why, &plan),
            &plan,
            &host,
        ));
    }
    if *halts.borrow() > 0 {
        return Err(Stop::halted());
    }
    let mut journal = Run::begin(terms.state, &record(&terms, &plan)).map_err(|e| {
        Stop::new(
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
        Conduct {
            run: terms.id,
            now: terms.now,
            goes_on: terms.of.is_some(),
        },
        halts,
        &mut |event| {
            on_event(&event);
            // What is only shown while it lasts is not kept.
            matches!(event, Event::Phase { .. }) || journal.record(&event).is_ok()
        },
    )
    .await;
    for event in look_back(&mut host, &journal) {
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
    let _ = Proven::keep(terms.state, remains(&plan, &host));
    let _ = Last::keep(terms.state, terms.groups, plan.instances());
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
    terms: &Terms<'_>,
    ended: &Result<RunEnd, Stop>,
    plan: &Plan,
    groups: &[&str],
) -> Vec<String> {
    let is_proven = |i: &Instance| matches!(i.state, State::Confirmed | State::Unchanged);
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
async fn still_so(plan: &mut Plan, host: &mut Host, halts: &mut Halts) -> Result<(), Stop> {
    let mut steps: Vec<_> = plan.waves.iter_mut().flat_map(|w| &mut w.steps).collect();
    if !host
        .check(&mut steps, Ask::All, (halts, 0), &mut |_| {})
        .await
    {
        return Err(Stop::halted());
    }
    let not = plan
        .steps()
        .flat_map(|s| &s.members)
        .filter(|m| m.instance.state != State::Unchanged);
    let refused = |m: &Member| {
        if m.is_unsignalled() {
            State::Refused
        } else {
            m.instance.state
        }
    };
    let not: Vec<Instance> = not
        .map(|m| Instance {
            state: refused(m),
            ..m.instance.clone()
        })
        .collect();
    if not.is_empty() {
        Ok(())
    } else {
        Err(Stop::refused(not))
    }
}

/// The end of a run on its host: edits that arrived too late are kept in the run's folder, and what
/// was staged goes.
fn look_back(host: &mut Host, journal: &Run) -> Vec<Event> {
    let end = host.look_back();
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
fn brought(back: bool) -> &'static str {
    if back { "old" } else { "new" }
}

/// The instances that were signalled and live, and of which nothing is proven.
fn unseen(plan: &Plan) -> Vec<i32> {
    plan.instances()
        .filter(|i| i.state == State::Unconfirmed)
        .map(|i| i.pid)
        .collect()
}

/// Why a run converged.
fn converged(plan: &Plan, back: bool) -> String {
    let (unseen, config) = (unseen(plan), brought(back));
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
            named(&unseen(plan)),
            brought(back)
        );
    }
    let lost = plan.left_out.iter().filter(|m| !m.sick);
    let mut bad = plan
        .steps()
        .flat_map(|s| &s.members)
        .chain(&plan.newcomers)
        .filter(|m| !m.is_good())
        .chain(lost);
    match bad.find_map(|m| {
        Some(format!(
            "pid {}: {}",
            m.instance.pid,
            m.instance.trouble.as_ref()?.text
        ))
    }) {
        Some(bad) => bad,
        None if verdict == Verdict::Partial && !plan.left_out.is_empty() => {
            less_sick(&converged(plan, back), plan)
        }
        None => "a config is not what this run left there".into(),
    }
}

/// Tells who is silent, and whether that one goes along.
fn tell_sick(plan: &Plan, on_event: &mut impl FnMut(&Event)) {
    let included = plan.steps().flat_map(|s| &s.members).filter(|m| m.sick);
    for (member, left_out) in plan
        .left_out
        .iter()
        .filter(|m| m.sick)
        .map(|m| (m, true))
        .chain(included.map(|m| (m, false)))
    {
        let (i, why) = (
            &member.instance,
            member
                .instance
                .trouble
                .as_ref()
                .map_or(String::new(), |t| t.text.clone()),
        );
        on_event(&Event::Sick {
            group: i.group.clone(),
            pid: i.pid,
            endpoint: i.endpoint.clone(),
            why,
            left_out,
        });
    }
}

/// `why`, which speaks of every instance; where some were left out, of every other one, and who
/// these are.
fn less_sick(why: &str, plan: &Plan) -> String {
    let sick: Vec<Instance> = plan
        .left_out
        .iter()
        .filter(|m| m.sick)
        .map(|m| m.instance.clone())
        .collect();
    if sick.is_empty() {
        return why.into();
    }
    format!(
        "{}; silent and left out: {}",
        why.replacen("every instance", "every other instance", 1),
        Stop::refused(sick).reason
    )
}

/// What the run leaves behind of every touched process that cannot tell itself what it runs.
fn remains(plan: &Plan, host: &Host) -> impl Iterator<Item = Remains> {
    let touched = plan
        .steps()
        .flat_map(|step| step.members.iter().map(move |m| (step, m)))
        .filter(|(_, m)| m.group.speaks == Speaks::None && m.is_touched());
    touched.map(|(step, member)| {
        let stand = |shift: &Shift| {
            let blob = match member.instance.state {
                State::Confirmed => Some(&shift.to),
                State::Reverted if !member.is_back_by_its_answers() => shift.from.as_ref(),
                _ => None,
            }?;
            let sha256 = host.reads(&shift.path).filter(|now| *now == blob.sha256)?;
            Some((
                shift.path.clone(),
                Stand {
                    sha256,
                    ctime: host.ctime(&shift.path)?,
                    behind: host.behind(&shift.path),
                },
            ))
        };
        let stands: Option<BTreeMap<_, _>> = step.shifts.iter().map(stand).collect();
        let signalled = member.signalled.unwrap_or(jiff::Timestamp::MIN);
        let reload = if member.instance.state.leaves_nothing_open() {
            Reload::Over(signalled)
        } else {
            Reload::Open
        };
        Remains {
            pid: member.instance.pid,
            started: member.instance.started,
            stands: stands.unwrap_or_default(),
            reload,
        }
    })
}

/// What is kept of a plan in the journal.
fn record<'a>(terms: &Terms<'a>, plan: &'a Plan) -> Record<'a> {
    let blobs = plan
        .steps()
        .flat_map(|s| &s.shifts)
        .flat_map(|s| [s.from.as_ref(), Some(&s.to)])
        .flatten();
    Record {
        id: terms.id,
        verb: terms.verb,
        of: terms.of,
        reason: terms.reason,
        command: secretless(std::env::args_os().map(|arg| arg.to_string_lossy().into_owned())),
        groups: terms.groups,
        order: beyond(terms.groups, terms.order),
        targets: plan.targets().into_iter().map(|s| s.report(None)).collect(),
        instances: plan.instances().collect(),
        readings: plan
            .steps()
            .flat_map(|s| &s.members)
            .filter_map(|m| readings(terms, m))
            .collect(),
        waves: plan.waves.len(),
        blobs: blobs.collect(),
    }
}

/// What a run that goes on with this one must know of an instance's answers from before.
fn readings<'a>(terms: &Terms<'_>, member: &'a Member) -> Option<(i32, u64, &'a [Option<String>])> {
    let changes = member
        .group
        .confirm
        .iter()
        .any(|fact| fact.wants == Wants::Changed);
    let known = match &member.kept {
        Readings::Before(kept) | Readings::After(kept) => kept,
        // What it runs by now, nobody knows.
        Readings::None if terms.of.is_some() => return None,
        Readings::None => &member.baseline,
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
