//! `hello resume` and `hello revert` on a machine without the index of the run.

use super::bed::Bed;
use crate::support::{run_to_end, until};

fn bed(hosts: usize) -> Bed {
    let bed = Bed::start(&vec![1; hosts]);
    bed.fleet("[rollout]\nwaves = [\"1\", \"100%\"]\nbake = \"0s\"\n");
    bed
}

#[test]
fn the_one_open_run_of_the_hosts_is_resumed_or_reverted() {
    for (verb, message) in [("resume", "two"), ("revert", "one")] {
        let bed = bed(3);
        let run = bed.killed("other", "two", &[]);
        let end = bed.run(&[verb]);
        assert_eq!(end.code, Some(0), "{verb}: {:#} {}", end.json, end.stderr);
        assert!(bed.all_serve(message), "{verb}");
        (0..3).for_each(|host| bed.assert_clean(host));
        let of = bed.run(&["history", "@", "--on", "h0"]);
        assert_eq!(
            of.json["runs"][0]["began"]["of"],
            run.as_str(),
            "{:#}",
            of.json
        );
    }
}

#[test]
fn a_run_is_resumed_by_its_whole_id_from_another_machine() {
    let bed = bed(2);
    let run = bed.killed("other", "two", &[]);
    for name in [&run[..14], "@"] {
        let end = bed.run(&["resume", name]);
        assert_eq!(end.code, Some(2), "{name}: {:#}", end.json);
    }
    let end = bed.run(&["resume", &run]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    assert!(bed.all_serve("two"));
    (0..2).for_each(|host| bed.assert_clean(host));
}

#[test]
fn several_open_runs_are_named_with_their_hosts_and_commands() {
    let bed = bed(2);
    let first = bed.killed("a", "two", &["--on", "h0"]);
    let second = bed.killed("b", "three", &["--on", "h1"]);
    let served = [bed.served(0), bed.served(1)];
    let end = bed.run(&["resume"]);
    assert_eq!(end.code, Some(2), "{:#} {}", end.json, end.stderr);
    let reason = end.json["reason"].as_str().unwrap();
    for wanted in [format!("run {first} on h0"), format!("run {second} on h1")] {
        assert!(reason.contains(&wanted), "{reason}");
    }
    assert_eq!([bed.served(0), bed.served(1)], served);
    let next: Vec<String> = serde_json::from_value(end.json["next"].clone()).unwrap();
    assert_eq!(next.len(), 2, "{next:?}");
    for command in next {
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        let words = &words[..words.len() - 2];
        let end = run_to_end(&mut bed.plain(&bed.path("state"), words));
        assert_eq!(end.code, Some(0), "{command}: {}", end.stderr);
        bed.wait_for_agents();
    }
    assert!(bed.serves(0, "two") && bed.serves(1, "three"));
    (0..2).for_each(|host| bed.assert_clean(host));
}

#[test]
fn a_selection_of_hosts_decides_which_run_is_the_one() {
    let bed = bed(2);
    bed.killed("a", "two", &["--on", "h0"]);
    bed.killed("b", "three", &["--on", "h1"]);
    let end = bed.run(&["resume", "--on", "h1"]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    assert!(bed.serves(1, "three"));
    assert_eq!(bed.open_runs(0).len(), 1);
}

#[test]
fn no_open_run_on_any_host_is_exit_3() {
    let bed = bed(2);
    for verb in ["resume", "revert"] {
        let end = bed.run(&[verb]);
        assert_eq!(end.code, Some(3), "{verb}: {:#}", end.json);
        let reason = end.json["reason"].as_str().unwrap();
        assert!(reason.contains("on 2 hosts"), "{reason}");
    }
}

#[test]
fn a_host_that_is_away_may_have_another_open_run() {
    let bed = bed(2);
    bed.killed("other", "two", &["--on", "h0"]);
    bed.unreachable(1);
    let end = bed.run(&["resume"]);
    assert_eq!(end.code, Some(11), "{:#}", end.json);
    assert_eq!(bed.open_runs(0).len(), 1);
    let end = bed.run(&["resume", "--max-unreachable", "1"]);
    assert_eq!(end.code, Some(8), "{:#} {}", end.json, end.stderr);
    assert!(bed.serves(0, "two"));
}

#[test]
fn a_host_whose_open_runs_cannot_be_read_is_no_host_without_one() {
    let bed = bed(2);
    bed.killed("other", "two", &["--on", "h0"]);
    let state = bed.hosts[1].path("state");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(state.join("open"), "").unwrap();
    let end = bed.run(&["resume"]);
    assert_eq!(end.code, Some(5), "{:#}", end.json);
    let reason = end.json["reason"].as_str().unwrap();
    assert!(reason.starts_with("h1: "), "{reason}");
    assert_eq!(bed.open_runs(0).len(), 1);
}

#[test]
fn a_run_under_way_on_the_hosts_is_named_with_its_operator() {
    let bed = Bed::start(&[1, 1]);
    let (waits, go) = (bed.path("waits"), bed.path("go"));
    bed.gate(&waits, &go);
    let mut first = bed.command(&["broadcast", "--set", "message=two"]);
    let mut first = first.env("SUDO_USER", "carol").spawn().unwrap();
    until("the gate runs", || waits.exists());
    let end = run_to_end(&mut bed.command_of("other", &["resume"]));
    std::fs::write(&go, "").unwrap();
    assert!(first.wait().unwrap().success());
    bed.wait_for_agents();
    assert_eq!(end.code, Some(9), "{:#} {}", end.json, end.stderr);
    let reason = end.json["reason"].as_str().unwrap();
    assert!(
        reason.contains("under way on h0") && reason.contains("carol"),
        "{reason}"
    );
}

#[test]
fn the_usual_fleet_file_names_the_hosts() {
    let bed = bed(2);
    bed.killed("other", "two", &[]);
    let mut resume = bed.plain(&bed.path("state"), &["resume"]);
    resume.env("HELLO_FLEET", bed.path("fleet.toml"));
    let end = run_to_end(&mut resume);
    bed.wait_for_agents();
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert!(bed.all_serve("two"));
    // Nothing is open any more, here or there.
    let end = run_to_end(&mut resume);
    assert_eq!(end.code, Some(3), "{}", end.stderr);
    let mut resume = bed.plain(&bed.path("state"), &["resume"]);
    let end = run_to_end(resume.env("HELLO_FLEET", bed.path("none.toml")));
    assert_eq!(end.code, Some(2), "{}", end.stderr);
}

#[test]
fn an_open_run_of_this_machine_comes_before_those_of_hosts() {
    let bed = bed(1);
    let fleet = &bed.hosts[0];
    let own = fleet.path("fleet.toml");
    let text = std::fs::read_to_string(&own).unwrap();
    let never = "[[group.confirm]]\nexec = [\"echo\", \"a\"]\nequals = \"b\"\n";
    fleet.write(
        "fleet.toml",
        &text.replace("[agent]", &format!("{never}[agent]")),
    );
    let state = fleet.path("state");
    let args = [
        "broadcast",
        "--set",
        "message=no",
        "--timeout",
        "1s",
        "--fleet",
    ];
    let args = [&args[..], &[own.to_str().unwrap()]].concat();
    assert_eq!(run_to_end(&mut bed.plain(&state, &args)).code, Some(7));
    fleet.write("fleet.toml", &text);
    let mut resume = bed.plain(&state, &["resume", "--dry-run", "-o", "json"]);
    let end = run_to_end(resume.env("HELLO_FLEET", bed.path("fleet.toml")));
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    let target = &end.json["targets"][0];
    assert_eq!(target["host"], "local", "{:#}", end.json);
}
