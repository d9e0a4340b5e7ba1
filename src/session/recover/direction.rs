//! The direction of a run that continues an earlier one, and the reasons why there is none.

use super::order::{Caller, RecoverOrder};
use crate::{
    event::{Abort, Direction, Verdict},
    protocol::PartOf,
    runs::{self, InterruptedRun, RunError, RunInfo, Verb},
    screen,
    session::context::SessionOptions,
    step::{Survey, short},
};

/// Returns the direction of this run.
///
/// # Errors
/// Fails if there is nothing to continue, or if another run must be continued first.
pub(super) fn direction(order: &RecoverOrder, left: &InterruptedRun) -> Result<Direction, Abort> {
    let RecoverOrder { verb, options, .. } = order;
    match order.caller {
        _ if *verb != Verb::Resume => {}
        Caller::Coordinator { is_over: true } => {}
        Caller::Coordinator { is_over: false } | Caller::Timer => ensure_open(options, left)?,
        Caller::Operator => {
            ensure_open(options, left)?;
            ensure_whole(left)?;
        }
    }
    if let Some(later) = left.overtaken_by(&options.state) {
        let later = RunInfo::of(&options.state, &later);
        let why = format!(
            "run {} came after run {} and was left open as well",
            later.id, left.id
        );
        let commands = commands(&later, &options.state_args);
        return Err(Abort {
            goes_first: later.part_of().map(|_| later.id.clone()),
            ..refused(why).with_hint("nothing was touched; that run goes first:", commands)
        });
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
            commands(&later, args)
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

/// # Errors
/// Fails if the run is a part of one over hosts: this host alone would go on with it.
fn ensure_whole(left: &InterruptedRun) -> Result<(), Abort> {
    let Some(PartOf { coordinator, hosts }) = &left.part_of else {
        return Ok(());
    };
    let id = &left.id;
    let on = coordinator
        .as_ref()
        .map_or_else(String::new, |coordinator| format!(" on `{coordinator}`"));
    let why = format!(
        "run {id} is over {}, and its coordinator was{on}: a resume on this host alone would leave \
         the others on another config",
        screen::counted(*hosts, "host")
    );
    let what = "nothing was touched; where the index of the run is, or with --fleet and the file \
                of its hosts:";
    Err(refused(why).with_hint(what, vec![format!("hello resume {id}")]))
}

/// Checks that every target still is what a finished run has made it.
///
/// # Errors
/// Fails if one is not: the run was reverted here, or a later one took its place.
pub(super) fn ensure_in_force(
    options: &SessionOptions,
    left: &InterruptedRun,
    found: &Survey,
) -> Result<(), Abort> {
    for target in &left.targets {
        let disk = found.targets.get(&target.path);
        let disk = disk.map(|disk| disk.content.sha256.as_str());
        if disk != Some(target.to.as_str()) {
            let later =
                disk.and_then(|disk| runs::later(&options.state, &left.id, &target.path, disk));
            let cause = later.map_or_else(
                || "another program has changed it since".to_owned(),
                |run| format!("run {run} came after it"),
            );
            return Err(refused(format!(
                "run {} came to its end here, and `{}` on disk is {}, not what that made it ({}): \
                 {cause}",
                left.id,
                target.path.display(),
                disk.map_or("gone", short),
                short(&target.to)
            )));
        }
    }
    Ok(())
}

/// Returns the commands that finish an open run, wherever they are typed.
fn commands(run: &RunInfo, state_args: &str) -> Vec<String> {
    match run.elsewhere() {
        Some(elsewhere) => elsewhere.commands,
        None => run.next(state_args),
    }
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
