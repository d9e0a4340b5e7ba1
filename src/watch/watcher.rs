//! The loop of the watch: looks at processes and contents, waits for changes, and starts attempts.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt};
use sd_notify::NotifyState;

use super::{
    attempt::{Attempt, Ended, Proven},
    content::Content,
    inotify::{Unwatched, Watches},
    keys::KeyWatches,
    lines::{self, About, NextAttempt},
    metrics::{Contents, Metrics},
    observed::Observed,
    options::Options,
    schedule::{Cause, Schedule, touches},
    subject::Subject,
};
use crate::{
    event::{Interrupts, Verdict, check_interrupts, interrupted},
    execute::RunOptions,
    fleet::Group,
    report::Reporter,
    runs::{self, RunInfo},
    serve::notify,
};

/// The time between two looks at all processes and contents, without any event. It covers what
/// inotify(7) does not tell.
const LOOK: Duration = Duration::from_secs(30);

/// The time between two looks while the last attempt of a group has failed: its instances may have
/// been started again.
const LOOK_AFTER_FAILURE: Duration = Duration::from_secs(2);

/// The time between two reads of the contents if a place is not watched.
const POLL: Duration = Duration::from_secs(2);

/// The least time between two reads of the contents after events.
const GAP: Duration = Duration::from_millis(50);

mod fleet;
mod look;

/// A group that is watched.
struct Watched {
    name: String,
    schedule: Schedule,
    subjects: BTreeSet<Subject>,
    /// Its processes at the end of the last attempt, by pid and start time.
    instances: BTreeSet<(i32, u64)>,
}

/// What ends a wait.
enum Wake {
    Interrupt,
    Reload,
    Change,
    Time,
}

/// The watch of a fleet.
pub(super) struct Watcher {
    options: Options,
    groups: Vec<Watched>,
    watches: Watches,
    keys: KeyWatches,
    /// Why a place is not watched.
    unwatched: Option<Unwatched>,
    metrics: Arc<Metrics>,
    reporter: Reporter,
    interrupts: Interrupts,
    looked: Instant,
    read: Instant,
    /// True if an event came since the last read.
    is_dirty: bool,
}

impl Watcher {
    pub(super) fn new(options: Options, metrics: Arc<Metrics>, interrupts: Interrupts) -> Self {
        let RunOptions {
            output, verbose, ..
        } = options.shared;
        let now = Instant::now();
        let mut watcher = Self {
            options,
            groups: Vec::new(),
            watches: Watches::default(),
            keys: KeyWatches::default(),
            unwatched: None,
            metrics,
            reporter: Reporter::new(output, !verbose, verbose),
            interrupts,
            looked: now,
            read: now,
            is_dirty: false,
        };
        watcher.take_groups();
        watcher
    }

    /// Watches until an interrupt, or for one attempt. Returns the exit code.
    pub(super) async fn run(&mut self, reloads: Pin<&mut impl Stream<Item = ()>>) -> u8 {
        self.look().await;
        self.say_watched();
        notify(&[NotifyState::Ready, NotifyState::Status("watching")]);
        if self.options.once {
            self.run_once().await
        } else {
            self.run_until_interrupted(reloads).await
        }
    }

    /// Makes one attempt over each group. Returns the exit code of the first that did not converge.
    async fn run_once(&mut self) -> u8 {
        let mut exit = Verdict::Converged.exit();
        while let Some(ended) = self.attempt_due().await {
            if exit == Verdict::Converged.exit() {
                exit = ended.verdict.exit();
            }
        }
        let is_complete = self.groups.iter().all(|g| g.schedule.attempted().is_some());
        if is_complete || exit != Verdict::Converged.exit() {
            exit
        } else {
            Verdict::Failed.exit()
        }
    }

    async fn run_until_interrupted(&mut self, mut reloads: Pin<&mut impl Stream<Item = ()>>) -> u8 {
        loop {
            if check_interrupts(&self.interrupts).is_err() {
                return 0;
            }
            if let Some(ended) = self.attempt_due().await {
                let is_interrupted = check_interrupts(&self.interrupts).is_err();
                if is_interrupted && touches(ended.verdict) {
                    return ended.verdict.exit();
                }
                continue;
            }
            match self.wait(&mut reloads).await {
                Wake::Interrupt => return 0,
                Wake::Reload => self.reload().await,
                Wake::Change => self.is_dirty = true,
                Wake::Time => {}
            }
            self.catch_up().await;
        }
    }

    /// Prints what is left to print.
    pub(super) fn close(&mut self) {
        self.reporter.close();
    }

    /// Waits for an event, or until something is due.
    async fn wait(&mut self, reloads: &mut Pin<&mut impl Stream<Item = ()>>) -> Wake {
        let until = self.next_time();
        let events = async {
            if self.is_dirty {
                std::future::pending::<()>().await;
            }
            tokio::select! {
                () = self.watches.changed() => {}
                () = self.keys.changed() => {}
            }
        };
        tokio::select! {
            () = interrupted(&self.interrupts, 0) => Wake::Interrupt,
            Some(()) = reloads.next() => Wake::Reload,
            () = events => Wake::Change,
            () = tokio::time::sleep_until(until.into()) => Wake::Time,
        }
    }

    /// Returns when something is due at the latest.
    fn next_time(&self) -> Instant {
        let due = self.groups.iter().filter_map(|group| group.schedule.next());
        let read = self.is_dirty.then(|| self.read + GAP);
        let poll = self.unwatched.as_ref().map(|_| self.read + POLL);
        due.chain(read)
            .chain(poll)
            .chain([self.looked + self.look_interval()])
            .min()
            .unwrap_or(self.looked + LOOK)
    }

    fn look_interval(&self) -> Duration {
        if self.groups.iter().any(|group| group.schedule.has_failed()) {
            LOOK_AFTER_FAILURE
        } else {
            LOOK
        }
    }

    /// Starts one attempt, if a group is due. It covers every group that is due and depends on the
    /// first of them.
    async fn attempt_due(&mut self) -> Option<Ended> {
        if check_interrupts(&self.interrupts).is_err() {
            return None;
        }
        let now = Instant::now();
        let once = self.options.once;
        let due = |group: &Watched| {
            let cause = group.schedule.due(now)?;
            (!once || cause == Cause::Start).then(|| (group.name.clone(), cause))
        };
        if !self.groups.iter().any(|group| due(group).is_some()) {
            return None;
        }
        // A fresh read: the content may have changed since the last event, or have moved on.
        self.look().await;
        if check_interrupts(&self.interrupts).is_err() {
            return None;
        }
        let due: Vec<(String, Cause)> = self.groups.iter().filter_map(due).collect();
        let (first, cause) = due.first()?.clone();
        let together = self.together_with(&first);
        let names = due.into_iter().map(|(name, _)| name);
        let names: BTreeSet<String> = names.filter(|name| together.contains(name)).collect();
        let mut about = self.about(&names, cause);
        for group in self.groups.iter_mut().filter(|g| names.contains(&g.name)) {
            group.schedule.begin();
        }
        notify(&[NotifyState::Status(&format!(
            "run of {}",
            about.groups.join(", ")
        ))]);
        let ended = self.attempt(&about, &names).await;
        self.end_attempt(&names, &ended).await;
        let now = Instant::now();
        let attempted = self.groups.iter().filter(|g| names.contains(&g.name));
        about.next = match attempted.filter_map(|g| g.schedule.retries_in(now)).min() {
            _ if self.options.once => NextAttempt::None,
            Some(wait) => NextAttempt::After(wait),
            None => NextAttempt::Change,
        };
        about.open = self.open_runs(&ended, &about.groups);
        self.report(&about, &ended);
        Some(ended)
    }

    fn about(&self, names: &BTreeSet<String>, cause: Cause) -> About {
        let groups = || self.groups.iter().filter(|g| names.contains(&g.name));
        let changed = groups().flat_map(|group| {
            let schedule = &group.schedule;
            let before = schedule.attempted().cloned().unwrap_or_default();
            let differences = schedule.seen().differences(&before);
            differences.map(Subject::name).collect::<BTreeSet<_>>()
        });
        About {
            groups: groups().map(|group| group.name.clone()).collect(),
            cause,
            changed: changed.collect(),
            next: NextAttempt::Change,
            open: Vec::new(),
        }
    }

    /// Returns the open runs over groups whose attempt has not converged, with their commands.
    fn open_runs(&self, ended: &Ended, groups: &[String]) -> Vec<String> {
        let RunOptions {
            state, state_args, ..
        } = &self.options.shared;
        if ended.verdict == Verdict::Converged {
            return Vec::new();
        }
        let concerns = |run: &RunInfo| match &run.began {
            Some(began) => began.groups.iter().any(|name| groups.contains(name)),
            None => true,
        };
        let open = runs::open_runs(state).into_iter().filter(concerns);
        open.map(|run| {
            let next = runs::next(state, &run, state_args);
            let next: Vec<String> = next.iter().map(|command| format!("`{command}`")).collect();
            format!("run {}: {}", run.id, next.join(" or "))
        })
        .collect()
    }

    async fn attempt(&mut self, about: &About, names: &BTreeSet<String>) -> Ended {
        let is_due = |group: &Group| names.contains(&group.name);
        let mut fleet = self.options.fleet.clone();
        fleet.groups.retain(is_due);
        let shared = RunOptions {
            reason: Some(format!("hello watch: {}", lines::cause(about))),
            ..self.options.shared.clone()
        };
        let attempt = Attempt {
            fleet,
            shared: &shared,
            reporter: &mut self.reporter,
            interrupts: &mut self.interrupts,
        };
        // Boxed: the future of a run is large, and part of every other one here.
        Box::pin(attempt.run()).await
    }

    /// Looks at what an attempt has left, and records its end.
    async fn end_attempt(&mut self, names: &BTreeSet<String>, ended: &Ended) {
        let at = jiff::Timestamp::now();
        self.look().await;
        self.metrics.run(ended.verdict);
        for group in self.groups.iter_mut().filter(|g| names.contains(&g.name)) {
            self.metrics.attempt(&group.name, ended.verdict, at);
            match ended.proven(&group.name) {
                Proven::Contents(contents) => self.metrics.set_proven(&group.name, contents),
                Proven::Unknown => self.metrics.set_proven(&group.name, Contents::new()),
                Proven::AsBefore => {}
            }
            let schedule = &mut group.schedule;
            if let Some(left) = restored(schedule, ended) {
                schedule.leave(left);
            }
            schedule.end(ended.verdict, Instant::now(), fastrand::f64());
        }
    }

    fn report(&mut self, about: &About, ended: &Ended) {
        let (word, text) = lines::of_attempt(about, ended);
        let is_good = ended.verdict == Verdict::Converged;
        if !(is_good && self.options.shared.quiet) {
            self.reporter.say(word, &text);
        }
        notify(&[NotifyState::Status(&format!("{word} {text}"))]);
    }
}

/// Returns the content of a group if the run itself has restored an old content on the disk, and no
/// other program has changed that since.
fn restored(schedule: &Schedule, ended: &Ended) -> Option<Observed> {
    let attempted = schedule.attempted()?;
    let seen = schedule.seen();
    let is_restored = |subject: &Subject| {
        let digest = seen.0.get(subject).map(|digest| &digest.content);
        ended.targets.iter().any(|target| {
            let disk = target.disk.as_ref().filter(|disk| **disk != target.to);
            disk.is_some()
                && target.disk == target.from
                && digest.and_then(Content::sha256) == disk
                && subject.leads_to(&target.path)
        })
    };
    let mut differences = seen.differences(attempted).peekable();
    differences.peek()?;
    differences.all(is_restored).then(|| seen.clone())
}
