//! The outcome `reverted`, with `confirmed` beside it, while a reload is pending.

use super::server::{
    CHANGED, EQUALS, INCREASED, PATIENT, STAMPED, Server, each, fleet, group, groups, holds,
    message, outcome, script, set, state, text,
};
use crate::support::Fleet;

#[test]
fn a_reload_that_outlasts_the_rollback_leaves_nothing_proven() {
    each(
        &[
            ("SlowEarly", EQUALS),
            ("SlowDrop", EQUALS),
            ("SlowEarly", CHANGED),
            ("SlowDrop", CHANGED),
            ("SlowEarly", STAMPED),
            ("SlowDrop", INCREASED),
        ],
        |(mode, facts)| {
            let (fleet, servers) = fleet(&[(mode, 2500)], facts);
            let result = set(&fleet, "two", &[]).expect(7);
            assert_eq!(
                state(&result, &servers[0]),
                "revert_failed",
                "{mode}: {facts}"
            );
        },
    );
}

#[test]
fn the_end_of_the_first_reload_is_not_mistaken_for_the_second() {
    each(
        &[
            ("SlowEarly", INCREASED),
            ("SlowEarly", STAMPED),
            ("SlowDrop", INCREASED),
            ("SlowDrop", STAMPED),
            ("SlowLate", INCREASED),
        ],
        |(mode, facts)| {
            // Longer than the timeout and shorter than twice that: it ends during the rollback.
            let (fleet, servers) = fleet(&[(mode, 1200)], facts);
            let result = set(&fleet, "two", &[]);
            // On a busy machine it may be in time, or too late for a second end. It is then named
            // as unproven.
            let ends = [(0, "confirmed"), (6, "reverted"), (7, "revert_failed")];
            assert!(
                ends.contains(&(result.code, state(&result, &servers[0]))),
                "{mode}: {facts}: {:#}",
                result.json
            );
            holds(&result, &servers);
        },
    );
}

#[test]
fn an_instance_that_silently_keeps_its_config_is_reverted_by_its_own_reload() {
    each(&[INCREASED, STAMPED], |facts| {
        let (fleet, servers) = fleet(&[("Silent", 0)], facts);
        let result = set(&fleet, "odd", &[]).expect(6);
        holds(&result, &servers);
    });
}

#[test]
fn an_instance_rolled_back_alone_does_not_load_the_new_config_later() {
    each(
        &[
            ("SlowLate", STAMPED),
            ("SlowLate", INCREASED),
            ("SlowDrop", STAMPED),
            ("SlowEarly", EQUALS),
        ],
        |(mode, facts)| {
            let (fleet, servers) = fleet(
                &[(mode, 1200), ("Good", 0)],
                &format!("{facts}[group.rollout]\nmax_failures = 1\nwaves = [\"100%\"]"),
            );
            let result = set(&fleet, "two", &[]);
            assert!(
                matches!(result.code, 0 | 7 | 8),
                "{mode}: {facts}: {:#}",
                result.json
            );
            holds(&result, &servers);
        },
    );
}

#[test]
fn an_instance_that_rereads_the_file_during_a_partial_rollback_is_not_confirmed() {
    each(&[("Silent", 0), ("SlowEarly", 4000)], |(mode, slow)| {
        let (fleet, servers) = fleet(&[("SlowLate", 1900), (mode, *slow)], "");
        // Another program has just signalled it, and the end of that reload is its proof. Another
        // reload ends while the old file is installed for the other instance.
        let validator = script(
            &fleet,
            "validator",
            &format!("kill -HUP {}; sleep 0.6", servers[0].pid()),
        );
        let more = format!(
            "validate = [\"{validator}\"]\n{EQUALS}[group.rollout]\nmax_failures = 1\nwaves = [\"100%\"]"
        );
        groups(&fleet, &[group(&fleet, "g", "web.toml", &more)]);
        let result = set(&fleet, "odd", &["--timeout", "1500ms"]);
        // A busy machine may give it enough time to load the new config.
        assert!(
            matches!(result.code, 6..=8) || (result.code == 0 && *mode == "SlowEarly"),
            "{mode}: {:#}",
            result.json
        );
        holds(&result, &servers);
    });
}

#[test]
fn an_empty_answer_proves_nothing_in_the_rollback() {
    let (fleet, servers) = fleet(&[("Blank", 300)], CHANGED);
    // It has never run the content on the disk.
    fleet.write("web.toml", "message = \"disk\"\n");
    let result = set(&fleet, "two", &[]).expect(7);
    assert_eq!(
        (state(&result, &servers[0]), &*message(&servers[0])),
        ("revert_failed", "one")
    );
}

#[test]
fn an_instance_that_shows_its_baseline_again_is_not_proven_on_the_disk_content() {
    // It never loads another config, and its command counts the probes.
    let (fleet, servers) = fleet(&[("Liar", 0)], "");
    fleet.write("web.toml", "message = \"disk\"\n");
    let count = "exec 3<>/dev/tcp/127.0.0.1/$1; printf \"GET /count HTTP/1.1\\r\\n\\r\\n\" >&3; sed \"1,/^\\r$/d\" <&3";
    let ask = script(
        &fleet,
        "ask",
        &format!("[ \"$(bash -c '{count}' ask \"$1\")\" = 2 ] && echo second || echo first"),
    );
    let facts = format!(
        "samples = 1\n[[group.confirm]]\nexec = [\"{ask}\", \"{{listen.port}}\"]\nchanged = true\n[group.rollout]\ngate = [\"false\"]"
    );
    groups(&fleet, &[group(&fleet, "g", "web.toml", &facts)]);
    let result = set(&fleet, "two", PATIENT).expect(6);
    let one = outcome(&result, &servers[0]);
    assert_eq!(
        (&one["outcome"], &one["after"], &*message(&servers[0])),
        (&"reverted".into(), &serde_json::Value::Null, "one"),
        "{one:#}"
    );
    // No record says that it runs that config, so the next run signals it.
    let result = fleet.broadcast(PATIENT);
    assert!(!result.states().contains(&"unchanged"), "{:#}", result.json);
}

#[test]
fn an_instance_proven_on_the_disk_content_earlier_is_proven_on_it_again() {
    let fleet = Fleet::start(0);
    let gate = script(
        &fleet,
        "gate",
        &format!("! grep -q three '{}'", text(&fleet.path("web.toml"))),
    );
    let servers = [Server::start(&fleet, "Good", 0, "web.toml")];
    groups(
        &fleet,
        &[group(
            &fleet,
            "g",
            "web.toml",
            &format!("{CHANGED}[group.rollout]\ngate = [\"{gate}\"]"),
        )],
    );
    set(&fleet, "two", PATIENT).expect(0);
    let result = set(&fleet, "three", PATIENT).expect(6);
    assert_eq!(
        outcome(&result, &servers[0])["after"],
        result.json["targets"][0]["from"]
    );
    holds(&result, &servers);
}
