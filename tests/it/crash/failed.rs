//! Every file operation of install, rollback and journal fails once, in each of three ways. The
//! report stays true and no instance stays between two configs.

use std::collections::BTreeSet;

use super::{
    testbed::{Change, Testbed},
    trace::{Aim, Effect, TRIES, can_trace, has, lacks, missed, traced},
};
use crate::support::CommandEnd;

const ERRORS: [&str; 3] = ["ENOSPC", "EACCES", "EIO"];

/// Whether the config was installed by then.
fn installs(effect: &Effect) -> bool {
    effect.call.starts_with("rename") && effect.name.contains("web.toml")
}

/// Makes each file operation of a run fail, from the first whose name contains `from`. `ends` is
/// the exit code without a fault.
fn matrix(name: &str, testbed: &Testbed, ends: i32, from: &str, at_least: usize) {
    let first = testbed.ids();
    // The folders of the state are created once.
    for _ in 0..2 {
        testbed.change();
        assert_eq!(testbed.whole().end.code, Some(ends), "{name}");
    }
    testbed.change();
    let whole = testbed.whole().effects;
    let begin = whole.iter().position(|e| e.name.contains(from)).unwrap();
    let points: Vec<&Effect> = whole[begin..]
        .iter()
        .filter(|e| e.outside && !matches!(e.call.as_str(), "connect" | "pidfd_send_signal"))
        .collect();
    let (mut hit, mut tried, mut codes) = (BTreeSet::new(), 0, BTreeSet::new());
    for (at, wanted) in points.iter().enumerate() {
        for (which, error) in ERRORS.into_iter().enumerate() {
            let mut aim = Aim::at(wanted);
            for _ in 0..TRIES {
                let (change, attempts) = (testbed.change(), testbed.attempts());
                let run = traced(
                    &testbed.broadcast(),
                    &testbed.dir,
                    Some(&aim.inject(&format!("error={error}"))),
                );
                let failed = run.effects.iter().position(|e| e.failed);
                let context = format!(
                    "{name}: {error} at {}: {}",
                    failed.map_or("nothing", |at| &run.effects[at].name),
                    run.end.stderr
                );
                let before = failed
                    .is_some_and(|at| !run.effects[..at].iter().any(installs))
                    .then_some(attempts);
                let how = ["resume", "revert"][(at + which) % 2];
                if failed.is_some_and(|at| !run.effects[at].outside) {
                    // The thread could not even write to itself, which no disk causes. It counts as
                    // killed.
                    go_on(testbed, &change, ends, how, &context);
                } else {
                    codes.insert(judge(
                        testbed, &change, &run.end, ends, before, how, &context,
                    ));
                }
                assert_eq!(testbed.ids(), first, "{context}: an instance died");
                tried += 1;
                let failed = failed.map(|at| &run.effects[at]);
                aim.correct(&whole, &run.effects);
                hit.extend(
                    failed
                        .filter(|e| e.outside)
                        .map(|e| (e.name.clone(), error)),
                );
                if lacks(&run.effects, &whole, wanted)
                    || failed.is_none() && !has(&run.effects, wanted)
                {
                    hit.insert((wanted.name.clone(), error));
                }
                if hit.contains(&(wanted.name.clone(), error)) {
                    break;
                }
            }
        }
    }
    println!(
        "{name}: {tried} runs in which a call failed ({} different ones), with the exit codes {codes:?}",
        hit.len()
    );
    let missed = missed(points.iter().copied(), |effect| {
        ERRORS
            .iter()
            .any(|error| hit.contains(&(effect.name.clone(), *error)))
    });
    assert!(missed.is_empty(), "{name}: never failed: {missed:?}");
    assert!(hit.len() >= at_least, "{name}: only {} calls", hit.len());
    let change = testbed.change();
    assert_eq!(testbed.whole().end.code, Some(ends));
    assert_eq!(
        (testbed.is_new(&change, name), testbed.staged()),
        (ends == 0, Vec::new()),
        "{name}"
    );
}

/// Checks the report of a run, then brings every instance to one config. `before` holds the
/// attempts of each if the fault came before the install. Returns the exit code.
pub(super) fn judge(
    testbed: &Testbed,
    change: &Change,
    run: &CommandEnd,
    ends: i32,
    before: Option<Vec<serde_json::Value>>,
    how: &str,
    context: &str,
) -> i32 {
    let code = run
        .code
        .unwrap_or_else(|| panic!("{context}: ended by a signal"));
    let context = format!("exit {code}, {context}");
    testbed.is_true(change, run, &context);
    match code {
        0 => {
            assert!(ends == 0, "{context}");
            assert!(testbed.is_new(change, &context), "{context}");
        }
        6 => assert!(!testbed.is_new(change, &context), "{context}"),
        1 | 5 => {
            assert!(!testbed.is_new(change, &context), "{context}");
            assert!(
                before
                    .as_ref()
                    .is_none_or(|before| *before == testbed.attempts()),
                "{context}: an instance was signalled"
            );
        }
        7 => {
            let named = run.json["instances"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|i| !i["failure"].is_null());
            assert!(
                named || run.json["targets"][0]["disk"] != run.json["targets"][0]["from"],
                "{context}: no failure is named: {:#}",
                run.json
            );
            assert_eq!(testbed.open().len(), 1, "{context}: it is not open");
        }
        _ => panic!("{context}: no such end"),
    }
    assert!(
        before.is_none() || matches!(code, 1 | 5) || code == ends,
        "{context}: something was touched"
    );
    go_on(testbed, change, ends, how, &context);
    code
}

/// Resumes the open run.
fn go_on(testbed: &Testbed, change: &Change, ends: i32, how: &str, context: &str) {
    if !testbed.open().is_empty() {
        let result = testbed.go_on(how);
        let context = format!("{context}, then {how}: {}", result.stderr);
        let wanted = if how == "resume" { ends } else { 0 };
        assert_eq!(
            (result.code, testbed.is_new(change, &context)),
            (wanted, how == "resume" && ends == 0),
            "{context}"
        );
    }
    testbed.is_over(context);
}

#[test]
fn in_the_forward_direction() {
    if can_trace() {
        matrix(
            "failures forth",
            &Testbed::new(3, false, r#"["1", "2", "100%"]"#),
            0,
            "flock",
            100,
        );
    }
}

#[test]
fn in_the_rollback() {
    if can_trace() {
        matrix(
            "failures back",
            &Testbed::new(2, true, r#"["1", "100%"]"#),
            6,
            "rollback_began",
            30,
        );
    }
}
