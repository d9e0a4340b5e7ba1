//! The checks that a target passes before anything is written.

use rustix::fs::{self, Statx};

use super::{
    error::{InstallError, InstallReason},
    slot::TargetSlot,
    stat::{BlockingAttribute, replace_blocker},
};
use crate::{host::target::access::check_may_create, refusal::Refusal};

/// The sticky bit: in such a directory only the owner of an entry, or of the directory, can rename
/// or remove the entry.
const STICKY: u32 = 0o1000;

impl TargetSlot {
    /// Checks that a run may replace the target, whatever its type.
    pub(super) fn guard(&self, stat: &Statx) -> Result<(), InstallError> {
        if let Some(attribute) = replace_blocker(stat) {
            let mut why = Refusal::from(InstallReason::Blocked(attribute));
            if attribute == BlockingAttribute::MountPoint {
                why = why.with_hint("change the file it is bound from");
            }
            return Err(self.refused(why));
        }
        let dir = fs::fstat(&*self.dir).map_err(|e| self.io(e))?;
        let me = rustix::process::geteuid();
        let owns_one = [dir.st_uid, stat.stx_uid].contains(&me.as_raw());
        if dir.st_mode & STICKY != 0 && !me.is_root() && !owns_one {
            return Err(self.refused(InstallReason::Sticky));
        }
        Ok(())
    }

    /// Checks that the caller could create an entry of the same owner next to the target.
    pub(super) fn check_writable(&self) -> Result<(), InstallError> {
        let owner = self.status().map_err(|e| self.io(e))?.stx_uid;
        let me = rustix::process::geteuid();
        if !me.is_root() && owner != me.as_raw() {
            return Err(self.refused(InstallReason::OtherOwner(owner)));
        }
        check_may_create(&*self.dir).map_err(|e| self.staging_error(e))
    }
}
