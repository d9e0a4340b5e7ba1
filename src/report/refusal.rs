//! The answer of a command that ended before it could look at anything, as `-o json` prints it.

use serde_json::{Map, Value, json};

use super::Output;
use crate::{
    event::{VERSION, Verdict},
    screen,
};

/// Returns an object with the verdict, its exit code and the reason. `rest` holds the other keys of
/// this command's answer.
#[must_use]
pub(crate) fn refused(
    verdict: Verdict,
    reason: &str,
    next: &[String],
    rest: Map<String, Value>,
) -> Value {
    let mut answer = Map::new();
    answer.insert("v".into(), VERSION.into());
    answer.insert("dry_run".into(), false.into());
    answer.insert("verdict".into(), json!(verdict));
    answer.insert("exit".into(), verdict.exit().into());
    answer.insert("reason".into(), reason.into());
    answer.insert("next".into(), next.into());
    answer.extend(rest);
    answer.into()
}

/// Reports that a command which only reads could not work: the reason for the operator, and the
/// object of [`refused`] where stdout carries data. Returns the exit code.
pub(crate) fn fail(
    output: Output,
    verdict: Verdict,
    reason: &str,
    next: &[String],
    rest: Map<String, Value>,
) -> u8 {
    screen::tell(&screen::failure(reason));
    if output != Output::Screen {
        screen::data([refused(verdict, reason, next, rest)]);
    }
    verdict.exit()
}
