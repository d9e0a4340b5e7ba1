//! The time of the last change of a file.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

/// Returns the last change of any kind, in nanoseconds since 1970.
pub(crate) fn changed_ns(meta: &Metadata) -> i128 {
    i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec())
}
