//! How often each source of an instance is probed before its answers count.
//!
//! Two processes may answer at one endpoint in turn, one on each config. Each source is therefore
//! probed several times in a row: two probes in a row reach both processes.

use crate::assertion::Source;

/// The factor by which an endpoint is probed more often, once it has answered by the expected
/// config and by another one later.
const UNSTEADY_FACTOR: u32 = 4;

/// Records whether the answers of an instance are steady.
#[derive(Debug)]
pub(crate) struct Samples {
    samples: u32,
    /// True if everything held once.
    held: bool,
    /// True if an assertion did not hold after that.
    fell: bool,
}

impl Samples {
    /// Returns the record of an instance whose assertions must hold in `samples` samples.
    pub(crate) fn of(samples: u32) -> Self {
        Self {
            samples,
            held: false,
            fell: false,
        }
    }

    /// Records that everything holds.
    pub(crate) fn holds(&mut self) {
        self.held = true;
    }

    /// Records that an assertion does not hold.
    pub(crate) fn does_not_hold(&mut self) {
        self.fell |= self.held;
    }

    /// Returns the probes that follow after each of `sources` was probed once, all at the same
    /// time. The concurrent first probes of several sources do not count. If two processes answer
    /// in turn, the next probe of a source may reach the same one again.
    pub(crate) fn questions<'a>(
        &self,
        sources: impl Iterator<Item = &'a Source>,
    ) -> Vec<&'a Source> {
        if self.samples < 2 {
            return Vec::new();
        }
        // The kernel and a log give no answer of another process. They are read last.
        let (last, endpoints): (Vec<&Source>, Vec<&Source>) =
            distinct(sources).partition(|source| source.is_read_once());
        let samples = if self.fell {
            self.samples.saturating_mul(UNSTEADY_FACTOR)
        } else {
            self.samples
        };
        let repeats = if endpoints.len() == 1 {
            samples - 1
        } else {
            samples
        };
        endpoints
            .into_iter()
            .flat_map(|source| (0..repeats).map(move |_| source))
            .chain(last)
            .collect()
    }
}

/// Returns each source once.
pub(crate) fn distinct<'a>(
    sources: impl Iterator<Item = &'a Source>,
) -> impl Iterator<Item = &'a Source> {
    let mut distinct: Vec<&Source> = Vec::new();
    for source in sources {
        if !distinct.contains(&source) {
            distinct.push(source);
        }
    }
    distinct.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_probed_in_a_row_and_the_kernel_once_at_the_end() {
        let sources = [
            Source::Exec(vec!["a".into()]),
            Source::Workers,
            Source::Exec(vec!["b".into()]),
        ];
        let rows = |samples: &Samples, chosen: &[usize]| -> Vec<usize> {
            let questions = samples.questions(chosen.iter().map(|index| &sources[*index]));
            questions
                .iter()
                .filter_map(|source| sources.iter().position(|other| other == *source))
                .collect()
        };
        let three = Samples::of(3);
        assert_eq!(rows(&three, &[0, 1, 2, 0]), [0, 0, 0, 2, 2, 2, 1]);
        assert_eq!(
            rows(&three, &[0, 1]),
            [0, 0, 1],
            "the first probe was the first of the row"
        );
        assert_eq!(rows(&three, &[1]), [1]);
        assert!(rows(&Samples::of(1), &[0, 1, 2]).is_empty());
    }

    #[test]
    fn an_unsteady_instance_is_probed_more_often() {
        let source = Source::Exec(Vec::new());
        let mut samples = Samples::of(3);
        samples.does_not_hold();
        assert_eq!(
            samples.questions(std::iter::once(&source)).len(),
            2,
            "it has not held before"
        );
        samples.holds();
        samples.does_not_hold();
        assert_eq!(samples.questions(std::iter::once(&source)).len(), 11);
    }
}
