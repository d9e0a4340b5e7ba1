//! The logs of instances: the lines that were written to each since a signal.
//!
//! The position is taken right before the signal, and every look reads what was written after it.
//! Nothing before the signal is ever read, so that no line of an earlier reload counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::timeout;

pub(crate) use self::{error::LogError, lines::LogReading};
use self::{
    file::Files,
    journal::Journal,
    place::{LogPath, Place},
};
use crate::{
    assertion::{Log, Source},
    fleet::Group,
    runtime::off_thread,
    step::{PlannedInstance, TargetChange},
};

mod error;
mod file;
mod journal;
mod lines;
mod place;
mod syslog;

/// The most lines of a log that stand under a failure.
const MAX_CONTEXT: usize = 5;

/// The longest text of these lines, in bytes.
const MAX_CONTEXT_BYTES: usize = 8 << 10;

/// The longest time of one look at a log in which no limit of the instance counts. A log on a
/// filesystem of the network may answer late or never.
pub(crate) const LOOK: Duration = Duration::from_secs(5);

/// A pid and a start time.
type ProcessId = (i32, u64);

/// The position in one log, and what was written after it.
#[derive(Debug)]
enum Position {
    Files(Arc<Mutex<Files>>),
    Journal(tokio::sync::Mutex<Journal>),
    /// It could not be read right before the signal, for this reason.
    Unknown(String),
}

/// The logs of all instances of a run.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    positions: Mutex<BTreeMap<(ProcessId, Log), Arc<Position>>>,
    /// The instances that write to each log, by what identifies the log.
    writers: Mutex<BTreeMap<String, BTreeSet<ProcessId>>>,
    /// The paths of each log that the config names: by the old and by the new config.
    named: Mutex<BTreeMap<(ProcessId, Log), Vec<LogPath>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn id_of(member: &PlannedInstance) -> ProcessId {
    (member.instance.pid, member.instance.started)
}

/// Returns the logs that the assertions of a group read.
fn asserted(group: &Group) -> impl Iterator<Item = &Log> {
    let assertions = group.confirm.iter().chain(&group.reject);
    assertions.filter_map(|assertion| match &assertion.source {
        Source::Log(log) => Some(log),
        _ => None,
    })
}

impl Logs {
    /// Records where the logs of an instance are that its config names: by the config that
    /// `changes` replace and by the new one. Both are read after the signal, since a refusal of the
    /// new config goes to the log of the old one.
    ///
    /// # Errors
    /// Fails if one of the configs names no path, or if a log cannot be read. One that is not there
    /// may be written later.
    pub(crate) fn learn(
        &self,
        member: &PlannedInstance,
        changes: &[TargetChange],
    ) -> Result<(), LogError> {
        let Some(change) = changes.first() else {
            return Ok(());
        };
        let contents = [
            (change.from.as_ref(), "its config"),
            (Some(&change.to), "the new config"),
        ];
        let logs = asserted(&member.group).chain(&member.group.log);
        for log in logs.filter(|log| log.is_in_config()) {
            let Log::File(text) = log else { continue };
            for (content, name) in contents {
                let Some(content) = content else { continue };
                let bytes = member.whole_config(content);
                let config = bytes.as_deref().map(|bytes| (bytes, name));
                let path = LogPath::of(member, text, config)?;
                path.open()?;
                let mut named = locked(&self.named);
                let paths = named.entry((id_of(member), log.clone())).or_default();
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
        Ok(())
    }

    /// Takes the position in each log of an instance, right before its signal. A log that cannot be
    /// read is named by the next look: a rollback must signal all the same.
    pub(crate) async fn mark(&self, member: &PlannedInstance, limit: Duration) {
        let group = member.group.clone();
        let logs: BTreeSet<&Log> = asserted(&group).chain(&group.log).collect();
        for log in logs {
            let key = (id_of(member), log.clone());
            let named = locked(&self.named).get(&key).cloned().unwrap_or_default();
            let marking = timeout(limit, position(member, log, named, limit));
            let marked = marking
                .await
                .unwrap_or_else(|_| Err(LogError::Late(log.describe())));
            let position = marked.unwrap_or_else(|why| Position::Unknown(why.to_string()));
            locked(&self.positions).insert(key, Arc::new(position));
        }
    }

    /// Reads what was written to a log since the last signal of the instance. Without a signal, it
    /// only checks that the log can be read.
    ///
    /// # Errors
    /// Fails if the log cannot be read, or if more was written than is read.
    pub(crate) async fn read(
        &self,
        member: &PlannedInstance,
        log: &Log,
        limit: Duration,
    ) -> Result<LogReading, LogError> {
        let key = (id_of(member), log.clone());
        let position = locked(&self.positions).get(&key).cloned();
        let look = async {
            match position.as_deref() {
                None => self.check(member, log, limit).await,
                Some(Position::Unknown(why)) => Err(LogError::Unmarked(why.clone())),
                Some(Position::Files(files)) => {
                    let files = files.clone();
                    off_thread(move || match files.try_lock() {
                        Ok(mut files) => files.look(),
                        // An earlier look still waits for its filesystem.
                        Err(_) => Err(LogError::Busy),
                    })
                    .await
                }
                Some(Position::Journal(journal)) => journal.lock().await.look(limit).await,
            }
        };
        timeout(limit, look)
            .await
            .unwrap_or_else(|_| Err(LogError::Late(log.describe())))
    }

    /// Checks that a log can be read, and records that this instance writes to it.
    async fn check(
        &self,
        member: &PlannedInstance,
        log: &Log,
        limit: Duration,
    ) -> Result<LogReading, LogError> {
        let place = Place::of(member, log)?;
        let name = match &place {
            Place::File(path, _) => {
                let path = path.clone();
                off_thread(move || path.identity()).await?
            }
            Place::Journal(query) => {
                Journal::at_end(query.clone(), limit).await?;
                query.name()
            }
        };
        let mut writers = locked(&self.writers);
        writers.entry(name).or_default().insert(id_of(member));
        Ok(LogReading::default())
    }

    /// Returns why a line of a log would not show which instance wrote it: an assertion accepts a
    /// line of another instance, which writes the same log. The reload of that one would prove this
    /// one.
    pub(crate) fn ambiguity(&self, member: &PlannedInstance) -> Option<String> {
        let own = id_of(member);
        let group = &member.group;
        let assertions = group.confirm.iter().chain(&group.reject);
        let mut unclear = assertions.filter(|assertion| assertion.fits_any_process());
        let writers = locked(&self.writers);
        unclear.find_map(|assertion| {
            let Source::Log(log) = &assertion.source else {
                return None;
            };
            let name = match Place::of(member, log).ok()? {
                Place::File(path, _) => path.identity().ok()?,
                Place::Journal(query) => query.name(),
            };
            let (other, _) = writers.get(&name)?.iter().find(|id| **id != own)?;
            let log = describe(member, &assertion.source);
            Some(format!(
                "{log} is written by pid {other} too, and a line of that one would count for it; \
                 name its pid in the line (`{{pid}}`), or give each a log of its own"
            ))
        })
    }

    /// Drops the lines of an instance that has proven its config. From now on they only show a late
    /// refusal.
    pub(crate) fn proven(&self, member: &PlannedInstance) {
        let id = id_of(member);
        // The first of all logs in their order.
        let first = Log::File(String::new());
        let positions = locked(&self.positions);
        let own = positions
            .range((id, first)..)
            .take_while(|((of, _), _)| *of == id);
        for (_, position) in own {
            match &**position {
                Position::Files(files) => {
                    if let Ok(mut files) = files.try_lock() {
                        files.tail_mut().prove();
                    }
                }
                Position::Journal(journal) => {
                    if let Ok(mut journal) = journal.try_lock() {
                        journal.tail_mut().prove();
                    }
                }
                Position::Unknown(_) => {}
            }
        }
    }

    /// Returns the last lines of the log of the instance's group since its signal.
    pub(crate) async fn context(&self, member: &PlannedInstance) -> Vec<String> {
        let Some(log) = &member.group.log else {
            return Vec::new();
        };
        let is_marked = locked(&self.positions).contains_key(&(id_of(member), log.clone()));
        if !is_marked {
            return Vec::new();
        }
        let reading = self.read(member, log, LOOK).await.unwrap_or_default();
        reading.last(MAX_CONTEXT, MAX_CONTEXT_BYTES)
    }
}

/// Describes the source of an assertion of an instance. A log is named by its path.
pub(crate) fn describe(member: &PlannedInstance, source: &Source) -> String {
    match source {
        Source::Log(log) => match Place::of(member, log) {
            Ok(Place::File(path, None)) => format!("its log `{}`", path.path.display()),
            _ => log.describe(),
        },
        source => source.describe(&member.instance.endpoint),
    }
}

/// Takes the position at the present end of a log. `named` are its paths by the old and the new
/// config.
async fn position(
    member: &PlannedInstance,
    log: &Log,
    mut named: Vec<LogPath>,
    limit: Duration,
) -> Result<Position, LogError> {
    Ok(match Place::of(member, log)? {
        Place::File(path, filter) => {
            if !named.contains(&path) {
                named.push(path);
            }
            let files = off_thread(move || Files::at_end(named, filter)).await?;
            Position::Files(Arc::new(Mutex::new(files)))
        }
        Place::Journal(query) => Position::Journal(tokio::sync::Mutex::new(
            Journal::at_end(query, limit).await?,
        )),
    })
}
