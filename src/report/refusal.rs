//! The answer of a command that ended before it could look at anything, as `-o json` prints it.

use serde_json::{Map, Value, json};

use crate::event::Verdict;

/// An object with the verdict, its exit code and the reason. `rest` are the keys that such an
/// answer of this command has besides.
#[must_use]
pub fn refused(verdict: Verdict, reason: &str, next: &[String], rest: Map<String, Value>) -> Value {
    let mut answer = json!({
        "v": 1, "dry_run": false,
        "verdict": verdict, "exit": verdict.exit(), "reason": reason, "next": next,
    });
    answer
        .as_object_mut()
        .into_iter()
        .for_each(|answer| answer.extend(rest.clone()));
    answer
}
