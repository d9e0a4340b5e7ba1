//! Two coordinators, each with a state directory of its own, over the same hosts.

use std::process::Stdio;

use super::bed::{AT_START, Bed};
use crate::support::{CommandResult, run_to_end, until};

#[test]
fn the_second_coordinator_ends_busy_names_the_owner_and_touches_nothing() {
    let bed = Bed::start(&[1, 1]);
    let (waits, go) = (bed.path("waits"), bed.path("go"));
    bed.gate(&waits, &go);
    let first = bed
        .command(&["broadcast", "--set", "message=two"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the gate runs", || waits.exists());
    let runs = bed.open_runs(0);
    let mut second = bed.command_of("other", &["broadcast", "--set", "message=three"]);
    let end = run_to_end(&mut second);
    std::fs::write(&go, "").unwrap();
    let first = CommandResult::wait_for(first);
    bed.wait_for_agents();
    assert_eq!(end.code, Some(9), "{:#} {}", end.json, end.stderr);
    let reason = end.json["reason"].as_str().unwrap();
    assert!(reason.contains("h0") && reason.contains("h1"), "{reason}");
    assert!(
        reason.contains(&runs[0][..8]) || reason.contains("pid"),
        "{reason}"
    );
    assert_eq!(first.code, 0, "{:#} {}", first.json, first.stderr);
    assert!(bed.all_serve("two"));
    for host in 0..2 {
        bed.assert_clean(host);
        assert_eq!(
            bed.hosts[host].attempts(),
            [AT_START + 1],
            "h{host} was signalled once"
        );
    }
}

#[test]
fn two_names_of_one_machine_are_refused_instead_of_waiting_for_itself() {
    let bed = Bed::start(&[1, 1]);
    std::fs::copy(bed.path("h0.sh"), bed.path("h1.sh")).unwrap();
    let own = bed.hosts[0].path("fleet.toml");
    let text = std::fs::read_to_string(&own).unwrap();
    std::fs::write(&own, text.replace("[agent]\nname = \"h0\"", "[agent]")).unwrap();
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(5), "{:#} {}", end.json, end.stderr);
    let reason = end.json["reason"].as_str().unwrap();
    assert!(reason.contains("are one machine"), "{reason}");
    assert!(bed.all_serve("one"));
    bed.assert_nothing_staged(0);
}

#[test]
fn a_run_beyond_the_budget_of_unreachable_hosts_names_the_command_that_says_what_repairs_them() {
    let bed = Bed::start(&[1, 1]);
    bed.fleet("max_unreachable = \"30%\"\n");
    bed.unreachable(1);
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(11), "{:#} {}", end.json, end.stderr);
    let reason = end.json["reason"].as_str().unwrap();
    assert!(reason.contains("30%, which is 0 of 2 hosts"), "{reason}");
    let next = end.json["next"][0].as_str().unwrap();
    assert!(next.starts_with("hello hosts --fleet "), "{next}");
    bed.assert_untouched(0);
}
