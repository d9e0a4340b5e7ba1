//! An instance in a plan: the findings of the survey, and the progress of the run.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ffi::OsString,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    assertion::{Assertion, Expectation},
    config,
    event::{Failure, FailureKind, Instance, Outcome, Proof, ReloadsBy},
    fleet::Group,
    identity::Identity,
    step::{Content, FileLayer},
};

/// The readings that an earlier run took of an instance's `confirm` assertions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PriorReadings {
    /// None were recorded.
    #[default]
    None,
    /// Taken while it ran the config that this run replaces.
    Before(Vec<Option<String>>),
    /// Taken while it ran the config that this run restores.
    After(Vec<Option<String>>),
}

/// The knowledge of the config that an instance ran at the survey.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RanBefore {
    /// It does not report its config, and nothing else shows it.
    #[default]
    Unknown,
    /// A run proved it, or the instance reads the file only at its start; no program has changed
    /// the file since.
    Disk,
}

/// An instance in a plan.
#[derive(Debug, Clone)]
pub struct PlannedInstance {
    /// Pid and start time at the survey, also after a successor took its place.
    pub id: (i32, u64),
    /// The part that is reported.
    pub instance: Instance,
    /// How it is signalled and proven.
    pub group: Arc<Group>,
    /// Its arguments without the program's name. A command line that was rewritten into one string
    /// counts by its words.
    pub args: Arc<[String]>,
    /// The process that the survey saw. Commands about the instance run only while it is the same.
    pub identity: Identity,
    /// Its working directory at the survey.
    pub cwd: PathBuf,
    /// The variables of its environment that its group names, at the survey: its config depends on
    /// them.
    pub variables: Vec<(String, OsString)>,
    /// Inodes of the listening sockets that it held just before its signal. A process that holds
    /// one of them later has inherited it.
    pub sockets: Vec<u64>,
    /// Children that it had after the signal and not before.
    pub new_children: Vec<(i32, u64)>,
    /// Descendants that it had right before its first signal of the run: they run the old config.
    pub workers_before: Vec<(i32, u64)>,
    /// Descendants that do not run the wanted config; none of them may go on accepting.
    pub old_workers: Vec<(i32, u64)>,
    /// Why its descendants could not be read right before its last signal: there may be others.
    pub old_workers_unread: Option<String>,
    /// Paths that the signal does not make it read: a change of one of them needs a restart.
    pub restart_only_paths: Vec<PathBuf>,
    /// Its start in nanoseconds since 1970, rounded down to the earliest possible moment.
    pub started_ns: i128,
    /// The longest time from its signal to its proof.
    pub timeout: Duration,
    /// Its attempt number at the survey, if it reports one.
    pub attempt_seq: u64,
    /// True if its endpoint did not answer at the survey: what it ran before is not known then.
    pub unresponsive: bool,
    /// Keys that it cannot change without a restart, with their values in force.
    pub restart_only: Arc<BTreeMap<String, String>>,
    /// Readings of the group's `confirm` assertions from before the signal, in the same order.
    pub baseline: Vec<Option<String>>,
    /// Readings of the group's `reject` assertions from before the signal, in the same order.
    pub rejected: Vec<Option<String>>,
    /// True if a reload that an earlier run caused may still be in progress. It may load the other
    /// config, so its present answer may change by itself.
    pub signal_may_be_pending: bool,
    /// True if it may run the new config, or be about to, because of an earlier run or its own
    /// start. A rollback of the run includes it then.
    pub may_run_new: bool,
    /// True if it ran the config that this run restores, and was not signalled for another since.
    pub runs_it: bool,
    /// The knowledge of the config that it ran before the run, if it does not report that itself.
    pub ran_before: RanBefore,
    /// Readings of its `confirm` assertions from an earlier run.
    pub prior_readings: PriorReadings,
    /// The moment of its last signal; for a successor, since when its config is the one that it
    /// proved.
    pub signalled: Option<jiff::Timestamp>,
    /// When it was last seen on the config that its outcome names; none before the first probe.
    pub proven_at: Option<Instant>,
    /// Assertions that it satisfied during the rollback.
    pub shown_back: Vec<Assertion>,
    /// True if it listened anywhere right before its signal; recorded only where nothing else of
    /// the instance can be observed.
    pub listened: bool,
    /// When the readings of `baseline` were taken at the survey.
    pub baseline_read_at: Option<Instant>,
    /// The file below its target, where that is a key of a store.
    pub under: Option<Arc<FileLayer>>,
    /// True if it reads a key of a store as well, which is not its target: that it runs its target
    /// does not show that it runs what it would load.
    pub reads_key: bool,
    /// Targets that its program reads by default: neither its command line nor the fleet names
    /// them.
    pub assumed: Vec<PathBuf>,
}

impl PlannedInstance {
    /// Returns an instance that was not probed yet.
    #[must_use]
    pub fn new(instance: Instance, group: Arc<Group>, args: Vec<String>) -> Self {
        let reloads_by = Some(ReloadsBy::of(&group));
        Self {
            id: (instance.pid, instance.started),
            instance: Instance {
                reloads_by,
                ..instance
            },
            args: args.into(),
            identity: Identity::default(),
            cwd: PathBuf::new(),
            variables: Vec::new(),
            sockets: Vec::new(),
            new_children: Vec::new(),
            workers_before: Vec::new(),
            old_workers: Vec::new(),
            old_workers_unread: None,
            restart_only_paths: Vec::new(),
            started_ns: i128::MIN,
            timeout: group.timeout,
            group,
            attempt_seq: 0,
            unresponsive: false,
            restart_only: Arc::default(),
            baseline: Vec::new(),
            rejected: Vec::new(),
            signal_may_be_pending: false,
            may_run_new: false,
            runs_it: false,
            ran_before: RanBefore::Unknown,
            prior_readings: PriorReadings::None,
            signalled: None,
            proven_at: None,
            shown_back: Vec::new(),
            listened: false,
            baseline_read_at: None,
            under: None,
            reads_key: false,
            assumed: Vec::new(),
        }
    }

    /// Records that its endpoint did not answer before the run, for this reason.
    pub fn mark_unresponsive(&mut self, why: String) {
        self.unresponsive = true;
        self.instance.failure = Some(Failure {
            kind: FailureKind::Unresponsive,
            text: why,
        });
    }

    /// Tells whether it was signalled, or may have been.
    #[must_use]
    pub fn is_touched(&self) -> bool {
        !matches!(
            self.instance.outcome,
            Outcome::Untouched | Outcome::Unchanged | Outcome::Refused
        )
    }

    /// Tells whether its outcome lets a run go on.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(
            self.instance.outcome,
            Outcome::Confirmed | Outcome::Unconfirmed | Outcome::Unchanged | Outcome::Reverted
        )
    }

    /// Tells whether it did not prove its config, though neither this run nor an earlier one has
    /// signalled it.
    #[must_use]
    pub fn failed_unsignalled(&self) -> bool {
        self.instance.outcome == Outcome::TimedOut
            && self.signalled.is_none()
            && !self.signal_may_be_pending
            && !self.may_run_new
    }

    /// Tells whether only its answers from before the run show that it is on the old config again,
    /// while the config that it ran then is not known.
    #[must_use]
    pub fn is_back_by_answers_alone(&self) -> bool {
        let compares = |assertion: &Assertion| assertion.expectation == Expectation::Changed;
        self.ran_before == RanBefore::Unknown
            && self.instance.proof == Some(Proof::Content)
            && self.group.confirm.iter().all(compares)
    }

    /// Returns the digest of the whole config that the instance merges from its file and this value
    /// of its key.
    #[must_use]
    pub fn merged_sha256(&self, value: &str) -> String {
        let file = self.under.as_ref().map(|file| file.sha256.as_str());
        config::digest_of_layers(file.into_iter().chain([value]))
    }

    /// Returns the bytes that assertions take values from, if the instance reads `content`: those
    /// of a file, or the keys of all layers. None of a directory.
    #[must_use]
    pub fn whole_config<'a>(&self, content: &'a Content) -> Option<Cow<'a, [u8]>> {
        let bytes = content.file()?;
        let merged = self
            .under
            .as_ref()
            .and_then(|file| config::overlaid(&file.bytes, bytes));
        Some(merged.map_or(Cow::Borrowed(bytes), |text| Cow::Owned(text.into_bytes())))
    }

    /// Ends it in `outcome`; the first failure is the one that is kept.
    pub fn fail(&mut self, outcome: Outcome, failure: Failure) {
        self.instance.outcome = outcome;
        match &mut self.instance.failure {
            // An endpoint that did not answer before the run is not yet a result of the signal.
            Some(first) if first.kind == FailureKind::Unresponsive => {
                *first = Failure {
                    text: format!(
                        "{} (unresponsive before the run: {})",
                        failure.text, first.text
                    ),
                    ..failure
                };
            }
            Some(_) => {}
            none => *none = Some(failure),
        }
    }

    /// Refuses it, for this reason.
    pub fn refuse(&mut self, why: String) {
        self.fail(
            Outcome::Refused,
            Failure {
                kind: Outcome::Refused.into(),
                text: why,
            },
        );
    }
}
