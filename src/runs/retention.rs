//! How many runs are kept, and how old ones are removed.

use std::{
    collections::BTreeSet,
    fmt, io,
    path::Path,
    str::FromStr,
    time::{Duration, Instant},
};

use jiff::{Span, SpanRelativeTo, Timestamp};

use super::{
    ProofCache,
    info::{self, RunInfo},
    layout, open_runs,
    state_dir::{self, Lock},
    store,
};

/// Longest wait for another run that uses the store. After that, the next run removes what is left.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Longest time that one run spends on it.
const TIME_LIMIT: Duration = Duration::from_secs(2);
/// Most stored contents that one run looks at; each run looks at others.
const MAX_CHECKED: usize = 4096;
/// Up to this age, a run without a mark and without an end may just be beginning.
const BEGIN_LIMIT: Duration = Duration::from_secs(3600);

/// Which runs are kept: those that are among the newest and not too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    /// The number of newest runs to keep.
    pub runs: usize,
    /// The age after which a run is removed.
    pub age: Duration,
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The greatest number sets no limit, and reads as one.
        write!(f, "{}", self.runs)?;
        match self.age {
            Duration::MAX => Ok(()),
            age => write!(f, ",{}s", age.as_secs()),
        }
    }
}

/// A text that does not say which runs are kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a number of runs, an age such as 30d, nor both: 50,30d")]
pub(crate) struct RetentionError(String);

impl FromStr for Retention {
    type Err = RetentionError;

    /// Parses `50`, `30d`, or both with a comma. A part that is missing sets no limit.
    fn from_str(text: &str) -> Result<Self, RetentionError> {
        let wrong = || RetentionError(text.into());
        let (mut runs, mut age) = (None, None);
        for part in text.split(',') {
            let twice = if part.bytes().all(|b| b.is_ascii_digit()) {
                let number = part.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
                runs.replace(number).is_some()
            } else {
                let span: Span = part.parse().map_err(|_| wrong())?;
                let length = span
                    .to_duration(SpanRelativeTo::days_are_24_hours())
                    .map_err(|_| wrong())?;
                age.replace(length.try_into().map_err(|_| wrong())?)
                    .is_some()
            };
            if twice {
                return Err(wrong());
            }
        }
        Ok(Self {
            runs: runs.unwrap_or(usize::MAX),
            age: age.unwrap_or(Duration::MAX),
        })
    }
}

/// Removes runs beyond `keep`, and the contents that only they had. It never removes the run `own`,
/// the newest run, a run that is open or begins, or a content that a living process was last proven
/// on. Its time is limited, and `interrupted` ends the wait for other runs. The next run removes
/// what is left.
///
/// # Errors
/// Fails if a file could not be removed, or a directory could not be read.
pub(crate) async fn prune(
    state: &Path,
    keep: Retention,
    own: &str,
    interrupted: impl Future<Output = ()>,
) -> io::Result<()> {
    let ids = info::run_ids(state)?;
    let oldest = Timestamp::now()
        .as_nanosecond()
        .saturating_sub(i128::try_from(keep.age.as_nanos()).unwrap_or(i128::MAX));
    let beyond = |(index, id): &(usize, &String)| {
        *index >= keep.runs || info::begun_at(id).is_some_and(|at| at.as_nanosecond() < oldest)
    };
    let old = ids
        .iter()
        .rev()
        .enumerate()
        .skip(1)
        .filter(beyond)
        .map(|(_, id)| id)
        .filter(|id| *id != own);
    let lock = state.join("store.lock");
    let Some(_lock) = state_dir::lock(&lock, Lock::Alone, LOCK_WAIT, interrupted).await? else {
        return Ok(());
    };
    let until = Instant::now() + TIME_LIMIT;
    let needed_runs = open_runs::needed(state);
    let old = old.filter(|id| !needed_runs.contains_key(*id));
    let removable: Vec<&String> = old
        .take_while(|_| Instant::now() < until)
        // A run that ended and has its mark could not record what it had proven.
        .filter(|id| !layout::mark_of(state, id).exists())
        .filter(|id| may_remove(&RunInfo::of(state, id)))
        .collect();
    // This is read after the list of runs: a run keeps its proofs before it ends.
    let needed = ProofCache::digests(state);
    for id in removable {
        if Instant::now() > until {
            return Ok(());
        }
        remove(state, id, &needed)?;
    }
    tidy(state, own, &needed, until)
}

fn may_remove(run: &RunInfo) -> bool {
    let age = |at: Timestamp| Timestamp::now().duration_since(at).unsigned_abs();
    !run.open
        && !run.running
        && (run.end.is_some() || run.at.is_none_or(|at| age(at) > BEGIN_LIMIT))
}

/// Removes a run, and the contents that no other run has and that are not `needed`. Returns the
/// number of removed contents.
pub(super) fn remove(state: &Path, id: &str, needed: &BTreeSet<String>) -> io::Result<usize> {
    let runs = state.join("runs");
    // A rename is atomic: no other command sees half of a run. If this one is killed, the next run
    // removes the hidden folder.
    let gone = runs.join(format!(".{id}.gone"));
    match std::fs::rename(runs.join(id), &gone) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        done => done?,
    }
    let contents = state_dir::names(&gone)?;
    std::fs::remove_dir_all(&gone)?;
    let mut dropped = 0;
    for sha256 in contents.iter().filter(|name| !needed.contains(*name)) {
        dropped += usize::from(store::drop_unused(state, sha256)?);
    }
    Ok(dropped)
}

/// Removes leftovers of killed runs, and contents that no run needs any more. Where there are many
/// contents, each run starts at another one.
fn tidy(state: &Path, own: &str, needed: &BTreeSet<String>, until: Instant) -> io::Result<()> {
    for dir in [
        state.join("runs"),
        state.join("open"),
        store::folder_of(state),
    ] {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let meta = entry.metadata()?;
            if meta.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else if meta
                .modified()?
                .elapsed()
                .is_ok_and(|age| age > BEGIN_LIMIT)
            {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    let mut all = state_dir::names(&store::folder_of(state))?;
    if all.len() > MAX_CHECKED {
        let from = all.partition_point(|sha256| *sha256 < crate::config::digest(own.as_bytes()));
        all.rotate_left(from);
    }
    for sha256 in all
        .iter()
        .take(MAX_CHECKED)
        .filter(|sha256| !needed.contains(*sha256))
    {
        if Instant::now() > until {
            break;
        }
        store::drop_unused(state, sha256)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn a_limit_reads_as_it_is_written() {
        for text in ["50,30d", "3", "2w"] {
            let keep: Retention = text.parse().unwrap();
            assert_eq!(keep.to_string().parse(), Ok(keep), "{text}");
        }
    }

    #[test]
    fn a_missing_part_sets_no_limit() {
        let day = Duration::from_secs(86_400);
        for (text, runs, age) in [
            ("50,30d", 50, 30 * day),
            ("30d,50", 50, 30 * day),
            ("3", 3, Duration::MAX),
            ("2w", usize::MAX, 14 * day),
            ("36h", usize::MAX, day + day / 2),
        ] {
            assert_eq!(text.parse(), Ok(Retention { runs, age }), "{text}");
        }
        for text in [
            "", "0", "-1", "1,2", "1d,2d", "50,", "d", "1 month", "-1d", "x",
        ] {
            assert!(text.parse::<Retention>().is_err(), "{text}");
        }
    }
}
