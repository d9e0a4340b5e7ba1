//! The hosts that a command is about: those of the fleet that `--on` and `--except` name.

use std::collections::BTreeSet;

use super::inventory::{InventoryFault, gather};
use crate::{
    event::Verdict,
    fleet::Hosts,
    inventory::{Expression, HostEntry, HostName, Unmatched},
};

/// Why no host was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelectFault {
    #[error(transparent)]
    Inventory(#[from] InventoryFault),
    #[error(transparent)]
    Unmatched(#[from] Unmatched),
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
            Self::Unmatched(_) | Self::Empty | Self::NoneLeft => Verdict::NoMatch,
        }
    }
}

/// Returns the hosts that `on` selects, or all without a term, less those that `except` selects, in
/// the order of the inventory.
///
/// # Errors
/// Fails if the inventory command fails, if a term fits no host, or if no host is left.
pub(crate) async fn select(
    hosts: &Hosts,
    on: &Expression,
    except: &Expression,
) -> Result<Vec<HostEntry>, SelectFault> {
    let all = gather(hosts).await?;
    if all.is_empty() {
        return Err(SelectFault::Empty);
    }
    let selected = selected(all, on, except)?;
    if selected.is_empty() {
        return Err(SelectFault::NoneLeft);
    }
    Ok(selected)
}

fn selected(
    hosts: Vec<HostEntry>,
    on: &Expression,
    except: &Expression,
) -> Result<Vec<HostEntry>, Unmatched> {
    // No run of this version has other hosts than this machine.
    let no_run = |_: &str, _, _: &HostName| false;
    let wanted: BTreeSet<usize> = if on.is_empty() {
        (0..hosts.len()).collect()
    } else {
        on.select(&hosts, no_run)?.into_iter().collect()
    };
    let excepted: BTreeSet<usize> = if except.is_empty() {
        BTreeSet::new()
    } else {
        except.select(&hosts, no_run)?.into_iter().collect()
    };
    let kept = hosts.into_iter().enumerate();
    Ok(kept
        .filter(|(index, _)| wanted.contains(index) && !excepted.contains(index))
        .map(|(_, host)| host)
        .collect())
}
