//! The commands that a refusal over hosts names, and how its reasons are shown.

use nix::sys::signal::Signal;

use super::bed::{Bed, expect, rule};
use crate::support::{CommandEnd, run_to_end};

const ROLLOUT: &str = "[rollout]\nwaves = [\"1\", \"100%\"]\nbake = \"0s\"\n";

fn bed(servers: &[usize]) -> Bed {
    let bed = Bed::start(servers);
    bed.fleet(ROLLOUT);
    bed
}

fn next(end: &CommandEnd) -> Vec<String> {
    serde_json::from_value(end.json["next"].clone()).unwrap()
}

fn broadcast(bed: &Bed, message: &str) -> String {
    let end = bed.broadcast(message, &[]);
    expect(&end, 0);
    end.json["run"].as_str().unwrap().to_owned()
}

/// Returns what a command prints for people, in lines.
fn told(bed: &Bed, args: &[&str]) -> CommandEnd {
    let fleet = bed.path("fleet.toml");
    let args = [args, &["--fleet", fleet.to_str().unwrap()]].concat();
    bed.tell("state", &args)
}

#[test]
fn a_revert_of_an_older_run_names_the_open_run_that_goes_first() {
    for state in ["state", "other"] {
        let bed = bed(&[1, 1]);
        let older = broadcast(&bed, "two");
        let later = bed.killed(state, "three", &[]);
        let end = bed.run(&["revert", &older]);
        expect(&end, 5);
        let fleet = bed.path("fleet.toml");
        let wanted = ["resume", "revert"].map(|verb| {
            let (fleet, state) = (fleet.display(), bed.path("state"));
            format!(
                "hello {verb} {later} --fleet {fleet} --state {}",
                state.display()
            )
        });
        assert_eq!(next(&end), wanted, "{state}");
        // The printed command does what it says.
        let words: Vec<&str> = wanted[1].split(' ').skip(1).take(4).collect();
        expect(&bed.tell("state", &words), 0);
        assert!(bed.all_serve("two"), "{state}");
    }
}

#[test]
fn a_broadcast_that_an_open_run_is_in_the_way_of_names_the_commands_for_every_host() {
    let bed = bed(&[1, 1]);
    let run = bed.killed("state", "two", &[]);
    // What is on disk is not what the open run knows: it refuses.
    bed.hosts[1].write(
        "web.toml",
        "message = \"by hand\"\nlisten = \"127.0.0.1:0\"\n",
    );
    bed.hosts[1].signal(0, Signal::SIGSTOP);
    let end = bed.broadcast("three", &["--timeout", "1s"]);
    bed.hosts[1].signal(0, Signal::SIGCONT);
    expect(&end, 5);
    let next = next(&end);
    for verb in ["resume", "revert"] {
        let command = format!("hello {verb} {run} --fleet ");
        assert!(next.iter().any(|n| n.starts_with(&command)), "{next:?}");
    }
}

#[test]
fn a_command_without_an_index_names_the_file_of_the_hosts() {
    let bed = bed(&[1, 1]);
    let run = bed.killed("other", "two", &[]);
    let state = bed.hosts[1].path("state");
    std::fs::rename(&state, bed.hosts[1].path("away")).unwrap();
    // The usual file is that of the directory where the command is typed.
    let mut resume = bed.plain(&bed.path("state"), &["resume", &run, "-o", "json"]);
    let end = run_to_end(resume.current_dir(bed.path("")));
    bed.wait_for_agents();
    expect(&end, 5);
    let fleet = format!("--fleet {}", bed.path("fleet.toml").display());
    let commands = next(&end);
    let revert = commands.iter().find(|n| n.starts_with("hello revert"));
    assert!(revert.is_some_and(|n| n.contains(&fleet)), "{commands:?}");
}

#[test]
fn an_old_config_that_a_validator_refuses_names_the_command_without_validation() {
    let bed = bed(&[1, 1]);
    let run = broadcast(&bed, "two");
    for host in 0..2 {
        let own = bed.hosts[host]
            .path("state/runs")
            .join(&run)
            .join("plan.json");
        let text = std::fs::read_to_string(&own).unwrap();
        let mut plan: serde_json::Value = serde_json::from_str(&text).unwrap();
        plan["groups"][0]["validate"] = serde_json::json!(["/bin/false"]);
        plan["groups"][0]["on_bad_config"] = "dies".into();
        std::fs::write(&own, plan.to_string()).unwrap();
    }
    let end = bed.run(&["revert", &run]);
    expect(&end, 5);
    let next = next(&end);
    assert_eq!(next.len(), 1, "{next:?}");
    assert!(
        next[0].starts_with(&format!("hello revert {run} ")),
        "{next:?}"
    );
    assert!(next[0].ends_with(" --validate=off"), "{next:?}");
}

#[test]
fn a_term_of_a_run_that_is_not_kept_says_so() {
    let bed = bed(&[1]);
    let end = bed.broadcast("two", &["--on", "@ffff:touched"]);
    expect(&end, 3);
    let reason = end.json["reason"].as_str().unwrap();
    assert!(
        reason.contains("`@ffff` names no earlier run: no run `ffff` is kept"),
        "{reason}"
    );
}

#[test]
fn a_lost_host_is_selected_as_touched_only_if_its_commit_may_have_reached_it() {
    for (line, code, touched) in [
        (r#""q":"plan""#, 8, &["h0"][..]),
        (r#""verb":"commit""#, 7, &["h0", "h1"]),
    ] {
        let bed = bed(&[1, 1]);
        bed.between(1, &[rule("cut", ">", line)]);
        let end = bed.broadcast("two", &["--max-unreachable", "1"]);
        expect(&end, code);
        bed.connect_directly(1);
        let selected = |term: &str| {
            let end = bed.run(&["hosts", "--on", term]);
            let hosts = end.json["hosts"].as_array().cloned().unwrap_or_default();
            let name = |host: &serde_json::Value| host["name"].as_str().unwrap().to_owned();
            hosts.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(selected("@@:lost"), ["h1"], "{code}");
        assert_eq!(selected("@@:touched"), touched, "{code}");
    }
}

#[test]
fn history_reminds_of_the_hosts_that_a_closed_run_went_without() {
    let bed = bed(&[1, 1]);
    bed.unreachable(1);
    let end = bed.broadcast("two", &["--max-unreachable", "1"]);
    expect(&end, 8);
    let run = end.json["run"].as_str().unwrap();
    let state = bed.path("state");
    for args in [&["history"][..], &["history", run], &["show", run]] {
        let output = bed.plain(&state, args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            text.contains("not reached in this run: h1;"),
            "{args:?}: {text}"
        );
        let term = format!("@{}:unreachable", &run[..8]);
        assert!(text.contains(&term), "{args:?}: {text}");
    }
    bed.connect_directly(1);
    let end = bed.broadcast("two", &["--on", "@@:unreachable"]);
    expect(&end, 0);
    assert!(bed.all_serve("two"));
}

#[test]
fn a_reason_of_several_hosts_is_shown_once_for_each() {
    let bed = bed(&[2, 2]);
    for host in &bed.hosts {
        (0..2).for_each(|n| host.signal(n, Signal::SIGSTOP));
    }
    let end = told(&bed, &["broadcast", "--set", "message=two"]);
    for host in &bed.hosts {
        (0..2).for_each(|n| host.signal(n, Signal::SIGCONT));
    }
    expect(&end, 5);
    for host in &bed.hosts {
        for n in 0..2 {
            let command = format!("kill -CONT {}`", host.pid(n));
            assert_eq!(end.stderr.matches(&command).count(), 1, "{}", end.stderr);
        }
    }
    assert!(
        end.stderr.contains("error: 4 instances refused on 2 hosts"),
        "{}",
        end.stderr
    );
    // The number of all that matched is not known.
    assert!(
        end.stderr.contains("refused: 4 instances on 2 hosts"),
        "{}",
        end.stderr
    );
}

#[test]
fn a_rollback_over_hosts_names_the_touched_hosts_and_is_no_wave() {
    let bed = bed(&[2, 2, 2]);
    let gate = "gate = [\"false\"]\n";
    bed.fleet(&format!("{ROLLOUT}{gate}"));
    let end = told(&bed, &["broadcast", "--set", "message=two"]);
    expect(&end, 6);
    let (forward, back) = end.stderr.split_once("Rolling back").unwrap();
    assert!(back.starts_with(" h0: everything"), "{}", end.stderr);
    assert!(!back.contains("Rolling back"), "{}", end.stderr);
    for word in ["Wave ", "Installed "] {
        assert!(forward.contains(word), "{}", end.stderr);
        assert!(!back.contains(word), "{word}: {}", end.stderr);
    }
    assert!(back.contains("Rolled back h0: "), "{}", end.stderr);
}
