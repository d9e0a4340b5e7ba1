//! What a look at a name in a directory says.

use rustix::fs::{FileType, Statx, StatxAttributes};

pub(super) fn ctime(stat: &Statx) -> i128 {
    i128::from(stat.stx_ctime.tv_sec) * 1_000_000_000 + i128::from(stat.stx_ctime.tv_nsec)
}

pub(super) fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// Why nobody may replace it; none when one may.
pub(super) fn fixed(stat: &Statx) -> Option<&'static str> {
    let is = |flag: StatxAttributes| stat.stx_attributes.contains(flag);
    if is(StatxAttributes::MOUNT_ROOT) {
        return Some("is a mount point; change the file it is bound from");
    }
    if is(StatxAttributes::IMMUTABLE) || is(StatxAttributes::APPEND) {
        return Some("is immutable or append-only (chattr)");
    }
    if kind(stat) != FileType::Directory && stat.stx_nlink > 1 {
        return Some("has more than one hard link, and the other names would keep the old bytes");
    }
    None
}
