//! Commit-confirmed timers that no session waits for any more: the host goes back to the old config
//! by itself, unless another run has ended the run of the timer.

use std::{path::Path, time::Duration};

use tokio::time::sleep;

use super::host_agent::Agent;
use crate::{
    event::{Event, Interrupts, Verdict},
    execute::execute,
    protocol::Validate,
    runs::{self, Armed, RunInfo, Verb},
    screen,
    session::{Caller, RecoverOrder, SessionOptions, survey_recovery},
};

/// The time between two looks at a run whose timer goes on.
const LOOK: Duration = Duration::from_secs(1);

/// The attempts to roll back while another run holds the lock.
const ATTEMPTS: u32 = 3600;

/// The most runs that are followed, each of which continues the one before.
const MOST_RUNS: usize = 100;

impl Agent {
    /// Guards every open run of this host whose timer is armed, until none is left. Returns the
    /// worst end of them.
    pub(super) async fn guard_all(&self) -> Verdict {
        let Some(state) = self.options.state.clone() else {
            screen::tell(&screen::failure("there is no state directory on this host"));
            return Verdict::Failed;
        };
        let mut worst = Verdict::Converged;
        let open = runs::open_runs(&state);
        let guards = open.iter().map(|run| self.guard(&run.id));
        for verdict in futures_util::future::join_all(guards)
            .await
            .into_iter()
            .flatten()
        {
            if verdict.exit() > worst.exit() {
                worst = verdict;
            }
        }
        worst
    }

    /// Waits for the end of a run's timer, and rolls the host back then. Returns how that ended;
    /// none if the run has no timer, or if another run has ended it.
    pub(super) async fn guard(&self, run: &str) -> Option<Verdict> {
        let state = self.options.state.clone()?;
        let mut attempts = 0;
        loop {
            let info = RunInfo::of(&state, run);
            let armed = timer_of(&state, &info)?;
            let last = last_of_chain(&state, info);
            let left = runs::armed(&state, &last.id).unwrap_or(armed).left;
            if last.running || !left.is_zero() {
                sleep(LOOK.min(left.max(Duration::from_millis(50)))).await;
                continue;
            }
            let end = self.roll_back(run, &last, armed.seconds).await;
            attempts += 1;
            if end != Verdict::Busy || attempts >= ATTEMPTS {
                return Some(end);
            }
            sleep(LOOK).await;
        }
    }

    /// Restores the old config of a run, and proves it: its journal, and that of the `last` run
    /// that continues it, say all that is needed. A run that restores an old config itself is
    /// finished.
    async fn roll_back(&self, run: &str, last: &RunInfo, seconds: u64) -> Verdict {
        let Some(state) = self.options.state.clone() else {
            return Verdict::Failed;
        };
        let (_keep, mut interrupts): (_, Interrupts) = tokio::sync::watch::channel(0);
        let reason = format!(
            "the commit-confirmed timer of run {run} ended: nothing was heard of its coordinator \
             for {seconds}s"
        );
        let order = RecoverOrder {
            verb: if last.installs_old() {
                Verb::Resume
            } else {
                Verb::Revert
            },
            run: Some(last.id.clone()),
            fleet: None,
            caller: Caller::Timer,
            options: SessionOptions {
                id: runs::new_id(),
                host: self.name(),
                validate: Validate::Auto,
                dry_run: false,
                include_unresponsive: false,
                timeout: None,
                lock_timeout: Duration::ZERO,
                claimed: None,
                reason: Some(reason.clone()),
                command: Vec::new(),
                state,
                state_args: String::new(),
                keep: self.options.keep,
            },
        };
        let mut ignore = |_: &Event| {};
        let ended = match survey_recovery(order, &mut interrupts, &mut ignore).await {
            Ok(prepared) => execute(prepared, &mut interrupts, &mut ignore).await,
            Err(abort) => Err(abort),
        };
        let (verdict, why) = match ended {
            Ok(report) => (report.verdict, report.reason),
            Err(abort) => (abort.verdict, abort.reason),
        };
        if verdict != Verdict::Busy {
            screen::tell(&format!("{reason}; exit code {}: {why}", verdict.exit()));
        }
        verdict
    }
}

/// Returns the timer of an open run. A run that continues another one, and has not touched anything
/// itself yet, has the timer of that one. None if no timer is armed.
fn timer_of(state: &Path, run: &RunInfo) -> Option<Armed> {
    let mut run = run.clone();
    for _ in 0..MOST_RUNS {
        if !run.open || run.end.is_some() {
            return None;
        }
        if let Some(armed) = runs::armed(state, &run.id) {
            return Some(armed);
        }
        run = RunInfo::of(state, run.began?.of.as_deref()?);
    }
    None
}

/// Returns the last of the open runs that continue a run: a resume, or a rollback that was killed.
/// Nothing restores the config from before a run as long as a later one is open.
fn last_of_chain(state: &Path, run: RunInfo) -> RunInfo {
    let open = runs::open_runs(state);
    let mut last = run;
    for _ in 0..MOST_RUNS {
        let continues = |later: &&RunInfo| {
            let of = later.began.as_ref().and_then(|began| began.of.as_deref());
            of == Some(last.id.as_str())
        };
        match open.iter().find(continues) {
            Some(later) => last = later.clone(),
            None => break,
        }
    }
    last
}
