//! Errors of `hello` itself say nothing about an instance. With too few descriptors it does not
//! begin.

use std::process::Command;

use super::server::{EQUALS, PATIENT, Server, group, groups, set};
use crate::support::{CommandEnd, Fleet, run_to_end};

/// Returns a command of `hello` with this limit of open files.
fn with(fleet: &Fleet, limit: u32, command: &Command) -> CommandEnd {
    let mut limited = Command::new("sh");
    limited
        .args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")])
        .arg(command.get_program())
        .args(command.get_args());
    run_to_end(limited.current_dir(fleet.dir.path()))
}

#[test]
fn with_too_few_descriptors_no_instance_is_judged() {
    let fleet = Fleet::start(0);
    let server = Server::start(&fleet, "Good", 0, "web.toml");
    groups(&fleet, &[group(&fleet, "g", "web.toml", EQUALS)]);
    let before = fleet.text();
    for limit in [6, 7, 8, 9, 10, 11, 12, 16, 24, 64, 255] {
        for (verb, output) in [
            ("broadcast", "json"),
            ("broadcast", "jsonl"),
            ("broadcast", "screen"),
            ("resume", "json"),
            ("revert", "json"),
            ("status", "json"),
        ] {
            let mut command = match verb {
                "broadcast" => fleet.command(&["--set", "message=two"]),
                "status" => fleet.read_only("status"),
                verb => {
                    let mut command = Command::new(fleet.exe());
                    command.arg(verb).arg("--state").arg(fleet.path("state"));
                    command
                }
            };
            command.args(["-o", output]);
            let result = with(&fleet, limit, &command);
            let named = || {
                format!(
                    "{verb} -o {output} with {limit}: {}\n{:#}",
                    result.stderr, result.json
                )
            };
            assert_eq!(result.code, Some(1), "{}", named());
            assert!(result.stderr.contains("ulimit -n 256"), "{}", named());
            assert!(!result.stderr.contains("panicked"), "{}", named());
            if verb != "status" && output != "screen" {
                assert_eq!(
                    (&result.json["exit"], &result.json["verdict"]),
                    (&1.into(), &"failed".into()),
                    "{}",
                    named()
                );
                assert_eq!(
                    result.json["instances"],
                    serde_json::json!([]),
                    "{}",
                    named()
                );
            }
        }
    }
    assert!(server.lives());
    assert!(fleet.text() == before);
}

#[test]
fn with_just_enough_descriptors_every_instance_is_proven() {
    let fleet = Fleet::start(0);
    let servers: Vec<Server> = (0..3)
        .map(|_| Server::start(&fleet, "Good", 0, "web.toml"))
        .collect();
    groups(&fleet, &[group(&fleet, "g", "web.toml", EQUALS)]);
    let mut command = fleet.command(&["-o", "json", "--set", "message=two", "--timeout", "10s"]);
    command.arg("--quiet");
    let result = with(&fleet, 256, &command);
    assert_eq!(
        (result.code, &result.json["counts"]["confirmed"]),
        (Some(0), &3.into()),
        "{}",
        result.stderr
    );
    assert!(servers.iter().all(Server::lives));
    set(&fleet, "three", PATIENT).expect(0);
}
