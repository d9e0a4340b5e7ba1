//! Refused instances and aborted runs, with their reasons.

use crate::{
    event::{Abort, Failure, Instance, Outcome, Verdict},
    host::target::install::InstallError,
};

/// Returns the instance as refused, with the text of its reason.
pub(crate) fn refused(instance: Instance, why: impl ToString) -> Instance {
    Instance {
        outcome: Outcome::Refused,
        failure: Some(Failure {
            kind: Outcome::Refused.into(),
            text: why.to_string(),
        }),
        ..instance
    }
}

/// Succeeds if no instance was refused.
///
/// # Errors
/// Fails with every refused instance.
pub(crate) fn none_refused(refused: Vec<Instance>) -> Result<(), Abort> {
    if refused.is_empty() {
        Ok(())
    } else {
        Err(Abort::refused(refused))
    }
}

/// Returns the abort for a target that cannot be read, staged or installed.
pub(crate) fn install_abort(error: InstallError) -> Abort {
    let verdict = match error {
        InstallError::Io(..)
        | InstallError::Record(_)
        | InstallError::NoKey(_)
        | InstallError::Store(..)
        | InstallError::Unknown(..) => Verdict::Failed,
        InstallError::Refused(..) | InstallError::Drifted(_) | InstallError::Changed(..) => {
            Verdict::Refused
        }
    };
    Abort::new(verdict, error.to_string())
}
