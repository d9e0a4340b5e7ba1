//! The open index of a run that another coordinator has ended: a command that hears from every host
//! that the run is over there closes it.

use super::bed::{Bed, expect, rule};
use crate::support::{CommandEnd, run_to_end};

/// Runs a command of another coordinator.
fn elsewhere(bed: &Bed, args: &[&str]) -> CommandEnd {
    let end = run_to_end(&mut bed.command_of("other", args));
    bed.wait_for_agents();
    end
}

/// A run that was killed at its first commit, and that another coordinator has ended by `verb`.
/// Returns its id, and that of the run that took its place.
fn ended_elsewhere(verb: &str) -> (Bed, String, String) {
    let bed = Bed::start(&[1, 1]);
    let run = bed.killed("state", "two", &[]);
    let later = elsewhere(&bed, &[verb, &run]);
    expect(&later, 0);
    let later = later.json["run"].as_str().unwrap().to_owned();
    assert_eq!(bed.open_here(), [run.as_str()]);
    (bed, run, later)
}

/// Returns how the index of a run ended.
fn result(bed: &Bed, run: &str) -> String {
    let end = bed.run_here(&["history", run]);
    end.json["verdict"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_command_that_asks_every_host_closes_the_index_and_names_the_later_run() {
    for (args, code) in [
        (&["status"][..], 0),
        (&["history", "--gather"], 0),
        (&["resume"], 0),
        (&["revert"], 0),
    ] {
        let (bed, run, later) = ended_elsewhere("resume");
        let end = bed.run(args);
        expect(&end, code);
        assert_eq!(bed.open_here(), [] as [String; 0], "{args:?}");
        if ["status", "history"].contains(&args[0]) {
            assert_eq!(result(&bed, &run), "superseded", "{args:?}");
            let wanted =
                format!("run {run}, which was left open: superseded by run {later}: h0, h1");
            let text = end.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains(&wanted), "{args:?}: {}", end.stderr);
        }
    }
}

#[test]
fn a_resume_of_a_run_that_was_reverted_elsewhere_is_refused_and_closes_its_index() {
    let (bed, run, _) = ended_elsewhere("revert");
    let end = bed.run(&["resume"]);
    expect(&end, 5);
    assert_eq!(bed.open_here(), [] as [String; 0]);
    assert_eq!(result(&bed, &run), "superseded");
    assert!(bed.all_serve("one"));
    let next = end.json["next"].to_string();
    assert!(!next.contains("--except"), "no host is left: {next}");
}

#[test]
fn a_dry_run_closes_no_index() {
    let (bed, run, _) = ended_elsewhere("resume");
    expect(&bed.run(&["resume", "--dry-run"]), 0);
    assert_eq!(bed.open_here(), [run]);
}

#[test]
fn an_index_stays_open_where_a_host_is_not_asked_or_not_reached() {
    let (bed, run, _) = ended_elsewhere("resume");
    expect(&bed.run(&["status", "--on", "h0"]), 7);
    bed.unreachable(1);
    expect(&bed.run(&["status"]), 11);
    expect(&bed.run(&["history", "--gather"]), 11);
    assert_eq!(bed.open_here(), [run]);
}

#[test]
fn an_index_stays_open_where_a_host_knows_nothing_of_the_run() {
    let (bed, run, _) = ended_elsewhere("resume");
    let state = bed.hosts[1].path("state");
    std::fs::rename(&state, bed.hosts[1].path("away")).unwrap();
    expect(&bed.run(&["status"]), 7);
    expect(&bed.run(&["history", "--gather"]), 0);
    assert_eq!(bed.open_here(), [run]);
}

#[test]
fn an_index_stays_open_where_the_run_is_open_on_a_host() {
    let bed = Bed::start(&[1, 1]);
    let run = bed.killed("state", "two", &[]);
    expect(&elsewhere(&bed, &["resume", &run, "--on", "h0"]), 8);
    assert_eq!(bed.open_runs(1), [run.as_str()]);
    expect(&bed.run(&["status"]), 7);
    expect(&bed.run(&["history", "--gather"]), 0);
    assert_eq!(bed.open_here(), [run]);
}

#[test]
fn an_index_whose_coordinator_was_killed_after_the_end_of_every_host_gets_that_end() {
    let bed = Bed::start(&[1, 1]);
    bed.between(1, &[rule("kill", "<", r#""finished""#)]);
    assert_eq!(bed.broadcast("two", &[]).code, None);
    bed.connect_directly(1);
    let run = bed.open_here().pop().unwrap();
    expect(&bed.run(&["status"]), 0);
    assert_eq!(bed.open_here(), [] as [String; 0]);
    assert_eq!(result(&bed, &run), "converged");
}

/// Returns the number of instances of an outcome in a summary.
fn count(end: &CommandEnd, outcome: &str) -> u64 {
    end.json["counts"][outcome].as_u64().unwrap_or_default()
}

#[test]
fn status_and_history_agree_on_a_run_that_was_killed_after_its_last_proof() {
    let bed = Bed::start(&[1, 1]);
    bed.between(0, &[rule("kill", ">", r#""verb":"conclude""#)]);
    assert_eq!(bed.broadcast("two", &[]).code, None);
    bed.connect_directly(0);
    assert!(bed.all_serve("two"));
    let is_open = |bed: &Bed| bed.run_here(&["history"]).json["runs"][0]["open"].clone();
    expect(&bed.run(&["status"]), 7);
    assert_eq!(is_open(&bed), true);
    let end = bed.run(&["resume"]);
    expect(&end, 0);
    assert_eq!(count(&end, "unchanged"), 2, "{:#}", end.json);
    expect(&bed.run(&["status"]), 0);
    assert_eq!(is_open(&bed), false);
    let began = bed.run_here(&["history"]).json["runs"][0]["began"].clone();
    assert_eq!(began["groups"], serde_json::json!(["web"]), "{began:#}");
}

#[test]
fn a_resume_of_a_run_that_every_host_has_finished_counts_the_instances_and_closes_it() {
    let bed = Bed::start(&[1, 1]);
    bed.between(1, &[rule("kill", "<", r#""finished""#)]);
    assert_eq!(bed.broadcast("two", &[]).code, None);
    bed.connect_directly(1);
    let end = bed.run(&["resume"]);
    expect(&end, 0);
    assert_eq!(count(&end, "unchanged"), 2, "{:#}", end.json);
    assert_eq!(bed.open_here(), [] as [String; 0]);
    let began = bed.run_here(&["history"]).json["runs"][0]["began"].clone();
    assert_eq!(began["groups"], serde_json::json!(["web"]), "{began:#}");
}
