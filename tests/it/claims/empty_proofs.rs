//! Assertions that could not fail: an empty answer, an answer that changes by itself, and one that
//! held before the signal.

use super::server::{
    CHANGED, CONTAINS, EQUALS, INCREASED, PATIENT, Server, each, fleet, group, groups, holds,
    script, set, state, text,
};
use nix::sys::signal::Signal;

use crate::support::{Fleet, until};

/// Probes the server as a pipeline would: an empty body prints nothing.
fn pipeline(fleet: &Fleet, prints: &str) -> String {
    let ask = "exec 3<>/dev/tcp/127.0.0.1/$1; printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' >&3; sed '1,/^\\r$/d' <&3";
    let script = script(
        fleet,
        "ask",
        &format!("exec bash -c \"$0.sh\" ask \"$1\" | {prints}")
            .replace("\"$0.sh\"", &format!("'{}'", ask.replace('\'', "'\\''"))),
    );
    format!("[[group.confirm]]\nexec = [\"{script}\", \"{{listen.port}}\"]\nchanged = true\n")
}

#[test]
fn an_empty_answer_proves_nothing() {
    each(&["", "cat", "(cat; echo ' ')"], |prints| {
        let (fleet, servers) = fleet(&[("Blank", 300)], CHANGED);
        let facts = if prints.is_empty() {
            CHANGED.to_owned()
        } else {
            pipeline(&fleet, prints)
        };
        groups(&fleet, &[group(&fleet, "g", "web.toml", &facts)]);
        let result = set(&fleet, "two", &[]).expect(7);
        assert_eq!(state(&result, &servers[0]), "revert_failed", "{facts}");
    });
}

#[test]
fn an_answer_that_changes_by_itself_is_refused() {
    let (fleet, servers) = fleet(&[("Good", 0)], CHANGED);
    let before = fleet.text();
    let counter = script(
        &fleet,
        "counter",
        &format!(
            "echo >>'{0}'; exec wc -l <'{0}'",
            text(&fleet.path("asked"))
        ),
    );
    let exec =
        |argv: &str, wants: &str| format!("[[group.confirm]]\nexec = [{argv}]\n{wants} = true\n");
    for facts in [
        "[[group.confirm]]\nhttp = \"http://{listen}/clock\"\nchanged = true\n".to_owned(),
        "[[group.confirm]]\nhttp = \"http://{listen}/clock\"\nincreased = true\n".into(),
        exec("\"date\", \"+%s\"", "after_signal"),
        exec(&format!("\"{counter}\""), "increased"),
        format!("{EQUALS}[[group.reject]]\nhttp = \"http://{{listen}}/clock\"\nchanged = true\n"),
    ] {
        groups(&fleet, &[group(&fleet, "g", "web.toml", &facts)]);
        let result = set(&fleet, "two", &[]).expect(5);
        assert_eq!(
            (state(&result, &servers[0]), fleet.text()),
            ("refused", before.clone()),
            "{facts}"
        );
    }
}

#[test]
fn an_answer_that_was_read_once_alone_is_refused() {
    let (fleet, servers) = fleet(&[("Good", 0)], CHANGED);
    let before = fleet.text();
    for wants in ["changed", "increased", "after_signal"] {
        // A clock that answers the survey, and then not until the signal.
        let asked = text(&fleet.path(&format!("asked-{wants}")));
        let clock = script(
            &fleet,
            wants,
            &format!("echo >>'{asked}'; [ $(wc -l <'{asked}') = 1 ] && exec date +%s; exit 7"),
        );
        let facts = format!("[[group.confirm]]\nexec = [\"{clock}\"]\n{wants} = true\n");
        groups(&fleet, &[group(&fleet, "g", "web.toml", &facts)]);
        let result = set(&fleet, "two", &[]).expect(5);
        assert_eq!(state(&result, &servers[0]), "refused", "{facts}");
        assert!(
            result.stderr.contains("gave no second answer"),
            "{}",
            result.stderr
        );
        assert_eq!(fleet.text(), before, "{facts}");
    }
}

#[test]
fn an_assertion_that_held_before_the_signal_proves_nothing() {
    each(&[EQUALS, CONTAINS], |facts| {
        // Longer than the timeout of the run. It serves the old config when that ends.
        let (fleet, servers) = fleet(&[("SlowEarly", 2500), ("Good", 0)], facts);
        let new = fleet.write("new.toml", &format!("# a comment\n{}", fleet.text()));
        let result = fleet
            .broadcast(&["--waves", "100%", "--config", &text(&new)])
            .expect(12);
        assert_eq!(result.states(), ["unconfirmed"; 2], "{facts}");
        holds(&result, &servers);
        // Nothing says that they run it, so they are signalled again.
        let result = fleet.broadcast(&["--waves", "100%"]).expect(12);
        assert_eq!(result.states(), ["unconfirmed"; 2], "{facts}");
        groups(
            &fleet,
            &[group(
                &fleet,
                "g",
                "web.toml",
                &format!("unproven = \"accept\"\n{facts}"),
            )],
        );
        assert_eq!(
            fleet.broadcast(&["--waves", "100%"]).expect(0).states(),
            ["unconfirmed"; 2],
            "{facts}"
        );
    });
}

#[test]
fn an_assertion_that_always_held_proves_nothing_in_the_rollback() {
    // It serves the old and the new config alternately, with equal answers.
    let (fleet, servers) = fleet(
        &[("Alternates", 0), ("SlowEarly", 4000)],
        &format!("{EQUALS}[group.rollout]\ngate = [\"false\"]"),
    );
    let new = fleet.write("new.toml", &format!("# a comment\n{}", fleet.text()));
    let result = fleet.broadcast(&["--config", &text(&new)]).expect(7);
    assert!(
        servers
            .iter()
            .all(|server| matches!(state(&result, server), "revert_failed" | "untouched")),
        "{:#}",
        result.json
    );
}

#[test]
fn an_observed_reload_beside_the_assertion_is_the_proof() {
    let fleet = Fleet::start(0);
    let servers = [Server::start(&fleet, "Good", 0, "web.toml")];
    groups(
        &fleet,
        &[group(
            &fleet,
            "g",
            "web.toml",
            &format!("{EQUALS}{INCREASED}"),
        )],
    );
    let new = fleet.write("new.toml", &format!("# a comment\n{}", fleet.text()));
    let result = fleet
        .broadcast(&[&["--config", &text(&new)], PATIENT].concat())
        .expect(0);
    assert_eq!(result.json["instances"][0]["proof"], "reloaded");
    holds(&result, &servers);
}

#[test]
fn the_digest_is_read_where_no_assertion_asks_the_instance() {
    for facts in [
        "exec = [\"true\"]\nread = \"exit\"\nequals = \"0\"\n",
        "exec = [\"echo\", \"port {listen.port}\"]\ncontains = \"port\"\n",
    ] {
        let fleet = Fleet::start(1);
        let file = fleet.path("fleet.toml");
        let group = std::fs::read_to_string(&file).unwrap();
        // It stops the server, which then reloads nothing.
        let stops = script(&fleet, "stops", &format!("kill -STOP {}", fleet.pid(0)));
        let validate = format!("validate = [\"{stops}\"]");
        fleet.write(
            "fleet.toml",
            &format!("{group}{validate}\n[[group.confirm]]\n{facts}"),
        );
        let result = fleet.broadcast(&["--set", "message=two"]).expect(7);
        assert_eq!(result.states(), ["revert_failed"], "{facts}");
        fleet.signal(0, Signal::SIGCONT);
        // The signals of that run are pending no more.
        until("it reloads", || fleet.attempts() > vec![1]);
        fleet.write("fleet.toml", &format!("{group}[[group.confirm]]\n{facts}"));
        let result = fleet.broadcast(&["--set", "message=two"]).expect(0);
        assert_eq!(result.json["instances"][0]["proof"], "exact", "{facts}");
        assert_eq!(fleet.bodies(), ["two"], "{facts}");
    }
}
