//! Facts from the status of an entry.

use rustix::fs::{FileType, Statx, StatxAttributes};

use crate::tree::kind;

/// Returns the last change of any kind, in nanoseconds since 1970.
pub(super) fn ctime(stat: &Statx) -> i128 {
    i128::from(stat.stx_ctime.tv_sec) * 1_000_000_000 + i128::from(stat.stx_ctime.tv_nsec)
}

/// Returns the reason that no run may replace an entry; none if a run may.
pub(super) fn replace_blocker(stat: &Statx) -> Option<&'static str> {
    let has = |flag: StatxAttributes| stat.stx_attributes.contains(flag);
    if has(StatxAttributes::MOUNT_ROOT) {
        return Some("is a mount point; change the file it is bound from");
    }
    if has(StatxAttributes::IMMUTABLE) || has(StatxAttributes::APPEND) {
        return Some("is immutable or append-only (chattr)");
    }
    if kind(stat) != FileType::Directory && stat.stx_nlink > 1 {
        return Some("has more than one hard link, and the other names would keep the old bytes");
    }
    None
}
