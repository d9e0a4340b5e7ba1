//! The direction of a run that continues an earlier one, and the reasons why there is none.

use super::order::RecoverOrder;
use crate::{
    event::{Abort, Direction, Verdict},
    runs::{InterruptedRun, RunError, RunInfo, Verb},
    session::context::SessionOptions,
};

/// Returns the direction of this run.
///
/// # Errors
/// Fails if there is nothing to continue, or if another run must be continued first.
pub(super) fn direction(order: &RecoverOrder, left: &InterruptedRun) -> Result<Direction, Abort> {
    let RecoverOrder { verb, options, .. } = order;
    if *verb == Verb::Resume {
        ensure_open(options, left)?;
    }
    if let Some(later) = left.overtaken_by(&options.state) {
        let later = RunInfo::of(&options.state, &later);
        let why = format!(
            "run {} came after run {} and was left open as well",
            later.id, left.id
        );
        let commands = later.next(&options.state_args);
        return Err(refused(why).with_hint("nothing was touched; that run goes first:", commands));
    }
    // An open run that was restoring the old config is continued by a revert. One that came to its
    // end is reverted.
    let back = *verb == Verb::Revert && !(left.back && left.info.open);
    if !back {
        return Ok(Direction::Forward);
    }
    if left.targets.is_empty() {
        let id = &left.id;
        return Err(refused(format!(
            "run {id} changed no config, so there is none to restore"
        )));
    }
    Ok(Direction::Back)
}

/// # Errors
/// Fails if the run came to its end, or if a later run took its place.
fn ensure_open(options: &SessionOptions, left: &InterruptedRun) -> Result<(), Abort> {
    let id = &left.id;
    let args = &options.state_args;
    if let Some(later) = left.superseded_by() {
        let later = RunInfo::of(&options.state, later);
        let why = format!(
            "run {id} has its end in run {}, which took its place",
            later.id
        );
        let commands = if later.open {
            later.next(args)
        } else {
            vec![format!("hello history {}{args}", later.id)]
        };
        return Err(refused(why).with_hint("nothing was touched; see that run:", commands));
    }
    if !left.info.open {
        let why = format!("run {id} came to its end, and there is nothing to resume");
        let commands = vec![
            format!("hello history {id}{args}"),
            format!("hello revert {id}{args}"),
        ];
        let what = "nothing was touched; what the run did, and how to restore the config from \
                    before it:";
        return Err(refused(why).with_hint(what, commands));
    }
    Ok(())
}

fn refused(why: String) -> Abort {
    Abort::new(Verdict::Refused, why)
}

/// Returns the abort of a command whose run cannot be read.
pub(super) fn no_run(options: &SessionOptions, e: &RunError) -> Abort {
    let args = &options.state_args;
    let abort = Abort::new(e.verdict(), e.to_string());
    match e {
        RunError::NoneOpen(_) | RunError::Unknown(..) | RunError::Ambiguous(..) => abort.with_hint(
            "nothing was touched; see the runs that are kept:",
            vec![format!("hello history{args}")],
        ),
        RunError::Running(run, ..) => abort.with_hint(
            "nothing was touched; let it end or interrupt it, and then look at what it did:",
            vec![format!("hello history {run}{args}")],
        ),
        RunError::State(..) | RunError::Unreadable(..) | RunError::OldVersion { .. } => abort,
    }
}
