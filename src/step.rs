//! The vocabulary of a plan: a step replaces targets and signals the instances that read them. A
//! rollback is a flipped step, and no second implementation.

use std::path::PathBuf;

use crate::{
    event::{Direction, Instance, KeyReport, Outcome, SourceReport, TargetReport},
    inventory::HostName,
};

mod content;
mod difference;
mod instance;
mod layers;
mod survey_result;

pub(crate) use self::{
    content::{Content, kind_of, short},
    difference::{ContentDifference, Side},
    instance::{PlannedInstance, PriorReadings, RanBefore},
    layers::{FileLayer, LayersError},
    survey_result::{StagedSource, Survey, SurveyedTarget},
};

/// The change of one target. To install it is to make the target `to`: a target that is `from` is
/// exchanged, one that is `to` already stays, and any other content is left alone.
#[derive(Debug, Clone)]
pub struct TargetChange {
    /// Resolved path; the URL of a key.
    pub path: PathBuf,
    /// The revision of a key at the survey; none of a file or directory.
    pub rev: Option<String>,
    /// The content before the run, which is the rollback content; none if its bytes are not known.
    pub from: Option<Content>,
    /// The candidate.
    pub to: Content,
    /// The key of a store that the candidate was read from.
    pub source: Option<SourceReport>,
    /// True if its content must not be shown.
    pub secret: bool,
}

/// The instances of one wave that read the same targets; without a target they are only signalled
/// and confirmed.
#[derive(Debug, Clone)]
pub struct Step {
    /// The targets, all of which are replaced before the first signal.
    pub changes: Vec<TargetChange>,
    /// The instances that read them.
    pub instances: Vec<PlannedInstance>,
    /// The config that the step leads to.
    pub direction: Direction,
}

impl Step {
    /// Tells whether any instance gets a signal.
    #[must_use]
    pub fn is_work(&self) -> bool {
        self.instances
            .iter()
            .any(|m| m.instance.outcome != Outcome::Unchanged)
    }

    /// Returns each change reversed; none if the rollback content of one is not known.
    #[must_use]
    pub fn changes_back(&self) -> Option<Vec<TargetChange>> {
        let reversed = |change: &TargetChange| {
            Some(TargetChange {
                path: change.path.clone(),
                rev: change.rev.clone(),
                from: Some(change.to.clone()),
                to: change.from.clone()?,
                source: None,
                secret: change.secret,
            })
        };
        self.changes.iter().map(reversed).collect()
    }

    /// Returns the step that rolls this one back; none if the rollback content is not known.
    ///
    /// `from` and `to` change places. The instances that were touched are signalled again, and so
    /// are those that ran `to` already.
    #[must_use]
    pub fn flip(&self) -> Option<Self> {
        let changes = self.changes_back()?;
        let has_effect = self.changes.iter().any(|change| {
            change
                .from
                .as_ref()
                .is_some_and(|from| from.sha256 != change.to.sha256)
        });
        let back = |m: &PlannedInstance| match m.instance.outcome {
            // It needed no signal because it ran the content that is removed now.
            Outcome::Unchanged if has_effect => Some(PlannedInstance {
                instance: Instance {
                    outcome: Outcome::Confirmed,
                    ..m.instance.clone()
                },
                ..m.clone()
            }),
            // It was rolled back alone already.
            Outcome::Reverted => None,
            _ => (m.is_touched() || m.may_run_new).then(|| m.clone()),
        };
        Some(Self {
            changes,
            instances: self.instances.iter().filter_map(back).collect(),
            direction: !self.direction,
        })
    }
}

impl TargetChange {
    /// Reports the target; `disk` is the digest of its present content.
    #[must_use]
    pub fn report(&self, disk: Option<String>) -> TargetReport {
        let from = self.from.as_ref().map(|content| content.sha256.clone());
        TargetReport {
            host: HostName::local(),
            path: self.path.clone(),
            kind: kind_of(&self.path, &self.to),
            key: self.rev.clone().map(|rev| KeyReport { rev, own: None }),
            from,
            to: self.to.sha256.clone(),
            disk,
            secret: Some(self.secret),
            source: self.source.clone(),
            entries: Vec::new(),
            diff: None,
        }
    }
}
