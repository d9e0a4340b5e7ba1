#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use proptest::prelude::*;

use super::*;
use crate::{
    event::{Abort, Verdict},
    protocol::{MAX_LINE, RefusedKind},
};

fn abort(reason: String) -> RunAnswer {
    RunAnswer::Abort(Abort::new(Verdict::Invalid, reason))
}

/// Joins the lines of an answer as they come over the wire.
fn join(lines: &[String]) -> Result<Option<RunLine>, Unanswered> {
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        assert!(line.len() < MAX_LINE, "a line is over its limit");
        let line = serde_json::from_str(line).map_err(invalid)?;
        if let Some(whole) = joined(line, &mut text)? {
            assert_eq!(index + 1, lines.len(), "it ends before its last line");
            return Ok(Some(whole));
        }
    }
    Ok(None)
}

fn reason_of(line: RunLine) -> String {
    match line.ok {
        Some(RunAnswer::Abort(abort)) => abort.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_short_answer_is_one_line() {
    let lines = RunLine::of(3, 7, &abort("no".into())).unwrap();
    assert_eq!(lines.len(), 1);
    let line = join(&lines).unwrap().unwrap();
    assert_eq!((line.a, line.epoch), (3, 7));
    assert_eq!(reason_of(line), "no");
}

#[test]
fn an_answer_whose_last_line_does_not_come_is_none() {
    let lines = RunLine::of(3, 7, &abort("x".repeat(1 << 20))).unwrap();
    assert!(join(&lines[..lines.len() - 1]).unwrap().is_none());
}

#[test]
fn an_answer_without_a_piece_in_the_middle_is_an_error() {
    let mut lines = RunLine::of(3, 7, &abort("\"x".repeat(1 << 19))).unwrap();
    lines.remove(1);
    let joined = join(&lines).map(|line| line.map(reason_of));
    // The text that is left is another one, or none at all; it is never taken for the whole.
    assert!(joined.is_err() || joined.unwrap().is_none_or(|reason| reason.len() < 1 << 20));
}

#[test]
fn an_answer_over_its_limit_is_refused() {
    let piece = |index: usize| RunLine {
        a: 3,
        piece: Some("x".repeat(1 << 19)),
        at: index << 19,
        more: true,
        ..RunLine::default()
    };
    let line = |index| serde_json::to_string(&piece(index)).unwrap();
    let lines: Vec<String> = (0..=MAX_ANSWER >> 19).map(line).collect();
    assert!(matches!(join(&lines), Err(Unanswered::Large)));
}

#[test]
fn a_piece_that_comes_twice_is_of_no_whole_answer() {
    let mut lines = RunLine::of(3, 7, &abort("x".repeat(1 << 20))).unwrap();
    lines.insert(1, lines[0].clone());
    assert!(matches!(join(&lines), Err(Unanswered::Ended)));
}

#[test]
fn a_refusal_ends_an_answer() {
    let refused = Refused {
        kind: RefusedKind::Stale,
        text: "another counter holds".into(),
    };
    let line = RunLine::refused(3, 7, refused.clone());
    let joined = joined(line, &mut String::new());
    assert!(matches!(joined, Err(Unanswered::Refused(why)) if why == refused));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn a_long_answer_is_joined_from_its_pieces(
        part in "[a-z\"\\\\\u{e9}\u{1f600}\n]{1,40}", times in 10_000_usize..40_000,
    ) {
        let reason = part.repeat(times);
        let lines = RunLine::of(3, 7, &abort(reason.clone())).unwrap();
        let line = join(&lines).unwrap().unwrap();
        prop_assert_eq!((line.a, line.epoch), (3, 7));
        prop_assert!(reason_of(line) == reason);
    }
}
