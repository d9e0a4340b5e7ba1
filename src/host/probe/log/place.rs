//! Where a log of an instance is.

use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::{LogError, journal::Query, syslog::Tag};
use crate::{
    assertion::{Log, Showing, config_key, value_in},
    config::MAX_TARGET,
    host::{
        exec::placeholders,
        probe::values::{showing, values_of},
        proc::guard::View,
    },
    step::PlannedInstance,
    trust::ResolvedPath,
};

/// The files that rsyslog and syslog-ng write on Debian, and on Red Hat and SUSE.
const SYSLOG_FILES: [&str; 2] = ["/var/log/syslog", "/var/log/messages"];

/// The place of a log.
#[derive(Debug)]
pub(super) enum Place {
    /// A file, and the entries in it that count.
    File(LogPath, Option<Tag>),
    Journal(Query),
}

impl Place {
    /// Returns the place of a log of an instance.
    ///
    /// # Errors
    /// Fails if the instance names no path, or if this host has no such log.
    pub(super) fn of(member: &PlannedInstance, log: &Log) -> Result<Self, LogError> {
        let pid = member.instance.pid;
        match log {
            Log::File(text) => {
                let on_disk = match config_key(text) {
                    Some((_, key, _)) => Some(config_on_disk(member, key)?),
                    None => None,
                };
                let config = on_disk.as_deref().map(|bytes| (bytes, "its config"));
                Ok(Self::File(LogPath::of(member, text, config)?, None))
            }
            Log::Journal => Query::of_process(pid).map(Self::Journal),
            Log::Syslog(name) => {
                if let Some(query) = Query::of_identifier(name) {
                    return Ok(Self::Journal(query));
                }
                let file = SYSLOG_FILES
                    .iter()
                    .map(Path::new)
                    .find(|path| path.exists());
                let path = file.ok_or(LogError::NoSyslog)?.to_owned();
                let tag = Tag {
                    name: name.clone(),
                    pid,
                };
                Ok(Self::File(LogPath { path, pid: None }, Some(tag)))
            }
        }
    }
}

/// Returns the config of an instance on the disk, for the value of `key`.
fn config_on_disk(member: &PlannedInstance, key: &str) -> Result<Vec<u8>, LogError> {
    let no_file = || LogError::NotOneFile(key.into());
    let path = member.instance.targets.first().ok_or_else(no_file)?;
    let is_small = path
        .metadata()
        .is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_TARGET);
    if !is_small {
        return Err(no_file());
    }
    std::fs::read(path).map_err(|e| LogError::Unread(path.clone(), e))
}

/// A file that an instance writes, or that syslog writes for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogPath {
    pub(super) path: PathBuf,
    /// The process that writes it; none where that is syslog.
    pub(super) pid: Option<i32>,
}

/// Device and inode of a file.
pub(super) type FileId = (u64, u64);

impl LogPath {
    /// Returns the path that `text` names. `config` are the bytes that `{config.KEY}` is read from,
    /// and what a message calls them.
    ///
    /// # Errors
    /// Fails if the instance or the config names no path.
    pub(super) fn of(
        member: &PlannedInstance,
        text: &str,
        config: Option<(&[u8], &'static str)>,
    ) -> Result<Self, LogError> {
        let values_exe = placeholders::exe(&member.identity);
        let values = values_of(member, &values_exe);
        let mut path = String::new();
        let mut rest = text;
        while let Some((before, key, after)) = config_key(rest) {
            let (bytes, of) = config.ok_or_else(|| LogError::NotOneFile(key.into()))?;
            if showing(member) == Showing::Secret {
                return Err(LogError::SecretConfig(key.into()));
            }
            let key = key.to_owned();
            let value =
                value_in(bytes, &key).map_err(|why| LogError::NotInConfig { key, of, why })?;
            path += &values.fill(&[before.to_owned()])?.concat();
            path += &value;
            rest = after;
        }
        let words = values.fill(&[rest.to_owned()])?;
        let [word] = words.as_slice() else {
            return Err(LogError::NotOnePath(words.join(" ")));
        };
        path += word;
        let path = PathBuf::from(path);
        if !path.is_absolute() {
            return Err(LogError::Relative(path));
        }
        Ok(Self {
            path,
            pid: Some(member.instance.pid),
        })
    }

    /// Opens the log; none if there is no such file.
    ///
    /// # Errors
    /// Fails if it is no regular file, if every user can write it, if the process sees another one,
    /// or if it may not be read.
    pub(super) fn open(&self) -> Result<Option<(std::fs::File, FileId)>, LogError> {
        let path = &self.path;
        let unread = |e| LogError::Unread(path.clone(), e);
        let resolved = match ResolvedPath::of(path) {
            Ok(resolved) => resolved,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unread(e)),
        };
        let stat = resolved.stat();
        let kind = FileType::from_raw_mode(stat.st_mode);
        if resolved.is_of_a_process() || kind != FileType::RegularFile {
            return Err(LogError::NoFile(path.clone()));
        }
        resolved
            .closed_to_all()
            .map_err(|why| LogError::Untrusted(path.clone(), why))?;
        let view = View::of(&resolved.end, Path::new("/"));
        if self
            .pid
            .is_some_and(|pid| !view.is_seen_by(pid, &resolved.end))
        {
            return Err(LogError::OtherFile(path.clone()));
        }
        let file = resolved.open().map_err(unread)?;
        Ok(Some((file.into(), (stat.st_dev, stat.st_ino))))
    }

    /// Returns what identifies the log: two paths may lead to one file.
    ///
    /// # Errors
    /// Fails if the log cannot be read, or if there is none.
    pub(super) fn identity(&self) -> Result<String, LogError> {
        match self.open()? {
            Some((_, (device, inode))) => Ok(format!("file {device}:{inode}")),
            None => Err(LogError::NotThere(self.path.clone())),
        }
    }
}
