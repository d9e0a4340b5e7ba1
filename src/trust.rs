//! Which paths count: a path decides something only where no other user can make it lead elsewhere.
//!
//! A path is walked part by part, each by a descriptor of the directory that it stands in. What is
//! judged is what is held, and what is opened is what was judged.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{self, FileType, Mode, OFlags, Stat},
    io::Errno,
};

/// Longest chain of links, as the kernel has it: a longer one is a circle.
const MAX_LINKS: usize = 40;

/// Why a path does not count; each names the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Another user owns this directory or file, or may write it.
    #[error("others than {whom} can write `{}`", .place.display())]
    Writable {
        /// The directory or file.
        place: PathBuf,
        /// Whose word would count.
        whom: String,
        /// Whether another user owns it; else its mode lets others write it.
        foreign: bool,
    },
    /// A directory of root's or the caller's within one of the process's user, who can exchange it.
    #[error("uid {uid} can put another directory in the place of `{}`, which is not its \
             own", .place.display())]
    Exchangeable {
        /// The directory.
        place: PathBuf,
        /// The process's user.
        uid: u32,
    },
    /// A link that another user placed or can change.
    #[error("it is reached by a link that others than root and you can change \
             (`{}`)", .place.display())]
    Link {
        /// The link.
        place: PathBuf,
    },
}

impl Distrust {
    /// The directory, file or link that another user decides about.
    #[must_use]
    pub fn place(&self) -> &Path {
        match self {
            Self::Writable { place, .. }
            | Self::Exchangeable { place, .. }
            | Self::Link { place } => place,
        }
    }

    /// The command that mends it, where one does.
    #[must_use]
    pub fn mend(&self) -> Option<String> {
        let me = rustix::process::geteuid();
        match self {
            Self::Writable {
                place,
                foreign: true,
                ..
            } => Some(format!("chown {me} {}", crate::screen::quote(place))),
            Self::Writable { place, .. } => {
                Some(format!("chmod go-w {}", crate::screen::quote(place)))
            }
            Self::Exchangeable { .. } | Self::Link { .. } => None,
        }
    }
}

impl From<Distrust> for io::Error {
    fn from(why: Distrust) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, why)
    }
}

/// Whether it is root or this user.
#[must_use]
pub fn is_us(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Whether others than its owner can write it. Where there is an access-control list, the group's
/// bits are its mask.
fn is_open(stat: &Stat) -> bool {
    stat.st_mode & 0o022 != 0
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// A directory, file or link that is held.
#[derive(Debug)]
struct HeldLink {
    fd: OwnedFd,
    path: PathBuf,
    stat: Stat,
}

/// An entry that was looked up in a directory.
#[derive(Debug)]
struct Passed {
    entry: PathBuf,
    entry_uid: u32,
    is_link: bool,
    dir: PathBuf,
    dir_stat: Stat,
}

impl Passed {
    /// Whether only root, this user and `owner` can make the entry another one.
    fn is_by(&self, owner: u32) -> bool {
        let known = |uid: u32| is_us(uid) || uid == owner;
        // In a sticky directory the owner of an entry alone can take it away.
        let kept = !is_open(&self.dir_stat)
            || (self.dir_stat.st_mode & 0o1000 != 0 && known(self.entry_uid));
        known(self.dir_stat.st_uid) && kept
    }
}

/// A path that was walked to its end, or as far as there is something.
#[derive(Debug)]
pub struct ResolvedPath {
    /// Without any link in it.
    pub end: PathBuf,
    /// The directories above the end, from the root.
    above: Vec<HeldLink>,
    last: HeldLink,
    passed: Vec<Passed>,
    links: usize,
}

fn held(dir: impl std::os::fd::AsFd, name: &OsStr, path: PathBuf) -> io::Result<HeldLink> {
    let fd = fs::openat(
        dir,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let stat = fs::fstat(&fd)?;
    Ok(HeldLink { fd, path, stat })
}

fn reversed(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .map(|c| c.as_os_str().to_owned())
        .collect()
}

impl ResolvedPath {
    /// Walks a path; a relative one begins at the working directory.
    ///
    /// # Errors
    /// Fails if it does not exist or may not be searched.
    pub fn of(named: &Path) -> io::Result<Self> {
        match Self::until(named)? {
            (way, missing) if missing.is_empty() => Ok(way),
            _ => Err(Errno::NOENT.into()),
        }
    }

    /// Walks a path as far as it exists; answers also the names that are missing at its end.
    ///
    /// # Errors
    /// Fails if it may not be searched, or turns back where there is nothing.
    pub fn until(named: &Path) -> io::Result<(Self, Vec<OsString>)> {
        let whole = if named.is_absolute() {
            named.to_owned()
        } else {
            std::env::current_dir()?.join(named)
        };
        let root = held(fs::CWD, OsStr::new("/"), PathBuf::from("/"))?;
        let mut way = Self {
            end: PathBuf::from("/"),
            above: Vec::new(),
            last: root,
            passed: Vec::new(),
            links: 0,
        };
        let mut ahead = reversed(&whole);
        while let Some(part) = ahead.pop() {
            match Path::new(&part).components().next() {
                Some(Component::RootDir) => {
                    way.above.truncate(1);
                    way.rise();
                }
                Some(Component::ParentDir) => way.rise(),
                Some(Component::Normal(name)) => match way.descend(name, &mut ahead) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        ahead.push(part);
                        ahead.reverse();
                        let plain = |part: &OsString| {
                            matches!(
                                Path::new(part).components().next(),
                                Some(Component::Normal(_))
                            )
                        };
                        let is_plain = ahead.iter().all(plain);
                        way.end.clone_from(&way.last.path);
                        return if is_plain { Ok((way, ahead)) } else { Err(e) };
                    }
                    said => said?,
                },
                _ => {}
            }
        }
        // A file that is named as a directory is none.
        if named.as_os_str().as_encoded_bytes().ends_with(b"/") && !way.is_directory() {
            return Err(Errno::NOTDIR.into());
        }
        way.end.clone_from(&way.last.path);
        Ok((way, Vec::new()))
    }

    fn rise(&mut self) {
        if let Some(parent) = self.above.pop() {
            self.last = parent;
        }
    }

    /// Takes one name; what a link says is walked next.
    fn descend(&mut self, name: &OsStr, ahead: &mut Vec<OsString>) -> io::Result<()> {
        if !self.is_directory() {
            return Err(Errno::NOTDIR.into());
        }
        let next = held(&self.last.fd, name, self.last.path.join(name))?;
        let is_link = kind(&next.stat) == FileType::Symlink;
        self.passed.push(Passed {
            entry: next.path.clone(),
            entry_uid: next.stat.st_uid,
            is_link,
            dir: self.last.path.clone(),
            dir_stat: self.last.stat,
        });
        if !is_link {
            self.above.push(std::mem::replace(&mut self.last, next));
            return Ok(());
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        // The very link that is held.
        let says = OsString::from_vec(fs::readlinkat(&next.fd, "", Vec::new())?.into_bytes());
        let is_ours = self.last.path.starts_with("/proc") && self.last.path.ends_with("fd");
        if is_ours && name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            // A descriptor that was handed down: its name leads nowhere, the kernel does.
            let fd = fs::openat(
                &self.last.fd,
                name,
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            let stat = fs::fstat(&fd)?;
            let next = HeldLink {
                fd,
                path: PathBuf::from(says),
                stat,
            };
            self.above.push(std::mem::replace(&mut self.last, next));
            return Ok(());
        }
        ahead.extend(reversed(Path::new(&says)));
        Ok(())
    }

    /// Whether what stands at the end is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        kind(&self.last.stat) == FileType::Directory
    }

    /// What stands at the end.
    #[must_use]
    pub fn stat(&self) -> &Stat {
        &self.last.stat
    }

    /// Whether the path leads each process to something of its own, such as its standard input.
    #[must_use]
    pub fn is_of_a_process(&self) -> bool {
        let proc = Path::new("/proc");
        self.passed.iter().any(|passed| {
            (passed.is_link && passed.dir == proc)
                || (passed.dir.starts_with(proc) && passed.dir.ends_with("fd"))
        })
    }

    /// Whether a link was followed.
    #[must_use]
    pub fn has_links(&self) -> bool {
        self.links > 0
    }

    /// Opens for reading what stands at the end: that very file or directory, whatever has its name
    /// by now.
    ///
    /// # Errors
    /// Fails as the system does.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if self.is_directory() {
            return Ok(fs::openat(
                &self.last.fd,
                ".",
                flags | OFlags::DIRECTORY,
                Mode::empty(),
            )?);
        }
        Ok(fs::open(
            format!("/proc/self/fd/{}", self.last.fd.as_raw_fd()),
            flags,
            Mode::empty(),
        )?)
    }

    /// Whether each link that was followed is root's or this user's word.
    ///
    /// # Errors
    /// Names the link.
    pub fn is_straight(&self) -> Result<(), Distrust> {
        self.links_by(rustix::process::geteuid().as_raw())
    }

    fn links_by(&self, owner: u32) -> Result<(), Distrust> {
        match self
            .passed
            .iter()
            .find(|passed| passed.is_link && !passed.is_by(owner))
        {
            Some(link) => Err(Distrust::Link {
                place: link.entry.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Whether only root and this user decide what stands at the end, and only they can write it.
    ///
    /// # Errors
    /// Names the first place that another user decides about.
    pub fn is_ours(&self) -> Result<(), Distrust> {
        let me = rustix::process::geteuid().as_raw();
        let whom = || "root and you".to_owned();
        if let Some(passed) = self.passed.iter().find(|passed| !passed.is_by(me)) {
            if passed.is_link {
                return Err(Distrust::Link {
                    place: passed.entry.clone(),
                });
            }
            let sticky = passed.dir_stat.st_mode & 0o1000 != 0 && is_us(passed.dir_stat.st_uid);
            let (place, foreign) = if sticky {
                (passed.entry.clone(), true)
            } else {
                (passed.dir.clone(), !is_us(passed.dir_stat.st_uid))
            };
            return Err(Distrust::Writable {
                place,
                whom: whom(),
                foreign,
            });
        }
        self.end_is_ours()
    }

    /// The same, of what stands at the end alone.
    fn end_is_ours(&self) -> Result<(), Distrust> {
        let foreign = !is_us(self.last.stat.st_uid);
        if foreign || is_open(&self.last.stat) {
            return Err(Distrust::Writable {
                place: self.last.path.clone(),
                whom: "root and you".into(),
                foreign,
            });
        }
        Ok(())
    }

    /// As [`Way::is_ours`] for root; a caller that is not root answers for the directories of its
    /// own home.
    ///
    /// # Errors
    /// Names the place.
    pub fn counts(&self) -> Result<(), Distrust> {
        if rustix::process::geteuid().is_root() {
            self.is_ours()
        } else {
            self.end_is_ours()
        }
    }

    /// Whether only root, this user and `owner` decide what stands at the end, and `owner` only
    /// within directories of its own: from the first of them on every one must be `owner`'s, and
    /// above them no link may be `owner`'s.
    ///
    /// # Errors
    /// Names the directory or link.
    pub fn is_guarded(&self, owner: u32) -> Result<(), Distrust> {
        self.guarded(self.above.iter(), owner)
    }

    /// The same of what stands in the directory at the end.
    ///
    /// # Errors
    /// Names the directory or link.
    pub fn guards(&self, owner: u32) -> Result<(), Distrust> {
        self.guarded(self.above.iter().chain([&self.last]), owner)
    }

    fn guarded<'a>(
        &self,
        dirs: impl Iterator<Item = &'a HeldLink>,
        owner: u32,
    ) -> Result<(), Distrust> {
        let whom = || {
            if is_us(owner) {
                "root and you".to_owned()
            } else {
                format!("root, you and uid {owner}")
            }
        };
        let (mut dirs, mut given) = (dirs.peekable(), false);
        while let Some(HeldLink { path, stat, .. }) = dirs.next() {
            // In a sticky directory no other user can replace the next one; a file in it they could
            // put there first.
            let others = is_open(stat) && (stat.st_mode & 0o1000 == 0 || dirs.peek().is_none());
            let foreign = !(is_us(stat.st_uid) || stat.st_uid == owner);
            if others || foreign {
                return Err(Distrust::Writable {
                    place: path.clone(),
                    whom: whom(),
                    foreign,
                });
            }
            if given && is_us(stat.st_uid) {
                return Err(Distrust::Exchangeable {
                    place: path.clone(),
                    uid: owner,
                });
            }
            given |= !is_us(stat.st_uid);
        }
        if given {
            self.links_by(owner)
        } else {
            self.is_straight()
        }
    }
}

/// Opens what the operator named. As root no link is followed that another user could place or
/// change: it would make root read any file of root's.
///
/// # Errors
/// Fails if there is such a link, or as the system does.
pub fn open_named(path: &Path) -> io::Result<OwnedFd> {
    let way = ResolvedPath::of(path)?;
    if rustix::process::geteuid().is_root() {
        way.is_straight()?;
    }
    way.open()
}

#[cfg(test)]
mod tests;
