//! Claims about an instance whose reload for an earlier run is pending.

use std::process::Stdio;

use super::server::{CHANGED, EQUALS, INCREASED, PATIENT, Server, each, fleet, holds, set, state};
use crate::support::{CommandResult, Fleet, Killed, until};

/// The reload time, in milliseconds. It exceeds the timeouts of two runs, so that it ends after
/// both.
const SLOW: u64 = 5000;

fn revert(fleet: &Fleet, more: &[&str]) -> CommandResult {
    let runs = std::fs::read_dir(fleet.path("state/runs")).unwrap();
    // Their ids sort by time.
    let newest = runs
        .map(|run| run.unwrap().file_name().into_string().unwrap())
        .max()
        .unwrap();
    fleet.continue_run("revert", &[&[newest.as_str()], more].concat())
}

#[test]
fn a_revert_does_not_prove_the_old_config_while_the_reload_of_the_new_one_is_under_way() {
    each(
        &[
            ("SlowEarly", EQUALS),
            ("SlowDrop", EQUALS),
            ("SlowEarly", CHANGED),
            ("SlowDrop", CHANGED),
        ],
        |(mode, facts)| {
            let (fleet, servers) = fleet(&[(mode, SLOW)], facts);
            set(&fleet, "two", &[]).expect(7);
            let result = revert(&fleet, &[]);
            assert!(
                matches!(result.code, 7 | 12),
                "{mode}: {facts}: {:#}",
                result.json
            );
            assert!(
                !matches!(state(&result, &servers[0]), "confirmed" | "unchanged"),
                "{mode}: {:#}",
                result.json
            );
            holds(&result, &servers);
        },
    );
}

#[test]
fn a_later_broadcast_does_not_mistake_the_end_of_an_earlier_reload_for_its_own() {
    each(&["SlowEarly", "SlowDrop"], |mode| {
        let (fleet, servers) = fleet(&[(mode, 2500)], CHANGED);
        set(&fleet, "two", &[]).expect(7);
        // The answer changes in between, to that of the earlier run.
        let result = set(&fleet, "three", &["--timeout", "3s"]);
        holds(&result, &servers);
        // Also if a run without a proof has closed the earlier run.
        set(&fleet, "four", &[]).expect(7);
        revert(&fleet, &[]);
        let result = set(&fleet, "five", &["--timeout", "3s"]);
        holds(&result, &servers);
    });
}

#[test]
fn a_revert_of_a_killed_run_proves_nothing_while_its_reload_is_under_way() {
    each(
        &[("SlowEarly", EQUALS), ("SlowDrop", CHANGED)],
        |(mode, facts)| {
            let (fleet, servers) = fleet(&[(mode, SLOW)], facts);
            killed_while_it_reloads(&fleet, &servers[0]);
            let result = revert(&fleet, &[]);
            assert_ne!(result.code, 0, "{mode}: {facts}: {:#}", result.json);
            holds(&result, &servers);
        },
    );
}

#[test]
fn a_broadcast_after_a_killed_run_knows_of_the_pending_reload() {
    let (fleet, servers) = fleet(&[("SlowEarly", 3000)], CHANGED);
    killed_while_it_reloads(&fleet, &servers[0]);
    let result = set(&fleet, "three", &["--timeout", "4s"]);
    holds(&result, &servers);
}

#[test]
fn a_revert_that_sees_the_new_content_disappear_is_proven() {
    each(&[EQUALS, CHANGED], |facts| {
        let (fleet, servers) = fleet(&[("SlowEarly", 1200)], facts);
        set(&fleet, "two", &[]).expect(7);
        // Long enough to see the content of the earlier run, and the old one after it.
        let result = revert(&fleet, &["--timeout", "30s"]);
        holds(&result, &servers);
        // The survey may have seen it in the middle of its reload.
        let ends = [(0, "confirmed"), (5, "refused"), (12, "unconfirmed")];
        assert!(
            ends.contains(&(result.code, state(&result, &servers[0]))),
            "{facts}: {:#}",
            result.json
        );
    });
}

#[test]
fn a_run_on_another_file_that_saw_the_reload_end_closes_the_earlier_reload() {
    let (fleet, servers) = fleet(&[("SlowEarly", 1500)], CHANGED);
    set(&fleet, "two", &[]).expect(7);
    servers[0].settles();
    let (other, read) = (
        fleet.write("other.toml", "x = 1\n"),
        std::fs::read_to_string(fleet.path("fleet.toml")).unwrap(),
    );
    let broadcast = |facts: &str, new: &str| {
        let text = read
            .replace("\"{arg:7}\"", &format!("\"{}\"", other.display()))
            .replace(CHANGED, facts);
        fleet.write("fleet.toml", &text);
        fleet.broadcast(
            &[
                &["--config", fleet.write("new", new).to_str().unwrap()],
                PATIENT,
            ]
            .concat(),
        )
    };
    let result = broadcast(INCREASED, "x = 2\n").expect(0);
    assert_eq!(state(&result, &servers[0]), "confirmed");
    // A reload of the first run would change it as well.
    let result = broadcast(&INCREASED.replace("increased", "changed"), "x = 3\n").expect(0);
    assert_eq!(state(&result, &servers[0]), "confirmed");
    // That run is still open. A process that was not proven since is in the state it left.
    assert!(
        fleet
            .path("state/open")
            .read_dir()
            .unwrap()
            .next()
            .is_some()
    );
}

/// Kills a run that waits for a proof, after the reload of the instance has begun.
fn killed_while_it_reloads(fleet: &Fleet, server: &Server) {
    let mut command = fleet.command(&["--set", "message=two", "--timeout", "60s"]);
    let _run = Killed(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    until("the instance has begun its reload", || {
        Server::truth(&server.url).is_some_and(|(_, is_busy)| is_busy)
    });
}
