//! What an engine asks of one host during a run, and the answers. Both are values: in process they
//! are handed over, and to another machine they go as frames.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ranges;
use crate::{
    event::{Abort, Direction, Event, Instance, Interrupts, Outcome, TargetReport, Verdict},
    fleet::Unproven,
    inventory::HostName,
};

/// An instance as the coordinator knows it. Its place in the host plan is its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InstanceEntry {
    /// Start time in clock ticks since boot.
    pub(crate) started: u64,
    /// Process number.
    pub(crate) pid: i32,
    /// Its group: an index of [`HostPlan::groups`].
    pub(crate) group: u16,
    /// Its wave, from 1.
    pub(crate) wave: u16,
    /// How it ended so far.
    pub(crate) outcome: Outcome,
    /// True if its endpoint did not answer at the survey.
    pub(crate) unresponsive: bool,
}

/// The part of a run that one host has: what its survey found, validated and staged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostPlan {
    /// The groups of the entries.
    pub(crate) groups: Vec<String>,
    /// The instances, in the order of their numbers.
    pub(crate) entries: Vec<InstanceEntry>,
    /// The keys of stores that are targets.
    #[serde(default)]
    pub(crate) keys: Vec<String>,
    /// Instances that the run skips.
    pub(crate) skipped: usize,
    /// How many of them are unresponsive, by group.
    #[serde(default)]
    pub(crate) unresponsive: BTreeMap<String, usize>,
    /// True if a target must be replaced, or an instance signalled.
    pub(crate) has_work: bool,
    /// True if the run is recorded even where no host has work: it ends an earlier run.
    pub(crate) must_record: bool,
    /// True if a target is replaced that no instance reads. It belongs to the first wave.
    pub(crate) has_unread_targets: bool,
}

/// The age up to which a proof counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Freshness {
    /// The end of the last slow action. A proof from before it is stale.
    pub(crate) since: Moment,
    /// The greatest age of a proof.
    pub(crate) age: Duration,
}

/// A moment by the clock of this machine. The clocks of two machines differ, so a frame has its age
/// in microseconds. It is later by the time that the frame took, never earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) Instant);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let age = self.0.elapsed().as_micros();
        to.serialize_u64(u64::try_from(age).unwrap_or(u64::MAX))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let age = Duration::from_micros(u64::deserialize(from)?);
        let now = Instant::now();
        // Without such a moment this machine has just started, and nothing here is that old.
        Ok(Self(now.checked_sub(age).unwrap_or(now)))
    }
}

impl Freshness {
    /// Returns the moment before which a proof is stale.
    #[must_use]
    pub(crate) fn begin(self) -> Instant {
        let oldest = Instant::now().checked_sub(self.age);
        oldest.map_or(self.since.0, |oldest| oldest.max(self.since.0))
    }
}

/// The instances that a rollback is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    /// Instances that failed, and every file that no instance is proven on.
    Named(#[serde(with = "ranges")] Vec<u32>),
    /// Everything that the run has touched, the newest wave first.
    All,
}

/// A request of the engine. Each is carried out to its end before the next one comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub(crate) enum SessionRequest {
    /// Installs the targets of a wave, signals its instances and confirms them.
    Commit {
        /// The number of the wave.
        wave: usize,
        /// True if the run waits or goes on after this wave: its proofs are kept first.
        goes_on: bool,
    },
    /// Restores the old config and confirms it.
    RollBack {
        /// The last wave that the run has begun.
        until: usize,
        scope: Scope,
        /// The reason, for the host's journal.
        why: String,
    },
    /// Probes proven instances again, without a signal.
    Recheck {
        /// The last wave that is probed.
        until: usize,
        /// The proofs that are fresh enough; none if every instance is probed.
        fresh: Option<Freshness>,
    },
    /// Looks at every instance once more, and ends.
    FinalCheck { fresh: Freshness },
    /// Reads the newcomers, the instances and the targets, for the verdict.
    Conclude {
        /// Back if the run rolled everything back.
        direction: Direction,
        fresh: Freshness,
    },
    /// Describes the instances of a wave.
    Describe { wave: usize },
}

/// What a host says at the end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Concluded {
    /// True if each target is what the outcomes of its instances say, and everything was looked at.
    pub(crate) is_known: bool,
    /// Why the host could not look for newcomers, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unseen: Option<String>,
    /// True if a target is new and no instance is proven on it.
    pub(crate) is_new: bool,
    /// Each outcome at the end, with what its group says of an unproven instance; newcomers and
    /// skipped instances too. Each pair stands here once.
    pub(crate) ends: Vec<(Outcome, Unproven)>,
}

/// The answer to a [`SessionRequest`].
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SessionAnswer {
    /// Outcomes that differ from those of the answer before, with the numbers of the instances.
    pub(crate) outcomes: Vec<(Outcome, Numbers)>,
    /// Why instances failed, by number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) failures: Vec<(u32, String)>,
    /// Why the request was not carried out to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) abort: Option<Abort>,
    /// False where there was nothing to do.
    pub(crate) acted: bool,
    /// True if this run has touched an instance or replaced a target.
    pub(crate) is_touched: bool,
    /// True if the rollback content of all of that is known.
    pub(crate) can_roll_back: bool,
    /// False if the host's journal missed an event.
    pub(crate) is_journaled: bool,
    /// The end, for [`SessionRequest::Conclude`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) concluded: Option<Concluded>,
    /// The instances, for [`SessionRequest::Describe`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) instances: Vec<Instance>,
}

/// Numbers of instances. A frame has them as inclusive ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Numbers(#[serde(with = "ranges")] pub(crate) Vec<u32>);

/// The rows of one host in the report of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct HostRows {
    pub(crate) targets: Vec<TargetReport>,
    /// The instances of the plan, then newcomers, then skipped ones.
    pub(crate) instances: Vec<Instance>,
    /// Notes to the operator.
    pub(crate) notes: Vec<Event>,
}

/// The end that the coordinator has decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finish {
    pub(crate) verdict: Verdict,
    pub(crate) reason: String,
    /// True if the run went to its end: it takes the place of earlier runs then.
    pub(crate) supersedes: bool,
}

/// The connection to a host broke, and what it does since is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Lost {
    pub(crate) why: String,
    /// False if the host cannot have got the request: not all of its frame was written.
    pub(crate) is_sent: bool,
}

/// A lost host is there again.
#[derive(Debug, Default)]
pub(crate) struct Returned {
    /// The answer to the request that it was lost in, if it was lost in one.
    pub(crate) answer: Option<SessionAnswer>,
}

/// The way to one host of a run.
pub(crate) trait HostLink {
    /// The host.
    fn name(&self) -> &HostName;

    /// Appends an event of the coordinator to the host's journal.
    fn note(&mut self, event: &Event);

    /// Tells whether the host's journal has every event so far.
    fn is_journaled(&self) -> bool;

    /// Reads what has come since the last answer, and waits for nothing. Gives what is new of the
    /// connection to `emit`.
    ///
    /// # Errors
    /// Fails if the host is lost.
    async fn hear(&mut self, emit: &mut dyn FnMut(&Event)) -> Result<(), Lost>;

    /// Waits until a connection that broke is made again.
    ///
    /// # Errors
    /// Fails if the host is lost.
    async fn settle(
        &mut self,
        _interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<(), Lost> {
        self.hear(emit).await
    }

    /// Looks whether a lost host is there again. Returns the answer to the request that it was lost
    /// in, if there was one; nothing as long as the host is lost.
    async fn returned(&mut self, _emit: &mut dyn FnMut(&Event)) -> Option<Returned> {
        None
    }

    /// Carries out a request, and gives each event to `emit` meanwhile.
    ///
    /// # Errors
    /// Fails if the host is lost.
    async fn request(
        &mut self,
        request: SessionRequest,
        interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<SessionAnswer, Lost>;
}
