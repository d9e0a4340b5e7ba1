//! SIGKILL at the entry of every effect, one run for each. Earlier effects have happened; this one
//! and later ones have not.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{get, until};

use super::{
    testbed::{Change, Place, is_late},
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

/// Kills a run at each of its effects and resumes it. `ends` is the exit code of a run that is not
/// killed.
fn matrix(name: &str, place: &Place, ends: i32, at_least: usize) {
    let first = place.ids();
    let change = place.change();
    let whole = place.whole();
    assert_eq!(
        whole.ended.code,
        Some(ends),
        "{name}: {}",
        whole.ended.stderr
    );
    assert_eq!(place.is_new(&change, name), ends == 0);
    assert_eq!(
        unsynced(&whole.effects),
        Vec::<String>::new(),
        "{name}: what must outlive a loss of power"
    );
    let points = points(&whole.effects);
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
                std::fs::remove_dir_all(place.dir.join("state")).unwrap();
                std::fs::create_dir(place.dir.join("state")).unwrap();
            }
            let change = place.change();
            let inject = aim.inject("signal=SIGKILL");
            let run = traced(&place.broadcast(), &place.dir, Some(&inject));
            let end = run.effects.last().map_or("nothing", |e| &e.name);
            elsewhere
                .entry(wanted.name.clone())
                .or_default()
                .push(format!("{inject}: {:?} at {end}", run.ended.code));
            aim.correct(&whole.effects, &run.effects);
            if lacks(&run.effects, &whole.effects, wanted) {
                hit.insert(wanted.name.clone());
                lacking += 1;
            }
            if is_late(run.ended.code, &run.ended.stderr) {
                continue;
            }
            if run.ended.code.is_some() {
                // The run had fewer of these, or did not need the files that were left behind.
                if !has(&run.effects, wanted) {
                    hit.insert(wanted.name.clone());
                    lacking += 1;
                }
                assert_eq!(
                    (run.ended.code, place.is_new(&change, name)),
                    (Some(ends), ends == 0),
                    "{name}: {}",
                    run.ended.stderr
                );
                continue;
            }
            tried += 1;
            let killed = run.effects.last().cloned();
            let undone = run.effects.iter().any(|e| e.name.contains("undo_began"));
            // Not always, since it takes long.
            let rest = if place.is_blind() && undone { 6 } else { 2 };
            let how = if (at + usize::from(ends != 0)) % rest == 0 {
                "resume"
            } else {
                "revert"
            };
            let context = format!(
                "{name}: killed at {}, then {how}",
                killed.as_ref().map_or("nothing", |e| &e.name)
            );
            ended_in[usize::from(go_on(place, &change, how, ends, &context))] += 1;
            assert_eq!(place.ids(), first, "{context}: an instance died");
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
    let change = place.change();
    assert_eq!(place.whole().ended.code, Some(ends));
    assert_eq!(
        (place.is_new(&change, name), place.staged()),
        (ends == 0, Vec::new()),
        "{name}"
    );
}

/// Resumes a killed run if it had begun. Every instance is then on one config. Returns whether that
/// is the new one.
fn go_on(place: &Place, change: &Change, how: &str, ends: i32, context: &str) -> bool {
    let begun = !place.open().is_empty();
    let result = place.go_on(how);
    let context = format!("{context}: exit {}\n{}", result.code, result.stderr);
    let new = place.is_new(change, &context);
    let wanted = match (begun, how) {
        // Before the begin event nothing is touched, and after the end event nothing remains to be
        // done.
        (false, _) => (3, new),
        (true, "resume") => (ends, ends == 0),
        (true, _) => (0, false),
    };
    assert_eq!((result.code, new), wanted, "{context}");
    assert!(!new || ends == 0, "{context}");
    if begun {
        assert_eq!(place.staged(), Vec::<String>::new(), "{context}");
        assert!(place.keeps(&change.old), "{context}: bytes are gone");
        assert!(place.keeps(&change.new), "{context}: bytes are gone");
    }
    place.is_over(&context);
    new
}

#[test]
fn in_one_wave() {
    if can_trace() {
        matrix("one wave", &Place::new(4, false, r#"["100%"]"#), 0, 40);
    }
}

#[test]
fn in_three_waves() {
    if can_trace() {
        matrix(
            "three waves",
            &Place::new(5, false, r#"["1", "2", "100%"]"#),
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
            &Place::new(3, true, r#"["100%"]"#),
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
            &Place::new(4, true, r#"["1", "2", "100%"]"#),
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
            &Place::blind(3, false, r#"["1", "2", "100%"]"#),
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
            &Place::blind(3, true, r#"["1", "100%"]"#),
            6,
            50,
        );
    }
}

#[test]
fn files_staged_by_a_killed_run_are_removed_by_the_next_run_but_not_by_status() {
    let place = Place::new(1, false, r#"["100%"]"#);
    let change = place.change();
    let run = |args: &[&str]| {
        place
            .fleet
            .broadcast(
                &[
                    &["--config", place.dir.join("new.toml").to_str().unwrap()],
                    args,
                ]
                .concat(),
            )
            .expect(0)
    };
    place.leave_behind();
    let left = place.staged();
    assert_eq!(left.len(), 1);
    run(&["--dry-run"]);
    assert_eq!(place.staged(), left, "it only looks");
    run(&[]);
    assert!(place.is_new(&change, ""));
    assert!(place.staged().is_empty());
    place.leave_behind();
    assert_eq!(
        (place.staged().len(), run(&[]).states()),
        (1, vec!["unchanged"])
    );
    assert!(
        place.staged().is_empty(),
        "also where nothing is to be done"
    );
    // Its name alone does not make it a file of a run.
    place.fleet.write("etc/.web.toml.hello-dead", "");
    let result = run(&[]);
    assert_eq!(place.staged(), [".web.toml.hello-dead"]);
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
    let place = Place::new(2, true, r#"["100%"]"#);
    place.fleet.broadcast(&["--set", "message=kept"]).expect(0);
    let change = place.change();
    place.fleet.write("etc/web.toml", &change.new);
    place.fleet.signal(0, nix::sys::signal::Signal::SIGHUP);
    until("it runs the new config", || {
        get(place.fleet.url(0), "/").1.starts_with("refuse")
    });
    let result = place.fleet.broadcast(&[]).expect(6);
    assert_eq!(result.states(), ["reverted"; 3]);
    assert!(!place.is_new(&change, ""));
}
