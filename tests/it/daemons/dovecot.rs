//! Dovecot under `hello broadcast`, by the shipped kind. It needs root for its users.

use std::io::{BufRead, BufReader, Read, Write};

use super::{Daemon, acts, case::Case, command, folder, free_port, need, services::Service, words};
use crate::support::{runs_as_root, write};

fn config(dovecot: &Service, greeting: &str) -> String {
    text(
        &dovecot.daemon.dir.path().display().to_string(),
        dovecot.port,
        greeting,
    )
}

fn text(dir: &str, port: u16, greeting: &str) -> String {
    format!(
        "base_dir = {dir}/run\nstate_dir = {dir}/state\nlog_path = {dir}/mail.log\nprotocols = imap\nlisten = 127.0.0.1\nssl = no\n\
         login_greeting = {greeting}\nservice imap-login {{\n  inet_listener imap {{\n    port = {port}\n  }}\n  inet_listener imaps {{\n    port = 0\n  }}\n}}\n\
         passdb {{\n  driver = static\n  args = nopassword=y\n}}\nuserdb {{\n  driver = static\n  args = uid=65534 gid=65534 home={dir}/home\n}}\n"
    )
}

/// Starts Dovecot. It greets with `one`.
fn dovecot() -> Option<Service> {
    let there = need("dovecot") && need("doveconf") && runs_as_root("Dovecot needs root");
    there.then(|| {
        let (dir, port) = (folder(), free_port());
        let config = write(
            &dir.path().join("dovecot.conf"),
            &text(&dir.path().display().to_string(), port, "one"),
        );
        let mut command = command("dovecot");
        command.arg("-F").arg("-c").arg(config);
        Service::start(Daemon::spawn(dir, &mut command), port, |s| {
            greeting(s).is_some()
        })
    })
}

/// Returns the last word of its greeting.
fn greeting(dovecot: &Service) -> Option<String> {
    let mut line = String::new();
    BufReader::new(dovecot.connect()?.take(1000))
        .read_line(&mut line)
        .ok()?;
    line.split_whitespace().next_back().map(str::to_owned)
}

/// Returns its log processes: each reload starts another one.
fn loads(dovecot: &Service) -> String {
    let is_log = |pid: &i32| {
        words(*pid)
            .first()
            .is_some_and(|name| name == "dovecot/log")
    };
    let all: Vec<i32> = dovecot
        .daemon
        .children()
        .into_iter()
        .filter(is_log)
        .collect();
    format!("{all:?}")
}

fn case<'a>(dovecot: &'a Service, loads: &'a dyn Fn() -> String) -> Case<'a> {
    Case::of(&dovecot.daemon, ("dovecot", "dovecot.conf"), loads)
}

#[test]
fn dovecot_loads_good_configs_and_refuses_bad_ones() {
    let Some(dovecot) = dovecot() else { return };
    let loads = || loads(&dovecot);
    let case = case(&dovecot, &loads);
    case.takes(&config(&dovecot, "two"), "reloaded");
    assert_eq!(greeting(&dovecot).as_deref(), Some("two"));
    case.settles();
    case.refuses(
        &(config(&dovecot, "three") + "protocols = nonsense\n"),
        "Unknown protocol: nonsense",
    );
}

#[test]
fn a_session_of_dovecot_that_stays_open_is_not_waited_for() {
    let Some(dovecot) = dovecot() else { return };
    let loads = || loads(&dovecot);
    let case = case(&dovecot, &loads);
    let mut session = BufReader::new(dovecot.connect().unwrap());
    let mut line = String::new();
    session.read_line(&mut line).unwrap();
    case.takes(&config(&dovecot, "two"), "reloaded");
    writeln!(session.get_mut(), "a NOOP\r").unwrap();
    line.clear();
    session.read_line(&mut line).unwrap();
    assert!(line.starts_with("a "), "{line}");
}

#[test]
fn dovecot_keeps_its_config_where_a_service_has_no_program() {
    let Some(dovecot) = dovecot() else { return };
    let loads = || loads(&dovecot);
    let case = case(&dovecot, &loads);
    case.fleet("timeout = \"2s\"");
    let bad = config(&dovecot, "two") + "service anvil {\n  executable = nonexistent\n}\n";
    case.rolls_back(&bad, "timed_out");
    assert_eq!(greeting(&dovecot).as_deref(), Some("one"));
}

/// Only the log says so, which the kind does not read.
#[test]
fn dovecot_is_without_a_service_whose_port_is_taken() {
    let Some(dovecot) = dovecot() else { return };
    let loads = || loads(&dovecot);
    let case = case(&dovecot, &loads);
    let (_taken, port) = acts::taken_port();
    let own = format!("port = {}", dovecot.port);
    let bad = config(&dovecot, "two").replace(&own, &format!("port = {port}"));
    case.takes(&bad, "reloaded");
    let log = std::fs::read_to_string(dovecot.daemon.path("mail.log")).unwrap();
    assert!(log.contains("Address already in use"), "{log}");
}

/// Stops or kills it during a reload.
pub(super) fn stopped_or_killed() {
    let Some(dovecot) = dovecot() else { return };
    let loads = || loads(&dovecot);
    let case = case(&dovecot, &loads);
    case.continues(&config(&dovecot, "two"));
    case.stops_and_dies(&config(&dovecot, "two"), "");
}
