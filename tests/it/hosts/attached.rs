//! A connection that breaks and comes back, a coordinator that dies, and the commit-confirmed timer.

use std::process::Stdio;

use serde_json::{Value, json};

use super::bed::{AT_START, Bed, outcomes, rule, rule_after};
use crate::support::{run_to_end, until};

/// Returns a rule whose host can be reached again at once.
fn back(mut rule: Value) -> Value {
    rule["back"] = json!(true);
    rule
}

/// Returns the lines of the journal of a host's run.
fn journal(bed: &Bed, host: usize, run: &str) -> Vec<Value> {
    let path = bed.hosts[host]
        .path("state/runs")
        .join(run)
        .join("events.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Returns the events of this name.
fn events(journal: &[Value], name: &str) -> Vec<Value> {
    journal
        .iter()
        .filter(|line| line["event"] == name)
        .cloned()
        .collect()
}

/// Returns the arguments of a broadcast with a commit-confirmed timer.
fn armed(timer: &str) -> [&str; 5] {
    [
        "broadcast",
        "--set",
        "message=two",
        "--commit-confirmed",
        timer,
    ]
}

fn assert_no_socket(bed: &Bed, host: usize) {
    let sockets = std::fs::read_dir(bed.hosts[host].path("state/agents"));
    let left: Vec<_> = sockets.into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_link_that_breaks_in_any_phase_and_comes_back_ends_no_run_and_repeats_nothing() {
    for cut in [
        rule("cut", ">", r#""q":"survey""#),
        rule_after("cut", ">", r#""q":"survey""#),
        rule("cut", "<", r#""a":1,"#),
        rule("cut", ">", r#""q":"plan""#),
        rule("cut", "<", r#""a":2,"#),
        rule("cut", ">", r#""verb":"commit""#),
        rule_after("cut", ">", r#""verb":"commit""#),
        rule("cut", "<", r#""a":3,"#),
        rule_after("cut", ">", r#""verb":"conclude""#),
        rule("cut", "<", r#""finished""#),
    ] {
        let bed = Bed::start(&[1, 1]);
        bed.between(1, &[back(cut.clone())]);
        let end = bed.broadcast("two", &[]);
        assert_eq!(end.code, Some(0), "{cut} {:#} {}", end.json, end.stderr);
        assert!(bed.all_serve("two"), "{cut}");
        let attempts: Vec<_> = (0..2).flat_map(|host| bed.hosts[host].attempts()).collect();
        assert_eq!(attempts, [AT_START + 1, AT_START + 1], "{cut}");
        for host in 0..2 {
            bed.assert_clean(host);
            assert_no_socket(&bed, host);
        }
    }
}

#[test]
fn a_request_that_comes_twice_has_one_effect() {
    let bed = Bed::start(&[1]);
    let requests = [
        r#""q":"survey""#,
        r#""q":"plan""#,
        r#""verb":"commit""#,
        r#""q":"finish""#,
    ];
    let rules: Vec<Value> = requests.iter().map(|q| rule("double", ">", q)).collect();
    bed.between(0, &rules);
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    assert_eq!(bed.hosts[0].attempts(), [AT_START + 1]);
    bed.assert_clean(0);
}

#[test]
fn a_request_or_an_answer_that_is_lost_on_the_way_is_asked_again() {
    for (way, line) in [
        (">", r#""q":"survey""#),
        ("<", r#""a":1,"#),
        (">", r#""verb":"commit""#),
        ("<", r#""a":3,"#),
        ("<", r#""finished""#),
    ] {
        let bed = Bed::start(&[1]);
        bed.between(0, &[back(rule("drop", way, line))]);
        let end = bed.broadcast("two", &[]);
        assert_eq!(end.code, Some(0), "{line} {:#} {}", end.json, end.stderr);
        assert_eq!(bed.hosts[0].attempts(), [AT_START + 1], "{line}");
        bed.assert_clean(0);
    }
}

#[test]
fn a_resume_takes_over_the_sessions_of_its_own_killed_coordinator_at_once() {
    let bed = Bed::start(&[1, 1]);
    let kill = rule_after("kill", ">", r#""verb":"commit""#);
    bed.between(1, std::slice::from_ref(&kill));
    bed.lease("60s");
    let end = run_to_end(&mut bed.command(&["broadcast", "--set", "message=two"]));
    assert_eq!(end.code, None, "{:#}", end.json);
    bed.connect_directly(1);
    let end = bed.run(&["resume"]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    assert!(bed.all_serve("two"));
    (0..2).for_each(|host| bed.assert_clean(host));
}

#[test]
fn another_coordinator_waits_for_the_lease_or_takes_over_knowingly() {
    let bed = Bed::start(&[1, 1]);
    let kill = rule_after("kill", ">", r#""verb":"commit""#);
    bed.between(1, std::slice::from_ref(&kill));
    bed.lease("60s");
    let end = run_to_end(&mut bed.command(&["broadcast", "--set", "message=two"]));
    assert_eq!(end.code, None, "{:#}", end.json);
    bed.connect_directly(1);
    until("the commits have ended", || bed.all_serve("two"));
    let run = bed.open_runs(0)[0].clone();
    let mut other = bed.command_of("other", &["resume", &run]);
    let end = run_to_end(&mut other);
    assert_eq!(end.code, Some(9), "{:#} {}", end.json, end.stderr);
    assert!(
        end.stderr.contains("at once with --take-over"),
        "{}",
        end.stderr
    );
    assert!(
        end.stderr.contains("\n  hello status --fleet "),
        "{}",
        end.stderr
    );
    let mut other = bed.command_of("other", &["resume", &run, "--take-over"]);
    let end = run_to_end(&mut other);
    bed.wait_for_agents();
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    let ended = events(&journal(&bed, 0, &run), "session_ended");
    assert_eq!(ended[0]["by"], "take_over", "{ended:?}");
    (0..2).for_each(|host| bed.assert_clean(host));
}

#[test]
fn an_armed_host_whose_coordinator_died_rolls_back_by_itself_and_says_so() {
    let bed = Bed::start(&[1, 1]);
    let kill = rule("kill", "<", r#""a":3,"#);
    bed.between(1, std::slice::from_ref(&kill));
    let args = armed("2s");
    let end = run_to_end(&mut bed.command(&args));
    assert_eq!(end.code, None, "{:#}", end.json);
    until("both hosts serve the old config", || bed.all_serve("one"));
    bed.wait_for_agents();
    for host in 0..2 {
        bed.assert_clean(host);
        assert_no_socket(&bed, host);
        let runs = bed.runs(host);
        let ended = events(&journal(&bed, host, &runs[0]), "session_ended");
        assert_eq!(ended[0]["by"], "timer", "{ended:?}");
        let finished = events(&journal(&bed, host, &runs[1]), "finished");
        assert_eq!(finished[0]["verdict"], "converged", "{finished:?}");
    }
}

#[test]
fn a_timer_that_is_longer_than_the_run_is_disarmed_by_its_end() {
    let bed = Bed::start(&[1, 1]);
    let end = bed.broadcast("two", &["--commit-confirmed", "2s"]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    assert!(bed.all_serve("two"));
    (0..2).for_each(|host| bed.assert_clean(host));
}

#[test]
fn a_timer_that_is_shorter_than_the_lease_or_too_long_is_refused_and_nothing_is_touched() {
    for timer in ["1s", "25h"] {
        let bed = Bed::start(&[1, 1]);
        bed.lease("2s");
        let end = bed.broadcast("two", &["--commit-confirmed", timer]);
        assert_eq!(end.code, Some(5), "{timer} {:#} {}", end.json, end.stderr);
        assert!(bed.all_serve("one"));
    }
}

#[test]
fn a_new_agent_goes_on_with_the_timer_of_a_killed_one() {
    let bed = Bed::start(&[1]);
    bed.between(0, &[rule("kill", "<", r#""a":3,"#)]);
    let args = armed("5s");
    // The agent must not hold the pipes of a coordinator that is waited for to its end.
    let mut coordinator = bed.command(&args);
    let coordinator = coordinator.stdout(Stdio::null()).stderr(Stdio::null());
    assert_eq!(coordinator.status().unwrap().code(), None);
    bed.kill_agents(0);
    bed.wait_for_agents();
    assert_eq!(bed.served(0), ["two"], "nothing has guarded the timer yet");
    let hosts = bed.run(&["hosts"]).json;
    let left = hosts["hosts"][0]["open"][0]["armed_s"].as_u64();
    assert!(left.is_some_and(|left| left <= 5), "{hosts:#}");
    let end = run_to_end(&mut bed.agent_command(0, &["--resume-armed"]));
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert!(end.stderr.contains("timer"), "{}", end.stderr);
    assert!(bed.all_serve("one"));
    bed.assert_clean(0);
}

#[test]
fn a_host_that_is_cut_off_for_good_after_its_commit_is_rolled_back_by_its_timer() {
    let bed = Bed::start(&[1, 1]);
    bed.between(1, &[rule("cut", "<", r#""a":3,"#)]);
    let end = bed.broadcast("two", &["--commit-confirmed", "2s"]);
    assert_eq!(end.code, Some(7), "{:#} {}", end.json, end.stderr);
    assert_eq!(outcomes(&end.json, "h1"), ["timed_out"]);
    until("the host serves the old config", || bed.serves(1, "one"));
}

#[test]
fn a_new_agent_goes_on_with_the_run_of_a_killed_one() {
    for line in [
        r#""q":"plan""#,
        r#""verb":"commit","wave":1"#,
        r#""verb":"commit","wave":2"#,
        r#""verb":"conclude""#,
        r#""q":"finish""#,
    ] {
        for rule in [rule("end", ">", line), rule_after("end", ">", line)] {
            let bed = Bed::start(&[1, 2]);
            bed.fleet("[rollout]\nwaves = [\"1\", \"100%\"]\nbake = \"0s\"\n");
            bed.between(1, &[back(rule.clone())]);
            let end = bed.broadcast("two", &[]);
            assert_eq!(end.code, Some(0), "{rule} {:#} {}", end.json, end.stderr);
            assert!(bed.all_serve("two"), "{rule}");
            (0..2).for_each(|host| bed.assert_clean(host));
        }
    }
}

#[test]
fn the_end_of_a_mixed_run_disarms_the_timer_of_each_host_that_gets_it() {
    let bed = Bed::start(&[1, 1]);
    bed.between(1, &[rule("cut", "<", r#""a":3,"#)]);
    let args = ["--commit-confirmed", "2s", "--on-failure", "stop"];
    let end = bed.broadcast("two", &args);
    assert_eq!(end.code, Some(7), "{:#} {}", end.json, end.stderr);
    assert!(bed.serves(0, "two"), "{:#}", end.json);
    let end = run_to_end(&mut bed.agent_command(0, &["--resume-armed"]));
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert_eq!(bed.open_runs(0).len(), 1);
    assert!(bed.serves(0, "two"));
}

#[test]
fn the_timer_of_a_run_goes_on_with_a_resume_that_dies_before_it_touches_the_host() {
    let bed = Bed::start(&[1, 1]);
    bed.between(1, &[rule("kill", "<", r#""a":3,"#)]);
    let args = armed("4s");
    let end = run_to_end(&mut bed.command(&args));
    assert_eq!(end.code, None, "{:#}", end.json);
    bed.between(1, &[rule("kill", "<", r#""a":2,"#)]);
    run_to_end(&mut bed.command(&["resume"]));
    until("both hosts serve the old config", || bed.all_serve("one"));
    bed.wait_for_agents();
    assert_eq!(bed.open_runs(0), [""; 0]);
    assert_eq!(bed.open_runs(1), [""; 0]);
}

#[test]
fn a_new_agent_ends_the_rollback_of_a_killed_one() {
    let bed = Bed::start(&[2]);
    bed.between(0, &[rule("kill", "<", r#""a":3,"#)]);
    let args = armed("2s");
    let end = run_to_end(&mut bed.command(&args));
    assert_eq!(end.code, None, "{:#}", end.json);
    bed.kill_agents(0);
    bed.wait_for_agents();
    let mut agent = bed.agent_command(0, &["--resume-armed"]).spawn().unwrap();
    until("the rollback has begun, or has ended", || {
        let runs = bed.hosts[0].path("state/runs");
        let rollback = bed
            .runs(0)
            .get(1)
            .map(|run| runs.join(run).join("events.jsonl"));
        let text = rollback.and_then(|path| std::fs::read_to_string(path).ok());
        text.is_some_and(|text| text.contains(r#""event":"intent""#))
    });
    agent.kill().unwrap();
    agent.wait().unwrap();
    let end = run_to_end(&mut bed.agent_command(0, &["--resume-armed"]));
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert!(bed.all_serve("one"));
    assert_eq!(bed.open_runs(0), [""; 0]);
}

#[test]
fn what_a_killed_agent_has_rolled_back_is_reported_by_the_new_one() {
    for line in [
        r#""verb":"conclude""#,
        r#""q":"close_up""#,
        r#""q":"finish""#,
    ] {
        let bed = Bed::start(&[1, 1]);
        bed.fleet(
            "[rollout]\nwaves = [\"100%\"]\nbake = \"0s\"\ngate = [\"sh\", \"-c\", \"exit 1\"]\n",
        );
        bed.between(1, &[back(rule("end", ">", line))]);
        let end = bed.broadcast("two", &[]);
        assert_eq!(bed.acts(1).len(), 1, "{line}");
        assert_eq!(end.code, Some(6), "{line} {:#} {}", end.json, end.stderr);
        assert_eq!(outcomes(&end.json, "h1"), ["reverted"], "{line}");
        assert!(bed.all_serve("one"), "{line}");
        bed.assert_clean(1);
    }
}

#[test]
fn an_instance_that_was_rolled_back_before_its_session_ended_is_reverted() {
    // The lease ends before the link is back, and the answer to the rollback is lost with it.
    let cut = json!({
        "act": "cut", "way": "<", "line": r#""a":5,"#, "back": true, "down": { "seconds": 2 },
    });
    let bed = Bed::start(&[1, 1]);
    bed.fleet(
        "[rollout]\nwaves = [\"100%\"]\nbake = \"0s\"\ngate = [\"sh\", \"-c\", \"exit 1\"]\n",
    );
    bed.lease("1s");
    bed.between(1, &[cut]);
    let end = bed.broadcast("two", &[]);
    assert_eq!(bed.acts(1).len(), 1, "{:#}", end.json);
    assert_eq!(end.code, Some(6), "{:#} {}", end.json, end.stderr);
    assert_eq!(outcomes(&end.json, "h1"), ["reverted"], "{:#}", end.json);
    assert!(bed.all_serve("one"));
    bed.assert_clean(1);
}

#[test]
fn a_run_that_never_began_on_a_host_is_ended_without_it() {
    for (verb, message) in [("resume", "two"), ("revert", "one")] {
        let bed = Bed::start(&[1, 1, 1]);
        // The agent of the last host is gone before it begins the run, and the coordinator dies
        // later.
        bed.between(2, &[rule("cut", ">", r#""q":"plan""#)]);
        bed.between(
            1,
            &[
                rule("kill", "<", r#""verb":"commit""#),
                rule("kill", "<", r#""a":3,"#),
            ],
        );
        let args = [
            "broadcast",
            "--set",
            "message=two",
            "--max-unreachable",
            "1",
        ];
        let end = run_to_end(&mut bed.command(&args));
        assert_eq!(end.code, None, "{:#}", end.json);
        (1..3).for_each(|host| bed.connect_directly(host));
        let end = bed.run(&[verb]);
        assert_eq!(end.code, Some(8), "{verb} {:#} {}", end.json, end.stderr);
        let named = "the run never began and touched nothing on: h2";
        let reason = end.json["reason"].as_str().unwrap();
        assert!(reason.contains(named), "{verb} {reason}");
        assert!(bed.serves(1, message) && bed.serves(2, "one"), "{verb}");
        assert_eq!(bed.open_here(), [""; 0], "{verb}");
        (0..3).for_each(|host| bed.assert_clean(host));
    }
}

/// Runs a broadcast over two hosts whose gate kills the agents of the second one, and waits until
/// three times the silence is over.
fn killed_in_a_gate(seconds: u32) -> (Bed, crate::support::CommandEnd) {
    let bed = Bed::start(&[1, 2]);
    let pids = bed.path("h1.pids");
    let script = format!(
        "cat > {}; test -e {once} || {{ touch {once}; xargs kill -KILL < {}; sleep {seconds}; }}",
        bed.path("gate.in").display(),
        pids.display(),
        once = bed.path("once").display()
    );
    bed.fleet(&format!(
        "[rollout]\nwaves = [\"2\", \"100%\"]\nbake = \"0s\"\n\
         gate = [\"sh\", \"-c\", \"{script}\"]\n"
    ));
    let end = bed.broadcast("two", &[]);
    (bed, end)
}

#[test]
fn a_new_agent_goes_on_with_a_run_whose_agent_was_killed_in_a_gate() {
    for seconds in [0, 7] {
        let (bed, end) = killed_in_a_gate(seconds);
        assert_eq!(end.code, Some(0), "{seconds} {:#} {}", end.json, end.stderr);
        assert!(bed.all_serve("two"), "{seconds}");
        (0..2).for_each(|host| bed.assert_clean(host));
    }
}

#[test]
fn a_gate_reads_the_host_of_each_instance() {
    let (bed, _) = killed_in_a_gate(0);
    let lines = std::fs::read_to_string(bed.path("gate.in")).unwrap();
    let hosts = lines.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["host"].as_str().unwrap().to_owned()
    });
    let hosts: Vec<String> = hosts.collect();
    assert!(
        !hosts.is_empty() && !hosts.contains(&"local".to_owned()),
        "{hosts:?}"
    );
}
