//! Paths that are compiled into a program: the group's command makes the executable print them.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    time::Duration,
};

use crate::{
    fleet::Group,
    host::{
        discover::found::Found,
        exec::{
            self, RunError, Subject,
            placeholders::{NoValue, Values, exe},
        },
    },
};

/// Longest time for a program to print its compiled-in paths. It reads no config for that.
const LIMIT: Duration = Duration::from_secs(10);

/// An executable by device and inode, and the command that makes it print.
type Key = ((u64, u64), Vec<String>);

/// Why a program did not print its compiled-in paths.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuiltError {
    /// Its group declares no command for it.
    #[error("its group has no command `built` that would tell")]
    NoCommand,
    /// The command needs a value that the process does not have.
    #[error(transparent)]
    Unfilled(#[from] NoValue),
    /// The command gave no result.
    #[error(transparent)]
    NotRun(#[from] RunError),
}

/// The output of a program about its compiled-in paths.
pub(super) type Built = Result<String, Arc<BuiltError>>;

/// The output of each program that was run, or why it could not be run.
#[derive(Debug, Default)]
pub(super) struct BuiltIn(RwLock<HashMap<Key, Arc<Built>>>);

fn key(found: &Found, group: &Group) -> Key {
    (found.seen.exe, group.reading.built.clone())
}

impl BuiltIn {
    /// Returns the output of the program of this process, if it was run.
    pub(super) fn of(&self, found: &Found, group: &Group) -> Option<Arc<Built>> {
        if group.reading.built.is_empty() {
            return None;
        }
        self.0.read().ok()?.get(&key(found, group)).cloned()
    }

    /// Runs the program of this process, once for all processes of the same executable.
    pub(super) async fn ask(&self, found: &Found, group: &Group) {
        if self.of(found, group).is_some() {
            return;
        }
        let output = Arc::new(printed(found, group).await.map_err(Arc::new));
        if let Ok(mut known) = self.0.write() {
            known.insert(key(found, group), output);
        }
    }
}

async fn printed(found: &Found, group: &Group) -> Result<String, BuiltError> {
    if group.reading.built.is_empty() {
        return Err(BuiltError::NoCommand);
    }
    let exe = exe(&found.seen);
    let known = Values {
        pid: found.seen.inside,
        process: found.pid,
        exe: &exe,
        args: &found.args,
        endpoint: "",
        config: None,
        candidate: None,
    };
    let subject = Subject {
        identity: &found.seen,
        renewed: None,
    };
    let output = exec::read(&known.fill(&group.reading.built)?, subject, LIMIT).await?;
    Ok(format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}
