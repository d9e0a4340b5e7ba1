//! What a refusal names besides its reason: open runs, and the command that goes on without what
//! refused.

use std::path::PathBuf;

use super::context::SessionOptions;
use crate::{
    event::{Abort, Verdict},
    names,
    runs::{self, RunInfo},
};

/// The additions to the refusals of one run on its host.
#[derive(Debug, Clone)]
pub(crate) enum Explain {
    /// Open runs over the same targets. They are why these are not what a run expects, or they
    /// would meet the same guard.
    OpenRuns {
        /// The surveyed targets.
        surveyed: Vec<PathBuf>,
        /// The groups of the run.
        groups: Vec<String>,
        /// The command that tells for each instance whether it can be reloaded.
        doctor: String,
    },
    /// The command that restores the config of this run without validation.
    Unvalidated {
        /// The earlier run.
        of: String,
    },
    /// None.
    Nothing,
}

impl Explain {
    /// Adds to a refusal what the operator can do about it.
    pub(crate) fn add_to(&self, abort: Abort, options: &SessionOptions) -> Abort {
        match self {
            Self::OpenRuns {
                surveyed,
                groups,
                doctor,
            } => name_open_runs(abort, options, surveyed, groups, doctor),
            Self::Unvalidated { of } if abort.by_validation => {
                let state_args = &options.state_args;
                let command = format!("hello revert {of} --validate=off{state_args}");
                abort.with_hint(
                    "nothing was touched; to restore the old config without validation:",
                    vec![command],
                )
            }
            Self::Unvalidated { .. } | Self::Nothing => abort,
        }
    }
}

fn name_open_runs(
    abort: Abort,
    options: &SessionOptions,
    surveyed: &[PathBuf],
    groups: &[String],
    doctor: &str,
) -> Abort {
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let open = runs::left_over(&options.state, surveyed, &groups);
    let Some(newest) = open.last().filter(|_| abort.verdict == Verdict::Refused) else {
        return abort;
    };
    let named = |run: &RunInfo| match run.began.as_ref().and_then(|began| began.claimed.as_ref()) {
        Some(claimed) => format!("{} (claimed operator {claimed})", run.id),
        None => run.id.clone(),
    };
    let ids = names::list(open.iter().rev().map(named), ", ", names::MOST);
    let runs = if open.len() == 1 { "run" } else { "runs" };
    let why = format!("; left open over the same targets: {runs} {ids}");
    let what = match &abort.hint {
        Some(hint) => hint.what.clone(),
        None => "nothing was touched; why, what to do about it, and what ends the open run:".into(),
    };
    let first = match &abort.hint {
        Some(hint) => hint.commands.clone(),
        None => vec![doctor.to_owned()],
    };
    let next = runs::next(&options.state, newest, &options.state_args);
    let commands = first.into_iter().chain(next).collect();
    Abort {
        reason: format!("{}{why}", abort.reason),
        goes_first: newest.part_of().map(|_| newest.id.clone()),
        ..abort
    }
    .with_hint(&what, commands)
}
