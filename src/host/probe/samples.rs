//! How often each source of an instance must say the same before its answers count.
//!
//! An endpoint may hand its questions to two processes in turn, one on each config. Each source is
//! therefore asked several times in a row: of two processes that answer in turn, two such questions
//! meet both.

use crate::fact::Source;

/// How many times as often an endpoint is asked that has answered by the new config, and by another
/// one later.
const FELL: u32 = 4;

/// What is known of how steadily an instance answers.
#[derive(Debug)]
pub(crate) struct Samples {
    samples: u32,
    held: bool,
    fell: bool,
}

impl Samples {
    /// Of one that must say the same in so many samples.
    pub(crate) fn of(samples: u32) -> Self {
        Self {
            samples,
            held: false,
            fell: false,
        }
    }

    /// Everything holds.
    pub(crate) fn holds(&mut self) {
        self.held = true;
    }

    /// Something does not hold.
    pub(crate) fn does_not_hold(&mut self) {
        self.fell |= self.held;
    }

    /// The questions that follow after each of `sources` was asked once, all at the same time. One
    /// that is asked beside others was perhaps answered by another process than the next one would
    /// be, and does not count.
    pub(crate) fn questions<'a>(
        &self,
        sources: impl Iterator<Item = &'a Source>,
    ) -> Vec<&'a Source> {
        if self.samples < 2 {
            return Vec::new();
        }
        // The kernel is no process that could answer for another one. Its word comes last.
        let (kernel, asked): (Vec<&Source>, Vec<&Source>) =
            distinct(sources).partition(|source| source.is_kernel());
        let often = if self.fell {
            self.samples.saturating_mul(FELL)
        } else {
            self.samples
        };
        let more = if asked.len() == 1 { often - 1 } else { often };
        asked
            .into_iter()
            .flat_map(|source| (0..more).map(move |_| source))
            .chain(kernel)
            .collect()
    }
}

/// Each of them once.
pub(crate) fn distinct<'a>(
    sources: impl Iterator<Item = &'a Source>,
) -> impl Iterator<Item = &'a Source> {
    let mut all: Vec<&Source> = Vec::new();
    for source in sources {
        if !all.contains(&source) {
            all.push(source);
        }
    }
    all.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_asked_in_a_row_and_the_kernel_once_at_the_end() {
        let all = [
            Source::Exec(vec!["a".into()]),
            Source::Workers,
            Source::Exec(vec!["b".into()]),
        ];
        let steady = Samples::of(3);
        let rows = |steady: &Samples, some: &[usize]| -> Vec<usize> {
            let asked = steady.questions(some.iter().map(|at| &all[*at]));
            asked
                .iter()
                .filter_map(|source| all.iter().position(|s| s == *source))
                .collect()
        };
        assert_eq!(rows(&steady, &[0, 1, 2, 0]), [0, 0, 0, 2, 2, 2, 1]);
        assert_eq!(
            rows(&steady, &[0, 1]),
            [0, 0, 1],
            "the first question was the first of the row"
        );
        assert_eq!(rows(&steady, &[1]), [1]);
        assert!(rows(&Samples::of(1), &[0, 1, 2]).is_empty());
    }

    #[test]
    fn one_that_fell_back_is_asked_more_often() {
        let source = Source::Exec(Vec::new());
        let mut steady = Samples::of(3);
        steady.does_not_hold();
        assert_eq!(
            steady.questions(std::iter::once(&source)).len(),
            2,
            "it has not held before"
        );
        steady.holds();
        steady.does_not_hold();
        assert_eq!(steady.questions(std::iter::once(&source)).len(), 11);
    }
}
