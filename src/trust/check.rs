//! The trust checks: which users can change the path, or write the file or directory at its end.

use rustix::fs::Stat;

use super::{Distrust, HeldEntry, LookedUpEntry, ResolvedPath};

/// The sticky bit: in such a directory only the owner of an entry, or of the directory, can rename
/// or remove the entry.
const STICKY: u32 = 0o1000;

/// The names, in messages, of the users that are always trusted.
const ROOT_AND_CALLER: &str = "root and you";

/// Tells whether a user is root or the caller.
#[must_use]
fn is_us(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Tells whether a mode lets users other than the owner write. With an access-control list the
/// group bits are its mask, so they cover every entry of the list.
#[must_use]
fn others_can_write(mode: u32) -> bool {
    mode & 0o022 != 0
}

/// Tells whether only root and the caller can write a file or directory of this owner and mode.
#[must_use]
pub(crate) fn only_us_can_write(owner: u32, mode: u32) -> bool {
    is_us(owner) && !others_can_write(mode)
}

/// Returns the names of root, the caller and `owner`, each once.
fn writers(owner: u32) -> String {
    if is_us(owner) {
        ROOT_AND_CALLER.to_owned()
    } else {
        format!("root, you and uid {owner}")
    }
}

fn is_sticky(stat: &Stat) -> bool {
    stat.st_mode & STICKY != 0
}

impl LookedUpEntry {
    /// Tells whether only root, the caller and `owner` can replace the entry.
    fn is_replaceable_only_by(&self, owner: u32) -> bool {
        let trusted = |uid: u32| is_us(uid) || uid == owner;
        let kept = !others_can_write(self.dir_stat.st_mode)
            || (is_sticky(&self.dir_stat) && trusted(self.uid));
        trusted(self.dir_stat.st_uid) && kept
    }
}

impl ResolvedPath {
    /// Checks that only root and the caller can change the links that were followed.
    ///
    /// # Errors
    /// Fails with the link if another user can.
    pub(crate) fn links_trusted(&self) -> Result<(), Distrust> {
        self.links_changeable_only_by(rustix::process::geteuid().as_raw())
    }

    fn links_changeable_only_by(&self, owner: u32) -> Result<(), Distrust> {
        match self
            .looked_up
            .iter()
            .find(|entry| entry.is_link && !entry.is_replaceable_only_by(owner))
        {
            Some(link) => Err(Distrust::Link {
                path: link.path.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Checks that only root and the caller can change the path, and write the file or directory
    /// at its end.
    ///
    /// # Errors
    /// Fails with the first directory, file or link that another user can change.
    pub(crate) fn writable_only_by_us(&self) -> Result<(), Distrust> {
        let me = rustix::process::geteuid().as_raw();
        let Some(entry) = self
            .looked_up
            .iter()
            .find(|entry| !entry.is_replaceable_only_by(me))
        else {
            return self.end_writable_only_by_us();
        };
        if entry.is_link {
            return Err(Distrust::Link {
                path: entry.path.clone(),
            });
        }
        let foreign_owner = !is_us(entry.dir_stat.st_uid);
        // In a sticky directory of a trusted user the owner of the entry is at fault.
        let entry_is_foreign = is_sticky(&entry.dir_stat) && !foreign_owner;
        Err(Distrust::Writable {
            path: if entry_is_foreign {
                entry.path.clone()
            } else {
                entry.dir.clone()
            },
            writers: ROOT_AND_CALLER.into(),
            foreign_owner: entry_is_foreign || foreign_owner,
        })
    }

    /// Checks the file or directory at the end alone, without the path to it.
    fn end_writable_only_by_us(&self) -> Result<(), Distrust> {
        let stat = &self.last.stat;
        if only_us_can_write(stat.st_uid, stat.st_mode) {
            return Ok(());
        }
        Err(Distrust::Writable {
            path: self.last.path.clone(),
            writers: ROOT_AND_CALLER.into(),
            foreign_owner: !is_us(stat.st_uid),
        })
    }

    /// Checks that not every user can change the path or write the file at its end, and that only
    /// root and the caller can change the links to it. A group may: an administrator has chosen its
    /// members.
    ///
    /// # Errors
    /// Fails with the directory, file or link.
    pub(crate) fn closed_to_all(&self) -> Result<(), Distrust> {
        let all_can = |stat: &Stat| stat.st_mode & 0o002 != 0;
        let parent = self.above.last().map(|entry| &entry.path);
        // In a sticky directory no user can replace the next directory of another one. A file that
        // is missing there, every user could create.
        let open = self.above.iter().find(|entry| {
            all_can(&entry.stat) && (!is_sticky(&entry.stat) || Some(&entry.path) == parent)
        });
        match open.or(Some(&self.last).filter(|last| all_can(&last.stat))) {
            Some(entry) => Err(Distrust::Writable {
                path: entry.path.clone(),
                writers: "its owner and its group".into(),
                foreign_owner: false,
            }),
            None => self.links_trusted(),
        }
    }

    /// Checks as [`ResolvedPath::writable_only_by_us`] does if the caller is root. A caller that
    /// is not root is responsible for the directories of its own home, so only the end is checked.
    ///
    /// # Errors
    /// Fails with the directory, file or link that another user can change.
    pub(crate) fn is_trusted(&self) -> Result<(), Distrust> {
        if rustix::process::geteuid().is_root() {
            self.writable_only_by_us()
        } else {
            self.end_writable_only_by_us()
        }
    }

    /// Checks that only root, the caller and `owner` can change the path, and `owner` only within
    /// its own directories. From the first directory of `owner` on, each must be `owner`'s; above
    /// it, no link may be `owner`'s.
    ///
    /// # Errors
    /// Fails with the directory or link.
    pub(crate) fn changeable_only_by(&self, owner: u32) -> Result<(), Distrust> {
        self.check_directories(self.above.iter(), owner)
    }

    /// Checks the same, and that only root, the caller and `owner` can write the file at the end.
    ///
    /// # Errors
    /// Fails with the file, directory or link.
    pub(crate) fn writable_only_by(&self, owner: u32) -> Result<(), Distrust> {
        let HeldEntry { path, stat, .. } = &self.last;
        let foreign_owner = !(is_us(stat.st_uid) || stat.st_uid == owner);
        if foreign_owner || others_can_write(stat.st_mode) {
            return Err(Distrust::Writable {
                path: path.clone(),
                writers: writers(owner),
                foreign_owner,
            });
        }
        self.changeable_only_by(owner)
    }

    /// Checks [`ResolvedPath::changeable_only_by`] for the entries of the directory at the end.
    ///
    /// # Errors
    /// Fails with the directory or link.
    pub(crate) fn entries_changeable_only_by(&self, owner: u32) -> Result<(), Distrust> {
        self.check_directories(self.above.iter().chain([&self.last]), owner)
    }

    fn check_directories<'a>(
        &self,
        dirs: impl Iterator<Item = &'a HeldEntry>,
        owner: u32,
    ) -> Result<(), Distrust> {
        let mut dirs = dirs.peekable();
        let mut is_inside_owners = false;
        while let Some(HeldEntry { path, stat, .. }) = dirs.next() {
            // In a sticky directory no other user can replace the next directory. A file that is
            // missing there, another user could create first.
            let is_last = dirs.peek().is_none();
            let others_can = others_can_write(stat.st_mode) && (!is_sticky(stat) || is_last);
            let foreign_owner = !(is_us(stat.st_uid) || stat.st_uid == owner);
            if others_can || foreign_owner {
                return Err(Distrust::Writable {
                    path: path.clone(),
                    writers: writers(owner),
                    foreign_owner,
                });
            }
            if is_inside_owners && is_us(stat.st_uid) {
                return Err(Distrust::Exchangeable {
                    path: path.clone(),
                    uid: owner,
                });
            }
            is_inside_owners |= !is_us(stat.st_uid);
        }
        if is_inside_owners {
            self.links_changeable_only_by(owner)
        } else {
            self.links_trusted()
        }
    }
}
