//! The end of the session of a run on this host, as its journal has it.

use std::path::Path;

use super::info::events;
use crate::event::{Event, SessionEnd};

/// Returns what ended the last session of a run before its `finish`, as a part of a sentence; none
/// if nothing did.
#[must_use]
pub(crate) fn session_end(state: &Path, run: &str) -> Option<String> {
    let lines = events(state, run).into_iter().flatten();
    let events = lines.filter_map(|line| serde_json::from_value::<Event>(line).ok());
    let ends = events.filter_map(|event| match event {
        Event::SessionEnded { by, operator } => Some((by, operator)),
        _ => None,
    });
    let (by, operator) = ends.last()?;
    Some(match by {
        SessionEnd::Coordinator => "the coordinator left".into(),
        SessionEnd::Lease => "nothing was heard of the coordinator for the lease".into(),
        SessionEnd::Timer => "its commit-confirmed timer ended".into(),
        SessionEnd::TakeOver => {
            let operator = operator.unwrap_or_else(|| "an unknown operator".into());
            format!("another coordinator took it over ({operator})")
        }
        SessionEnd::Terminated => "its agent got SIGTERM".into(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn end_of(lines: &[&str]) -> Option<String> {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("runs/1");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("events.jsonl"), lines.concat()).unwrap();
        session_end(state.path(), "1")
    }

    #[test]
    fn the_last_end_of_a_session_is_named_with_the_operator_that_took_it_over() {
        let lines = [
            "{\"event\":\"session_ended\",\"by\":\"lease\",\"operator\":null}\n",
            "{\"event\":\"session_ended\",\"by\":\"take_over\",\"operator\":\"uid 7 on a\"}\n",
        ];
        let end = end_of(&lines).unwrap();
        assert_eq!(end, "another coordinator took it over (uid 7 on a)");
    }

    #[test]
    fn a_journal_without_an_end_of_a_session_names_none() {
        assert_eq!(
            end_of(&["{\"event\":\"heard\",\"since_boot_s\":1}\n"]),
            None
        );
    }
}
