//! When staged files and directories are written to the disk.

/// The most files and directories that are synced one by one. A single fsync does not wait for the
/// other files of a busy disk; above this number one syncfs per filesystem is faster.
pub(super) const SYNCED_SINGLY: usize = 100;

/// When staged files and directories are written to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Each one when it is staged.
    Singly,
    /// All by [`super::sync_all`], before anything is installed.
    Together,
}

impl Sync {
    /// Returns the mode for a number of targets.
    pub(crate) fn of(targets: usize) -> Self {
        if targets > SYNCED_SINGLY {
            Self::Together
        } else {
            Self::Singly
        }
    }
}
