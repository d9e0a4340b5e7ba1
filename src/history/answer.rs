//! The answer of `hello history` where there is nothing to show.

use serde_json::{Map, Value, json};

use super::options::Options;
use crate::{event::Verdict, report::fail};

/// Returns the lists of an answer that has no run.
#[must_use]
pub(crate) fn no_rows() -> Map<String, Value> {
    let lists = ["runs", "hosts"];
    lists
        .map(|list| (list.to_owned(), json!([])))
        .into_iter()
        .collect()
}

/// Prints why there is nothing to show, and returns the exit code.
pub(super) fn failed(options: &Options, verdict: Verdict, why: &str) -> u8 {
    let next = [format!("hello history{}", options.state_args)];
    fail(options.output, verdict, why, &next, no_rows())
}
