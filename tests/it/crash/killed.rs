//! SIGKILL at the entry of every effect, one run for each. Earlier effects have happened; this one
//! and later ones have not.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{get, until};

use super::{
    testbed::{Change, Testbed, is_late},
    trace::{Aim, Effect, TRIES, can_trace, has, lacks, missed, traced, unsynced},
};

/// Returns every effect of a run; of the repeated ends of a wait, only the first and the last.
fn points(all: &[Effect]) -> Vec<Effect> {
    let signalled = all
        .iter()
        .position(|e| e.call == "pidfd_send_signal")
        .unwrap();
    let polls: Vec<usize> = (0..all.len())
        .filter(|at| all[*at].call == "connect")
        .collect();
    let kept = [
        polls.first(),
        polls.iter().find(|at| **at > signalled),
        polls.last(),
    ];
    let is_kept =
        |at: usize| all[at].outside && (all[at].call != "connect" || kept.contains(&Some(&at)));
    (0..all.len())
        .filter(|at| is_kept(*at))
        .map(|at| all[at].clone())
        .collect()
}

/// Returns the effects that are tried, and the least number of them. Where no instance reports its
/// config, each try waits for timeouts: it is every third effect, except in a full test.
fn sample(all: Vec<Effect>, at_least: usize, testbed: &Testbed) -> (Vec<Effect>, usize) {
    if !testbed.is_blind() || std::env::var_os("HELLO_TEST_FULL").is_some() {
        return (all, at_least);
    }
    (all.into_iter().step_by(3).collect(), at_least / 3)
}

/// Kills a run at each of its effects and resumes it. `ends` is the exit code of a run that is not
/// killed.
fn matrix(name: &str, testbed: &Testbed, ends: i32, at_least: usize) {
    let first = testbed.ids();
    let change = testbed.change();
    let whole = testbed.whole();
    assert_eq!(whole.end.code, Some(ends), "{name}: {}", whole.end.stderr);
    assert_eq!(testbed.is_new(&change, name), ends == 0);
    assert_eq!(
        unsynced(&whole.effects),
        Vec::<String>::new(),
        "{name}: what must outlive a loss of power"
    );
    let (points, at_least) = sample(points(&whole.effects), at_least, testbed);
    let (mut hit, mut lacking, mut tried, mut ended_in) = (BTreeSet::new(), 0, 0, [0, 0]);
    let mut elsewhere = BTreeMap::<String, Vec<String>>::new();
    for (at, wanted) in points.iter().enumerate() {
        let mut aim = Aim::at(wanted);
        for _ in 0..TRIES {
            if hit.contains(&wanted.name) {
                break;
            }
            if wanted.call == "mkdir" {
                // Created once.
                std::fs::remove_dir_all(testbed.dir.join("state")).unwrap();
                std::fs::create_dir(testbed.dir.join("state")).unwrap();
            }
            let change = testbed.change();
            let inject = aim.inject("signal=SIGKILL");
            let run = traced(&testbed.broadcast(), &testbed.dir, Some(&inject));
            let end = run.effects.last().map_or("nothing", |e| &e.name);
            elsewhere
                .entry(wanted.name.clone())
                .or_default()
                .push(format!("{inject}: {:?} at {end}", run.end.code));
            aim.correct(&whole.effects, &run.effects);
            if lacks(&run.effects, &whole.effects, wanted) {
                hit.insert(wanted.name.clone());
                lacking += 1;
            }
            if is_late(run.end.code, &run.end.stderr) {
                continue;
            }
            if run.end.code.is_some() {
                // The run had fewer of these, or did not need the files that were left behind.
                if !has(&run.effects, wanted) {
                    hit.insert(wanted.name.clone());
                    lacking += 1;
                }
                assert_eq!(
                    (run.end.code, testbed.is_new(&change, name)),
                    (Some(ends), ends == 0),
                    "{name}: {}",
                    run.end.stderr
                );
                continue;
            }
            tried += 1;
            let killed = run.effects.last().cloned();
            let undone = run
                .effects
                .iter()
                .any(|e| e.name.contains("rollback_began"));
            // Not always, since it takes long.
            let rest = if testbed.is_blind() && undone { 6 } else { 2 };
            let how = if (at + usize::from(ends != 0)) % rest == 0 {
                "resume"
            } else {
                "revert"
            };
            let context = format!(
                "{name}: killed at {}, then {how}",
                killed.as_ref().map_or("nothing", |e| &e.name)
            );
            ended_in[usize::from(go_on(testbed, &change, how, ends, &context))] += 1;
            assert_eq!(testbed.ids(), first, "{context}: an instance died");
            hit.extend(killed.filter(|e| e.outside).map(|e| e.name));
        }
    }
    let missed = missed(&points, |e| hit.contains(&e.name));
    println!(
        "{name}: killed at {tried} points ({} different effects), then on the old config {} times, on the new {}",
        hit.len() - lacking,
        ended_in[0],
        ended_in[1]
    );
    elsewhere.retain(|point, _| missed.iter().any(|kind| point.starts_with(kind)));
    assert!(
        missed.is_empty(),
        "{name}: never killed at {missed:?}: {elsewhere:#?}"
    );
    assert!(
        hit.len() - lacking >= at_least,
        "{name}: only {} effects",
        hit.len()
    );
    // A finished run leaves nothing beside the file, whatever earlier runs have left.
    let change = testbed.change();
    assert_eq!(testbed.whole().end.code, Some(ends));
    assert_eq!(
        (testbed.is_new(&change, name), testbed.staged()),
        (ends == 0, Vec::new()),
        "{name}"
    );
}

/// Resumes a killed run if it had begun. Every instance is then on one config. Returns whether that
/// is the new one.
fn go_on(testbed: &Testbed, change: &Change, how: &str, ends: i32, context: &str) -> bool {
    let begun = !testbed.open().is_empty();
    let result = testbed.go_on(how);
    let context = format!("{context}: exit {}\n{}", result.code, result.stderr);
    let new = testbed.is_new(change, &context);
    let wanted = match (begun, how) {
        // Before the begin event nothing is touched, and after the end event nothing remains to be
        // done. An earlier run is reverted only after a question.
        (false, "revert") if result.stderr.contains("there is no terminal to ask") => (2, new),
        (false, _) => (3, new),
        (true, "resume") => (ends, ends == 0),
        (true, _) => (0, false),
    };
    assert_eq!((result.code, new), wanted, "{context}");
    assert!(!new || ends == 0, "{context}");
    if begun {
        assert_eq!(testbed.staged(), Vec::<String>::new(), "{context}");
        assert!(testbed.keeps(&change.old), "{context}: bytes are gone");
        assert!(testbed.keeps(&change.new), "{context}: bytes are gone");
    }
    testbed.is_over(&context);
    new
}

#[test]
fn in_one_wave() {
    if can_trace() {
        matrix("one wave", &Testbed::new(4, false, r#"["100%"]"#), 0, 40);
    }
}

#[test]
fn in_three_waves() {
    if can_trace() {
        matrix(
            "three waves",
            &Testbed::new(5, false, r#"["1", "2", "100%"]"#),
            0,
            50,
        );
    }
}

#[test]
fn in_one_wave_that_is_rolled_back() {
    if can_trace() {
        matrix(
            "one wave, rolled back",
            &Testbed::new(3, true, r#"["100%"]"#),
            6,
            50,
        );
    }
}

#[test]
fn in_three_waves_that_are_rolled_back() {
    if can_trace() {
        matrix(
            "three waves, rolled back",
            &Testbed::new(4, true, r#"["1", "2", "100%"]"#),
            6,
            60,
        );
    }
}

#[test]
fn where_no_instance_reports_its_config() {
    if can_trace() {
        matrix(
            "blind",
            &Testbed::blind(3, false, r#"["1", "2", "100%"]"#),
            0,
            50,
        );
    }
}

#[test]
fn where_no_instance_reports_its_config_and_the_run_is_rolled_back() {
    if can_trace() {
        matrix(
            "blind, rolled back",
            &Testbed::blind(3, true, r#"["1", "100%"]"#),
            6,
            50,
        );
    }
}

#[test]
fn files_staged_by_a_killed_run_are_removed_by_the_next_run_but_not_by_status() {
    let testbed = Testbed::new(1, false, r#"["100%"]"#);
    let change = testbed.change();
    let run = |args: &[&str]| {
        testbed
            .fleet
            .broadcast(
                &[
                    &["--config", testbed.dir.join("new.toml").to_str().unwrap()],
                    args,
                ]
                .concat(),
            )
            .expect(0)
    };
    testbed.leave_behind();
    let left = testbed.staged();
    assert_eq!(left.len(), 1);
    run(&["--dry-run"]);
    assert_eq!(testbed.staged(), left, "it only looks");
    run(&[]);
    assert!(testbed.is_new(&change, ""));
    assert!(testbed.staged().is_empty());
    testbed.leave_behind();
    assert_eq!(
        (testbed.staged().len(), run(&[]).states()),
        (1, vec!["unchanged"])
    );
    assert!(
        testbed.staged().is_empty(),
        "also where nothing is to be done"
    );
    // Its name alone does not make it a file of a run.
    testbed.fleet.write("etc/.web.toml.hello-dead", "");
    let result = run(&[]);
    assert_eq!(testbed.staged(), [".web.toml.hello-dead"]);
    assert!(result.stderr.contains("Left beside"), "{}", result.stderr);
    assert!(
        result.json["notes"][0]["path"]
            .as_str()
            .unwrap()
            .ends_with(".web.toml.hello-dead"),
        "{}",
        result.stderr
    );
}

#[test]
fn an_instance_that_already_ran_the_new_config_is_rolled_back_with_the_others() {
    let testbed = Testbed::new(2, true, r#"["100%"]"#);
    testbed
        .fleet
        .broadcast(&["--set", "message=kept"])
        .expect(0);
    let change = testbed.change();
    testbed.fleet.write("etc/web.toml", &change.new);
    testbed.fleet.signal(0, nix::sys::signal::Signal::SIGHUP);
    until("it runs the new config", || {
        get(testbed.fleet.url(0), "/").1.starts_with("refuse")
    });
    let result = testbed.fleet.broadcast(&[]).expect(6);
    assert_eq!(result.states(), ["reverted"; 3]);
    assert!(!testbed.is_new(&change, ""));
}
