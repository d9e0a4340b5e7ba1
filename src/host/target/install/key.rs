//! A target that is a key of a store. A write that expects a revision takes the place of the
//! exchange and of the lock.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use self::copies::Copies;
use super::error::{InstallError, InstallReason};
use crate::{
    config,
    fleet::Key,
    host::store::{self, PutResult, Revision, StoreError, Value},
    refusal::Refusal,
    runs::Staging,
    step::Content,
};

mod copies;

/// The most requests that write one content. A second one follows where the first has no answer and
/// no effect: whichever comes later at the store then fails, because both expect one revision.
const WRITES: usize = 2;

/// The bit that makes the mark of a revision later than every time of a file.
const LATER: i128 = 1 << 126;

/// A key to replace.
#[derive(Debug)]
pub(crate) struct KeyTarget {
    key: Key,
    path: PathBuf,
    /// The user of a process that reads the key.
    reader: Option<u32>,
    /// The revision that the key must have: that of the survey, then that of this run's write.
    expected: Option<Revision>,
    /// The revision of the last reading.
    seen: Mutex<Option<Revision>>,
    pub(super) exchanged: bool,
    /// True if a write of this run may take effect yet.
    is_open: bool,
    pub(super) staging: Arc<Staging>,
    /// The present value and the candidate as files, for validators.
    copies: Option<Copies>,
    /// The copies that could not be removed, with the reasons.
    not_removed: Vec<(PathBuf, String)>,
}

impl KeyTarget {
    pub(super) fn new(key: &Key, reader: Option<u32>) -> Self {
        Self {
            path: key.target(),
            key: key.clone(),
            reader,
            expected: None,
            seen: Mutex::default(),
            exchanged: false,
            is_open: false,
            staging: Arc::default(),
            copies: None,
            not_removed: Vec::new(),
        }
    }

    /// Reads the value, which must exist.
    fn value(&self) -> Result<Value, InstallError> {
        match self.answer(store::get)? {
            Ok(Some(value)) => {
                *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(value.rev.clone());
                Ok(value)
            }
            Ok(None) => Err(InstallError::NoKey(self.path.clone())),
            Err(why) => Err(InstallError::Store(self.path.clone(), why.into())),
        }
    }

    pub(super) fn read(&self) -> Result<Content, InstallError> {
        self.value().map(|value| Content::new(value.bytes))
    }

    pub(super) fn survey(&mut self) -> Result<Content, InstallError> {
        let value = self.value()?;
        self.expected = Some(value.rev);
        Ok(Content::new(value.bytes))
    }

    pub(super) fn digest(&self) -> Option<String> {
        let value = self.value().ok()?;
        Some(config::digest(&value.bytes))
    }

    /// Returns the revision of the survey, or that of this run's write.
    pub(super) fn revision(&self) -> Option<&str> {
        self.expected.as_ref().map(Revision::as_str)
    }

    /// Returns a number that is another one for another revision: that of the last reading, so that
    /// content and revision are of one moment. It is later than the start of any process, because a
    /// revision has no time.
    pub(super) fn mark(&self) -> Option<i128> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let rev = seen.clone()?;
        let digest = config::digest(rev.as_str().as_bytes());
        let mark = i128::from_str_radix(digest.get(..30)?, 16).ok()?;
        Some(LATER | mark)
    }

    /// A value has no mode. It counts as public where no credential is needed to read it.
    pub(super) fn is_public(&self) -> bool {
        !self.key.needs_credentials()
    }

    /// Checks that the store can compare the revision of the survey.
    pub(super) fn guard(&self) -> Result<(), InstallError> {
        let rev = match &self.expected {
            Some(rev) => rev.clone(),
            None => self.value()?.rev,
        };
        store::check_writable(&self.key, &rev).map_err(|why| {
            let why = Refusal::from(InstallReason::ReadOnly(why.into())).with_hint(
                "write it by another program, then adopt it: `hello broadcast` without a new \
                 config signals and proves what the key holds",
            );
            InstallError::Refused(self.path.clone(), why)
        })
    }

    /// Writes the present value and `to` to files that a validator can read. Returns the path of
    /// the second.
    pub(super) fn stage(
        &mut self,
        now: &Content,
        to: &Content,
        secret: bool,
        run: &str,
    ) -> Result<PathBuf, InstallError> {
        self.not_removed = self.clear();
        let copies = Copies::write([now, to], self.reader, secret, run, &self.staging)
            .map_err(|e| InstallError::Io(self.path.clone(), e))?;
        let staged = copies.paths()[1].clone();
        self.copies = Some(copies);
        Ok(staged)
    }

    /// Returns the copies of the present value and of the candidate; none before they were made.
    pub(super) fn copies(&self) -> Option<&[PathBuf; 2]> {
        self.copies.as_ref().map(Copies::paths)
    }

    /// Returns device and inode of the candidate's copy, and of that of the present value.
    pub(super) fn inodes(&self) -> Option<[(u64, u64); 2]> {
        self.copies.as_ref()?.inodes()
    }

    /// Removes the copies. Returns those that could not be removed, with the reasons.
    pub(super) fn clear(&mut self) -> Vec<(PathBuf, String)> {
        if let Some(copies) = self.copies.take() {
            self.not_removed.extend(copies.remove(&self.staging));
        }
        std::mem::take(&mut self.not_removed)
    }

    /// Writes `to` where the key holds `from` at the expected revision. Returns whether it was
    /// written.
    pub(super) fn install(&mut self, from: &str, to: &Content) -> Result<bool, InstallError> {
        let mut failed = None;
        let mut writes = 0;
        loop {
            let now = self.value().map_err(|e| self.unread(e, failed.take()))?;
            let sha256 = config::digest(&now.bytes);
            let is_same = self.expected.as_ref().is_none_or(|rev| *rev == now.rev);
            // A write that is still open must lose its revision before the old value counts.
            if sha256 == to.sha256 && !(self.is_open && is_same) {
                let is_written = failed.is_some();
                self.exchanged |= is_written;
                self.is_open = false;
                self.expected = Some(now.rev);
                return Ok(is_written);
            }
            // Another program may have written after a write of this run that had no answer.
            let is_overtaken =
                |failed: &Option<StoreError>| failed.as_ref().is_some_and(|why| !why.is_certain());
            if sha256 != from && sha256 != to.sha256 {
                self.exchanged |= is_overtaken(&failed);
                return Err(self.drifted());
            }
            if !is_same && !self.is_open {
                self.exchanged |= is_overtaken(&failed);
                let what = format!("revision {}", now.rev);
                return Err(InstallError::Changed(self.path.clone(), what));
            }
            if let Some(why) = failed.take_if(|_| writes == WRITES) {
                self.is_open |= !why.is_certain();
                self.exchanged |= self.is_open;
                return Err(InstallError::Store(self.path.clone(), why.into()));
            }
            writes += 1;
            match self.answer(|key| store::put(key, &to.bytes, Some(&now.rev)))? {
                Ok(PutResult::Stored(rev)) => {
                    self.expected = Some(rev);
                    self.exchanged = true;
                    self.is_open = false;
                    return Ok(true);
                }
                Ok(PutResult::Conflict) if failed.is_none() && !self.is_open => {
                    return Err(self.drifted());
                }
                // The next reading tells whether an earlier write of this run came late.
                Ok(PutResult::Conflict) => {}
                Err(why) => {
                    if why.is_certain() {
                        writes = WRITES;
                    }
                    failed = Some(why);
                }
            }
        }
    }

    /// Returns the error of a key that another program has written. No write that expects an
    /// earlier revision takes effect any more.
    fn drifted(&mut self) -> InstallError {
        self.is_open = false;
        InstallError::Drifted(self.path.clone())
    }

    /// Returns the error of a reading that failed after `failed`, the error of a write. If that
    /// write may have had an effect, it is not known which value the key has.
    fn unread(&mut self, why: InstallError, failed: Option<StoreError>) -> InstallError {
        match (failed.filter(|failed| !failed.is_certain()), why) {
            (_, InstallError::NoKey(_)) => self.drifted(),
            (Some(_), InstallError::Store(path, why)) => {
                self.is_open = true;
                self.exchanged = true;
                InstallError::Unknown(path, why)
            }
            (_, why) => why,
        }
    }

    /// Waits for the answer to a request. The store is asked from a thread of its own, whose
    /// runtime serves that request alone; each has the deadline of its [[store]].
    fn answer<'a, T, F>(
        &'a self,
        request: impl FnOnce(&'a Key) -> F + Send,
    ) -> Result<Result<T, StoreError>, InstallError>
    where
        T: Send,
        F: Future<Output = Result<T, StoreError>>,
    {
        let io = |e: io::Error| InstallError::Io(self.path.clone(), e);
        let asked = thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                Ok(runtime.block_on(request(&self.key)))
            });
            asked
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the request panicked")))
        });
        asked.map_err(io)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for KeyTarget {
    fn drop(&mut self) {
        self.clear();
    }
}
