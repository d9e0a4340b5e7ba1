//! The entries of a run by group and host.

use std::collections::BTreeMap;

use super::policy::{WaveEntry, WaveError};

/// The instances of one group on one host.
#[derive(Debug)]
pub(super) struct Part {
    /// The index of the host.
    pub host: u32,
    /// The number of its instances that are signalled.
    pub signalled: u32,
    /// The number of those that are responsive.
    pub responsive: u32,
    /// The number of its instances that are signalled by the end of a wave, and the number of that
    /// wave, in order.
    pub ends: Vec<(u32, u32)>,
    /// The wave of instances without a signal where `ends` has none.
    pub first_wave: u32,
    /// The number of responsive instances that have a wave.
    placed_responsive: u32,
    /// The number of responsive instances, and of the unresponsive ones that have a wave.
    placed_unresponsive: u32,
}

impl Part {
    fn count(&mut self, entry: WaveEntry) {
        if entry.signalled {
            self.signalled += 1;
            self.responsive += u32::from(entry.responsive);
            self.placed_unresponsive = self.responsive;
        }
    }

    /// Returns the wave of the next instance.
    fn next(&mut self, entry: WaveEntry) -> u32 {
        let place = if !entry.signalled {
            1
        } else if entry.responsive {
            self.placed_responsive += 1;
            self.placed_responsive
        } else {
            self.placed_unresponsive += 1;
            self.placed_unresponsive
        };
        let index = self.ends.partition_point(|(end, _)| *end < place);
        self.ends
            .get(index)
            .map_or(self.first_wave, |(_, wave)| *wave)
    }
}

/// The parts of a run by the index of their group and host.
#[derive(Debug)]
pub(super) struct Parts(BTreeMap<(u16, u32), Part>);

/// Returns the entries in pieces of one part.
fn pieces(entries: &[WaveEntry]) -> impl Iterator<Item = &[WaveEntry]> {
    entries.chunk_by(|a, b| (a.group, a.host) == (b.group, b.host))
}

fn key(piece: &[WaveEntry]) -> Option<(u16, u32)> {
    piece.first().map(|entry| (entry.group, entry.host))
}

impl Parts {
    pub(super) fn of(entries: &[WaveEntry]) -> Self {
        let mut parts: BTreeMap<(u16, u32), Part> = BTreeMap::new();
        for piece in pieces(entries) {
            let Some(key) = key(piece) else { continue };
            let part = parts.entry(key).or_insert(Part {
                host: key.1,
                signalled: 0,
                responsive: 0,
                ends: Vec::new(),
                first_wave: 1,
                placed_responsive: 0,
                placed_unresponsive: 0,
            });
            piece.iter().for_each(|entry| part.count(*entry));
        }
        Self(parts)
    }

    /// Returns the parts of one group in the order of the hosts.
    pub(super) fn of_group(&mut self, group: usize) -> Vec<&mut Part> {
        let Ok(group) = u16::try_from(group) else {
            return Vec::new();
        };
        let own = self.0.range_mut((group, 0)..=(group, u32::MAX));
        own.map(|(_, part)| part).collect()
    }

    /// Returns the wave of each entry, which are those that the parts were made from.
    ///
    /// # Errors
    /// Fails if a number is too large.
    pub(super) fn waves(mut self, entries: &[WaveEntry]) -> Result<Vec<u16>, WaveError> {
        let mut waves = Vec::with_capacity(entries.len());
        for piece in pieces(entries) {
            let Some(part) = key(piece).and_then(|key| self.0.get_mut(&key)) else {
                continue;
            };
            for entry in piece {
                let wave = u16::try_from(part.next(*entry)).map_err(|_| WaveError::TooMany)?;
                waves.push(wave);
            }
        }
        Ok(waves)
    }
}
