//! mosquitto under `hello broadcast`, by the shipped kind, which reads its log.

use std::io::{Read, Write};

use super::{
    Daemon,
    case::{Case, keys_of},
    command, folder, free_port, need,
    services::Service,
};
use crate::support::write;

/// The assertions of the kind.
const KIND: &str = include_str!("../../../src/kinds/mosquitto.toml");
/// The answers to a client without a name: its session has begun, or it is not authorised.
const WELCOME: u8 = 0;
const DENIED: u8 = 5;

/// Returns a config that accepts clients without a name, or not.
fn config(mosquitto: &Service, anonymous: bool) -> String {
    text(
        &mosquitto.daemon.dir.path().display().to_string(),
        mosquitto.port,
        anonymous,
    )
}

fn text(dir: &str, port: u16, anonymous: bool) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    let user = user.unwrap().unwrap().name;
    format!(
        "listener {port} 127.0.0.1\nlog_dest file {dir}/x.log\nuser {user}\npassword_file {dir}/passwords\nallow_anonymous {anonymous}\n"
    )
}

/// Starts mosquitto. It accepts clients without a name.
fn mosquitto() -> Option<Service> {
    need("mosquitto").then(|| {
        let (dir, port) = (folder(), free_port());
        write(&dir.path().join("passwords"), "");
        let config = write(
            &dir.path().join("mosquitto.conf"),
            &text(&dir.path().display().to_string(), port, true),
        );
        let mut command = command("mosquitto");
        command.arg("-c").arg(config);
        Service::start(Daemon::spawn(dir, &mut command), port, |s| {
            answer(s).is_some()
        })
    })
}

/// Returns its answer to a client without a name.
fn answer(mosquitto: &Service) -> Option<u8> {
    let mut stream = mosquitto.connect()?;
    // CONNECT of MQTT 3.1.1, with a new session, 60 s to stay and the name `x`.
    stream
        .write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x")
        .ok()?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).ok()?;
    Some(answer[3])
}

/// Returns how often it has begun to read its config again.
fn loads(mosquitto: &Service) -> String {
    let log = std::fs::read_to_string(mosquitto.daemon.path("x.log")).unwrap_or_default();
    log.matches("Reloading config.").count().to_string()
}

fn case<'a>(mosquitto: &'a Service, loads: &'a dyn Fn() -> String) -> Case<'a> {
    let daemon = &mosquitto.daemon;
    let kind = keys_of(KIND);
    let at = kind.find("[[confirm]]").unwrap();
    let log = daemon.path("x.log").display().to_string();
    let facts = kind[at..]
        .replace("[[", "[[group.")
        .replace("/var/log/mosquitto/mosquitto.log", &log);
    Case::of(daemon, ("mosquitto", "mosquitto.conf"), loads).with_facts(facts)
}

#[test]
fn mosquitto_loads_good_configs() {
    let Some(mosquitto) = mosquitto() else { return };
    let loads = || loads(&mosquitto);
    let case = case(&mosquitto, &loads);
    case.takes(&config(&mosquitto, false), "reloaded");
    assert_eq!(answer(&mosquitto), Some(DENIED));
    case.takes(&config(&mosquitto, true), "reloaded");
    assert_eq!(answer(&mosquitto), Some(WELCOME));
    case.settles();
}

#[test]
fn a_config_that_mosquitto_refuses_is_rolled_back_at_once() {
    let Some(mosquitto) = mosquitto() else { return };
    let loads = || loads(&mosquitto);
    let case = case(&mosquitto, &loads);
    let good = config(&mosquitto, false);
    let result = case.rolls_back(&(good.clone() + "nonsense 1\n"), "rejected");
    let says = "Unknown configuration variable \"nonsense\"";
    assert!(result.stderr.contains(says), "{}", result.stderr);
    assert_eq!(answer(&mosquitto), Some(WELCOME));
    let other = good.replace("listener", "listener 1 127.0.0.1\nlistener");
    let result = case.rolls_back(&other, "rejected");
    assert!(
        result.stderr.contains("add/remove listeners"),
        "{}",
        result.stderr
    );
}

#[test]
fn a_password_file_that_cannot_be_read_is_rolled_back_at_once() {
    let Some(mosquitto) = mosquitto() else { return };
    let loads = || loads(&mosquitto);
    let case = case(&mosquitto, &loads);
    let bad = config(&mosquitto, true).replace("/passwords", "/none");
    let result = case.rolls_back(&bad, "rejected");
    assert!(
        result.stderr.contains("Unable to open pwfile"),
        "{}",
        result.stderr
    );
    assert_eq!(answer(&mosquitto), Some(WELCOME));
}

/// Without its reason to reject, the kind still does not take the line for an end.
#[test]
fn a_line_that_a_reload_begins_with_is_no_proof() {
    let Some(mosquitto) = mosquitto() else { return };
    let loads = || loads(&mosquitto);
    let mut case = case(&mosquitto, &loads);
    let (confirm, _) = case.facts.split_once("[[group.reject]]").unwrap();
    let log = mosquitto.daemon.path("x.log");
    case.facts = format!(
        "{confirm}[[group.reject]]\nlog = \"{}\"\ncontains = \"another fault\"\n",
        log.display()
    );
    case.fleet("timeout = \"3s\"");
    let bad = config(&mosquitto, false) + "nonsense 1\n";
    case.rolls_back(&bad, "timed_out");
}

/// Stops or kills it during a reload.
pub(super) fn stopped_or_killed() {
    let Some(mosquitto) = mosquitto() else { return };
    let loads = || loads(&mosquitto);
    let case = case(&mosquitto, &loads);
    let new = config(&mosquitto, false);
    case.continues(&new);
    case.stops_and_dies(&new, "");
}
