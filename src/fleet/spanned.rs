//! Values of `fleet.toml` that several tables have, and an error in a value, with its position.

use std::ops::Range;

use toml::Spanned;

use super::argv;
use crate::inventory::{Expression, is_label};

/// An error in a value, with its position.
pub(super) struct SpannedError {
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) at: Range<usize>,
}

impl SpannedError {
    pub(super) fn hinted(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

pub(super) fn spanned(at: Range<usize>, message: impl ToString) -> SpannedError {
    SpannedError {
        message: message.to_string(),
        hint: None,
        at,
    }
}

/// Checks the placeholders of an argv; `more` are those that only this command has.
pub(super) fn argv(
    raw: Option<Vec<Spanned<String>>>,
    more: &[&str],
) -> Result<Vec<String>, SpannedError> {
    raw.unwrap_or_default()
        .into_iter()
        .map(|arg| argument(arg.get_ref(), more, &arg.span()).map(|()| arg.into_inner()))
        .collect()
}

pub(super) fn argument(arg: &str, more: &[&str], at: &Range<usize>) -> Result<(), SpannedError> {
    argv::fault(arg, more).map_or(Ok(()), |(message, hint)| {
        Err(SpannedError {
            message,
            hint: Some(hint),
            at: at.clone(),
        })
    })
}

/// Reads the name of a label of hosts.
pub(super) fn label(raw: Spanned<String>) -> Result<String, SpannedError> {
    if is_label(raw.get_ref(), "") {
        return Ok(raw.into_inner());
    }
    let why = format!("{:?} cannot be a label of a host", raw.get_ref());
    Err(spanned(raw.span(), why))
}

/// Reads terms that select hosts.
pub(super) fn terms(raw: &Spanned<String>) -> Result<Expression, SpannedError> {
    Expression::of_file(raw.get_ref()).map_err(|why| spanned(raw.span(), why))
}
