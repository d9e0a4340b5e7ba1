//! Changes of a config, and the runs that follow.

use std::{fs, os::unix::fs::symlink, process::Stdio, thread, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Watch, add_to_group, command, config, journal, replace, serves};
use crate::support::{CommandResult, Fleet, until, write};

#[test]
fn a_change_is_one_run_that_proves_every_instance() {
    let fleet = Fleet::start(2);
    let watch = Watch::start(&fleet, &[]);
    assert_eq!(watch.runs(), 1, "{}", watch.text());
    replace(&fleet, "web.toml", &config("two"));
    serves(&fleet, "two");
    watch.until("the run has ended", || watch.runs() == 2);
    assert_eq!(fleet.attempts(), [2, 2], "each got one signal");
    assert!(watch.succeeded(), "{}", watch.text());
    watch.waits_for("web: every instance proved the new config");
    watch.waits_for("after a change of `");
}

#[test]
fn the_first_run_takes_a_change_that_was_made_before() {
    let fleet = Fleet::start(1);
    replace(&fleet, "web.toml", &config("two"));
    let watch = Watch::start(&fleet, &[]);
    serves(&fleet, "two");
    watch.waits_for("at the start");
}

#[test]
fn the_same_bytes_again_start_no_run() {
    let fleet = Fleet::start(1);
    let watch = Watch::start(&fleet, &[]);
    for _ in 0..3 {
        replace(&fleet, "web.toml", &fleet.text());
    }
    // The next change is the next run, however often the same was written before it.
    replace(&fleet, "web.toml", &config("two"));
    serves(&fleet, "two");
    watch.until("the run has ended", || watch.runs() > 1);
    assert_eq!(watch.runs(), 2, "{}", watch.text());
}

#[test]
fn a_thousand_changes_end_on_the_last_content_with_few_runs() {
    let fleet = Fleet::start(2);
    let watch = Watch::start(&fleet, &["--debounce", "1s"]);
    let pause = if std::env::var_os("HELLO_TEST_FULL").is_some() {
        Duration::from_millis(10)
    } else {
        Duration::from_millis(2)
    };
    for index in 0..1000 {
        replace(&fleet, "web.toml", &config(&format!("m{index}")));
        thread::sleep(pause);
    }
    serves(&fleet, "m999");
    watch.until("the last run has ended", || watch.succeeded());
    let runs = watch.runs();
    println!("{runs} runs");
    assert!(runs < 50, "{}", watch.text());
}

#[test]
fn the_debounce_waits_for_the_last_of_several_changes() {
    let fleet = Fleet::start(1);
    let watch = Watch::start(&fleet, &["--debounce", "3s"]);
    for index in 0..5 {
        replace(&fleet, "web.toml", &config(&format!("m{index}")));
        thread::sleep(Duration::from_millis(50));
    }
    serves(&fleet, "m4");
    watch.until("the run has ended", || watch.runs() > 1);
    assert_eq!(watch.runs(), 2, "{}", watch.text());
    assert_eq!(fleet.attempts(), [2]);
}

/// Adds a gate that waits for the file `go`, and says in `waits` that it does.
fn add_waiting_gate(fleet: &Fleet) {
    let (waits, go) = (fleet.path("waits"), fleet.path("go"));
    let script = format!(
        "touch '{}'; until [ -e '{}' ]; do sleep 0.02; done",
        waits.display(),
        go.display()
    );
    add_to_group(
        fleet,
        &format!("rollout.gate = [\"sh\", \"-c\", {script:?}]"),
    );
}

#[test]
fn changes_during_a_run_are_exactly_one_further_run() {
    let fleet = Fleet::start(1);
    add_waiting_gate(&fleet);
    let watch = Watch::start(&fleet, &[]);
    replace(&fleet, "web.toml", &config("two"));
    until("the gate waits", || fleet.path("waits").exists());
    for text in ["three", "four", "five"] {
        replace(&fleet, "web.toml", &config(text));
    }
    fleet.write("go", "");
    serves(&fleet, "five");
    watch.until("both runs have ended", || watch.runs() == 3);
    replace(&fleet, "web.toml", &config("six"));
    serves(&fleet, "six");
    watch.until("the last run has ended", || watch.runs() > 3);
    assert_eq!(watch.runs(), 4, "{}", watch.text());
}

#[test]
fn a_bad_change_and_then_the_old_content_converges() {
    let fleet = Fleet::start(1);
    let old = fleet.text();
    let watch = Watch::start(&fleet, &[]);
    replace(&fleet, "web.toml", "messag = \"bad\"\n");
    watch.until("it has failed", || watch.failed());
    assert_eq!(watch.runs_with("invalid"), 1, "{}", watch.text());
    watch.waits_for("invalid (exit 4)");
    replace(&fleet, "web.toml", &old);
    watch.until("it has converged", || watch.succeeded());
    assert_eq!(fleet.attempts(), [1], "no signal was needed");
}

#[test]
fn a_failure_that_touched_nothing_is_tried_again() {
    let mut fleet = Fleet::start(0);
    let watch = Watch::start(&fleet, &[]);
    assert_eq!(watch.runs_with("no_match"), 1, "{}", watch.text());
    watch.until("it tries again", || watch.runs_with("no_match") > 1);
    fleet.serve();
    watch.until("it has converged", || watch.succeeded());
}

/// Makes a directory as Kubernetes mounts a config map: `web.toml` leads through `..data`.
fn config_map(fleet: &Fleet, name: &str, text: &str) {
    let map = fleet.path("map");
    let new = map.join(name);
    fs::create_dir_all(&new).unwrap();
    write(&new.join("web.toml"), text);
    symlink(name, map.join("..data_tmp")).unwrap();
    fs::rename(map.join("..data_tmp"), map.join("..data")).unwrap();
    if fs::symlink_metadata(map.join("web.toml")).is_err() {
        symlink("..data/web.toml", map.join("web.toml")).unwrap();
    }
}

#[test]
fn a_swap_of_a_config_map_is_exactly_one_run() {
    let mut fleet = Fleet::start(0);
    config_map(&fleet, "..1", &config("one"));
    fleet.serve_from("map/web.toml");
    let watch = Watch::start(&fleet, &[]);
    for (index, message) in ["two", "three"].into_iter().enumerate() {
        let runs = watch.runs();
        config_map(&fleet, &format!("..{}", index + 2), &config(message));
        // Kubernetes removes the old directory after the swap.
        fs::remove_dir_all(fleet.path(&format!("map/..{}", index + 1))).unwrap();
        serves(&fleet, message);
        watch.until("the run has ended", || watch.runs() > runs);
        assert_eq!(watch.runs(), runs + 1, "{}", watch.text());
    }
    assert_eq!(fleet.attempts(), [3]);
    assert_eq!(watch.runs(), 3, "{}", watch.text());
}

#[test]
fn a_file_that_is_deleted_and_made_again_is_followed() {
    let fleet = Fleet::start(1);
    let watch = Watch::start(&fleet, &[]);
    fs::remove_file(fleet.path("web.toml")).unwrap();
    watch.until("it has failed", || watch.failed());
    assert_eq!(fleet.bodies(), ["one"]);
    fleet.write("web.toml", &config("two"));
    serves(&fleet, "two");
    watch.until("it has converged", || watch.succeeded());
}

#[test]
fn a_directory_that_is_deleted_and_made_again_is_followed() {
    let mut fleet = Fleet::start(0);
    let conf = fleet.path("conf");
    fs::create_dir(&conf).unwrap();
    fleet.write("conf/web.toml", &config("one"));
    fleet.serve_from("conf/web.toml");
    let watch = Watch::start(&fleet, &[]);
    fs::rename(&conf, fleet.path("old")).unwrap();
    watch.until("it has failed", || watch.failed());
    fs::create_dir(&conf).unwrap();
    fleet.write("conf/web.toml", &config("two"));
    serves(&fleet, "two");
    watch.until("it has converged", || watch.succeeded());
    // The new directory is watched.
    fleet.write("conf/web.toml", &config("three"));
    serves(&fleet, "three");
}

#[test]
fn a_source_is_installed_and_a_bad_one_is_not() {
    let fleet = Fleet::start(2);
    add_to_group(&fleet, "source = \"{config}.new\"");
    fleet.write("web.toml.new", &config("two"));
    let watch = Watch::start(&fleet, &[]);
    serves(&fleet, "two");
    assert_eq!(fleet.text(), config("two"));
    replace(&fleet, "web.toml.new", "messag = \"bad\"\n");
    watch.until("it has failed", || watch.failed());
    assert_eq!(fleet.text(), config("two"));
    replace(&fleet, "web.toml.new", &config("three"));
    serves(&fleet, "three");
    watch.until("it has converged", || watch.succeeded());
    assert_eq!(fleet.text(), config("three"));
}

#[test]
fn a_source_that_is_gone_replaces_nothing() {
    let fleet = Fleet::start(1);
    add_to_group(&fleet, "source = \"{config}.new\"");
    fleet.write("web.toml.new", &config("two"));
    let watch = Watch::start(&fleet, &[]);
    serves(&fleet, "two");
    fs::remove_file(fleet.path("web.toml.new")).unwrap();
    watch.until("its absence was a change", || watch.runs() > 1);
    assert_eq!(
        (fleet.text(), fleet.bodies()),
        (config("two"), vec!["two".into()])
    );
}

/// Writes a fleet with these groups, each with the name of its config and more keys.
fn write_groups(fleet: &Fleet, groups: &[(&str, &str, &str)]) {
    let name = fleet
        .exe()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let group = |(group, config, more): &(&str, &str, &str)| {
        format!(
            "[[group]]\nname = \"{group}\"\nkind = \"hello\"\ntimeout = \"3s\"\n\
             match = {{ exe = \"{name}\", args = [\"serve\", \"{}\"] }}\n{more}\n",
            fleet.path(config).display()
        )
    };
    let groups: String = groups.iter().map(group).collect();
    fleet.write("fleet.toml", &format!("version = 1\n{groups}"));
}

#[test]
fn a_group_that_fails_holds_up_no_other() {
    let fleet = Fleet::start(1);
    // No server reads this one.
    let groups = [("api", "api.toml", ""), ("web", "web.toml", "")];
    write_groups(&fleet, &groups);
    replace(&fleet, "web.toml", &config("two"));
    let watch = Watch::start(&fleet, &[]);
    serves(&fleet, "two");
    watch.until("it has converged", || watch.succeeded());
    assert!(watch.runs_with("no_match") > 0, "{}", watch.text());
    let once = CommandResult::of(&mut command(&fleet, &["--once"]));
    once.expect(3);
}

#[test]
fn groups_that_depend_on_each_other_have_one_run() {
    let mut fleet = Fleet::start(1);
    let groups = [
        ("api", "api.toml", "after = [\"web\"]"),
        ("web", "web.toml", ""),
    ];
    write_groups(&fleet, &groups);
    fleet.write("api.toml", &config("one"));
    fleet.serve_from("api.toml");
    replace(&fleet, "web.toml", &config("two"));
    replace(&fleet, "api.toml", &config("two"));
    let watch = Watch::start(&fleet, &[]);
    serves(&fleet, "two");
    watch.until("it has converged", || watch.succeeded());
    watch.waits_for(" api, web: every instance proved the new config");
    assert_eq!(watch.runs(), 1, "{}", watch.text());
}

#[test]
fn a_change_of_one_group_is_no_run_over_another() {
    let mut fleet = Fleet::start(1);
    write_groups(&fleet, &[("web", "web.toml", ""), ("api", "api.toml", "")]);
    fleet.write("api.toml", &config("api"));
    fleet.serve_from("api.toml");
    let watch = Watch::start(&fleet, &[]);
    watch.until("both have had a run", || watch.runs() == 2);
    let attempt = |group: &str| {
        let series = "hello_watch_last_attempt_timestamp_seconds";
        watch
            .metric(&format!("{series}{{group=\"{group}\"}}"))
            .unwrap()
    };
    let before = (attempt("web"), attempt("api"));
    replace(&fleet, "web.toml", &config("two"));
    watch.until("the run has ended", || attempt("web") > before.0);
    assert_eq!(attempt("api"), before.1);
}

#[test]
fn one_run_ends_with_its_exit_code() {
    let fleet = Fleet::start(1);
    replace(&fleet, "web.toml", &config("two"));
    let once = || CommandResult::of(&mut command(&fleet, &["--once"]));
    assert!(once().expect(0).stderr.contains("Converged"));
    assert_eq!(fleet.bodies(), ["two"]);
    assert!(once().expect(0).stderr.contains("Unchanged"));
    replace(&fleet, "web.toml", "messag = \"bad\"\n");
    let failed = once().expect(4);
    assert!(!failed.stderr.contains("tried again"), "{}", failed.stderr);
    assert_eq!(fleet.bodies(), ["two"]);
}

#[test]
fn stdout_has_the_events_of_each_run_and_then_its_object() {
    let fleet = Fleet::start(1);
    replace(&fleet, "web.toml", &config("two"));
    let output = command(&fleet, &["--once", "-o", "jsonl"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines.iter().any(|line| line["event"] == "finished"),
        "{text}"
    );
    assert_eq!(lines.last().unwrap()["verdict"], "converged", "{text}");
}

#[test]
fn the_journal_says_that_a_watch_began_the_run_and_why() {
    let fleet = Fleet::start(1);
    let watch = Watch::start(&fleet, &[]);
    replace(&fleet, "web.toml", &config("two"));
    watch.until("the run has ended", || watch.runs() == 2);
    let runs = journal(&fleet.path("state"));
    assert_eq!(runs.len(), 1, "the first run had nothing to do");
    let plan = fs::read_to_string(runs[0].join("plan.json")).unwrap();
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["verb"], "watch");
    let reason = plan["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("hello watch: after a change of `"),
        "{reason}"
    );
}

#[test]
fn a_rolled_back_adoption_stays_a_failure_and_is_no_further_change() {
    let mut fleet = Fleet::start(1);
    let watch = Watch::start(&fleet, &[]);
    replace(&fleet, "web.toml", &config("two"));
    watch.until("the run has ended", || watch.runs() == 2);
    add_to_group(&fleet, "rollout.gate = [\"false\"]");
    watch.signal(Signal::SIGHUP);
    watch.until("the group is looked at again", || watch.runs() == 3);
    replace(&fleet, "web.toml", &config("three"));
    watch.until("it is rolled back", || watch.runs_with("reverted") == 1);
    serves(&fleet, "two");
    assert_eq!(fleet.text(), config("two"));
    // Another process causes a run only while the last one has failed. It comes seconds later.
    fleet.serve();
    watch.waits_for("because other instances run");
    assert_eq!(watch.runs_with("reverted"), 1, "{}", watch.text());
    watch.until("that run has ended", || watch.runs() == 5);
}
