//! The findings of a survey.

use std::{collections::BTreeMap, path::PathBuf};

use super::{Content, PlannedInstance};
use crate::event::{Abort, Event, Instance, SourceReport, Verdict};

/// The findings of a survey of one host, which touches nothing and decides nothing.
#[derive(Debug, Default)]
pub struct Survey {
    /// Instances that were found and probed, and that passed every check.
    pub instances: Vec<PlannedInstance>,
    /// Instances that passed every check, and whose endpoint did not answer; each with its failure.
    pub unresponsive: Vec<PlannedInstance>,
    /// Instances that were found and refused, each with its failure.
    pub refused: Vec<Instance>,
    /// Matches that are not in the run: pid and reason.
    pub skipped: Vec<(i32, String)>,
    /// Listed processes that have ended, or that match no longer: pid and reason.
    pub missing: Vec<(i32, String)>,
    /// Findings for the operator that do not end the run.
    pub notes: Vec<Event>,
    /// The first failure of a lock or a directory: another run holds the lock, or a directory
    /// cannot be opened.
    pub abort: Option<Abort>,
    /// The targets by path.
    pub targets: BTreeMap<PathBuf, SurveyedTarget>,
}

/// A target at the survey.
#[derive(Debug, Clone)]
pub struct SurveyedTarget {
    /// Its content on disk, or in its store.
    pub content: Content,
    /// The revision of a key; none of a file or directory.
    pub rev: Option<String>,
    /// Its last change of any kind, in nanoseconds since 1970; for a directory, the change of its
    /// newest entry.
    pub ctime: i128,
    /// The digest of everything that is read through the target and is not part of it; none if
    /// that is not known.
    pub behind: Option<String>,
    /// True if its content must not be shown.
    pub secret: bool,
    /// Its new content as its `source` has it, by the group.
    pub staged: BTreeMap<String, StagedSource>,
}

/// The new content that a group's `source` names for one target.
#[derive(Debug, Clone)]
pub struct StagedSource {
    /// Its path, or the URL of its key.
    pub named: PathBuf,
    /// Its content, or why it is not used; none if the path does not exist.
    pub content: Option<Result<Content, (Verdict, String)>>,
    /// The key and its revision, if its content was read from a store.
    pub key: Option<SourceReport>,
}
