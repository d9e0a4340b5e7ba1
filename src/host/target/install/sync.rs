//! When what is staged is put on the disk.

/// Above so many in one run, files and directories are put on the disk all at once; up to so many
/// each by itself, which waits for no other file of a busy disk.
pub(super) const SYNCED_SINGLY: usize = 100;

/// When what is staged is put on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// At once.
    Singly,
    /// By [`sync_all`], before anything is installed.
    Together,
}

impl Sync {
    /// For so many targets.
    pub(crate) fn of(targets: usize) -> Self {
        if targets > SYNCED_SINGLY {
            Self::Together
        } else {
            Self::Singly
        }
    }
}
