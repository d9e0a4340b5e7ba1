//! Claims about an instance that a run had signalled when its coordinator was killed.

use std::process::Stdio;

use serde_json::Value;

use super::server::{EQUALS, PATIENT, Server, fleet, group, groups, holds, outcome, set};
use crate::{
    support::{CommandResult, Fleet, Killed, until},
    world::digest,
};

/// A canary, and the rest in a second wave.
const WAVES: &str = "[group.rollout]\nwaves = [\"1\", \"100%\"]\n";

/// A server whose reload takes long enough to be met by a kill.
const SLOW: (&str, u64) = ("SlowEarly", 1500);

/// The group of [`fleet`], with a pause after each wave that no test waits for.
fn bakes(fleet: &Fleet) {
    let more = format!("{WAVES}bake = \"10m\"\n{EQUALS}");
    groups(fleet, &[group(fleet, "g", "web.toml", &more)]);
}

/// The group with a gate after each wave.
fn gated_by(fleet: &Fleet, script: &str) {
    let more = format!("{WAVES}gate = [\"sh\", \"-c\", {script:?}]\n{EQUALS}");
    groups(fleet, &[group(fleet, "g", "web.toml", &more)]);
}

fn bakes_no_more(fleet: &Fleet) {
    let more = format!("{WAVES}{EQUALS}");
    groups(fleet, &[group(fleet, "g", "web.toml", &more)]);
}

/// Returns the ids of the runs, oldest first.
fn runs(fleet: &Fleet) -> Vec<String> {
    let runs = std::fs::read_dir(fleet.path("state/runs"));
    let names = runs
        .into_iter()
        .flatten()
        .map(|run| run.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

fn journal(fleet: &Fleet, run: &str) -> String {
    let path = fleet.path("state/runs").join(run).join("events.jsonl");
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Starts two servers that run `base` by proof, and kills a run to `two` once its journal has this
/// event. Returns the id of that run.
fn killed_at(fleet: &Fleet, event: &str) -> String {
    bakes_no_more(fleet);
    set(fleet, "base", PATIENT).expect(0);
    let earlier = runs(fleet);
    bakes(fleet);
    let mut command = fleet.command(&["--set", "message=two", "--timeout", "20s"]);
    let run = Killed(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let wanted = format!("\"event\":\"{event}\"");
    let newest = || runs(fleet).into_iter().find(|run| !earlier.contains(run));
    until("the run has come that far", || {
        newest().is_some_and(|run| journal(fleet, &run).contains(&wanted))
    });
    drop(run);
    bakes_no_more(fleet);
    newest().unwrap()
}

fn diff(fleet: &Fleet) -> CommandResult {
    CommandResult::of(
        fleet
            .read_only("diff")
            .args(["-o", "json", "--state"])
            .arg(fleet.path("state")),
    )
}

/// The processes of the first wave, as the journal of a run names them.
fn first_wave(fleet: &Fleet, run: &str) -> Vec<i64> {
    let journal = journal(fleet, run);
    let intent = journal
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|line| line["event"] == "intent")
        .unwrap();
    let pids = intent["pids"].as_array().unwrap();
    pids.iter().map(|id| id[0].as_i64().unwrap()).collect()
}

/// Splits the servers into the one that the run may have signalled, and the other.
fn split<'a>(fleet: &Fleet, run: &str, servers: &'a [Server]) -> (&'a Server, &'a Server) {
    let signalled = first_wave(fleet, run);
    let (signalled, others): (Vec<_>, Vec<_>) = servers
        .iter()
        .partition(|server| signalled.contains(&i64::from(server.pid())));
    (signalled[0], others[0])
}

fn names_both(text: &str, run: &str) {
    for verb in ["resume", "revert"] {
        assert!(text.contains(&format!("hello {verb} {run}")), "{text}");
    }
}

#[test]
fn status_does_not_believe_a_proof_from_before_a_run_that_was_killed_after_its_signal() {
    let (fleet, servers) = fleet(&[SLOW, SLOW], EQUALS);
    let run = killed_at(&fleet, "installed");
    let (signalled, other) = split(&fleet, &run, &servers);
    let status = fleet.status().expect(7);
    let doubted = outcome(&status, signalled);
    assert_eq!(doubted["targets"][0]["known"], "no", "{doubted:#}");
    assert_eq!(doubted["runs"], Value::Null, "{doubted:#}");
    let faults = doubted["faults"].to_string();
    names_both(&faults, &run);
    assert!(!faults.contains("changed after it was proven"), "{faults}");
    // The run sent this one no signal, so its proof is still true.
    let untouched = outcome(&status, other);
    assert_eq!(untouched["targets"][0]["known"], "proven", "{untouched:#}");
}

#[test]
fn diff_does_not_believe_a_proof_from_before_a_run_that_was_killed_after_its_signal() {
    let (fleet, servers) = fleet(&[SLOW, SLOW], EQUALS);
    let run = killed_at(&fleet, "installed");
    let (signalled, other) = split(&fleet, &run, &servers);
    let diff = diff(&fleet).expect(7);
    let instances = diff.json["targets"][0]["instances"].as_array().unwrap();
    let pids: Vec<_> = instances.iter().map(|i| i["pid"].clone()).collect();
    assert_eq!(pids, [other.pid()], "{:#}", diff.json);
    let unknown = &diff.json["unknown"][0];
    assert_eq!(unknown["pid"], signalled.pid(), "{:#}", diff.json);
    names_both(unknown["why"].as_str().unwrap(), &run);
}

#[test]
fn a_broadcast_does_not_refuse_an_instance_for_a_proof_from_before_a_killed_run() {
    let (fleet, servers) = fleet(&[SLOW, SLOW], EQUALS);
    let run = killed_at(&fleet, "installed");
    let (signalled, _) = split(&fleet, &run, &servers);
    signalled.settles();
    let result = fleet.broadcast(PATIENT);
    // 12 where it was signalled: nothing proves which reload brought the config that it shows.
    assert!(matches!(result.code, 0 | 12), "{:#}", result.json);
    holds(&result, &servers);
}

#[test]
fn a_refusal_after_a_killed_run_names_that_run_and_what_ends_it() {
    let (fleet, _servers) = fleet(&[("Good", 0), ("Good", 0)], EQUALS);
    let run = killed_at(&fleet, "baking");
    let result = set(&fleet, "three", PATIENT).expect(5);
    let reason = result.json["reason"].as_str().unwrap();
    assert!(reason.contains(&run), "{reason}");
    names_both(&result.json["next"].to_string(), &run);
}

#[test]
fn an_instance_that_was_confirmed_before_the_kill_is_known_to_run_the_new_config() {
    let (fleet, servers) = fleet(&[("Good", 0), ("Good", 0)], EQUALS);
    let run = killed_at(&fleet, "baking");
    let (confirmed, _) = split(&fleet, &run, &servers);
    let status = fleet.status().expect(7);
    let row = outcome(&status, confirmed);
    let two = digest(&std::fs::read(fleet.path("web.toml")).unwrap());
    assert_eq!(row["runs"], two, "{row:#}");
    assert_eq!(row["faults"], serde_json::json!([]), "{row:#}");
    // So it needs no signal, and the others take what the killed run has installed.
    let result = fleet.broadcast(PATIENT).expect(0);
    assert_eq!(outcome(&result, confirmed)["outcome"], "unchanged");
    holds(&result, &servers);
    fleet.status().expect(0);
}

#[test]
fn a_run_that_cannot_be_read_leaves_every_reader_of_its_targets_in_doubt() {
    let (fleet, servers) = fleet(&[("Good", 0), ("Good", 0)], EQUALS);
    let run = killed_at(&fleet, "baking");
    let plan = fleet.path("state/runs").join(&run).join("plan.json");
    std::fs::write(plan, "{").unwrap();
    let status = fleet.status().expect(7);
    for server in &servers {
        let row = outcome(&status, server);
        assert_eq!(row["targets"][0]["known"], "no", "{row:#}");
        assert!(row["faults"].to_string().contains(&run), "{row:#}");
    }
    let reason = status.json["reason"].as_str().unwrap();
    assert!(reason.contains("cannot be read"), "{reason}");
    let next = status.json["next"].to_string();
    let abandon = format!("hello forget {run} --abandon");
    assert!(next.contains(&abandon), "{next}");
    assert!(!next.contains("hello resume"), "{next}");
    // What is not known stays so without the run.
    let forget = std::process::Command::new(fleet.exe())
        .args(["forget", &run, "--abandon", "--state"])
        .arg(fleet.path("state"))
        .output()
        .unwrap();
    assert!(forget.status.success(), "{forget:?}");
    let status = fleet.status();
    for server in &servers {
        let row = outcome(&status, server);
        assert_eq!(row["targets"][0]["known"], "no", "{row:#}");
    }
}

#[test]
fn an_instance_in_doubt_stays_so_after_its_run_is_forgotten() {
    let (fleet, servers) = fleet(&[SLOW, SLOW], EQUALS);
    let run = killed_at(&fleet, "installed");
    let (signalled, other) = split(&fleet, &run, &servers);
    let forget = std::process::Command::new(fleet.exe())
        .args(["forget", &run, "--abandon", "--state"])
        .arg(fleet.path("state"))
        .output()
        .unwrap();
    assert!(forget.status.success(), "{forget:?}");
    let status = fleet.status();
    let known = |server| outcome(&status, server)["targets"][0]["known"].clone();
    assert_eq!(known(signalled), "no", "{:#}", status.json);
    assert_eq!(known(other), "proven", "{:#}", status.json);
}

#[test]
fn an_instance_that_was_started_again_is_not_in_doubt() {
    let (fleet, mut servers) = fleet(&[SLOW, SLOW], EQUALS);
    let run = killed_at(&fleet, "installed");
    let signalled = first_wave(&fleet, &run);
    servers.retain(|server| !signalled.contains(&i64::from(server.pid())));
    let new = Server::start(&fleet, "Good", 0, "web.toml");
    let status = fleet.status().expect(7);
    let row = outcome(&status, &new);
    assert_eq!(row["faults"], serde_json::json!([]), "{row:#}");
}

#[test]
fn an_untouched_instance_that_another_program_made_reload_is_not_believed() {
    let (fleet, servers) = fleet(&[("Good", 0), ("Good", 0)], EQUALS);
    gated_by(&fleet, "true");
    set(&fleet, "base", PATIENT).expect(0);
    // While the new file is there, the gate signals both, as a rotation of logs does.
    let pids: Vec<String> = servers.iter().map(|s| s.pid().to_string()).collect();
    gated_by(&fleet, &format!("kill -HUP {}; false", pids.join(" ")));
    let result = set(&fleet, "two", PATIENT).expect(6);
    assert_eq!(result.states(), ["reverted", "untouched"]);
    let status = fleet.status();
    let run = runs(&fleet).pop().unwrap();
    let (_, untouched) = split(&fleet, &run, &servers);
    let row = outcome(&status, untouched);
    assert_eq!(row["targets"][0]["known"], "no", "{row:#}");
}

#[test]
fn older_proofs_do_not_count_where_a_run_could_not_record_its_own() {
    let (fleet, servers) = fleet(&[("Good", 0)], EQUALS);
    set(&fleet, "base", PATIENT).expect(0);
    let (record, aside) = (fleet.path("state/proven.json"), fleet.path("aside"));
    std::fs::rename(&record, &aside).unwrap();
    // No file can take the place of a directory.
    std::fs::create_dir(&record).unwrap();
    let result = set(&fleet, "two", PATIENT).expect(0);
    assert!(result.stderr.contains("Not kept"), "{}", result.stderr);
    std::fs::remove_dir(&record).unwrap();
    std::fs::rename(&aside, &record).unwrap();
    let status = fleet.status();
    let row = outcome(&status, &servers[0]);
    assert_eq!(row["targets"][0]["known"], "no", "{row:#}");
    let run = result.json["run"].as_str().unwrap();
    assert!(row["faults"].to_string().contains(run), "{row:#}");
    // The next run over the target is the end of that.
    let before = fleet.broadcast(PATIENT);
    assert_eq!(before.states(), ["unconfirmed"], "{:#}", before.json);
    set(&fleet, "three", PATIENT).expect(0);
    fleet.status().expect(0);
}
