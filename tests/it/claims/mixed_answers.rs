//! Endpoints that answer from the new and the old config alternately.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::server::{
    CONTAINS, EQUALS, INCREASED, STAMPED, Server, each, group, groups, holds, set, state, text,
};
use crate::support::{CommandResult, Fleet, until};

/// Runs a broadcast over a server that gives some answers from the earlier config. They start at
/// the first number since the reload, and repeat by the second.
fn answers_in_turns(turns: &str, facts: &str) -> (Fleet, Vec<Server>, CommandResult) {
    let fleet = Fleet::start(0);
    let servers = vec![Server::with(
        &fleet,
        "Alternates",
        0,
        "web.toml",
        &["--turns", turns],
    )];
    groups(&fleet, &[group(&fleet, "g", "web.toml", facts)]);
    let result = set(&fleet, "two", &[]);
    (fleet, servers, result)
}

fn is_not_proven(turns: &str, facts: &str) {
    let (_fleet, servers, result) = answers_in_turns(turns, facts);
    let state = state(&result, &servers[0]);
    assert!(result.code == 7, "{turns}, {facts}: {:#}", result.json);
    assert!(
        matches!(state, "timed_out" | "revert_failed"),
        "{turns}, {facts}: {:#}",
        result.json
    );
    holds(&result, &servers);
}

#[test]
fn every_answering_side_is_sampled_whatever_else_is_probed() {
    // Each side gets the same probes again and again if several sources are probed in turn.
    each(
        &[
            format!("{EQUALS}{INCREASED}"),
            format!("{STAMPED}{EQUALS}"),
            format!("{CONTAINS}{STAMPED}{INCREASED}"),
        ],
        |facts| {
            each(&["0,2", "1,2", "0,3", "1,3", "2,3"], |turns| {
                is_not_proven(turns, facts)
            });
        },
    );
}

#[test]
fn an_instance_that_showed_both_configs_is_probed_more_often() {
    // The new config, the old one, and then six times the new one.
    each(&[EQUALS, CONTAINS], |facts| is_not_proven("1,7", facts));
}

#[test]
fn an_instance_is_proven_once_it_shows_only_the_new_config() {
    // The last answer from the old config is the second one after the reload.
    let patient = format!("{EQUALS}{INCREASED}");
    each(&[EQUALS, &patient], |facts| {
        let (_fleet, servers, result) = answers_in_turns("1,1000000", facts);
        assert_eq!(
            (result.code, state(&result, &servers[0])),
            (0, "confirmed"),
            "{facts}: {:#}",
            result.json
        );
    });
}

#[test]
fn an_answer_that_one_side_gave_before_the_signal_proves_nothing() {
    each(&[EQUALS, CONTAINS], |facts| {
        let fleet = Fleet::start(0);
        // Its first answer after each reload comes from the earlier config.
        let servers = [Server::with(
            &fleet,
            "Alternates",
            0,
            "web.toml",
            &["--turns", "0,1000000"],
        )];
        let one = fleet.text();
        for (reloads, config) in [one.replace("\"one\"", "\"two\""), one.clone()]
            .iter()
            .enumerate()
        {
            fleet.write("web.toml", config);
            kill(Pid::from_raw(servers[0].pid()), Signal::SIGHUP).unwrap();
            let notes = || std::fs::read_to_string(fleet.path("rogues.log")).unwrap();
            until("it has reloaded", || {
                notes().matches(" serves ").count() > reloads
            });
            servers[0].settles();
        }
        groups(&fleet, &[group(&fleet, "g", "web.toml", facts)]);
        let new = fleet.write("new.toml", &format!("# a comment\n{one}"));
        let result = fleet.broadcast(&["--config", &text(&new)]);
        // An `equals` that does not hold at the survey is refused before anything is touched.
        let ends = [(5, "refused"), (12, "unconfirmed")];
        assert!(
            ends.contains(&(result.code, state(&result, &servers[0]))),
            "{facts}: {:#}",
            result.json
        );
    });
}
