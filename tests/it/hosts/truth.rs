//! What a resume and a revert over hosts may say: only what every host of the run says at that
//! moment.

use std::{path::Path, process::Command};

use nix::sys::signal::Signal;
use serde_json::json;

use super::bed::{Bed, expect, outcomes, rule, rule_after};
use crate::support::{CommandEnd, run_to_end, until, without_cargo};

const ROLLOUT: &str = "[rollout]\nwaves = [\"1\", \"100%\"]\nbake = \"0s\"\n";

fn bed(servers: &[usize]) -> Bed {
    let bed = Bed::start(servers);
    bed.fleet(ROLLOUT);
    bed
}

/// Broadcasts, and is killed when the host has its first commit. Returns the id of the run.
fn killed(bed: &Bed, message: &str, host: usize) -> String {
    bed.between(host, &[rule_after("kill", ">", r#""verb":"commit""#)]);
    let end = bed.broadcast(message, &[]);
    assert_eq!(end.code, None, "{:#} {}", end.json, end.stderr);
    bed.connect_directly(host);
    bed.open_here().pop().unwrap()
}

fn broadcast(bed: &Bed, message: &str, args: &[&str]) -> String {
    let end = bed.broadcast(message, args);
    expect(&end, 0);
    end.json["run"].as_str().unwrap().to_owned()
}

fn reason(end: &CommandEnd) -> &str {
    end.json["reason"].as_str().unwrap()
}

fn next(end: &CommandEnd) -> Vec<String> {
    serde_json::from_value(end.json["next"].clone()).unwrap()
}

/// Moves the state of a host away.
fn forget_everything(bed: &Bed, host: usize) {
    let state = bed.hosts[host].path("state");
    std::fs::rename(&state, bed.hosts[host].path("state.away")).unwrap();
}

#[test]
fn a_resume_of_a_run_that_was_reverted_on_one_host_is_refused() {
    let bed = bed(&[1, 1, 1]);
    let run = broadcast(&bed, "two", &[]);
    assert_eq!(bed.hosts[0].continue_run("revert", &[&run]).code, 8);
    assert!(bed.serves(0, "one"));
    let end = bed.run(&["resume", &run]);
    expect(&end, 5);
    assert!(reason(&end).starts_with("h0: "), "{}", reason(&end));
    assert!(bed.serves(0, "one") && bed.serves(1, "two") && bed.serves(2, "two"));
}

#[test]
fn a_resume_of_a_run_that_was_reverted_everywhere_is_refused() {
    let bed = bed(&[1, 1]);
    let run = broadcast(&bed, "two", &[]);
    expect(&bed.run(&["revert", &run]), 0);
    let end = bed.run(&["resume", &run]);
    expect(&end, 5);
    assert!(bed.all_serve("one"));
}

#[test]
fn a_resume_of_a_run_that_came_to_its_end_is_refused_as_on_one_machine() {
    let bed = bed(&[1, 1]);
    let run = broadcast(&bed, "two", &[]);
    let end = bed.run(&["resume", &run]);
    expect(&end, 5);
    let wanted = "came to its end, and there is nothing to resume";
    assert!(reason(&end).ends_with(wanted), "{}", reason(&end));
}

#[test]
fn a_revert_of_a_run_that_a_host_does_not_know_is_refused() {
    let bed = bed(&[1, 1, 1]);
    let run = broadcast(&bed, "two", &[]);
    forget_everything(&bed, 2);
    let end = bed.run(&["revert", &run]);
    expect(&end, 5);
    assert!(reason(&end).starts_with("h2: "), "{}", reason(&end));
    assert!(bed.all_serve("two"));
    let without = next(&end).pop().unwrap();
    assert!(without.contains("--except h2"), "{without}");
}

#[test]
fn a_revert_without_a_host_ends_8_at_best_and_names_it() {
    let bed = bed(&[1, 1, 1]);
    let run = broadcast(&bed, "two", &[]);
    forget_everything(&bed, 2);
    let end = bed.run(&["revert", &run, "--except", "h2"]);
    expect(&end, 8);
    assert!(reason(&end).contains("h2"), "{}", reason(&end));
    assert!(
        reason(&end).contains("of the other hosts"),
        "{}",
        reason(&end)
    );
    assert!(bed.serves(0, "one") && bed.serves(1, "one") && bed.serves(2, "two"));
}

#[test]
fn a_host_that_keeps_too_few_runs_to_know_one_refuses_its_revert() {
    let bed = bed(&[1, 1]);
    let run = broadcast(&bed, "two", &[]);
    let journal = bed.hosts[0].path("state/runs").join(&run);
    std::fs::remove_dir_all(journal).unwrap();
    expect(&bed.run(&["revert", &run]), 5);
    assert!(bed.all_serve("two"));
}

#[test]
fn a_resume_asks_the_hosts_again_on_which_the_run_was_finished() {
    let bed = bed(&[1, 1, 1]);
    let run = killed(&bed, "two", 0);
    expect(&bed.run(&["resume", "--except", "h2"]), 8);
    broadcast(&bed, "newer", &["--on", "h0,h1"]);
    let end = bed.run(&["resume", &run]);
    expect(&end, 5);
    assert!(reason(&end).starts_with("h0: "), "{}", reason(&end));
    assert!(bed.serves(0, "newer") && bed.serves(1, "newer") && bed.serves(2, "one"));
}

#[test]
fn a_resume_goes_by_what_a_finished_host_runs_now() {
    let bed = bed(&[1, 1]);
    killed(&bed, "two", 0);
    expect(&bed.run(&["resume", "--except", "h1"]), 8);
    // What it runs and what is on its disk differ now, as they do after an edit by hand.
    let file = bed.hosts[0].path("web.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    bed.hosts[0].write("web.toml", &good.replace("two", "drift"));
    bed.hosts[0].signal(0, Signal::SIGHUP);
    until("h0 serves the edit", || bed.serves(0, "drift"));
    let end = bed.run(&["resume"]);
    expect(&end, 5);
    bed.hosts[0].write("web.toml", &good);
    expect(&bed.run(&["resume"]), 5);
    bed.hosts[0].signal(0, Signal::SIGHUP);
    until("h0 serves the new config", || bed.serves(0, "two"));
    let end = bed.run(&["resume"]);
    expect(&end, 0);
    assert!(bed.all_serve("two"));
    assert!(bed.open_here().is_empty());
}

/// A run whose first two hosts are finished, and whose last one hangs.
fn finished_but_for_one() -> (Bed, String) {
    let bed = bed(&[1, 1, 1]);
    let run = killed(&bed, "two", 0);
    expect(&bed.run(&["resume", "--except", "h2"]), 8);
    assert!(bed.serves(0, "two") && bed.serves(1, "two") && bed.serves(2, "one"));
    (bed, run)
}

#[test]
fn a_resume_that_fails_on_the_last_host_rolls_back_those_that_were_finished_before() {
    let (bed, _) = finished_but_for_one();
    hang(&bed, 2);
    let end = bed.run(&["resume", "--timeout", "2s"]);
    expect(&end, 6);
    assert!(
        bed.all_serve("one"),
        "{:?}",
        (0..3).map(|n| bed.served(n)).collect::<Vec<_>>()
    );
    for host in ["h0", "h1"] {
        assert_eq!(outcomes(&end.json, host), ["reverted"]);
    }
}

#[test]
fn a_resume_that_fails_without_the_finished_hosts_is_mixed_and_names_the_repair() {
    let (bed, run) = finished_but_for_one();
    hang(&bed, 2);
    let end = bed.run(&["resume", &run, "--on", "h2", "--timeout", "2s"]);
    expect(&end, 7);
    for host in ["h0", "h1"] {
        assert!(reason(&end).contains(host), "{}", reason(&end));
    }
    assert!(bed.serves(0, "two") && bed.serves(1, "two") && bed.serves(2, "one"));
    let repair = next(&end).pop().unwrap();
    assert!(
        repair.starts_with(&format!("hello revert {run}")),
        "{repair}"
    );
    assert_eq!(bed.open_here(), [run.as_str()]);
    bed.connect_directly(2);
    expect(&bed.run(&["revert", &run]), 0);
    assert!(bed.all_serve("one"));
    assert!(bed.open_here().is_empty());
}

/// Stops the server of a host while its next commit is under way.
fn hang(bed: &Bed, host: usize) {
    let pid = bed.hosts[host].pid(0);
    let shell = |line: &str, signal: &str| {
        let text = format!("kill -{signal} {pid}");
        json!({ "act": "shell", "way": ">", "line": line, "text": text })
    };
    let commit = shell(r#""verb":"commit""#, "STOP");
    bed.between(host, &[commit, shell(r#""verb":"roll_back""#, "CONT")]);
}

#[test]
fn a_revert_of_an_open_revert_restores_the_old_config_on_every_host() {
    let bed = bed(&[1, 1, 1]);
    let run = broadcast(&bed, "two", &[]);
    bed.unreachable(2);
    expect(&bed.run(&["revert", &run, "--max-unreachable", "1"]), 8);
    bed.connect_directly(2);
    // The revert of all three is killed before its last host has begun to finish.
    bed.between(2, &[rule("kill", ">", r#""q":"finish""#)]);
    let end = bed.run(&["revert", &run]);
    assert_eq!(end.code, None, "{:#} {}", end.json, end.stderr);
    bed.connect_directly(2);
    let end = bed.run(&["revert"]);
    expect(&end, 0);
    assert!(bed.all_serve("one"));
    (0..3).for_each(|host| bed.assert_clean(host));
    assert!(bed.open_here().is_empty());
}

#[test]
fn a_revert_of_the_resume_of_some_hosts_names_the_others() {
    let (bed, run) = finished_but_for_one();
    let resume = last_run(&bed);
    assert_ne!(resume, run);
    let end = bed.run(&["revert", &resume]);
    expect(&end, 8);
    assert!(reason(&end).contains("h2"), "{}", reason(&end));
    assert!(bed.all_serve("one"));
    assert_eq!(bed.open_here(), [run]);
}

fn last_run(bed: &Bed) -> String {
    let mut runs: Vec<String> = std::fs::read_dir(bed.path("state/runs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    runs.sort();
    runs.pop().unwrap()
}

#[test]
fn a_part_of_a_run_is_not_resumed_on_its_host_alone() {
    let bed = bed(&[1, 1]);
    let run = killed(&bed, "two", 0);
    let served = [bed.served(0), bed.served(1)];
    let end = bed.hosts[1].continue_run("resume", &[&run]);
    assert_eq!(end.code, 5, "{:#} {}", end.json, end.stderr);
    let wanted = format!("hello resume {run}");
    assert!(end.stderr.contains(&wanted), "{}", end.stderr);
    assert_eq!([bed.served(0), bed.served(1)], served);
    expect(&bed.run(&["resume"]), 0);
    assert!(bed.all_serve("two"));
}

#[test]
fn a_part_of_a_run_that_is_reverted_on_its_host_alone_speaks_of_that_host() {
    let bed = bed(&[1, 1]);
    let run = broadcast(&bed, "two", &[]);
    let end = bed.hosts[1].continue_run("revert", &[&run]);
    assert_eq!(end.code, 8, "{:#} {}", end.json, end.stderr);
    assert!(end.stderr.contains("1 other host"), "{}", end.stderr);
    assert!(bed.serves(0, "two") && bed.serves(1, "one"));
    expect(&bed.run(&["revert", &run]), 0);
    assert!(bed.all_serve("one"));
}

#[test]
fn status_names_a_run_over_hosts_once_with_the_commands_of_the_coordinator() {
    let bed = bed(&[1, 1]);
    let run = killed(&bed, "two", 0);
    let mut status = Command::new(env!("CARGO_BIN_EXE_hello"));
    without_cargo(&mut status)
        .args(["status", "--fleet"])
        .arg(bed.path("fleet.toml"))
        .arg("--state")
        .arg(bed.path("state"));
    let output = status.output().unwrap();
    bed.wait_for_agents();
    assert_eq!(output.status.code(), Some(7));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.matches("Open run").count(), 1, "{text}");
    let state = bed.path("state");
    let command = format!("hello resume {run} --state {}", state.display());
    assert!(text.contains(&command), "{text}");
    let json = bed.run(&["status"]).json;
    assert_eq!(json["open"][0]["part_of"]["hosts"], 2, "{json:#}");
    assert_eq!(json["open"][0]["next"], json!([]), "{json:#}");
}

#[test]
fn status_names_a_run_that_only_its_index_has_open() {
    let bed = bed(&[1, 1]);
    // Every host has come to its end, and the coordinator has not.
    bed.between(1, &[rule("kill", "<", r#""finished""#)]);
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, None, "{:#} {}", end.json, end.stderr);
    bed.connect_directly(1);
    // Not every host is asked.
    let end = bed.run(&["status", "--on", "h0"]);
    expect(&end, 7);
    assert_eq!(end.json["open"][0]["host"], "local", "{:#}", end.json);
    expect(&bed.run(&["resume"]), 0);
    expect(&bed.run(&["status"]), 0);
}

#[test]
fn a_revert_without_some_hosts_says_what_is_known_and_how_to_go_on() {
    let bed = bed(&[1, 1, 1]);
    let run = broadcast(&bed, "two", &[]);
    bed.unreachable(2);
    let end = bed.run(&["revert", &run, "--max-unreachable", "1"]);
    expect(&end, 8);
    assert!(
        end.stderr.contains("proven on the old config"),
        "{}",
        end.stderr
    );
    assert!(!end.stderr.contains("still has"), "{}", end.stderr);
    let again = next(&end).pop().unwrap();
    assert!(again.starts_with(&format!("hello revert {run}")), "{again}");
    bed.connect_directly(2);
    expect(&bed.run(&["revert", &run]), 0);
    assert!(bed.all_serve("one"));
}

#[test]
fn a_broadcast_without_some_hosts_claims_nothing_of_them() {
    let bed = bed(&[1, 1]);
    bed.unreachable(1);
    let end = bed.broadcast("two", &["--max-unreachable", "1"]);
    expect(&end, 8);
    let wanted = "every instance of the other hosts proved the new config";
    assert!(reason(&end).starts_with(wanted), "{}", reason(&end));
    assert!(!end.stderr.contains("still has"), "{}", end.stderr);
}

#[test]
fn a_bare_revert_finds_the_last_run_over_hosts() {
    let bed = bed(&[1, 1]);
    broadcast(&bed, "two", &[]);
    let end = bed.run(&["revert", "--yes"]);
    expect(&end, 0);
    assert!(bed.all_serve("one"));
    for host in ["h0", "h1"] {
        assert!(end.stderr.contains(&format!("on {host}")), "{}", end.stderr);
    }
    let end = bed.run(&["revert", "--yes"]);
    assert_ne!(
        end.code,
        Some(0),
        "it was reverted: {:#} {}",
        end.json,
        end.stderr
    );
    assert!(bed.all_serve("one"));
}

/// Runs a command of the coordinator in a directory, without `--fleet`.
fn run_in(bed: &Bed, dir: &Path, args: &[&str]) -> CommandEnd {
    let mut hello = Command::new(env!("CARGO_BIN_EXE_hello"));
    without_cargo(&mut hello)
        .args(args)
        .args(["-o", "json", "--state"])
        .arg(bed.path("state"))
        .env("HOME", bed.path("").as_path())
        .current_dir(dir);
    let end = run_to_end(&mut hello);
    bed.wait_for_agents();
    end
}

#[test]
fn a_command_that_was_printed_works_in_every_directory() {
    let bed = bed(&[1, 1]);
    let end = run_in(&bed, &bed.path(""), &["broadcast", "--set", "message=two"]);
    expect(&end, 0);
    let run = end.json["run"].as_str().unwrap().to_owned();
    // Another fleet file lies where the command is typed.
    let elsewhere = bed.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let wrong = "version = 1\n[hosts]\nlist = [\"h[0-1]\"]\nconnect = [\"false\", \"{name}\"]\n";
    std::fs::write(elsewhere.join("fleet.toml"), wrong).unwrap();
    expect(&run_in(&bed, &elsewhere, &["revert", &run]), 0);
    assert!(bed.all_serve("one"));
}

#[test]
fn without_an_index_the_hosts_say_whether_all_of_them_are_there() {
    let bed = bed(&[1, 1, 1]);
    let end = bed.broadcast("two", &["--on", "h0,h1"]);
    expect(&end, 0);
    let run = end.json["run"].as_str().unwrap().to_owned();
    // The third host has never been a part of it.
    let revert = |args: &[&str]| {
        let args = [&["revert", &run], args].concat();
        let end = run_to_end(&mut bed.command_of("other", &args));
        bed.wait_for_agents();
        end
    };
    let end = revert(&["--on", "h0"]);
    expect(&end, 8);
    assert!(reason(&end).contains("1 more host"), "{}", reason(&end));
    expect(&revert(&[]), 0);
    assert!(bed.serves(0, "one") && bed.serves(1, "one"));
    forget_everything(&bed, 1);
    let end = revert(&[]);
    expect(&end, 5);
    assert!(reason(&end).contains("h1, h2"), "{}", reason(&end));
}
