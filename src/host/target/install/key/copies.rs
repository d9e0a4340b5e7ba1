//! The value of a key as files, for validators: the present one, and the candidate.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use rustix::fs::{self, AtFlags, Mode, OFlags, Uid};

use crate::{
    host::target::folder::Folder,
    runs::{Stage, Staging},
    step::Content,
    tree::{Identity, Known, status},
};

/// The folder below `hello`. Every user may pass it, and only the run's user sees what is in it.
const FOLDER: (&str, Mode) = ("keys", Mode::from_raw_mode(0o711));

/// Two files in a folder that only the run's user can write.
#[derive(Debug)]
pub(super) struct Copies {
    dir: OwnedFd,
    paths: [PathBuf; 2],
    known: [Known; 2],
}

impl Copies {
    /// Writes `contents`. Each is recorded in `staging` before it has a name. Every user may read
    /// them; if they are `secret`, only `reader`.
    pub(super) fn write(
        contents: [&Content; 2],
        reader: Option<u32>,
        secret: bool,
        run: &str,
        staging: &Arc<Staging>,
    ) -> io::Result<Self> {
        let folder = Folder::of_user_or_temporary(FOLDER).map_err(|(path, e)| {
            io::Error::new(e.kind(), format!("cannot use `{}`: {e}", path.display()))
        })?;
        let mut copies = Self {
            dir: folder.fd,
            paths: Default::default(),
            known: Default::default(),
        };
        for (index, content) in contents.into_iter().enumerate() {
            let file = copies.filled(content, reader, secret)?;
            let id = fastrand::u64(..);
            let name = OsString::from(format!(".key.hello-{run}-{id:016x}"));
            let path = folder.path.join(&name);
            let identity = Identity::of(&status(&file, OsStr::new(""))?);
            staging.note(&copies.dir, &path, Stage::Whole, vec![identity])?;
            let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
            let flags = AtFlags::SYMLINK_FOLLOW;
            fs::linkat(fs::CWD, &*nameless, &copies.dir, &name, flags)?;
            copies.known[index].whole.insert(identity);
            copies.paths[index] = path;
        }
        Ok(copies)
    }

    /// Returns a file without a name (`O_TMPFILE`, open(2)) with this content.
    fn filled(&self, content: &Content, reader: Option<u32>, secret: bool) -> io::Result<OwnedFd> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let fd = fs::openat(&self.dir, ".", flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(fd);
        file.write_all(&content.bytes)?;
        let fd = OwnedFd::from(file);
        let me = rustix::process::geteuid();
        if let Some(reader) = reader.filter(|uid| me.is_root() && *uid != me.as_raw()) {
            fs::fchown(&fd, Some(Uid::from_raw(reader)), None)?;
        }
        fs::fchmod(&fd, Mode::from_raw_mode(if secret { 0o400 } else { 0o444 }))?;
        Ok(fd)
    }

    pub(super) fn paths(&self) -> &[PathBuf; 2] {
        &self.paths
    }

    /// Returns device and inode of the second file, and of the first.
    pub(super) fn inodes(&self) -> Option<[(u64, u64); 2]> {
        let inode = |index: usize| {
            let name = self.paths[index].file_name()?;
            let stat = status(&self.dir, name).ok()?;
            let device = fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
            Some((device, stat.stx_ino))
        };
        Some([inode(1)?, inode(0)?])
    }

    /// Removes the files. Returns those that could not be removed, with the reasons.
    pub(super) fn remove(self, staging: &Arc<Staging>) -> Vec<(PathBuf, String)> {
        let mut left = Vec::new();
        for (path, known) in self.paths.into_iter().zip(self.known) {
            let Some(name) = path.file_name() else {
                continue;
            };
            match known.remove(&self.dir, name, &path) {
                Ok(()) => staging.gone(&path),
                Err(why) => left.push((path, why.to_string())),
            }
        }
        left
    }
}
