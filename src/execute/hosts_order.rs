//! A run over other machines, as a command orders it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::continued::EarlierRun;
use crate::{
    fleet::{Count, Fleet, Hosts, Share},
    hosts::CandidateBytes,
    inventory::Expression,
    protocol::{SurveyOrder, TakeOver},
    runs::Verb,
    session::SessionOptions,
};

/// The candidates of a run, by digest.
#[derive(Debug, Default)]
pub(crate) struct Candidates(pub(crate) BTreeMap<String, Arc<[u8]>>);

impl CandidateBytes for Candidates {
    fn bytes(&self, sha256: &str) -> Option<&[u8]> {
        self.0.get(sha256).map(|bytes| &**bytes)
    }
}

/// A run over the hosts of a fleet file.
#[derive(Debug)]
pub(crate) struct HostsOrder<'a> {
    /// The coordinator's fleet file, with its hosts.
    pub(crate) fleet: &'a Fleet,
    pub(crate) hosts: &'a Hosts,
    /// The hosts that the command selects.
    pub(crate) on: &'a Expression,
    pub(crate) except: &'a Expression,
    /// Replaces [`Hosts::max_unreachable`].
    pub(crate) max_unreachable: Option<Share>,
    /// Replaces the count of every group over all hosts.
    pub(crate) count: Option<Count>,
    /// The commit-confirmed timer that each host arms.
    pub(crate) confirm_within: Option<Duration>,
    /// The sessions of another coordinator that are ended first.
    pub(crate) take_over: Option<TakeOver>,
    /// The verb, for the index of the run.
    pub(crate) verb: Verb,
    /// The order that each host surveys.
    pub(crate) order: SurveyOrder,
    pub(crate) candidates: Candidates,
    /// The earlier run that it continues.
    pub(crate) earlier: Option<EarlierRun>,
    /// The options of the command.
    pub(crate) options: SessionOptions,
}
