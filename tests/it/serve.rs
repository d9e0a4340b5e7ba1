//! `hello serve` and `hello check`: what is answered, and what a reload does.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Fleet, get, until};

fn told(fleet: &Fleet) -> Value {
    serde_json::from_str(&get(fleet.url(0), "/-/config").1).unwrap()
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_else(|| panic!("no {name} in {head}"))
}

#[test]
fn an_answer_carries_the_message_and_its_own_proof() {
    let fleet = Fleet::start(1);
    let (head, body) = get(fleet.url(0), "/");
    assert_eq!(body, "one", "exactly the bytes of the message");
    assert_eq!(header(&head, "content-type"), "text/plain; charset=utf-8");
    let told = told(&fleet);
    assert_eq!(header(&head, "x-config-sha256"), told["effective"]["sha256"].as_str().unwrap());
    assert_eq!(header(&head, "x-config-generation"), "1");
    assert_eq!(header(&head, "x-instance"), format!("{}:{}", fleet.pid(0), told["instance"]["started"]));
    assert_eq!(told["v"], 1);
    assert_eq!(told["instance"]["pid"], fleet.pid(0));
    assert_eq!(told["effective"]["path"], fleet.path("web.toml").to_str().unwrap());
    assert_eq!((&told["last_attempt"]["seq"], &told["last_attempt"]["result"]), (&Value::from(1), &Value::from("applied")));
    assert_eq!(told["restart_only"]["listen"], "127.0.0.1:0");
}

#[test]
fn a_hangup_swaps_the_message() {
    let fleet = Fleet::start(1);
    let before = told(&fleet);
    fleet.write("web.toml", "message = \"two\"\nlisten = \"127.0.0.1:0\"\n");
    assert_eq!(fleet.bodies(), ["one"], "not before the signal");
    fleet.signal(0, Signal::SIGHUP);
    until("it serves the new message", || fleet.bodies() == ["two"]);
    let after = told(&fleet);
    assert_eq!((&after["effective"]["generation"], &after["last_attempt"]["result"]), (&Value::from(2), &Value::from("applied")));
    assert_ne!(after["effective"]["sha256"], before["effective"]["sha256"]);
    assert_eq!(after["instance"], before["instance"], "the same process");
}

#[test]
fn what_cannot_be_taken_changes_neither_message_nor_generation() {
    let fleet = Fleet::start(1);
    for (seq, text, result) in
        [(2, "message = \"two\"\nlisne = \"127.0.0.1:0\"\n", "rejected"), (3, "message = \"two\"\nlisten = \"127.0.0.1:1\"\n", "restart_required")]
    {
        fleet.write("web.toml", text);
        fleet.signal(0, Signal::SIGHUP);
        until("it looked", || fleet.attempts() == [seq]);
        let told = told(&fleet);
        assert_eq!(told["last_attempt"]["result"], result, "{told:#}");
        assert_eq!(told["effective"]["generation"], 1);
        assert_eq!(fleet.bodies(), ["one"]);
    }
    assert_eq!(told(&fleet)["restart_required"], serde_json::json!(["listen"]));
    std::fs::remove_file(fleet.path("web.toml")).unwrap();
    fleet.signal(0, Signal::SIGHUP);
    until("it looked", || fleet.attempts() == [4]);
    assert_eq!(told(&fleet)["last_attempt"]["result"], "io_error");
    assert_eq!(fleet.bodies(), ["one"]);
}

#[test]
fn a_check_tells_valid_invalid_and_unreadable_apart() {
    let fleet = Fleet::start(0);
    let check = |path: &std::path::Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_hello")).arg("check").arg(path).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check(&fleet.path("web.toml")).0, Some(0));
    let (code, stderr) = check(&fleet.write("broken.toml", "message = \"x\"\nlisne = \"127.0.0.1:0\"\n"));
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("listen"), "{stderr}");
    assert_eq!(check(fleet.dir.path()).0, Some(4));
    assert_eq!(check(&fleet.path("none.toml")).0, Some(1));
}
