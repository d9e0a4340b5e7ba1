//! What killed runs have left beside targets, for a command that may begin no run.

use std::path::Path;

use crate::{runs, screen};

/// Removes the files that killed runs of this state directory have staged. Names each that stays on
/// stderr, with the reason.
pub(crate) fn remove_leftovers(state: &Path) {
    for (path, why) in runs::sweep(state) {
        let text = format!("{}: {why}", path.display());
        screen::tell(&screen::worded("Left beside", &text));
    }
}
