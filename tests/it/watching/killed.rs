//! A watch that is killed, and the next one, which repairs what it has left.

use std::{path::PathBuf, process::Command, thread, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Watch, add_to_group, config, journal, replace, serves};
use crate::support::{Fleet, until};

/// The open runs of a fleet.
fn open_runs(fleet: &Fleet) -> usize {
    fleet.status().json["open"].as_array().unwrap().len()
}

/// Waits until nothing is left to repair, and every server serves this message.
#[track_caller]
fn is_whole(fleet: &Fleet, watch: &Watch, message: &str) {
    watch.until("it has converged", || watch.succeeded());
    assert_eq!(open_runs(fleet), 0, "{}", watch.text());
    assert!(
        fleet.bodies().iter().all(|body| body == message),
        "{:?}: {}",
        fleet.bodies(),
        watch.text()
    );
    assert_eq!(fleet.text(), config(message), "{}", watch.text());
    let left: Vec<PathBuf> = std::fs::read_dir(fleet.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(".hello-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A group whose gate waits for the file `go`, and whose content comes from a source.
fn gated(source: bool) -> Fleet {
    let fleet = Fleet::start(3);
    let (waits, go) = (fleet.path("waits"), fleet.path("go"));
    let script = format!(
        "touch '{}'; until [ -e '{}' ]; do sleep 0.02; done",
        waits.display(),
        go.display()
    );
    if source {
        add_to_group(&fleet, "source = \"{config}.new\"");
        fleet.write("web.toml.new", &fleet.text());
    }
    add_to_group(
        &fleet,
        &format!("rollout.gate = [\"sh\", \"-c\", {script:?}]"),
    );
    fleet
}

fn kill(mut watch: Watch) {
    let status = watch.end(Signal::SIGKILL);
    assert!(!status.success());
}

/// Starts a watch whose run over `two` waits at the gate of its first wave.
fn waits_at_the_gate(fleet: &Fleet, file: &str) -> Watch {
    let watch = Watch::start(fleet, &[]);
    replace(fleet, file, &config("two"));
    until("the gate of the first wave waits", || {
        fleet.path("waits").exists()
    });
    watch
}

#[test]
fn a_killed_run_that_installed_a_source_is_rolled_back_and_then_done_again() {
    let fleet = gated(true);
    let watch = waits_at_the_gate(&fleet, "web.toml.new");
    kill(watch);
    assert_eq!(open_runs(&fleet), 1);
    fleet.write("go", "");
    let watch = Watch::begin(&fleet, &[]);
    serves(&fleet, "two");
    is_whole(&fleet, &watch, "two");
    watch.waits_for("Rolled back run ");
    let verbs: Vec<Value> = journal(&fleet.path("state"))
        .iter()
        .map(|run| {
            let plan = std::fs::read_to_string(run.join("plan.json")).unwrap();
            serde_json::from_str::<Value>(&plan).unwrap()["verb"].clone()
        })
        .collect();
    assert_eq!(verbs, ["watch", "revert", "watch"]);
}

#[test]
fn a_killed_run_is_rolled_back_before_a_newer_content_is_installed() {
    let fleet = gated(true);
    let watch = waits_at_the_gate(&fleet, "web.toml.new");
    kill(watch);
    // Some instances run `two` now, and some `one`.
    replace(&fleet, "web.toml.new", &config("three"));
    fleet.write("go", "");
    let watch = Watch::begin(&fleet, &[]);
    serves(&fleet, "three");
    is_whole(&fleet, &watch, "three");
}

#[test]
fn a_killed_run_that_adopted_a_config_is_done_again_over_the_newest_content() {
    let fleet = gated(false);
    let watch = waits_at_the_gate(&fleet, "web.toml");
    kill(watch);
    replace(&fleet, "web.toml", &config("three"));
    fleet.write("go", "");
    let watch = Watch::begin(&fleet, &[]);
    serves(&fleet, "three");
    is_whole(&fleet, &watch, "three");
    assert!(!watch.has("Rolled back"), "{}", watch.text());
}

#[test]
fn a_killed_rollback_is_finished() {
    let fleet = gated(true);
    let watch = waits_at_the_gate(&fleet, "web.toml.new");
    // The first instance does not confirm the old config, so the rollback waits for it.
    fleet.stop(0);
    fleet.stop(1);
    fleet.stop(2);
    watch.signal(Signal::SIGTERM);
    let journal = journal(&fleet.path("state"))[0].join("events.jsonl");
    until("it rolls back", || {
        std::fs::read_to_string(&journal)
            .unwrap()
            .contains("rollback_began")
    });
    kill(watch);
    for index in 0..3 {
        fleet.signal(index, Signal::SIGCONT);
    }
    fleet.write("go", "");
    let watch = Watch::begin(&fleet, &[]);
    serves(&fleet, "two");
    is_whole(&fleet, &watch, "two");
}

#[test]
fn a_watch_that_is_killed_at_any_moment_leaves_nothing_that_the_next_does_not_repair() {
    let rounds: u64 = if std::env::var_os("HELLO_TEST_FULL").is_some() {
        200
    } else {
        10
    };
    let fleet = Fleet::start(3);
    // Between two waves it waits, so that a run takes a while.
    add_to_group(
        &fleet,
        "source = \"{config}.new\"\nrollout.bake = \"200ms\"",
    );
    fleet.write("web.toml.new", &fleet.text());
    let mut inside = 0;
    for round in 0..rounds {
        let mut watch = Watch::start(&fleet, &["--debounce", "0s"]);
        replace(&fleet, "web.toml.new", &config(&format!("m{round}")));
        if round % 2 == 0 {
            let open = fleet.path("state/open");
            let has_begun =
                || std::fs::read_dir(&open).is_ok_and(|mut marks| marks.next().is_some());
            watch.until("the run has begun", has_begun);
        }
        thread::sleep(Duration::from_millis(round * 67 % 500));
        watch.end(Signal::SIGKILL);
        inside += open_runs(&fleet);
        let watch = Watch::begin(&fleet, &["--debounce", "0s"]);
        serves(&fleet, &format!("m{round}"));
        is_whole(&fleet, &watch, &format!("m{round}"));
    }
    println!("{inside} of {rounds} were killed inside of a run");
    assert!(inside > 0);
}

#[test]
fn an_open_run_of_another_command_is_left_to_the_operator() {
    let fleet = gated(false);
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let mut broadcast = fleet.command(&["--set", "message=two"]).spawn().unwrap();
    until("the gate waits", || fleet.path("waits").exists());
    broadcast.kill().unwrap();
    broadcast.wait().unwrap();
    fleet.write("go", "");
    fleet.write("fleet.toml", &text);
    let watch = Watch::start(&fleet, &[]);
    watch.until("it has converged", || watch.succeeded());
    assert!(
        !watch.has("which an earlier watch left open"),
        "{}",
        watch.text()
    );
    assert!(fleet.bodies().iter().all(|body| body == "two"));
}

#[test]
fn sigterm_rolls_the_run_back_and_ends_with_its_exit_code() {
    let fleet = gated(true);
    let mut watch = Watch::start(&fleet, &[]);
    replace(&fleet, "web.toml.new", &config("two"));
    until("the gate of the first wave waits", || {
        fleet.path("waits").exists()
    });
    let status = watch.end(Signal::SIGTERM);
    assert_eq!(status.code(), Some(6), "{}", watch.text());
    assert!(fleet.bodies().iter().all(|body| body == "one"));
    assert_eq!(open_runs(&fleet), 0);
}

#[test]
fn an_interrupt_without_a_run_ends_it_with_0() {
    let fleet = Fleet::start(1);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut watch = Watch::start(&fleet, &[]);
        assert_eq!(watch.end(signal).code(), Some(0), "{}", watch.text());
    }
}

#[test]
fn a_second_watch_waits_for_the_run_of_the_first() {
    let fleet = gated(true);
    let first = Watch::start(&fleet, &[]);
    replace(&fleet, "web.toml.new", &config("two"));
    until("the gate of the first wave waits", || {
        fleet.path("waits").exists()
    });
    let second = Watch::start(&fleet, &[]);
    assert_eq!(second.runs_with("busy"), 1, "{}", second.text());
    fleet.write("go", "");
    for watch in [&first, &second] {
        watch.until("it has converged", || watch.succeeded());
    }
    serves(&fleet, "two");
    // Nothing is left that a later command would have to repair.
    let mut history = Command::new(fleet.exe());
    let history = history
        .args(["history", "--state"])
        .arg(fleet.path("state"));
    assert!(history.status().unwrap().success());
    assert_eq!(open_runs(&fleet), 0);
}
