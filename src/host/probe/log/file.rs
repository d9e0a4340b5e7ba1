//! A log that is a file, through its rotation.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use super::{
    LogError, LogReading,
    lines::Tail,
    place::{FileId, LogPath},
    syslog::Tag,
};

/// The most files that one log may be in since the signal. More rotations in the time of a reload
/// are none.
const MAX_FILES: usize = 8;
/// The bytes before a position that are compared at each look. A file that was cut and is as long
/// as before has others there.
const COMPARED: u64 = 64;
/// The size of one read.
const CHUNK: usize = 64 << 10;
/// The most descriptors of a process that are searched for its log.
const MAX_DESCRIPTORS: usize = 4096;

/// One file of a log.
#[derive(Debug)]
struct OpenLog {
    file: File,
    id: FileId,
    offset: u64,
    /// The bytes right before `offset`.
    before: Vec<u8>,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
    /// True if the line that was begun at the signal has not ended: it is not read.
    is_inside: bool,
}

impl OpenLog {
    fn at_start(file: File, id: FileId) -> Self {
        Self {
            file,
            id,
            offset: 0,
            before: Vec::new(),
            begun: Vec::new(),
            is_inside: false,
        }
    }

    fn at_end(file: File, id: FileId) -> io::Result<Self> {
        let mut log = Self::at_start(file, id);
        log.offset = log.file.metadata()?.len();
        log.before = log.read_before()?;
        log.is_inside = log.before.last().is_some_and(|last| *last != b'\n');
        Ok(log)
    }

    /// Reads the bytes right before the position.
    fn read_before(&self) -> io::Result<Vec<u8>> {
        let start = self.offset.saturating_sub(COMPARED);
        let mut before = vec![0; usize::try_from(self.offset - start).unwrap_or_default()];
        let read = read_at(&self.file, &mut before, start)?;
        before.truncate(read);
        Ok(before)
    }

    /// Adds the lines that were written since the last look to `tail`.
    fn look(&mut self, path: &Path, tail: &mut Tail) -> Result<(), LogError> {
        let unread = |e| LogError::Unread(path.to_owned(), e);
        let is_cut = self.file.metadata().map_err(unread)?.len() < self.offset
            || self.read_before().map_err(unread)? != self.before;
        if is_cut {
            self.offset = 0;
            self.begun.clear();
            self.is_inside = false;
            tail.is_cut = true;
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = read_at(&self.file, &mut chunk, self.offset).map_err(unread)?;
            if read == 0 {
                break;
            }
            tail.count(read)?;
            self.offset += read as u64;
            self.add(&chunk[..read], tail);
        }
        self.before = self.read_before().map_err(unread)?;
        Ok(())
    }

    /// Adds the whole lines of what was read to `tail`, and keeps the rest.
    fn add(&mut self, mut bytes: &[u8], tail: &mut Tail) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(&bytes[..end]);
            if !std::mem::take(&mut self.is_inside) {
                tail.add(&self.begun);
            }
            self.begun.clear();
            bytes = &bytes[end + 1..];
        }
        self.begun.extend_from_slice(bytes);
    }

    /// Moves the position to the end.
    fn skip(&mut self) -> io::Result<()> {
        let file = self.file.try_clone()?;
        *self = Self::at_end(file, self.id)?;
        Ok(())
    }
}

/// Reads at an offset. An interrupted read is repeated.
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(bytes, offset) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// A log, with every file that it was in since the signal.
#[derive(Debug)]
pub(super) struct Files {
    /// The paths of the log: by the old config and by the new one, if the config names it.
    paths: Vec<LogPath>,
    files: Vec<OpenLog>,
    tail: Tail,
}

impl Files {
    /// Takes the position at the present end of the log. A log that was rotated away, and is still
    /// written by the process, is read as well.
    ///
    /// # Errors
    /// Fails if the log cannot be read. One that is not there is read from its beginning later.
    pub(super) fn at_end(paths: Vec<LogPath>, tag: Option<Tag>) -> Result<Self, LogError> {
        let mut files: Vec<OpenLog> = Vec::new();
        for path in &paths {
            let unread = |e| LogError::Unread(path.path.clone(), e);
            let own = path.open()?;
            for (file, id) in own.into_iter().chain(rotated(path)) {
                let is_known = files.iter().any(|log| log.id == id);
                if !is_known && files.len() < MAX_FILES {
                    files.push(OpenLog::at_end(file, id).map_err(unread)?);
                }
            }
        }
        let names = paths
            .iter()
            .map(|path| format!("`{}`", path.path.display()));
        let name = names.collect::<Vec<_>>().join(" and ");
        Ok(Self {
            paths,
            files,
            tail: Tail::new(name, tag),
        })
    }

    pub(super) fn tail_mut(&mut self) -> &mut Tail {
        &mut self.tail
    }

    /// Reads what was written since the last look.
    ///
    /// # Errors
    /// Fails if the log cannot be read, or if more was written than is read.
    pub(super) fn look(&mut self) -> Result<LogReading, LogError> {
        self.tail.begin();
        match self.read_all() {
            // The claim was made by a line that was read. A flood of later ones takes nothing back.
            Err(_) if self.tail.is_proven() => {
                for log in &mut self.files {
                    let _ = log.skip();
                }
            }
            result => result?,
        }
        Ok(self.tail.reading())
    }

    fn read_all(&mut self) -> Result<(), LogError> {
        if let Some(first) = self.paths.first() {
            for log in &mut self.files {
                log.look(&first.path, &mut self.tail)?;
            }
        }
        for log_path in &self.paths {
            let path = &log_path.path;
            let is_known = |id: FileId| self.files.iter().any(|log| log.id == id);
            if path
                .metadata()
                .is_ok_and(|meta| is_known((meta.dev(), meta.ino())))
            {
                continue;
            }
            let Some((file, id)) = log_path.open()?.filter(|(_, id)| !is_known(*id)) else {
                continue;
            };
            if self.files.len() == MAX_FILES {
                return Err(LogError::TooOften(path.clone(), MAX_FILES - 1));
            }
            let mut log = OpenLog::at_start(file, id);
            log.look(path, &mut self.tail)?;
            self.files.push(log);
        }
        Ok(())
    }
}

/// Returns the files that the process has open under a name that begins with that of its log: the
/// log was rotated, and the process writes to the old file until it opens the new one.
fn rotated(path: &LogPath) -> Vec<(File, FileId)> {
    let (Some(pid), Some(name), Some(dir)) = (path.pid, path.path.file_name(), path.path.parent())
    else {
        return Vec::new();
    };
    // The kernel names the resolved directory.
    let dir = dir.canonicalize().ok();
    let is_one = |link: &Path| {
        let own = link.file_name().unwrap_or_default().as_encoded_bytes();
        link.parent() == dir.as_deref() && own.starts_with(name.as_encoded_bytes())
    };
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let entries = descriptors.into_iter().flatten().flatten();
    entries
        .take(MAX_DESCRIPTORS)
        .map(|entry| entry.path())
        .filter(|held| std::fs::read_link(held).is_ok_and(|link| is_one(&link)))
        .filter(|held| held.metadata().is_ok_and(|meta| meta.is_file()))
        .filter_map(|held| {
            let file = File::open(held).ok()?;
            let meta = file.metadata().ok()?;
            Some((file, (meta.dev(), meta.ino())))
        })
        .collect()
}

#[cfg(test)]
mod tests;
