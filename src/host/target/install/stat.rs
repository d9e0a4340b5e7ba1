//! Facts from the status of an entry.

use rustix::fs::{FileType, Statx, StatxAttributes};

use crate::tree::kind;

/// Returns the last change of any kind, in nanoseconds since 1970.
pub(super) fn ctime(stat: &Statx) -> i128 {
    i128::from(stat.stx_ctime.tv_sec) * 1_000_000_000 + i128::from(stat.stx_ctime.tv_nsec)
}

/// An attribute with which no run may replace an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockingAttribute {
    MountPoint,
    Immutable,
    HardLinks,
}

impl BlockingAttribute {
    /// Returns the text about the entry, without its subject.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::MountPoint => "is a mount point",
            Self::Immutable => "is immutable or append-only (chattr)",
            Self::HardLinks => {
                "has more than one hard link, and the other names would keep the old bytes"
            }
        }
    }
}

/// Returns the attribute with which no run may replace an entry; none if a run may.
pub(super) fn replace_blocker(stat: &Statx) -> Option<BlockingAttribute> {
    let has = |flag: StatxAttributes| stat.stx_attributes.contains(flag);
    if has(StatxAttributes::MOUNT_ROOT) {
        return Some(BlockingAttribute::MountPoint);
    }
    if has(StatxAttributes::IMMUTABLE) || has(StatxAttributes::APPEND) {
        return Some(BlockingAttribute::Immutable);
    }
    let has_links = kind(stat) != FileType::Directory && stat.stx_nlink > 1;
    has_links.then_some(BlockingAttribute::HardLinks)
}
