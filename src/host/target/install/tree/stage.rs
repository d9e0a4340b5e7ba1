//! Stages the new directory next to the live one.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, Gid, Mode, RenameFlags, Uid},
    io::Errno,
};

use super::{
    TreeTarget,
    fill::{Filler, copy_metadata},
    snapshot::{read, read_with_entries, snapshot},
};
use crate::{
    host::target::install::{
        error::{InstallError, InstallReason},
        slot::SideEntry,
        stat::replace_blocker,
        sync::SYNCED_SINGLY,
    },
    runs::Stage,
    step::Content,
    tree::{Identity, Known, Tree, names, open, status},
};

impl TreeTarget {
    /// Returns the live directory and its content, if all of it may be replaced.
    pub(in crate::host::target::install) fn guard(&self) -> Result<(OwnedFd, Tree), InstallError> {
        let stat = self.slot.status().map_err(|e| self.slot.io(e))?;
        self.slot.guard(&stat)?;
        let live = open(&self.slot.dir, &self.slot.name).map_err(|e| self.slot.io(e))?;
        let content =
            read(&live, replace_blocker).map_err(|e| self.slot.refused(InstallReason::from(e)))?;
        Ok((live, content))
    }

    pub(in crate::host::target::install) fn stage(
        &mut self,
        to: &Content,
        run: &str,
    ) -> Result<PathBuf, InstallError> {
        let Some(tree) = &to.tree else {
            return Err(self.slot.refused(InstallReason::NotDirectory));
        };
        let (live, live_tree) = self.guard()?;
        self.slot.check_writable()?;
        let (_, entries) =
            read_with_entries(&live).map_err(|e| self.slot.refused(InstallReason::from(e)))?;
        let live_identities: Vec<Identity> = entries.identities().collect();
        self.slot.expected.get_or_insert(entries);
        let name = self.slot.staging_name(run);
        self.slot.staged = Some(SideEntry {
            name: name.clone(),
            known: Known {
                empty: true,
                ..Known::default()
            },
            original: None,
        });
        let staged = self
            .write(&name, tree, (&live, &live_tree), live_identities)
            .and_then(|()| match snapshot(&self.slot.dir, &name) {
                Some(staged) if staged.sha256 == to.sha256 => Ok(()),
                _ => Err(self.slot.refused(InstallReason::NotPreserved)),
            });
        match staged {
            Ok(()) => Ok(self.slot.path.with_file_name(name)),
            Err(e) => {
                self.slot.unstage();
                Err(e)
            }
        }
    }

    /// Writes the staged directory. Until the last step no other user can enter it.
    fn write(
        &mut self,
        name: &OsStr,
        to: &Tree,
        (live, live_tree): (&OwnedFd, &Tree),
        live_identities: Vec<Identity>,
    ) -> Result<(), InstallError> {
        self.create(name)?;
        let (staged, identity) = self.open_created(name)?;
        let is_small = to.size().0 <= SYNCED_SINGLY;
        let mut filler = Filler::new(self.slot.expected.as_ref(), is_small);
        let owner = filler
            .directory(
                to,
                &staged,
                Some((live, live_tree)),
                (Uid::ROOT, Gid::ROOT),
                Path::new(""),
            )
            .map_err(|e| self.slot.staging_error(e))?;
        // If another user has replaced a live entry since the survey, that user could read the
        // staged content with the attributes of that entry.
        self.slot.check_attributes(&filler.live)?;
        if !filler.is_complete {
            return Err(self.slot.drifted());
        }
        // The owner may enter the directory from the next step on. Its known entries are the staged
        // ones and, after the exchange, the live ones.
        let (_, entries) =
            read_with_entries(&staged).map_err(|e| self.slot.refused(InstallReason::from(e)))?;
        let known: Vec<Identity> = entries
            .identities()
            .chain([identity.owned_by(owner.0.as_raw())])
            .chain(live_identities)
            .collect();
        self.slot.record(name, Stage::Whole, known.clone())?;
        if let Some(side) = &mut self.slot.staged {
            side.known.whole.extend(known);
        }
        copy_metadata(&staged, Some(live), owner, to.mode)
            .map_err(|e| self.slot.staging_error(e))?;
        let synced = if is_small {
            fs::fsync(&staged)
        } else {
            fs::syncfs(&staged)
        };
        synced.map_err(|e| self.slot.staging_error(e))
    }

    /// Creates the empty staged directory, and checks that the filesystem can exchange two
    /// directories.
    fn create(&self, name: &OsStr) -> Result<(), InstallError> {
        let dir = &*self.slot.dir;
        let mut probe = OsString::from(name);
        probe.push("-probe");
        for name in [name, &probe] {
            self.slot.record(name, Stage::Wanted, Vec::new())?;
            fs::mkdirat(dir, name, Mode::RWXU).map_err(|e| self.slot.staging_error(e))?;
        }
        // Both are empty, so that it does not matter which of them gets the name.
        let exchanged = fs::renameat_with(dir, name, dir, &*probe, RenameFlags::EXCHANGE);
        fs::unlinkat(dir, &*probe, AtFlags::REMOVEDIR).map_err(|e| self.slot.staging_error(e))?;
        let probe_path = self.slot.path.with_file_name(&probe);
        self.slot.staging.gone(&probe_path);
        match exchanged {
            Ok(()) => Ok(()),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                Err(self.slot.refused(InstallReason::NoExchange))
            }
            Err(e) => Err(self.slot.staging_error(e)),
        }
    }

    /// Opens the created directory, and records it. A user that may write the parent directory
    /// could replace it: if it has another owner or an entry, it is not the created one.
    fn open_created(&mut self, name: &OsStr) -> Result<(OwnedFd, Identity), InstallError> {
        let failed = |e: io::Error| self.slot.staging_error(e);
        let staged = open(&self.slot.dir, name).map_err(|e| failed(e.into()))?;
        let stat = status(&staged, OsStr::new("")).map_err(|e| failed(e.into()))?;
        let is_empty = names(&staged, 0).map_err(|e| failed(e.into()))?.is_empty();
        if stat.stx_uid != rustix::process::geteuid().as_raw() || !is_empty {
            return Err(failed(io::Error::other(
                "another user replaced the new directory",
            )));
        }
        let identity = Identity::of(&stat);
        self.slot.record(name, Stage::Sealed, vec![identity])?;
        if let Some(side) = &mut self.slot.staged {
            side.known.sealed.insert(identity.unwritten());
        }
        Ok((staged, identity))
    }
}
