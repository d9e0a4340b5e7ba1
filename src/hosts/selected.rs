//! The hosts that `--on` and `--except` name.

use std::collections::BTreeSet;

use crate::inventory::{Expression, HostEntry, HostName, Unmatched};

/// Returns the hosts that `on` selects and `except` does not, in their order.
///
/// # Errors
/// Fails with a term that fits no host.
pub(crate) fn selected(
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
