//! Runs over hosts with real agents: good ones, refused ones, and ones that roll back.

use std::{collections::BTreeSet, process::Stdio};

use nix::sys::signal::Signal;

use super::bed::{Bed, outcomes};
use crate::support::{CommandResult, until};

/// Returns a rollout whose first gate stops a process, so that its wave fails.
fn stopping(bed: &Bed, host: usize, more: &str) -> String {
    let (pid, once) = (bed.hosts[host].pid(0), bed.path("once"));
    let script = format!(
        "mkdir {} 2>/dev/null && kill -STOP {pid}; true",
        once.display()
    );
    format!(
        "[rollout]\nwaves = [\"1\", \"2\", \"100%\"]\nbake = \"0s\"\n{more}\n\
         gate = [\"sh\", \"-c\", \"{script}\"]\n"
    )
}

/// Runs a broadcast over four hosts. The server of the last one is stopped before its wave, and
/// goes on once its rollback has begun.
fn broadcast_with_a_stopped_server(more: &str) -> (Bed, CommandResult) {
    let bed = Bed::start(&[1, 1, 1, 1]);
    bed.fleet(&stopping(&bed, 3, more));
    bed.between(3, &[]);
    let mut command = bed.command(&["broadcast", "--set", "message=two", "--timeout", "1s"]);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = command.spawn().unwrap();
    until("the rollback begins", || {
        bed.wire(3).contains("\"verb\":\"roll_back\"")
    });
    bed.hosts[3].signal(0, Signal::SIGCONT);
    let end = CommandResult::wait_for(run);
    bed.wait_for_agents();
    (bed, end)
}

#[test]
fn a_good_change_reaches_every_server_of_every_host() {
    let bed = Bed::start(&[2, 1, 1, 1, 1]);
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    assert!(bed.all_serve("two"));
    let hosts: BTreeSet<String> = ["instances", "targets"]
        .iter()
        .flat_map(|list| end.json[list].as_array().unwrap())
        .map(|row| row["host"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(Vec::from_iter(hosts), ["h0", "h1", "h2", "h3", "h4"]);
    assert_eq!(end.json["host_counts"]["done"], 5, "{:#}", end.json);
    for host in 0..5 {
        assert_eq!(bed.last_verdict(host), "converged");
        bed.assert_clean(host);
    }
    assert!(bed.open_here().is_empty());
}

#[test]
fn a_validator_that_refuses_on_one_host_leaves_every_host_untouched() {
    let bed = Bed::start(&[1, 1, 1, 1, 1]);
    let own = bed.hosts[3].path("fleet.toml");
    let text = std::fs::read_to_string(&own).unwrap();
    let no = "[[group]]\nvalidate = [\"sh\", \"-c\", \"! grep -q two $0\", \"{candidate}\"]";
    bed.hosts[3].write("fleet.toml", &text.replacen("[[group]]", no, 1));
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(4), "{:#} {}", end.json, end.stderr);
    bed.hosts[3].write("fleet.toml", &text);
    for host in 0..5 {
        bed.assert_untouched(host);
    }
    assert!(bed.open_here().is_empty());
    // No lock is left either.
    assert_eq!(bed.broadcast("three", &[]).code, Some(0));
}

#[test]
fn an_instance_that_fails_in_a_late_wave_rolls_every_host_back() {
    let (bed, end) = broadcast_with_a_stopped_server("");
    assert_eq!(end.code, 6, "{:#} {}", end.json, end.stderr);
    assert!(bed.all_serve("one"));
    for host in 0..4 {
        assert_eq!(outcomes(&end.json, &format!("h{host}")), ["reverted"]);
        assert_eq!(bed.last_verdict(host), "reverted");
        bed.assert_clean(host);
    }
}

#[test]
fn a_failure_within_the_budget_is_rolled_back_alone() {
    let (bed, end) = broadcast_with_a_stopped_server("max_failures = 1");
    assert_eq!(end.code, 8, "{:#} {}", end.json, end.stderr);
    assert!((0..3).all(|host| bed.serves(host, "two")));
    assert!(bed.serves(3, "one"));
    assert_eq!(outcomes(&end.json, "h3"), ["reverted"]);
    (0..4).for_each(|host| bed.assert_clean(host));
}
