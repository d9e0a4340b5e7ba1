//! Claims at the end of a run that a process is alive, and about its config.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::server::{
    CHANGED, EQUALS, INCREASED, PATIENT, STAMPED, Server, each, fleet, group, groups, holds,
    script, set, state,
};
use crate::support::{CommandResult, Fleet, Killed, until};

/// Adds a second group, whose gate runs this after everything was proven.
fn gated(fleet: &Fleet, act: &str) -> String {
    let gate = script(fleet, "gate", act);
    group(
        fleet,
        "gated",
        "gated.toml",
        &format!("{EQUALS}[group.rollout]\ngate = [\"{gate}\"]"),
    )
}

#[test]
fn an_instance_killed_during_the_last_gate_is_not_confirmed() {
    each(&[EQUALS, CHANGED, INCREASED, "confirm = []\n"], |facts| {
        let (fleet, servers) = fleet(&[("Good", 0)], "");
        let gate = script(&fleet, "gate", &format!("kill -9 {}", servers[0].pid()));
        groups(
            &fleet,
            &[group(
                &fleet,
                "g",
                "web.toml",
                &format!("{facts}[group.rollout]\ngate = [\"{gate}\"]"),
            )],
        );
        let result = set(&fleet, "two", &["--timeout", "2s"]).expect(7);
        assert_eq!(state(&result, &servers[0]), "died", "{facts}");
        holds(&result, &servers);
    });
}

#[test]
fn an_instance_that_re_executes_itself_dies_if_a_signal_finds_no_handler() {
    // Another program signals it too after its proof. During its exec it has no handler.
    each(&[EQUALS, STAMPED, "confirm = []\n"], |facts| {
        let (fleet, servers) = fleet(&[("ReexecOpen", 0)], "");
        let pid = servers[0].pid();
        // One reading shows both. While another thread executes the program, the first has ended
        // and is not alone.
        let over = format!(
            "set -- $(cat /proc/{pid}/stat); case \"$3\" in Z|X) [ \"${{20}}\" -le 1 ];; *) false;; esac"
        );
        let gate = script(
            &fleet,
            "gate",
            &format!("over() {{ {over}; }}\nuntil over && over; do kill -HUP {pid}; done"),
        );
        groups(
            &fleet,
            &[group(
                &fleet,
                "g",
                "web.toml",
                &format!("{facts}[group.rollout]\ngate = [\"{gate}\"]"),
            )],
        );
        let result = set(&fleet, "two", PATIENT).expect(7);
        assert!(!servers[0].lives(), "{facts}");
        assert_eq!(state(&result, &servers[0]), "died", "{facts}");
        holds(&result, &servers);
    });
}

#[test]
fn an_instance_that_died_before_the_second_interrupt_is_not_reported_alive() {
    // The second never returns to the old config in time. The first has, and dies while the run
    // waits.
    let (fleet, servers) = fleet(&[("Good", 0), ("SlowLate", 60_000)], EQUALS);
    let run = fleet
        .command(&["-o", "json", "--set", "message=two", "--timeout", "4s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let coordinator = Pid::from_raw(i32::try_from(run.id()).unwrap());
    let journal = || {
        let runs = std::fs::read_dir(fleet.path("state/runs"))
            .into_iter()
            .flatten()
            .flatten();
        runs.map(|run| std::fs::read_to_string(run.path().join("events.jsonl")).unwrap_or_default())
            .collect::<String>()
    };
    until("the first one has gone back", || {
        journal().contains("\"outcome\":\"reverted\"")
    });
    kill(Pid::from_raw(servers[0].pid()), Signal::SIGKILL).unwrap();
    until("it is dead", || !servers[0].lives());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        kill(coordinator, signal).unwrap();
    }
    let result = CommandResult::wait_for(run).expect(7);
    assert!(
        matches!(state(&result, &servers[0]), "revert_failed" | "died"),
        "{:#}",
        result.json
    );
}

#[test]
fn a_reload_of_a_file_that_another_writer_changed_is_not_confirmed() {
    each(&[INCREASED, STAMPED], |facts| {
        let (fleet, servers) = fleet(&[("SlowLate", 3000)], facts);
        let mut run = fleet.command(&[&["-o", "json", "--set", "message=two"], PATIENT].concat());
        let run = run
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A change before the signal would leave it untouched.
        until("it has taken its signal", || {
            Server::truth(&servers[0].url).is_some_and(|(_, busy)| busy)
        });
        fleet.write("web.toml", &fleet.text().replace("two", "other"));
        let result = CommandResult::wait_for(run).expect(7);
        assert_eq!(
            state(&result, &servers[0]),
            "timed_out",
            "{facts}: {:#}",
            result.json
        );
    });
}

#[test]
fn an_instance_that_needs_no_signal_must_be_alive_at_the_end() {
    // The first was proven by an earlier run; the second is another process by then.
    for act in [
        "kill -9 PID",
        "kill -9 PID; echo 'message = \"other\"' >CONFIG",
    ] {
        let (_fleet, result, servers) = beside_one_that_needs_no_signal(act);
        assert_eq!(result.code, 7, "{act}: {:#}", result.json);
        holds(&result, &servers);
    }
}

#[test]
fn the_file_of_an_instance_that_needs_no_signal_is_read_again_at_the_end() {
    for act in [
        "echo '# edited' >>CONFIG",
        "cp CONFIG CONFIG.new; echo '# edited' >>CONFIG.new; mv CONFIG.new CONFIG",
    ] {
        let (_fleet, result, servers) = beside_one_that_needs_no_signal(act);
        assert_ne!(result.code, 0, "{act}: {:#}", result.json);
        assert!(
            state(&result, &servers[0]) != "unchanged",
            "{act}: {:#}",
            result.json
        );
    }
}

#[test]
fn an_unobservable_instance_that_dies_of_its_signal_is_dead() {
    let (fleet, servers) = fleet(&[("Dies", 0)], "confirm = []\n");
    let result = set(&fleet, "two", &[]).expect(7);
    assert_eq!(state(&result, &servers[0]), "died");
    holds(&result, &servers);
}

#[test]
fn an_instance_with_a_successor_is_not_reported_alive() {
    let (fleet, servers) = fleet(&[("Successor", 0)], "confirm = []\n");
    let result = set(&fleet, "two", &[]);
    let all = result.json["instances"].as_array().unwrap();
    let lives = ["unconfirmed", "confirmed", "reverted", "unchanged"];
    assert!(
        !all.iter().any(
            |i| i["pid"] == servers[0].pid() && lives.contains(&i["outcome"].as_str().unwrap())
        ),
        "{:#}",
        result.json
    );
    assert!(!servers[0].lives());
}

#[test]
fn an_instance_that_re_executes_itself_is_proven_by_its_later_answers() {
    for mode in ["Reexec", "ReexecOpen"] {
        let (fleet, servers) = fleet(
            &[(mode, 0)],
            &format!("{EQUALS}[group.rollout]\nbake = \"200ms\""),
        );
        for message in ["two", "three"] {
            let result = set(&fleet, message, &[]);
            assert!(
                matches!(result.code, 0 | 6 | 7),
                "{mode}: {:#}",
                result.json
            );
            holds(&result, &servers);
        }
    }
}

/// Runs a broadcast that signals one server. After its proof the gate calls `act` with pid and
/// config of another server, which needs no signal. That other server is the first.
fn beside_one_that_needs_no_signal(act: &str) -> (Fleet, CommandResult, Vec<Server>) {
    let (fleet, servers) = two_groups();
    let still = || group(&fleet, "still", "still.toml", EQUALS);
    groups(&fleet, &[still(), gated(&fleet, "exit 0")]);
    set(&fleet, "two", &["--all", "--timeout", "10s"]).expect(0);
    let config = fleet.path("still.toml");
    let act = act
        .replace("PID", &servers[0].pid().to_string())
        .replace("CONFIG", config.to_str().unwrap());
    groups(&fleet, &[still(), gated(&fleet, &act)]);
    let (new, same) = (
        format!("gated={}", new(&fleet).display()),
        format!("still={}", config.display()),
    );
    let result = fleet.broadcast(&["--config", &new, "--config", &same, "--timeout", "10s"]);
    (fleet, result, servers)
}

/// Starts a server of each of two groups, with its own config.
fn two_groups() -> (Fleet, Vec<Server>) {
    let fleet = Fleet::start(0);
    let start = |config: &str| {
        fleet.write(config, &fleet.text());
        Server::start(&fleet, "Good", 0, config)
    };
    let servers = vec![start("still.toml"), start("gated.toml")];
    (fleet, servers)
}

fn new(fleet: &Fleet) -> PathBuf {
    fleet.write("new.toml", &fleet.text().replace("\"one\"", "\"new\""))
}

/// A process that listens and acts on the signal. Killed by its pid when dropped.
struct Odd(Killed);

impl Odd {
    fn start(fleet: &Fleet, act: &str) -> Self {
        let program = fleet.write(
            "odd.py",
            &format!(
                "import os, signal, socket, time\nlistener = socket.create_server((\"127.0.0.1\", 0))\ndef act(*_):\n    {act}\n\
                 signal.signal(signal.SIGHUP, act)\nprint(\"there\", flush=True)\nwhile True:\n    time.sleep(0.1)\n"
            ),
        );
        let mut command = Command::new("python3");
        let mut child = command
            .arg(program)
            .arg(fleet.path("web.toml"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let odd = Self(Killed(child));
        assert!(
            BufReader::new(stdout)
                .lines()
                .any(|line| line.unwrap() == "there")
        );
        odd
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

#[test]
fn an_instance_that_stops_or_ignores_its_signal_is_reported() {
    each(
        &[
            ("os.kill(os.getpid(), signal.SIGSTOP)", "is stopped"),
            ("listener.close()", "does not listen now"),
            ("pass", ""),
        ],
        |(act, fault)| {
            each(
                &[
                    "confirm = []",
                    "[[group.confirm]]\nexec = [\"true\"]\nread = \"exit\"\nequals = \"0\"",
                ],
                |facts| {
                    let fleet = Fleet::start(0);
                    let odd = Odd::start(&fleet, act);
                    let (program, config) = (fleet.path("odd.py"), fleet.path("web.toml"));
                    let matching = format!(
                        "match = {{ args = [\"{}\"] }}\nconfig = \"{}\"",
                        program.display(),
                        config.display()
                    );
                    groups(
                        &fleet,
                        &[format!(
                            "[[group]]\nname = \"g\"\n{matching}\nreloads = true\ntimeout = \"1s\"\n{facts}\n"
                        )],
                    );
                    let result = set(&fleet, "two", &[]);
                    let all = result.json["instances"].as_array().unwrap();
                    let state = all.iter().find(|i| i["pid"] == odd.pid()).unwrap()["outcome"]
                        .as_str()
                        .unwrap();
                    match *fault {
                        "" => assert_eq!(
                            (result.code, state),
                            (12, "unconfirmed"),
                            "{facts}: {:#}",
                            result.json
                        ),
                        fault => {
                            assert_eq!(
                                (result.code, state),
                                (7, "revert_failed"),
                                "{act}: {facts}: {:#}",
                                result.json
                            );
                            assert!(result.stderr.contains(fault), "{act}: {}", result.stderr);
                        }
                    }
                },
            );
        },
    );
}
