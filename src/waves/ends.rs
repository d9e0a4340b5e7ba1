//! The ends of the waves of one group, in units that are never divided.

use crate::fleet::WaveEnd;

/// The units of a group in the order in which they are taken: its instances, or its hosts.
pub(super) struct Units<'a> {
    /// The number of units.
    pub units: usize,
    /// The number of instances.
    pub instances: usize,
    /// Returns the number of units with at least this many instances.
    pub reach: &'a dyn Fn(usize) -> usize,
    /// Returns the number of units up to the last one that the wave of this index names.
    pub named: &'a dyn Fn(usize) -> usize,
}

/// Returns how many units have been signalled after each wave. The last number is all of them.
///
/// A wave that is a share has one unit more than the one before at least, while there are any. A
/// larger group therefore never makes such a wave empty. A wave of hosts that adds none is no wave.
pub(super) fn ends(waves: &[&WaveEnd], of: &Units<'_>) -> Vec<usize> {
    let mut ends: Vec<usize> = Vec::new();
    let wanted = waves.iter().enumerate().map(|(index, end)| match end {
        WaveEnd::Share(share) => ((of.reach)(share.rounded_up(of.instances)), 1),
        WaveEnd::Hosts { .. } => ((of.named)(index), 0),
    });
    for (wanted, least) in wanted.chain([(of.units, 0)]) {
        let last = ends.last().copied().unwrap_or(0);
        let end = wanted.max(last + least).min(of.units);
        if end > last {
            ends.push(end);
        }
    }
    ends
}
