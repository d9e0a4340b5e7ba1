//! The coordinator is killed at each request of a run. Afterwards a resume or a revert ends it on
//! every host.

use serde_json::Value;

use super::bed::{Bed, rule, rule_after};

/// The requests and answers of a run at which the coordinator is killed, once its index has begun:
/// host, way and line.
const POINTS: [(usize, &str, &str); 11] = [
    (0, ">", r#""verb":"commit","wave":1"#),
    (0, "<", r#""a":3,"#),
    (1, ">", r#""verb":"commit","wave":2"#),
    (2, "<", r#""a":3,"#),
    (1, ">", r#""verb":"recheck""#),
    (0, ">", r#""verb":"conclude""#),
    (2, "<", r#""concluded""#),
    (0, ">", r#""q":"close_up""#),
    (1, "<", r#""ok":{"rows""#),
    (0, ">", r#""q":"finish""#),
    (2, "<", r#""finished""#),
];

const ROLLOUT: &str = "[rollout]\nwaves = [\"1\", \"100%\"]\nbake = \"0s\"\n";

/// Returns the points of one round: few, or all in a full test.
fn points(skip: usize) -> Vec<(usize, Value, String)> {
    let step = if std::env::var_os("HELLO_TEST_FULL").is_some() {
        1
    } else {
        4
    };
    POINTS
        .iter()
        .flat_map(|(host, way, line)| {
            let name = format!("h{host} {way} {line}");
            [
                (*host, rule("kill", way, line), name.clone()),
                (*host, rule_after("kill", way, line), name + " passed on"),
            ]
        })
        .skip(skip)
        .step_by(step)
        .collect()
}

fn bed() -> Bed {
    let bed = Bed::start(&[1, 1, 1]);
    bed.fleet(ROLLOUT);
    bed
}

/// Broadcasts, and is killed at a point.
fn broadcast_and_kill(bed: &Bed, message: &str, (host, rule, name): &(usize, Value, String)) {
    bed.between(*host, std::slice::from_ref(rule));
    let end = bed.broadcast(message, &[]);
    assert_eq!(end.code, None, "{name}: {:#} {}", end.json, end.stderr);
    bed.connect_directly(*host);
    for host in 0..3 {
        bed.assert_nothing_staged(host);
    }
}

fn assert_ended(bed: &Bed, message: &str, name: &str) {
    assert!(bed.all_serve(message), "{name}");
    (0..3).for_each(|host| bed.assert_clean(host));
    assert!(bed.open_here().is_empty(), "{name}: {:?}", bed.open_here());
}

#[test]
fn a_resume_ends_the_run_of_a_killed_coordinator() {
    let bed = bed();
    for (n, point) in points(0).iter().enumerate() {
        let message = format!("m{n}");
        broadcast_and_kill(&bed, &message, point);
        let end = bed.run(&["resume"]);
        assert_eq!(
            end.code,
            Some(0),
            "{}: {:#} {}",
            point.2,
            end.json,
            end.stderr
        );
        assert_ended(&bed, &message, &point.2);
    }
}

#[test]
fn a_revert_ends_the_run_of_a_killed_coordinator() {
    let bed = bed();
    for (n, point) in points(1).iter().enumerate() {
        broadcast_and_kill(&bed, &format!("m{n}"), point);
        let end = bed.run(&["revert"]);
        assert_eq!(
            end.code,
            Some(0),
            "{}: {:#} {}",
            point.2,
            end.json,
            end.stderr
        );
        assert_ended(&bed, "one", &point.2);
    }
}

#[test]
fn a_resume_without_one_host_leaves_the_rest_to_a_second_one() {
    let bed = bed();
    for (n, point) in points(2).iter().enumerate() {
        let message = format!("m{n}");
        broadcast_and_kill(&bed, &message, point);
        let was = bed.served(2);
        bed.unreachable(2);
        let (args, code): (&[&str], _) = if n % 2 == 0 {
            (&["resume", "--max-unreachable", "1"], 8)
        } else {
            (&["resume", "--except", "h2"], 8)
        };
        let end = bed.run(args);
        assert_eq!(
            end.code,
            Some(code),
            "{}: {:#} {}",
            point.2,
            end.json,
            end.stderr
        );
        assert_eq!(bed.served(2), was, "{}", point.2);
        bed.connect_directly(2);
        let end = bed.run(&["resume"]);
        assert_eq!(
            end.code,
            Some(0),
            "{}: {:#} {}",
            point.2,
            end.json,
            end.stderr
        );
        assert_ended(&bed, &message, &point.2);
    }
}

#[test]
fn a_run_that_is_killed_in_its_finish_is_reverted_without_one_host_and_then_with_it() {
    let line = r#""q":"finish""#;
    for rule in [rule("kill", ">", line), rule_after("kill", ">", line)] {
        let bed = bed();
        let name = rule.to_string();
        broadcast_and_kill(&bed, "two", &(0, rule, name.clone()));
        bed.unreachable(2);
        let end = bed.run(&["revert", "--max-unreachable", "1"]);
        assert_eq!(end.code, Some(8), "{name}: {:#} {}", end.json, end.stderr);
        assert!(bed.serves(0, "one") && bed.serves(1, "one") && bed.serves(2, "two"));
        bed.connect_directly(2);
        let end = bed.run(&["revert"]);
        assert_eq!(end.code, Some(0), "{name}: {:#} {}", end.json, end.stderr);
        assert_ended(&bed, "one", &name);
    }
}

#[test]
fn a_run_that_is_killed_in_its_rollback_is_ended_by_a_resume_or_a_revert() {
    let line = r#""verb":"roll_back""#;
    for (n, kill) in [
        rule("kill", ">", line),
        rule_after("kill", ">", line),
        rule("kill", "<", r#""a":4,"#),
    ]
    .into_iter()
    .enumerate()
    {
        let bed = bed();
        // The loss of one host rolls the others back.
        bed.between(1, &[rule("cut", ">", r#""verb":"commit""#)]);
        broadcast_and_kill(&bed, "two", &(0, kill.clone(), kill.to_string()));
        bed.connect_directly(1);
        let (verb, message) = if n % 2 == 0 {
            ("revert", "one")
        } else {
            ("resume", "two")
        };
        let end = bed.run(&[verb]);
        assert_eq!(end.code, Some(0), "{kill}: {:#} {}", end.json, end.stderr);
        assert_ended(&bed, message, &kill.to_string());
    }
}

#[test]
fn a_resume_that_is_killed_as_well_is_ended_by_another_one() {
    let bed = bed();
    let commit = || rule_after("kill", ">", r#""verb":"commit""#);
    broadcast_and_kill(&bed, "two", &(0, commit(), "broadcast".into()));
    bed.between(1, &[commit()]);
    let end = bed.run(&["resume"]);
    assert_eq!(end.code, None, "{:#} {}", end.json, end.stderr);
    bed.connect_directly(1);
    let end = bed.run(&["resume"]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    assert_ended(&bed, "two", "resume");
}

#[test]
fn a_coordinator_that_is_killed_before_its_index_touches_nothing() {
    let bed = bed();
    for (kill, line) in [
        (rule_after("kill", ">", r#""q":"survey""#), "survey"),
        // Behind the answer, the coordinator may have gone on before it ends.
        (rule("kill", "<", r#""a":1,"#), "its answer"),
    ] {
        broadcast_and_kill(&bed, "two", &(1, kill, line.into()));
        (0..3).for_each(|host| bed.assert_untouched(host));
    }
    // The journal of a host has begun, and those of the others may have.
    for way in [">", "<"] {
        let line = if way == ">" {
            r#""q":"plan""#
        } else {
            r#""a":2,"#
        };
        broadcast_and_kill(
            &bed,
            "two",
            &(1, rule_after("kill", way, line), line.into()),
        );
        assert!(bed.all_serve("one"));
        assert!(bed.open_here().is_empty(), "no run is known here");
        let run = bed.open_runs(1).pop().unwrap();
        let args: &[&str] = if way == ">" {
            &["revert", &run]
        } else {
            &["revert"]
        };
        let end = bed.run(args);
        // A host that has not begun knows nothing of the run, and is named.
        let began = (0..3).filter(|host| !bed.open_runs(*host).is_empty());
        let (end, code) = match end.code {
            Some(5) => {
                let hosts: Vec<String> = began.map(|host| format!("h{host}")).collect();
                let end = bed.run(&["revert", &run, "--on", &hosts.join(",")]);
                (end, 8)
            }
            _ => (end, 0),
        };
        assert_eq!(
            end.code,
            Some(code),
            "{line}: {:#} {}",
            end.json,
            end.stderr
        );
        assert_ended(&bed, "one", line);
    }
}

#[test]
fn a_run_that_ended_otherwise_on_one_host_is_not_resumed_to_a_good_end() {
    let bed = bed();
    broadcast_and_kill(
        &bed,
        "two",
        &(
            0,
            rule_after("kill", ">", r#""verb":"commit","wave":1"#),
            "commit".into(),
        ),
    );
    // One host restores the old config by itself.
    let run = bed.open_runs(0).pop().unwrap();
    let fleet = &bed.hosts[0];
    // It speaks of that host alone.
    assert_eq!(fleet.continue_run("revert", &[&run]).code, 8);
    let end = bed.run(&["resume"]);
    assert_eq!(end.code, Some(5), "{:#} {}", end.json, end.stderr);
    assert!(bed.all_serve("one"));
    assert!(end.stderr.contains("h0"), "{}", end.stderr);
    let end = bed.run(&["revert"]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    assert_ended(&bed, "one", "revert");
}
