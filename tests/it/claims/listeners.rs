//! A foreign listener on the address of an instance. A connection reaches either by chance.

use std::thread;

use super::server::{EQUALS, Foreign, INCREASED, Server, each, group, groups, outcome, script};
use crate::{
    rollout,
    support::{CommandResult, Fleet, until},
};

/// Two groups: one is proven at once, one is slow, and the foreign listener appears in between. The
/// first proof is too recent to be repeated.
fn shared(first: &str, direction: &str) -> (CommandResult, Server) {
    let fleet = Fleet::start(0);
    let start = |mode: &str, slow: u64, config: &str| {
        fleet.write(config, &fleet.text());
        Server::with(&fleet, mode, slow, config, &["--reuseport"])
    };
    let (one, _slow) = (
        start("Good", 0, "one.toml"),
        start("SlowEarly", 700, "slow.toml"),
    );
    let gate = if direction == "reverted" {
        "[group.rollout]\ngate = [\"false\"]"
    } else {
        ""
    };
    let slow = group(&fleet, "slow", "slow.toml", &format!("{INCREASED}{gate}"));
    groups(&fleet, &[group(&fleet, "one", "one.toml", first), slow]);
    let mut foreign = None;
    let (events, code) = rollout::run(
        fleet.command(&[
            "--all",
            "--set",
            "message=two",
            "--timeout",
            "3s",
            "--waves",
            "100%",
        ]),
        |event| {
            let is_proven = event["event"] == "instance"
                && event["pid"] == one.pid()
                && event["outcome"] == direction;
            if is_proven && foreign.is_none() {
                foreign = Some(Foreign::start(&fleet, &one));
            }
        },
    );
    assert!(foreign.is_some(), "{events:#?}");
    (
        CommandResult {
            code,
            json: events.last().unwrap().clone(),
            stderr: String::new(),
        },
        one,
    )
}

#[test]
fn an_instance_that_shares_its_address_at_the_end_is_not_proven() {
    each(
        &[
            (EQUALS, "confirmed"),
            ("kind = \"hello\"\nvalidate = []\n", "confirmed"),
            (INCREASED, "confirmed"),
            (EQUALS, "reverted"),
        ],
        |(first, direction)| {
            let (result, one) = shared(first, direction);
            let outcome = outcome(&result, &one);
            assert!(
                result.code == 7,
                "{first}: exit {}: {:#}",
                result.code,
                result.json
            );
            assert!(
                outcome["outcome"] != *direction,
                "{first}: exit {}: {:#}",
                result.code,
                result.json
            );
        },
    );
}

#[test]
fn an_instance_that_needs_no_signal_is_refused_if_its_address_is_shared() {
    let fleet = Fleet::start(0);
    let server = Server::with(&fleet, "Liar", 0, "web.toml", &["--reuseport"]);
    // Files that it writes are discarded, except below the root of its parent.
    let text = format!(
        "dir=/proc/$PPID/root'{}'; touch \"$dir/go\"; while [ ! -e \"$dir/went\" ]; do sleep 0.02; done",
        fleet.dir.path().display()
    );
    let validator = script(&fleet, "validator", &text);
    groups(
        &fleet,
        &[group(
            &fleet,
            "g",
            "web.toml",
            &format!("kind = \"hello\"\nvalidate = [\"{validator}\"]\n"),
        )],
    );
    let (go, went) = (fleet.path("go"), fleet.path("went"));
    let result = thread::scope(|scope| {
        let foreign = scope.spawn(|| {
            until("it is validated", || go.exists());
            let foreign = Foreign::start(&fleet, &server);
            std::fs::write(&went, "").unwrap();
            foreign
        });
        let result = fleet.broadcast(&[]);
        drop(foreign.join().unwrap());
        result
    });
    let result = result.expect(5);
    assert_eq!(
        outcome(&result, &server)["outcome"],
        "refused",
        "{:#}",
        result.json
    );
}

#[test]
fn an_instance_without_a_signal_that_shows_another_message_is_refused() {
    let fleet = Fleet::start(0);
    // It reports the content on the disk, and serves its first message.
    let server = Server::start(&fleet, "Liar", 0, "web.toml");
    fleet.write("web.toml", "message = \"two\"\n");
    groups(
        &fleet,
        &[group(
            &fleet,
            "g",
            "web.toml",
            "kind = \"hello\"\nvalidate = []\n",
        )],
    );
    let result = fleet.broadcast(&[]).expect(5);
    assert_eq!(
        outcome(&result, &server)["outcome"],
        "refused",
        "{:#}",
        result.json
    );
}
