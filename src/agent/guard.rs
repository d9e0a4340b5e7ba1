//! Commit-confirmed timers that no session waits for any more: the host goes back to the old config
//! by itself, unless another run has ended the run of the timer.

use std::time::Duration;

use tokio::time::sleep;

use super::host_agent::Agent;
use crate::{
    event::{Event, Interrupts, Verdict},
    execute::execute,
    protocol::Validate,
    runs::{self, RunInfo, Verb},
    screen,
    session::{Caller, RecoverOrder, SessionOptions, survey_recovery},
};

/// The time between two looks at a run whose timer goes on.
const LOOK: Duration = Duration::from_secs(1);

/// The attempts to roll back while another run holds the lock.
const ATTEMPTS: u32 = 3600;

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
            let armed = runs::armed(&state, run).filter(|_| info.open)?;
            if info.running || !armed.left.is_zero() {
                sleep(LOOK.min(armed.left.max(Duration::from_millis(50)))).await;
                continue;
            }
            let end = self.roll_back(&info, armed.seconds).await;
            attempts += 1;
            if end != Verdict::Busy || attempts >= ATTEMPTS {
                return Some(end);
            }
            sleep(LOOK).await;
        }
    }

    /// Restores the old config of a run, and proves it: the journal of that run says all that is
    /// needed. A run that restores an old config itself is finished.
    async fn roll_back(&self, info: &RunInfo, seconds: u64) -> Verdict {
        let Some(state) = self.options.state.clone() else {
            return Verdict::Failed;
        };
        let (_keep, mut interrupts): (_, Interrupts) = tokio::sync::watch::channel(0);
        let reason = format!(
            "the commit-confirmed timer of run {} ended: nothing was heard of its coordinator for \
             {seconds}s",
            info.id
        );
        let order = RecoverOrder {
            verb: if info.installs_old() {
                Verb::Resume
            } else {
                Verb::Revert
            },
            run: Some(info.id.clone()),
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
