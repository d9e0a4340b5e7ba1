//! The hosts that a command is about: those of the fleet that `--on` and `--except` name.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::inventory::{InventoryFault, gather};
use crate::{
    event::Verdict,
    fleet::Hosts,
    inventory::{Ended, Expression, HostEntry, HostName, Unmatched},
    runs::{HostEnds, RunError},
};

/// Why no host was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelectFault {
    #[error(transparent)]
    Inventory(#[from] InventoryFault),
    #[error(transparent)]
    Unmatched(#[from] Unmatched),
    #[error("`@{0}` names no earlier run: {1}")]
    Run(String, RunError),
    #[error("the inventory has no host")]
    Empty,
    #[error("--except takes away every host that --on selects")]
    NoneLeft,
}

impl SelectFault {
    /// Returns how a command ends by it.
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Inventory(InventoryFault::Duplicate(_)) => Verdict::Usage,
            Self::Inventory(_) => Verdict::Failed,
            Self::Run(_, why) => why.verdict(),
            Self::Unmatched(_) | Self::Empty | Self::NoneLeft => Verdict::NoMatch,
        }
    }
}

/// Returns the hosts that `on` selects, or all without a term, less those that `except` selects, in
/// the order of the inventory. The indexes in the state directory tell how hosts ended in a run.
///
/// # Errors
/// Fails if the inventory command fails, if a term fits no host, or if no host is left.
pub(crate) async fn select(
    hosts: &Hosts,
    (on, except): (&Expression, &Expression),
    state: Option<&Path>,
) -> Result<Vec<HostEntry>, SelectFault> {
    let all = gather(hosts).await?;
    if all.is_empty() {
        return Err(SelectFault::Empty);
    }
    let selected = selected(all, (on, except), state)?;
    if selected.is_empty() {
        return Err(SelectFault::NoneLeft);
    }
    Ok(selected)
}

fn selected(
    hosts: Vec<HostEntry>,
    (on, except): (&Expression, &Expression),
    state: Option<&Path>,
) -> Result<Vec<HostEntry>, SelectFault> {
    let mut runs: BTreeMap<&str, HostEnds> = BTreeMap::new();
    if let Some(state) = state {
        for (run, _) in on.runs().chain(except.runs()) {
            let ends = HostEnds::of(state, run);
            runs.insert(
                run,
                ends.map_err(|why| SelectFault::Run(run.to_owned(), why))?,
            );
        }
    }
    let of_run = |run: &str, ended: Ended, host: &HostName| {
        runs.get(run).is_some_and(|ends| ends.is(host, ended))
    };
    let wanted: BTreeSet<usize> = if on.is_empty() {
        (0..hosts.len()).collect()
    } else {
        on.select(&hosts, of_run)?.into_iter().collect()
    };
    let excepted: BTreeSet<usize> = if except.is_empty() {
        BTreeSet::new()
    } else {
        except.select(&hosts, of_run)?.into_iter().collect()
    };
    let kept = hosts.into_iter().enumerate();
    Ok(kept
        .filter(|(index, _)| wanted.contains(index) && !excepted.contains(index))
        .map(|(_, host)| host)
        .collect())
}
