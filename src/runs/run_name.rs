//! Names of runs as people type them: the first digits of an id, or a place counted from the end.

use std::{io, path::Path};

use super::{forget::bytes_of, info::run_ids, interrupted::RunError};
use crate::names;

/// The fewest digits of a short id. They hold the time of a run to about a minute.
const LEAST: usize = 8;
/// The digits of the time in an id, in milliseconds. No later run has the same ones.
const TIME: usize = 12;
/// The digits of an id.
const WHOLE: usize = 32;

/// The most ids that an error names if several match; more do not fit a line.
const LISTED: usize = 5;

/// Returns the ids of the kept runs that `name` may mean, oldest first.
///
/// `@` is the last run and `@-1` the one before. Anything else is the first digits of an id, in
/// either case, with or without dashes.
///
/// # Errors
/// Fails if the state directory cannot be read.
fn named(state: &Path, name: &str) -> io::Result<Vec<String>> {
    let mut ids = run_ids(state)?;
    if let Some(place) = name.strip_prefix('@') {
        let back = match place {
            "" => Some(0),
            _ => place.strip_prefix('-').and_then(|n| n.parse().ok()),
        };
        let id = back.and_then(|back: usize| ids.into_iter().rev().nth(back));
        return Ok(id.into_iter().collect());
    }
    let digits = digits(name);
    // An empty name is a variable of a script that is not set, and means no run.
    ids.retain(|id| !digits.is_empty() && id.starts_with(&digits));
    Ok(ids)
}

/// Returns the first digits of an id or a digest, as they are stored.
#[must_use]
pub(crate) fn digits(name: &str) -> String {
    name.replace('-', "").to_ascii_lowercase()
}

/// Returns the id that a name is as a whole; none if it is only its first digits, or a place.
#[must_use]
pub(crate) fn whole_id(name: &str) -> Option<String> {
    let digits = digits(name);
    let is_whole = digits.len() == WHOLE && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_whole.then_some(digits)
}

/// Returns the id of the one run that `name` means, as [`named`] reads it.
///
/// # Errors
/// Fails with `Unknown`, `Ambiguous` or `State`.
pub(crate) fn find(state: &Path, name: &str) -> Result<String, RunError> {
    let mut ids = named(state, name).map_err(|e| RunError::State(state.into(), e))?;
    match (ids.pop(), ids.is_empty()) {
        (None, _) => Err(RunError::Unknown(name.into(), state.into())),
        (Some(id), true) => Ok(id),
        (Some(last), false) => {
            ids.push(last);
            let short = ShortIds::of(state);
            let ids = ids.iter().rev().map(|id| short.of_run(id).to_owned());
            Err(RunError::Ambiguous(name.into(), ids.collect()))
        }
    }
}

/// The runs and stored contents that a name may mean.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    /// Ids of runs, oldest first.
    pub runs: Vec<String>,
    /// Digests of contents.
    pub contents: Vec<String>,
}

impl Matches {
    /// Finds the runs as [`named`] does, and the contents by the first digits of their digests.
    /// `sha256:` before the digits excludes the runs.
    ///
    /// # Errors
    /// Fails if the state directory cannot be read.
    pub(crate) fn of(state: &Path, name: &str) -> io::Result<Self> {
        let digest = name.strip_prefix("sha256:");
        let digits = digits(digest.unwrap_or(name));
        let is_digest = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        Ok(Self {
            runs: match digest {
                Some(_) => Vec::new(),
                None => named(state, name)?,
            },
            contents: if is_digest {
                bytes_of(state, &digits)?
            } else {
                Vec::new()
            },
        })
    }

    /// Says how many there are, and names the first of them, the newest runs first.
    #[must_use]
    pub(crate) fn describe(&self, state: &Path) -> String {
        let short = ShortIds::of(state);
        let runs = self.runs.iter().rev().map(|id| short.of_run(id).to_owned());
        let names: Vec<String> = runs.chain(self.contents.iter().cloned()).collect();
        format!(
            "{} runs and contents: {}",
            names.len(),
            names::list(&names, ", ", LISTED)
        )
    }
}

/// The kept runs, for ids that are short enough to type.
#[derive(Debug, Default)]
pub(crate) struct ShortIds(Vec<String>);

impl ShortIds {
    /// Reads the ids of all kept runs. If they cannot be read, every id counts as unique.
    #[must_use]
    pub(crate) fn of(state: &Path) -> Self {
        Self::with(state, [])
    }

    /// Reads the ids of all kept runs, and adds those of runs that other hosts keep.
    #[must_use]
    pub(crate) fn with(state: &Path, others: impl IntoIterator<Item = String>) -> Self {
        let mut ids = run_ids(state).unwrap_or_default();
        ids.extend(others);
        // They come in the order in which they began here, which is not always that of their ids.
        ids.sort_unstable();
        ids.dedup();
        Self(ids)
    }

    /// Returns the first digits of `id` that no other kept run begins with.
    #[must_use]
    pub(crate) fn of_run<'a>(&self, id: &'a str) -> &'a str {
        self.at_least(LEAST, id)
    }

    /// Returns the first digits of `id` that name no later run either.
    #[must_use]
    pub(crate) fn lasting<'a>(&self, id: &'a str) -> &'a str {
        self.at_least(TIME, id)
    }

    fn at_least<'a>(&self, least: usize, id: &'a str) -> &'a str {
        let place = self.0.partition_point(|other| other.as_str() < id);
        let before = place.checked_sub(1).and_then(|place| self.0.get(place));
        let after = self.0[place..].iter().find(|other| *other != id);
        let shared = |other: &String| {
            let pairs = other.bytes().zip(id.bytes());
            pairs.take_while(|(a, b)| a == b).count()
        };
        let unique = before.into_iter().chain(after).map(shared).max();
        let length = unique.map_or(least, |shared| least.max(shared + 1));
        id.get(..length).unwrap_or(id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    const FIRST: &str = "019ad11100007000a000000000000001";
    const SECOND: &str = "019ad11122227000a000000000000002";
    const THIRD: &str = "019ad11122227000b000000000000003";

    fn state() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for id in [FIRST, SECOND, THIRD, "no-run"] {
            std::fs::create_dir_all(dir.path().join("runs").join(id)).unwrap();
        }
        dir
    }

    #[test]
    fn a_run_is_found_by_its_first_digits_and_by_its_place_from_the_end() {
        let state = state();
        for (name, id) in [
            (FIRST, FIRST),
            ("019ad1110", FIRST),
            ("019AD1110000", FIRST),
            ("019ad111-2222-7000-b000-000000000003", THIRD),
            ("019AD111-2222-7000-A", SECOND),
            ("@", THIRD),
            ("@-0", THIRD),
            ("@-1", SECOND),
            ("@-2", FIRST),
        ] {
            assert_eq!(find(state.path(), name).unwrap(), id, "{name}");
        }
    }

    #[test]
    fn a_name_of_no_run_is_unknown() {
        let state = state();
        for name in [
            "", "-", "@-3", "@1", "@--1", "@-", "@-x", "@@", "02", "no-run",
        ] {
            assert!(
                matches!(find(state.path(), name), Err(RunError::Unknown(..))),
                "{name:?}"
            );
        }
    }

    #[test]
    fn the_runs_of_an_ambiguous_name_are_named_newest_first() {
        let state = state();
        let error = find(state.path(), "019ad1112").unwrap_err();
        let text = error.to_string();
        assert!(
            text.ends_with("019ad11122227000b, 019ad11122227000a"),
            "{text}"
        );
    }

    #[test]
    fn a_short_id_is_unique_among_runs_that_began_in_another_order() {
        let state = state();
        let order = format!("1 {THIRD}\n2 {SECOND}\n3 {FIRST}\n");
        std::fs::write(state.path().join("order"), order).unwrap();
        let ids = ShortIds::of(state.path());
        assert_eq!(ids.of_run(FIRST), "019ad1110");
        assert_eq!(ids.of_run(SECOND), "019ad11122227000a");
    }

    #[test]
    fn a_short_id_is_unique_among_the_runs_of_other_hosts() {
        let state = state();
        let other = "019ad11122227000a0000000000000ff";
        let ids = ShortIds::with(state.path(), [other.to_owned()]);
        assert_eq!(ids.of_run(other), "019ad11122227000a0000000000000f");
    }

    #[test]
    fn only_all_digits_are_a_whole_id() {
        let dashes = "019AD111-2222-7000-b000-000000000003";
        assert_eq!(whole_id(dashes).as_deref(), Some(THIRD));
        for name in ["@", "@-1", &THIRD[1..], "019ad11122227000b00000000000000x"] {
            assert_eq!(whole_id(name), None, "{name}");
        }
    }

    #[test]
    fn a_short_id_is_unique_and_long_enough() {
        let state = state();
        let ids = ShortIds::of(state.path());
        assert_eq!(ids.of_run(FIRST), "019ad1110");
        assert_eq!(ids.of_run(SECOND), "019ad11122227000a");
        assert_eq!(ids.of_run(THIRD), "019ad11122227000b");
        assert_eq!(ids.lasting(FIRST), "019ad1110000");
        let pruned = "029ad11122227000a000000000000002";
        assert_eq!(ids.of_run(pruned), "029ad111");
        assert_eq!(ShortIds::default().of_run("x"), "x");
    }
}
