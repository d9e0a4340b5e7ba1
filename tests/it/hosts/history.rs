//! `hello history` over hosts: what each host keeps, and what this machine has an index of.

use std::path::Path;

use serde_json::Value;

use super::bed::Bed;
use crate::support::{CommandEnd, run_to_end, until};

/// Returns the host and the verdict of each row. The row of an index has no host.
fn rows(end: &CommandEnd) -> Vec<(String, String)> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = end.json["runs"].as_array();
    let rows = rows.unwrap_or_else(|| panic!("{}", end.stderr)).iter();
    rows.map(|row| (text(row, "host"), text(row, "verdict")))
        .collect()
}

fn hosts(end: &CommandEnd) -> Vec<String> {
    rows(end).into_iter().map(|(host, _)| host).collect()
}

/// Starts hosts with one server each, and broadcasts to all of them.
fn after_a_run(hosts: usize) -> Bed {
    let bed = Bed::start(&vec![1; hosts]);
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    bed
}

#[test]
fn a_run_has_a_row_for_each_host_and_one_for_its_index() {
    let bed = after_a_run(2);
    let end = bed.run(&["history", "--gather"]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    let converged = |host: &str| (host.to_owned(), "converged".to_owned());
    assert_eq!(rows(&end), ["", "h0", "h1"].map(converged));
    let id = &end.json["runs"][0]["run"];
    assert!(id.is_string() && end.json["runs"][2]["run"] == *id);
    assert_eq!(end.json["hosts"], Value::Array(Vec::new()));
}

#[test]
fn a_run_that_only_hosts_know_is_listed() {
    let bed = Bed::start(&[1, 1]);
    let mut other = bed.command_of("other", &["broadcast", "--set", "message=two"]);
    assert_eq!(run_to_end(&mut other).code, Some(0));
    assert_eq!(hosts(&bed.run(&["history"])), [] as [String; 0]);
    assert_eq!(hosts(&bed.run(&["history", "--gather"])), ["h0", "h1"]);
}

#[test]
fn terms_ask_some_hosts_and_list_nothing_of_this_machine() {
    let bed = after_a_run(3);
    assert_eq!(hosts(&bed.run(&["history", "--on", "h1"])), ["h1"]);
    assert_eq!(
        hosts(&bed.run(&["history", "--except", "h1"])),
        ["h0", "h2"]
    );
    assert_eq!(bed.run(&["history", "--on", "x*"]).code, Some(3));
}

#[test]
fn a_host_that_is_not_reached_is_named_and_hides_no_other() {
    let bed = after_a_run(2);
    bed.unreachable(1);
    let end = bed.run(&["history", "--gather"]);
    assert_eq!(end.code, Some(11), "{:#}", end.json);
    assert_eq!(hosts(&end), ["", "h0"]);
    assert_eq!(end.json["hosts"][0]["host"], "h1");
    assert!(end.stderr.contains("h1"), "{}", end.stderr);
}

#[test]
fn a_host_whose_runs_cannot_be_read_is_no_host_without_runs() {
    let bed = after_a_run(2);
    let folder = bed.hosts[1].path("state/runs");
    std::fs::rename(&folder, bed.hosts[1].path("state/moved")).unwrap();
    std::fs::write(&folder, "").unwrap();
    let end = bed.run(&["history", "--gather"]);
    assert_eq!(end.code, Some(5), "{:#}", end.json);
    assert_eq!(hosts(&end), ["", "h0"]);
    let why = end.json["hosts"][0]["why"].as_str().unwrap();
    assert!(why.contains("cannot be read"), "{why}");
}

#[test]
fn a_host_with_100_000_runs_gives_the_newest_and_at_most_1000() {
    let bed = Bed::start(&[1]);
    // So many folders take minutes on a disk.
    let memory = ["/dev/shm", "/tmp"]
        .into_iter()
        .find(|dir| Path::new(dir).is_dir());
    let state = tempfile::tempdir_in(memory.unwrap()).unwrap();
    std::os::unix::fs::symlink(state.path(), bed.hosts[0].path("state")).unwrap();
    let id = |number: usize| format!("019ad1110000700080000000{number:08x}");
    for number in 0..100_000 {
        std::fs::create_dir_all(state.path().join("runs").join(id(number))).unwrap();
    }
    let end = bed.run(&["history", "--on", "h0", "-n", "2"]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    let run = |number: usize| end.json["runs"][number]["run"].as_str().unwrap();
    assert_eq!([run(0), run(1)], [id(99_999), id(99_998)]);
    let end = bed.run(&["history", "--on", "h0", "-n", "5000"]);
    assert_eq!(hosts(&end).len(), 1000);
    let fleet = bed.path("fleet.toml");
    let args = ["history", "--gather", "-n", "3", "--fleet"];
    let args = [&args[..], &[fleet.to_str().unwrap()]].concat();
    let output = bed.plain(&bed.path("state"), &args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("the last 3 runs of 1 host\n"), "{text}");
}

#[test]
fn one_run_is_listed_as_each_host_keeps_it() {
    let bed = after_a_run(2);
    let first = bed.runs_here()[0].clone();
    assert_eq!(bed.broadcast("three", &["--on", "h0"]).code, Some(0));
    let of = |args: &[&str]| bed.run(&[&["history"], args].concat());
    assert_eq!(hosts(&of(&["@", "--gather"])), ["", "h0"]);
    assert_eq!(hosts(&of(&["@-1", "--gather"])), ["", "h0", "h1"]);
    let end = of(&[&first[..14], "--on", "h1"]);
    assert_eq!(end.json["runs"][0]["run"], first.as_str());
    assert_eq!(of(&["0123456789", "--gather"]).code, Some(3));
    assert_eq!(of(&["0123", "--gather"]).code, Some(2));
}

#[test]
fn an_open_run_of_hosts_has_the_command_that_ends_it_from_here() {
    let bed = Bed::start(&[1, 1]);
    let run = bed.killed("other", "two", &[]);
    let fleet = bed.path("fleet.toml");
    let fleet = fleet.to_str().unwrap();
    let state = bed.path("state");
    let args = ["history", "--gather", "--fleet", fleet];
    let output = bed.plain(&state, &args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let command = format!(
        "hello resume {run} --fleet {fleet} --state {}",
        state.display()
    );
    assert_eq!(text.matches(&command).count(), 1, "{text}");
    assert!(text.contains("1 run of 2 hosts, 1 open"), "{text}");
    let words: Vec<&str> = command.split(' ').skip(1).take(4).collect();
    let end = run_to_end(&mut bed.plain(&state, &words));
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    bed.wait_for_agents();
    assert!(bed.all_serve("two"));
}

#[test]
fn a_run_under_way_is_listed_as_one() {
    let bed = Bed::start(&[1, 1]);
    let (waits, go) = (bed.path("waits"), bed.path("go"));
    bed.gate(&waits, &go);
    let mut first = bed.command(&["broadcast", "--set", "message=two"]);
    let mut first = first.spawn().unwrap();
    until("the gate runs", || waits.exists());
    let end = run_to_end(&mut bed.command_of("other", &["history", "--on", "h0"]));
    std::fs::write(&go, "").unwrap();
    assert!(first.wait().unwrap().success());
    bed.wait_for_agents();
    assert_eq!(end.json["runs"][0]["running"], true, "{:#}", end.json);
}

/// Returns what a command prints on stdout.
fn printed(bed: &Bed, args: &[&str]) -> String {
    let fleet = bed.path("fleet.toml");
    let args = if args.contains(&"--gather") {
        [args, &["--fleet", fleet.to_str().unwrap()]].concat()
    } else {
        args.to_vec()
    };
    let output = bed.plain(&bed.path("state"), &args).output().unwrap();
    bed.wait_for_agents();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_index_of_a_run_counts_its_hosts_and_names_none_as_its_own() {
    let bed = after_a_run(2);
    let end = bed.run_here(&["history"]);
    let row = &end.json["runs"][0];
    assert_eq!(row["host"], Value::Null, "{row:#}");
    assert_eq!(row["began"]["over_hosts"], 2, "{row:#}");
    let text = printed(&bed, &["history"]);
    assert!(text.contains("broadcast of web on 2 hosts"), "{text}");
    let text = printed(&bed, &["history", "@"]);
    // The path of the program may hold the word as well.
    assert!(!text.contains(" target"), "{text}");
}

#[test]
fn every_event_of_a_run_names_its_host() {
    let bed = after_a_run(2);
    let text = printed(&bed, &["history", "@"]);
    for host in ["h0", "h1"] {
        let mut lines = text.lines();
        let of_host = format!(" {host}: ");
        let is_wave =
            |line: &str| line.contains(&of_host) && line.contains("signalling 1 instance");
        assert!(lines.any(is_wave), "{text}");
        let path = bed.hosts[host[1..].parse::<usize>().unwrap()].path("web.toml");
        let target = format!("{host}: {} sha256:", path.display());
        assert!(text.contains(&target), "{text}");
    }
}

#[test]
fn show_has_the_targets_of_each_host_and_the_command_that_reverts() {
    let bed = after_a_run(2);
    let run = bed.runs_here()[0].clone();
    let text = printed(&bed, &["show", "@"]);
    for (host, fleet) in bed.hosts.iter().enumerate() {
        let target = format!("h{host}: {} sha256:", fleet.path("web.toml").display());
        assert!(text.contains(&target), "{text}");
    }
    assert!(text.contains("only on its host"), "{text}");
    assert!(text.contains("hello revert "), "{text}");
    let json = bed.run_here(&["show", "@"]).json;
    let targets = json["targets"].as_array().unwrap();
    let hosts: Vec<&str> = targets
        .iter()
        .map(|t| t["host"].as_str().unwrap())
        .collect();
    assert_eq!(hosts, ["h0", "h1"], "{json:#}");
    let next = json["next"][0].as_str().unwrap();
    assert!(next.starts_with(&format!("hello revert {run}")), "{next}");
}

#[test]
fn one_run_is_shown_with_the_events_of_each_host() {
    let bed = after_a_run(2);
    let json = bed.run(&["history", "@", "--gather"]).json;
    assert_eq!(json["runs"][0]["events"], Value::Null, "{json:#}");
    for (row, host) in [(1, "h0"), (2, "h1")] {
        let row = &json["runs"][row];
        let events = row["events"].as_array().unwrap();
        let names: Vec<&str> = events
            .iter()
            .map(|e| e["event"].as_str().unwrap())
            .collect();
        assert_eq!(names.first(), Some(&"began"), "{row:#}");
        assert_eq!(names.last(), Some(&"finished"), "{row:#}");
        assert!(events.iter().all(|event| event["host"] == host), "{row:#}");
        assert_eq!(row["more_events"], 0);
    }
    let text = printed(&bed, &["history", "@", "--gather"]);
    let (_, of_hosts) = text.split_once("Host h0: ").unwrap();
    let (first, second) = of_hosts.split_once("Host h1: ").unwrap();
    assert!(first.contains("h0: ") && !first.contains("h1: "), "{text}");
    assert!(
        second.contains("Confirmed") && second.contains("End"),
        "{text}"
    );
    let list = bed.run(&["history", "--gather"]).json;
    assert_eq!(list["runs"][1]["events"], Value::Null, "{list:#}");
}

#[test]
fn a_host_gives_the_last_events_of_a_long_run_and_counts_the_others() {
    let bed = after_a_run(1);
    let run = bed.runs(0)[0].clone();
    let journal = bed.hosts[0]
        .path("state/runs")
        .join(&run)
        .join("events.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let check = r#"{"event":"final_check","host":"h0","v":2,"at":"2026-01-01T00:00:00Z"}"#;
    let many = format!("{check}\n").repeat(1000);
    std::fs::write(&journal, format!("{first}\n{many}{rest}")).unwrap();
    let all = 1 + 1000 + rest.lines().count();
    let json = bed.run(&["history", &run, "--gather"]).json;
    let row = &json["runs"][1];
    let events = row["events"].as_array().unwrap();
    assert_eq!(events.len(), 200);
    assert_eq!(events.last().unwrap()["event"], "finished");
    assert_eq!(row["more_events"], all - 200);
}
