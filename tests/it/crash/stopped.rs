//! The coordinator is stopped at its effects while an instance dies or restarts. The other
//! instances end on one config.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    testbed::{Change, Testbed, is_late},
    trace::{Aim, Effect, TRIES, can_trace, effects, log, thread, under},
};
use crate::support::{CommandEnd, RUN_LIMIT, get, run_to_end};

/// The distance between two tested effects. Each costs a whole run.
const EVERY: usize = 3;

/// A stopped process. Continued when dropped.
struct Standing(Pid);

impl Drop for Standing {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// Runs a command under strace, which stops it at an effect, and calls `meanwhile`. Returns the end
/// and the effects so far; `None` if it did not stop.
fn stopped(
    mut command: Command,
    log: &Path,
    dir: &Path,
    meanwhile: impl FnOnce(),
) -> (CommandEnd, Vec<Effect>) {
    let run = std::thread::spawn(move || run_to_end(&mut command));
    let deadline = Instant::now() + RUN_LIMIT;
    let mut done = Vec::new();
    while !run.is_finished() {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        // Sent when it is stopped.
        if let Some((before, _)) = text.split_once("stopped by SIGSTOP") {
            let _standing = Standing(Pid::from_raw(thread(&text).parse().unwrap()));
            done = effects(before, dir);
            meanwhile();
            break;
        }
        assert!(Instant::now() < deadline, "neither stopped nor ended");
        std::thread::sleep(Duration::from_millis(2));
    }
    let ended = run.join().unwrap();
    std::fs::remove_file(log).unwrap();
    (ended, done)
}

/// Whether the run reports a failure of this process.
fn names(run: &CommandEnd, pid: i32) -> bool {
    run.json["instances"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|i| i["pid"] == pid && !i["failure"].is_null())
}

/// `ends` is the exit code of a run without interference.
fn matrix(name: &str, mut testbed: Testbed, ends: i32, at_least: usize) {
    // The folders of the state are made once.
    testbed.change();
    let _ = testbed.whole();
    let change = testbed.change();
    let whole = testbed.whole();
    assert_eq!(
        (whole.end.code, testbed.is_new(&change, name)),
        (Some(ends), ends == 0),
        "{name}: {}",
        whole.end.stderr
    );
    let points = whole.effects.iter().filter(|e| e.outside).step_by(EVERY);
    let (mut hit, mut tried, mut codes) = (BTreeSet::new(), 0, BTreeMap::<i32, usize>::new());
    for (at, wanted) in points.enumerate() {
        let (victim, again, how) = (
            at % testbed.fleet.len(),
            at % 2 == 1,
            ["resume", "revert"][at / 2 % 2],
        );
        let mut aim = Aim::at(wanted);
        for _ in 0..TRIES {
            let (change, log, dir, gone) = (
                testbed.change(),
                log(&testbed.dir),
                testbed.dir.clone(),
                testbed.fleet.pid(victim),
            );
            let command = under(
                &testbed.broadcast(),
                &log,
                Some(&aim.inject("signal=SIGSTOP")),
            );
            let fleet = &mut testbed.fleet;
            let meanwhile = || {
                if again {
                    fleet.restart(victim, "etc/web.toml")
                } else {
                    fleet.kill(victim)
                }
            };
            let (run, stood) = stopped(command, &log, &dir, meanwhile);
            aim.correct(&whole.effects, &stood);
            let Some(stood) = stood.into_iter().last() else {
                assert!(
                    run.code == Some(ends) || is_late(run.code, &run.stderr),
                    "{name}: {}",
                    run.stderr
                );
                continue;
            };
            tried += 1;
            let code = run
                .code
                .unwrap_or_else(|| panic!("{name}: ended by a signal"));
            *codes.entry(code).or_default() += 1;
            let what = if again { "started again" } else { "killed" };
            let context = format!(
                "{name}: exit {code}, pid {gone} was {what} at {}: {}",
                stood.name, run.stderr
            );
            after(
                &mut testbed,
                &change,
                &run,
                (victim, gone, again),
                how,
                &context,
            );
            hit.extend(Some(stood).filter(|e| e.outside).map(|e| e.name));
            if hit.contains(&wanted.name) {
                break;
            }
        }
    }
    println!(
        "{name}: stopped at {tried} points ({} different effects), exit codes (and how often) {codes:?}",
        hit.len()
    );
    assert!(hit.len() >= at_least, "{name}: only {} effects", hit.len());
}

/// Checks a run during which an instance was killed or started `again`, then brings all to one
/// config.
fn after(
    testbed: &mut Testbed,
    change: &Change,
    run: &CommandEnd,
    (victim, gone, again): (usize, i32, bool),
    how: &str,
    context: &str,
) {
    let code = run.code.unwrap();
    testbed.is_true(change, run, context);
    let others: Vec<&str> = testbed
        .urls()
        .into_iter()
        .enumerate()
        .filter(|(at, _)| *at != victim)
        .map(|(_, url)| url)
        .collect();
    let new = testbed.are_new(change, &others, context);
    match code {
        0 => assert!(new, "{context}"),
        1 | 3 | 5 | 6 => assert!(!new, "{context}"),
        7 => assert!(
            names(run, gone) || names(run, testbed.fleet.pid(victim)),
            "{context}: no failure is named: {:#}",
            run.json
        ),
        _ => panic!("{context}: no such end"),
    }
    if again {
        let told = get(testbed.fleet.url(victim), "/").1;
        assert!(
            testbed.text().contains(&format!("{told:?}")) || names(run, testbed.fleet.pid(victim)),
            "{context}: the new process runs {told}, and no report says so"
        );
    }
    // Killed or not, the last process is the last again.
    testbed.restart(victim);
    let begun = !testbed.open().is_empty();
    let then = if begun {
        testbed.go_on(how)
    } else {
        testbed.adopt()
    };
    // All must run the content on the disk. A newcomer may have read something else.
    let result = testbed.adopt();
    let context = format!(
        "{context}, then {}: {}, then {}: {}",
        then.code, then.stderr, result.code, result.stderr
    );
    assert_eq!(result.code, 0, "{context}");
    testbed.is_new(change, &context);
    testbed.is_over(&context);
    assert!(testbed.keeps(&change.old), "{context}");
    assert!(testbed.staged().is_empty(), "{context}");
}

#[test]
fn in_three_waves() {
    if can_trace() {
        matrix(
            "stopped in three waves",
            Testbed::new(4, false, r#"["1", "2", "100%"]"#),
            0,
            15,
        );
    }
}

#[test]
fn in_two_waves_that_are_rolled_back() {
    if can_trace() {
        matrix(
            "stopped in two waves, rolled back",
            Testbed::new(3, true, r#"["1", "100%"]"#),
            6,
            20,
        );
    }
}
