//! How many runs are kept, and how old ones go.

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    str::FromStr,
    time::{Duration, Instant},
};

use jiff::{Span, SpanRelativeTo, Timestamp};

use super::{
    ProofCache,
    info::{self, RunInfo},
    open_runs,
    state_dir::{self, Lock},
    store,
};

/// So long another run that uses the store is waited for; what is left then, the next run takes
/// away.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most time that one run gives to it.
const LIMIT: Duration = Duration::from_secs(2);
/// Most stored contents that are looked at, each time others.
const GLANCES: usize = 4096;
/// A run that has neither a mark nor an end may just be beginning.
const BEGINS: Duration = Duration::from_secs(3600);

/// Which runs are kept: those that are among the newest and not too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest.
    pub runs: usize,
    /// None that began longer ago.
    pub age: Duration,
}

impl FromStr for Retention {
    type Err = String;

    /// `50`, `30d`, or both with a comma: what is not said keeps all.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is neither a number of runs, an age such as 30d, nor both: 50,30d")
        };
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

/// Takes away runs beyond `keep`, and the bytes that only they had. Never the run `own`, the
/// newest, one that is open or begins, nor bytes that a living process was last proven on. It takes
/// little time, however much there is: what is left, the next run takes.
///
/// # Errors
/// What could not be taken away, or looked at.
pub fn prune(state: &Path, keep: Retention, own: &str) -> io::Result<()> {
    let ids = info::run_ids(state)?;
    let oldest = Timestamp::now()
        .as_nanosecond()
        .saturating_sub(i128::try_from(keep.age.as_nanos()).unwrap_or(i128::MAX));
    let beyond = |(place, id): &(usize, &String)| {
        *place >= keep.runs || info::begun_at(id).is_some_and(|at| at.as_nanosecond() < oldest)
    };
    let old = ids
        .iter()
        .rev()
        .enumerate()
        .skip(1)
        .filter(beyond)
        .map(|(_, id)| id)
        .filter(|id| *id != own);
    let Some(_lock) = state_dir::lock(&state.join("store.lock"), Lock::Alone, PATIENCE)? else {
        return Ok(());
    };
    let until = Instant::now() + LIMIT;
    let goes_on = open_runs::needed(state);
    let old = old.filter(|id| !goes_on.contains_key(*id));
    let going: Vec<&String> = old
        .take_while(|_| Instant::now() < until)
        .filter(|id| may_go(&RunInfo::of(state, id)))
        .collect();
    // After that: what a run has proven is kept before it ends.
    let needed = ProofCache::load(state).digests();
    for id in going {
        if Instant::now() > until {
            return Ok(());
        }
        remove(state, id, &needed)?;
    }
    tidy(state, own, &needed, until)
}

fn may_go(past: &RunInfo) -> bool {
    let age = |at: Timestamp| Timestamp::now().duration_since(at).unsigned_abs();
    !past.open && !past.running && (past.end.is_some() || past.at.is_none_or(|at| age(at) > BEGINS))
}

/// Takes away a run, and the bytes that no other has and that are not `needed`. Answers how many
/// contents that were.
pub(super) fn remove(state: &Path, id: &str, needed: &BTreeSet<String>) -> io::Result<usize> {
    let runs = state.join("runs");
    // In one step: nobody finds a half of it, and what a kill leaves has a name that the next run
    // takes away.
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

/// Takes away what runs that were killed have left, and bytes that were needed once. From another
/// place each time, where there are many.
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
            } else if meta.modified()?.elapsed().is_ok_and(|age| age > BEGINS) {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    let mut all = state_dir::names(&store::folder_of(state))?;
    if all.len() > GLANCES {
        let from = all.partition_point(|sha256| *sha256 < crate::config::digest(own.as_bytes()));
        all.rotate_left(from);
    }
    for sha256 in all
        .iter()
        .take(GLANCES)
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
    fn what_is_not_said_keeps_all() {
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
