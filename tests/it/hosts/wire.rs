//! What crosses the wire: secrets, noise, faulty frames, and requests that come twice.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
};

use serde_json::{Value, json};

use super::bed::{AT_START, Bed, rule};
use crate::support::{Killed, RUN_LIMIT, without_cargo, write};

const SECRET: &str = "hunter2hunter2";
/// The secret in base64, at each of its three places in a group of four characters.
const IN_BASE64: [&str; 3] = [
    "aHVudGVyMmh1bnRlcj",
    "h1bnRlcjJodW50ZXIy",
    "dW50ZXIyaHVudGVyM",
];

/// Checks that no line from the agent has the secret.
fn assert_secret_stays(bed: &Bed, what: &str) {
    let wire = bed.wire(0);
    assert!(
        wire.contains("<{\"a\":1,"),
        "{what}: no answer was recorded"
    );
    for line in wire.lines().filter(|line| line.starts_with('<')) {
        assert!(!line.contains(SECRET), "{what}: {line}");
        for text in IN_BASE64 {
            assert!(!line.contains(text), "{what}: {line}");
        }
    }
}

fn secret_bed() -> Bed {
    let bed = Bed::start(&[1]);
    let fleet = &bed.hosts[0];
    let own = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &own.replacen("[[group]]", "[[group]]\nsecret = true", 1),
    );
    // The old content is a secret too.
    bed.between(0, &[]);
    bed
}

#[test]
fn a_secret_config_leaves_no_host() {
    let bed = secret_bed();
    let config = format!("message = \"{SECRET}\"\nlisten = \"127.0.0.1:0\"\n");
    let file = write(&bed.path("new.toml"), &config);
    let file = file.to_str().unwrap();
    let end = bed.run(&["broadcast", "--dry-run", "--config", file]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    assert_secret_stays(&bed, "dry run");
    assert!(!end.json.to_string().contains(SECRET) && !end.stderr.contains(SECRET));
    let end = bed.run(&["broadcast", "--config", file]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    assert!(bed.all_serve(SECRET));
    assert_secret_stays(&bed, "run");
    assert!(!end.json.to_string().contains(SECRET) && !end.stderr.contains(SECRET));
    // The secret is the old content now.
    let end = bed.broadcast("plain", &["--dry-run"]);
    assert_eq!(end.code, Some(0), "{:#}", end.json);
    assert_secret_stays(&bed, "dry run over the secret");
}

#[test]
fn the_fault_of_a_broken_secret_config_leaves_no_host() {
    let bed = secret_bed();
    let file = write(&bed.path("new.toml"), &format!("message = {SECRET}\n"));
    let end = bed.run(&["broadcast", "--config", file.to_str().unwrap()]);
    assert_eq!(end.code, Some(4), "{:#}", end.json);
    assert_secret_stays(&bed, "refusal");
    assert!(!end.json.to_string().contains(SECRET), "{:#}", end.json);
    assert!(!end.stderr.contains(SECRET), "{}", end.stderr);
}

#[test]
fn noise_and_carriage_returns_after_the_greeting_do_no_harm() {
    let bed = Bed::start(&[1]);
    let mut twice = rule("insert", "<", r#""hello":"agent""#);
    twice["text"] = json!("Welcome\r\n\r\n{\"motd\":1}\r\n");
    let mut ended = rule("insert", "<", r#""a":1,"#);
    ended["text"] = json!("{\"unknown\":{\"x\":[1]}}\r\n");
    bed.between(0, &[twice, ended]);
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
}

#[test]
fn frames_that_come_twice_do_nothing_twice() {
    for (way, line) in [
        (">", r#""q":"survey""#),
        (">", r#""q":"plan""#),
        (">", r#""verb":"commit""#),
        (">", r#""q":"finish""#),
        ("<", r#""a":1,"#),
        ("<", r#""a":3,"#),
        ("<", r#""need""#),
    ] {
        let bed = Bed::start(&[1]);
        bed.between(0, &[rule("double", way, line)]);
        let end = bed.broadcast("two", &[]);
        assert_eq!(
            end.code,
            Some(0),
            "{way} {line} {:#} {}",
            end.json,
            end.stderr
        );
        assert_eq!(bed.hosts[0].attempts(), [AT_START + 1], "{way} {line}");
        bed.assert_clean(0);
    }
}

#[test]
fn garbage_and_a_long_line_from_a_host_lose_it_and_never_converge() {
    for text in ["garbage\n".to_owned(), "x".repeat(2 << 20) + "\n"] {
        let bed = Bed::start(&[1, 1]);
        let mut bad = rule("insert", "<", r#""a":3,"#);
        bad["text"] = json!(text);
        bed.between(1, &[bad]);
        let end = bed.broadcast("two", &[]);
        assert_eq!(end.code, Some(7), "{:#} {}", end.json, end.stderr);
        bed.connect_directly(1);
        let end = bed.run(&["resume"]);
        assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
        assert!(bed.all_serve("two"));
    }
}

/// A conversation with an agent, without a coordinator.
struct Talk {
    agent: Killed,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<Value>,
}

const RUN: &str = "01a22cfdbaf3734390958a050a306ed2";

impl Talk {
    fn begin(bed: &Bed) -> Self {
        let mut agent = Command::new(env!("CARGO_BIN_EXE_hello"));
        without_cargo(&mut agent)
            .args(["agent", "--stdio", "--fleet"])
            .arg(bed.hosts[0].path("fleet.toml"))
            .arg("--state")
            .arg(bed.hosts[0].path("state"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut agent: Child = agent.spawn().unwrap();
        let output = BufReader::new(agent.stdout.take().unwrap());
        let input = agent.stdin.take();
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).unwrap());
            }
        });
        let mut talk = Self {
            agent: Killed(agent),
            input,
            lines,
        };
        let greeting = talk.next();
        let v = &greeting["v"];
        talk.send(&json!({"q": "take", "v": v, "operator": {"uid": 0, "version": "0"}}));
        talk
    }

    fn send(&mut self, frame: &Value) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{frame}").unwrap();
    }

    fn next(&self) -> Value {
        self.lines.recv_timeout(RUN_LIMIT).unwrap()
    }

    /// Sends a request of the run, and returns the answer.
    fn ask(&mut self, n: u64, epoch: Option<u64>, verb: Value) -> Value {
        let mut frame = verb;
        frame["run"] = json!(RUN);
        frame["n"] = json!(n);
        if let Some(epoch) = epoch {
            frame["epoch"] = json!(epoch);
        }
        self.send(&frame);
        loop {
            let frame = self.next();
            if frame.get("a").is_some() {
                return frame;
            }
        }
    }

    fn survey(&mut self, n: u64) -> Value {
        let order = json!({
            "q": "survey", "groups": [], "every": true, "others": {"set": [["message", "two"]]},
            "prune": false, "overwrite": false, "validate": "auto", "include_unresponsive": false,
            "now": false, "dry_run": false, "lock_timeout": {"secs": 0, "nanos": 0}, "command": [],
        });
        self.ask(n, None, order)
    }

    /// Ends the input, and waits for the agent.
    fn end(mut self) {
        self.input = None;
        assert!(self.agent.wait().unwrap().success());
    }
}

fn kind(answer: &Value) -> &str {
    answer["no"]["kind"].as_str().unwrap_or("no refusal")
}

#[test]
fn an_agent_answers_a_repeated_request_again_and_refuses_other_orders() {
    let bed = Bed::start(&[1]);
    let mut talk = Talk::begin(&bed);
    assert_eq!(kind(&talk.survey(0)), "old");
    assert_eq!(kind(&talk.survey(2)), "gap");
    let planned = talk.survey(1);
    assert!(planned["ok"]["plan"].is_object(), "{planned:#}");
    assert_eq!(talk.survey(1), planned);
    let epoch = planned["epoch"].as_u64();
    let plan = || json!({"q": "plan", "waves": [[1, [[0, 0]]]]});
    assert_eq!(kind(&talk.ask(2, epoch.map(|e| e + 1), plan())), "stale");
    assert_eq!(kind(&talk.ask(2, None, plan())), "stale");
    assert_eq!(talk.ask(2, epoch, plan())["ok"], "accepted");
    assert_eq!(talk.ask(2, epoch, plan())["ok"], "accepted");
    let commit = || json!({"q": "do", "request": {"verb": "commit", "wave": 1, "goes_on": false}});
    let done = talk.ask(3, epoch, commit());
    assert!(done["ok"]["done"].is_object(), "{done:#}");
    assert_eq!(talk.ask(3, epoch, commit()), done);
    assert_eq!(bed.hosts[0].attempts(), [AT_START + 1], "one signal");
    assert_eq!(kind(&talk.ask(2, epoch, plan())), "old");
    assert_eq!(kind(&talk.ask(5, epoch, commit())), "gap");
    assert_eq!(
        kind(&talk.ask(4, epoch, json!({"q": "reboot"}))),
        "unknown_frame"
    );
    let end = || json!({"q": "finish", "verdict": "converged", "reason": "x", "supersedes": true});
    assert_eq!(talk.ask(4, epoch, json!({"q": "close_up"}))["a"], 4);
    let finished = json!({"finished": {"is_recorded": true}});
    assert_eq!(talk.ask(5, epoch, end())["ok"], finished);
    assert_eq!(talk.ask(5, epoch, end())["ok"], finished);
    assert_eq!(kind(&talk.ask(6, epoch, commit())), "not_allowed");
    talk.end();
    assert_eq!(bed.hosts[0].attempts(), [AT_START + 1]);
    bed.assert_clean(0);
}

#[test]
fn an_agent_that_reads_a_long_line_ends_and_leaves_nothing() {
    let bed = Bed::start(&[1]);
    let mut talk = Talk::begin(&bed);
    talk.survey(1);
    // The agent may end before it has read all of it.
    let _ = writeln!(talk.input.as_mut().unwrap(), "{}", "x".repeat(2 << 20));
    talk.agent.wait().unwrap();
    bed.assert_untouched(0);
}

#[test]
fn an_agent_that_is_terminated_between_requests_leaves_nothing() {
    let bed = Bed::start(&[1]);
    let mut talk = Talk::begin(&bed);
    talk.survey(1);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(talk.agent.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(talk.agent.wait().unwrap().success());
    bed.assert_untouched(0);
}
