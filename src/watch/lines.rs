//! The lines about attempts, one each.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    attempt::{Ended, one_line},
    schedule::{Cause, touches},
};
use crate::{
    event::Verdict,
    names::{self, json_word},
    report::local_time,
    step::short,
};

/// Everything besides its end that the line of an attempt says.
#[derive(Debug)]
pub(super) struct About {
    pub(super) groups: Vec<String>,
    pub(super) cause: Cause,
    /// The subjects whose content is another one than at the last attempt.
    pub(super) changed: Vec<String>,
    /// What causes the next attempt.
    pub(super) next: NextAttempt,
    /// The open runs over its groups, and the commands that end each.
    pub(super) open: Vec<String>,
}

/// What causes the next attempt over the groups of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextAttempt {
    /// The end of this wait.
    After(Duration),
    /// A change alone.
    Change,
    /// Nothing: the watch ends.
    None,
}

/// Returns the present time of day for a line.
pub(super) fn time() -> String {
    local_time(Timestamp::now(), "%Y-%m-%d %H:%M:%S")
}

/// Returns the word and the text of the line about an attempt.
pub(super) fn of_attempt(about: &About, ended: &Ended) -> (&'static str, String) {
    let groups = about.groups.join(", ");
    let mut text = format!("{} {groups}: {}", time(), reason(ended));
    if let Some(runs) = ended.runs().filter(|_| ended.verdict != Verdict::Converged) {
        text += &format!("; {runs}");
    }
    if let Some(why) = ended
        .no_rollback
        .as_ref()
        .filter(|_| touches(ended.verdict))
    {
        text += &format!("; no rollback: {}", one_line(why));
    }
    if !ended.run.is_empty() {
        text += &format!("; run {}", short(&ended.run));
    }
    text += &format!("; {}", cause(about));
    if ended.verdict == Verdict::Converged {
        let word = if ended.run.is_empty() {
            "Unchanged"
        } else {
            "Converged"
        };
        return (word, text);
    }
    text += &match about.next {
        NextAttempt::After(wait) => format!("; tried again in {:.1}s", wait.as_secs_f64()),
        NextAttempt::Change => "; tried again after a change".to_owned(),
        NextAttempt::None => String::new(),
    };
    if let Some(next) = ended.next.first().filter(|_| touches(ended.verdict)) {
        text += &format!("; next: {next}");
    }
    if !about.open.is_empty() {
        text += &format!("; open: {}", about.open.join(", "));
    }
    ("FAILED", text)
}

fn reason(ended: &Ended) -> String {
    let reason = one_line(&ended.reason);
    if ended.verdict == Verdict::Converged {
        return reason;
    }
    let verdict = json_word(ended.verdict).replace('_', " ");
    format!("{verdict} (exit {}): {reason}", ended.verdict.exit())
}

/// Returns the reason for a run, for its line and its journal.
pub(super) fn cause(about: &About) -> String {
    let changed = about.changed.iter().map(|name| format!("`{name}`"));
    let changed = names::list(changed, ", ", names::MOST);
    match about.cause {
        Cause::Start => "at the start".into(),
        Cause::Change if changed.is_empty() => "after a change".into(),
        Cause::Change => format!("after a change of {changed}"),
        Cause::Retry => "after a failure".into(),
        Cause::Instances => "because other instances run".into(),
        Cause::Reload => "after SIGHUP".into(),
    }
}
