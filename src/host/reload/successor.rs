//! New processes: one that takes an instance's place during a reload, one that was started again,
//! and any that came meanwhile. What each reads it has read after it was installed, so it must say
//! what everybody must say, but nothing that compares with before.

use std::time::{Duration, Instant};

use crate::{
    event::{Failure, Outcome, Proof},
    fact::{Assertion, Expectation, Source},
    fleet::{Group, Speaks},
    host::{
        discover::{self, found::Found, new_processes::NewProcesses},
        net::{http::own, sockets::sockets_of},
        probe::{
            endpoint::{foreign_listeners, sharing_text},
            limits::{ProbeLimits, self_report},
            results::ProbeResults,
            samples::Samples,
        },
        proc::{
            guard,
            inside::is_its_name,
            pidfd::{has_ended, hold},
            snapshot::ProcessSnapshot,
            tree::children,
        },
        reload::{context::ProofContext, evidence::other_text},
    },
    step::{Content, PlannedInstance},
};

/// A successor is there before the one whose place it takes ends; what is told by a unit or a pid
/// file may come later.
const AT_ONCE: Duration = Duration::from_millis(500);
/// So long a manager takes to start one again; how long that then needs for its proof is another
/// matter.
const NAMED: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// The process that has taken the place of `member`, which ended: it descends from it, holds its
/// listening socket, or is what the unit or the pid file of its group names by now. None when there
/// is none in time.
pub(crate) async fn find_successor(
    member: &PlannedInstance,
    surveyed: &ProcessSnapshot,
    lanes: &ProbeLimits,
) -> Option<Found> {
    let group = &member.group;
    let named = group.matching.unit.is_some()
        || group.matching.pid_file.is_some()
        || !group.pid_file.is_empty();
    let patience = match member.instance.outcome {
        _ if named => member.timeout.clamp(AT_ONCE, NAMED),
        // On the way forth it was waited for already.
        Outcome::Died => Duration::ZERO,
        _ => AT_ONCE,
    };
    let deadline = Instant::now() + patience;
    let has_workers = group
        .confirm
        .iter()
        .any(|fact| fact.source == Source::Workers);
    loop {
        let late = Instant::now() >= deadline;
        let newest = lanes.newest(surveyed, PAUSE);
        for found in if newest.may_have(group) {
            unknown(member, &newest, lanes).await
        } else {
            Vec::new()
        } {
            let id = (found.pid, found.started);
            // A worker that was left behind is no leader, whatever it looks like: it has none of
            // its own.
            if !surveyed.is_before(found.pid, found.started)
                || (has_workers && children(found.pid).is_ok_and(|children| children.is_empty()))
            {
                continue;
            }
            // Where somebody says who leads, a child that only helps with the start is nobody.
            let takes_over = match discover::is_named(&found, group).await {
                Some(is_named) => is_named,
                None => {
                    (late || !named)
                        && (member.new_children.contains(&id) || inherits(&found, member, lanes))
                }
            };
            if takes_over {
                lanes.add_known([id]);
                return Some(found);
            }
        }
        if late {
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Matches of its group that are not in the run and read what `member` did.
pub(crate) async fn unknown(
    member: &PlannedInstance,
    newest: &NewProcesses,
    lanes: &ProbeLimits,
) -> Vec<Found> {
    let group = Group {
        instances: Vec::new(),
        ..(*member.group).clone()
    };
    let ways = discover::ConfigPaths::default();
    let mut same = Vec::new();
    for found in newest.scan.find(&group).await.found {
        let Ok(configs) = discover::configs_of(&found, &group, &ways).await else {
            continue;
        };
        if configs
            .iter()
            .map(|config| &config.path)
            .eq(&member.instance.targets)
            && !lanes.is_known((found.pid, found.started))
        {
            same.push(Found { configs, ..found });
        }
    }
    same
}

/// Whether it holds a listening socket that `member` held.
fn inherits(found: &Found, member: &PlannedInstance, lanes: &ProbeLimits) -> bool {
    let (Ok(held), Ok(listeners)) = (sockets_of(found.pid), lanes.listeners(PAUSE)) else {
        return false;
    };
    held.iter()
        .any(|socket| member.sockets.contains(socket) && listeners.listens(*socket))
}

/// `found` in the place of `member`, proven, or why it is not.
///
/// # Errors
/// The trouble of the new process, after `limit`.
pub(crate) async fn prove(
    found: &Found,
    member: &PlannedInstance,
    fresh: ProofContext<'_>,
    limit: Duration,
    lanes: &ProbeLimits,
) -> Result<PlannedInstance, Failure> {
    let i = &member.instance;
    let mut new = member.clone();
    new.args = found.args.clone().into();
    new.identity = found.identity(&member.group);
    new.instance = crate::event::Instance {
        wave: i.wave,
        validated: i.validated,
        before: i.before.clone(),
        ..found.instance(&i.group)
    };
    let began = Instant::now();
    let proof = proven(&mut new, fresh, limit, lanes).await?;
    (new.instance.proof, new.instance.outcome) = (
        Some(proof),
        if fresh.undo {
            Outcome::Reverted
        } else {
            Outcome::Confirmed
        },
    );
    new.instance.after = fresh.new_content().map(|to| to.sha256.clone());
    new.instance.took_us = u64::try_from(began.elapsed().as_micros()).ok();
    new.signalled = Some(fresh.proof_since());
    new.proven_at = Some(Instant::now());
    // It has answered, whatever the one did whose place it took.
    new.unresponsive = false;
    Ok(new)
}

/// Waits until `new`, which compares with nothing before itself, proves what `fresh` wants; one
/// that has proven it is asked whether it does so still.
///
/// # Errors
/// As [`prove`].
pub(crate) async fn proven(
    new: &mut PlannedInstance,
    fresh: ProofContext<'_>,
    limit: Duration,
    lanes: &ProbeLimits,
) -> Result<Proof, Failure> {
    let pid = new.instance.pid;
    let trouble = |kind: Outcome, text: String| Failure {
        kind: kind.into(),
        text,
    };
    let Ok(pidfd) = hold(&new.instance) else {
        return Err(trouble(Outcome::Died, format!("pid {pid} ended too")));
    };
    let began = Instant::now();
    let mut steady = Samples::of(new.group.samples);
    loop {
        let late = began.elapsed() >= limit;
        let said = steadily(new, fresh, &mut steady, lanes).await;
        if has_ended(&pidfd) {
            return Err(trouble(Outcome::Died, format!("pid {pid} ended too")));
        }
        let said = said.and_then(|proof| match foreign_listeners(new, lanes).as_slice() {
            [] => Ok(proof),
            others => Err(sharing_text(others)),
        });
        match said {
            Ok(proof) => return Ok(proof),
            Err(why) if late => {
                return Err(trouble(Outcome::TimedOut, format!("pid {pid}: {why}")));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// What a new process proves now, in every sample.
async fn steadily(
    new: &mut PlannedInstance,
    fresh: ProofContext<'_>,
    steady: &mut Samples,
    lanes: &ProbeLimits,
) -> Result<Proof, String> {
    let proof = successor_reports(new, fresh, None, lanes)
        .await
        .inspect_err(|_| steady.does_not_hold())?;
    steady.holds();
    let (group, serving) = (new.group.clone(), Source::Http(own("/")));
    let status = group.confirm.is_empty().then_some(&serving);
    for source in steady.questions(group.confirm.iter().map(|fact| &fact.source).chain(status)) {
        successor_reports(new, fresh, Some(source), lanes)
            .await
            .inspect_err(|_| steady.does_not_hold())?;
    }
    Ok(proof)
}

/// What a new process proves now, by the answers of all sources or of `only` one.
async fn successor_reports(
    new: &mut PlannedInstance,
    fresh: ProofContext<'_>,
    only: Option<&Source>,
    lanes: &ProbeLimits,
) -> Result<Proof, String> {
    let group = new.group.clone();
    // That it has read its config is known then, and another install of the same bytes changes
    // nothing of that.
    let before = (new.instance.outcome == Outcome::Confirmed)
        .then_some(new.signalled)
        .flatten();
    if group.needs_endpoint() {
        new.instance.endpoint =
            lanes
                .listeners(PAUSE)?
                .endpoint(new.instance.pid, &new.args, &group)?;
    }
    let i = &new.instance;
    let facts: Vec<Assertion> = group
        .confirm
        .iter()
        .map(|f| f.resolved(fresh.new_content().and_then(Content::file)))
        .collect::<Result<_, _>>()?;
    let asked = || {
        facts
            .iter()
            .filter(|fact| only.is_none_or(|only| *only == fact.source))
    };
    let answers = ProbeResults::within(new.timeout, asked().map(|f| &f.source), new, lanes).await;
    if let Some((_, silence)) = answers.first_error() {
        return Err(silence.message.clone());
    }
    let since = before.unwrap_or_else(|| fresh.proof_since());
    let holds = |fact: &Assertion| match &fact.expectation {
        // There is no before: that it is new shows in its start.
        Expectation::Changed | Expectation::Increased => true,
        Expectation::Replaced => answers
            .read(fact)
            .is_some_and(|now| now.lines().any(|line| line.ends_with(" listens"))),
        Expectation::Equals(_) | Expectation::Contains(_) | Expectation::AfterSignal => answers
            .read(fact)
            .is_some_and(|now| fact.holds(&now, None, since)),
    };
    if let Some(fact) = asked().find(|f| !holds(f)) {
        return Err(answers.why_not(fact, &i.endpoint));
    }
    if group.speaks == Speaks::Hello {
        let told = self_report(&i.endpoint, lanes).await?;
        if !is_its_name(i.pid, i.started, (told.instance.pid, told.instance.started)) {
            return Err(format!("it is answered by pid {}", told.instance.pid));
        }
        // It counts its attempts from its own start.
        new.attempt_seq = told.last_attempt.seq;
        return match fresh.new_content() {
            Some(to) if told.effective.sha256 != to.sha256 => Err("serves another config".into()),
            _ => Ok(Proof::Exact),
        };
    }
    let content = group
        .confirm
        .iter()
        .zip(&facts)
        .any(|(written, new)| other_text(written, new, fresh.changes).is_some());
    if !content && before.is_none() {
        if !fresh.came_later(i.pid, i.started) {
            return Err(
                "was there before its config was, and nothing proves that it has read it".into(),
            );
        }
        if let Some(path) = fresh.replaced() {
            return Err(format!(
                "`{}` holds other bytes by now, and it may have read these",
                path.display()
            ));
        }
    }
    guard::wait_for_handler(i.pid, &group, Duration::ZERO).await?;
    Ok(if content {
        Proof::Content
    } else {
        Proof::Reloaded
    })
}
