//! What this host removes for a coordinator.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::refusal::{Refusal, refusal};
use crate::{
    event::Verdict,
    protocol::KeptItem,
    runs::{self, Matches, NotForgotten, OpenRuns},
};

/// What a host has removed, or why not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HostAnswer {
    /// `converged`: it is removed, or a check found that it can be. `no_match`: it is not here.
    pub(crate) verdict: Verdict,
    /// Why it is not removed.
    pub(crate) reason: Option<String>,
    /// Of a run: the contents that nothing else needed.
    pub(crate) contents: usize,
    /// Of a content: the runs that had it.
    pub(crate) runs: usize,
    /// Of a content: a process that runs now was last proven on it.
    pub(crate) proven: bool,
}

impl HostAnswer {
    fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            reason: None,
            contents: 0,
            runs: 0,
            proven: false,
        }
    }

    fn refused(why: Refusal) -> Self {
        Self {
            reason: Some(why.why),
            ..Self::new(why.verdict)
        }
    }
}

/// Removes a run or a content of this host; with `check` it only finds out whether that can be
/// done. The guards are those of the command.
pub(crate) async fn forget_of_host(
    state: &Path,
    item: &KeptItem,
    open: OpenRuns,
    check: bool,
) -> HostAnswer {
    match is_kept(state, item) {
        Ok(true) => {}
        Ok(false) => return HostAnswer::new(Verdict::NoMatch),
        Err(e) => return HostAnswer::refused(refusal(NotForgotten::Io(e), (state, ""))),
    }
    let done = match (item, check) {
        (KeptItem::Run(id), true) => {
            runs::check_run(state, id, open).map(|()| HostAnswer::new(Verdict::Converged))
        }
        (KeptItem::Run(id), false) => {
            let contents = runs::forget_run(state, id, open).await;
            contents.map(|contents| HostAnswer {
                contents,
                ..HostAnswer::new(Verdict::Converged)
            })
        }
        (KeptItem::Sha256(sha256), true) => {
            runs::check_bytes(state, sha256).map(|()| HostAnswer::new(Verdict::Converged))
        }
        (KeptItem::Sha256(sha256), false) => {
            let done = runs::forget_bytes(state, sha256).await;
            done.map(|(runs, proven)| HostAnswer {
                runs,
                proven,
                ..HostAnswer::new(Verdict::Converged)
            })
        }
    };
    done.unwrap_or_else(|why| HostAnswer::refused(refusal(why, (state, ""))))
}

/// Tells whether this host has the item. A name that is not whole means nothing.
fn is_kept(state: &Path, item: &KeptItem) -> std::io::Result<bool> {
    match item {
        KeptItem::Run(id) => {
            let is_marked = || runs::marked_ids(state).map(|ids| ids.contains(id));
            Ok(runs::run_ids(state)?.contains(id) || is_marked()?)
        }
        KeptItem::Sha256(sha256) => {
            let found = Matches::of(state, &format!("sha256:{sha256}"))?;
            Ok(found.contents.contains(sha256))
        }
    }
}
