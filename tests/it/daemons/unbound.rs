//! unbound under `hello broadcast`, by the shipped kind. It reports no reload, so each group has an
//! assertion of its own.

use std::net::UdpSocket;

use super::{Daemon, case::Case, command, folder, free_port, need, services::Service};
use crate::support::{until, write};

/// The query of the kind's comment.
const ASKED: &str = "[[group.confirm]]\nexec = [\"dig\", \"+short\", \"+tries=1\", \"+time=1\", \"-p\", \"{listen.port}\", \"@{listen.host}\", \"v.test\", \"TXT\"]\nchanged = true\n";

fn config(unbound: &Service, word: &str) -> String {
    text(
        &unbound.daemon.dir.path().display().to_string(),
        unbound.port,
        word,
    )
}

fn text(dir: &str, port: u16, word: &str) -> String {
    format!(
        "server:\n  interface: 127.0.0.1\n  port: {port}\n  username: \"\"\n  chroot: \"\"\n  directory: \"{dir}\"\n  use-syslog: no\n\
         \x20 logfile: \"{dir}/own.log\"\n  pidfile: \"\"\n  do-daemonize: no\n  local-data: 'v.test. 0 TXT \"{word}\"'\nremote-control:\n  control-enable: no\n"
    )
}

/// Starts unbound. It answers `v.test` with `one`.
fn unbound() -> Option<Service> {
    let there = need("unbound") && need("unbound-checkconf") && need("dig");
    there.then(|| {
        let (dir, port) = (
            folder(),
            std::iter::repeat_with(free_port)
                .find(|port| UdpSocket::bind(("127.0.0.1", *port)).is_ok())
                .unwrap(),
        );
        let config = write(
            &dir.path().join("unbound.conf"),
            &text(&dir.path().display().to_string(), port, "one"),
        );
        let mut command = command("unbound");
        command.arg("-d").arg("-c").arg(config);
        Service::start(Daemon::spawn(dir, &mut command), port, |s| {
            answer(s) == "one"
        })
    })
}

/// Returns its answer for `v.test`; empty if there is none.
fn answer(unbound: &Service) -> String {
    let output = command("dig")
        .args(["+short", "+tries=1", "+time=5", "@127.0.0.1", "-p"])
        .arg(unbound.port.to_string())
        .args(["v.test", "TXT"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        text.trim().trim_matches('"').to_owned()
    } else {
        String::new()
    }
}

/// Returns how often it has begun to serve.
fn loads(unbound: &Service) -> String {
    std::fs::read_to_string(unbound.daemon.path("own.log"))
        .unwrap_or_default()
        .matches("start of service")
        .count()
        .to_string()
}

fn case<'a>(unbound: &'a Service, loads: &'a dyn Fn() -> String) -> Case<'a> {
    Case::of(&unbound.daemon, ("unbound", "unbound.conf"), loads).with_facts(ASKED.into())
}

#[test]
fn unbound_loads_good_configs_and_refuses_bad_ones() {
    let Some(unbound) = unbound() else { return };
    let loads = || loads(&unbound);
    let case = case(&unbound, &loads);
    case.takes(&config(&unbound, "two"), "content");
    assert_eq!(answer(&unbound), "two");
    case.refuses(
        &(config(&unbound, "three") + "nonsense: 1\n"),
        "unknown keyword 'nonsense'",
    );
}

#[test]
fn unbound_without_an_assertion_ends_unconfirmed() {
    let Some(unbound) = unbound() else { return };
    let loads = || loads(&unbound);
    let mut case = case(&unbound, &loads);
    case.facts = String::new();
    case.fleet("timeout = \"1s\"");
    let result = case.change(&config(&unbound, "two")).expect(12);
    assert_eq!(result.states(), ["unconfirmed"]);
    until("it answers by the new config", || answer(&unbound) == "two");
}

#[test]
fn the_log_of_unbound_shows_the_end_of_a_reload() {
    let Some(unbound) = unbound() else { return };
    let loads = || loads(&unbound);
    let mut case = case(&unbound, &loads);
    case.facts = format!(
        "[[group.confirm]]\nlog = \"{}\"\ncontains = \"start of service\"\n",
        unbound.daemon.path("own.log").display()
    );
    case.fleet("");
    case.takes(&config(&unbound, "two"), "reloaded");
    assert_eq!(answer(&unbound), "two");
    case.settles();
}

#[test]
fn a_change_of_the_interfaces_of_unbound_needs_a_restart() {
    let Some(unbound) = unbound() else { return };
    let loads = || loads(&unbound);
    let case = case(&unbound, &loads);
    let other = config(&unbound, "one").replace("interface: 127.0.0.1", "interface: 127.0.0.2");
    case.untouched(10, &["interface"], || case.change(&other));
}

/// Returns a config that `unbound-checkconf` passes and that needs more descriptors than there are.
fn too_much(unbound: &Service) -> String {
    config(unbound, "two").replace("server:\n", "server:\n  outgoing-num-tcp: 100000000\n")
}

#[test]
fn too_few_descriptors_end_unbound_and_the_restart_command_is_shown() {
    let Some(unbound) = unbound() else { return };
    let loads = || loads(&unbound);
    let case = case(&unbound, &loads);
    let command = case.dies(&too_much(&unbound));
    let typed = Daemon::spawn(
        folder(),
        std::process::Command::new("sh").args(["-c", &command]),
    );
    until("it answers by the old config", || {
        assert!(typed.runs(), "{command}: {}", typed.log());
        answer(&unbound) == "one"
    });
}

#[test]
fn too_few_descriptors_end_unbound_and_it_is_revived() {
    let Some(unbound) = unbound() else { return };
    let loads = || loads(&unbound);
    let case = case(&unbound, &loads);
    case.is_revived(&too_much(&unbound), &["{exe}", "{args}"]);
    assert_eq!(answer(&unbound), "one");
}

/// Stops or kills it during a reload.
pub(super) fn stopped_or_killed() {
    let Some(unbound) = unbound() else { return };
    let loads = || loads(&unbound);
    let mut case = case(&unbound, &loads);
    // A stopped server gives no second answer before the signal; its log is there.
    case.facts = format!(
        "[[group.confirm]]\nlog = \"{}\"\ncontains = \"start of service\"\n",
        unbound.daemon.path("own.log").display()
    );
    case.fleet("");
    case.continues(&config(&unbound, "two"));
    case.stops_and_dies(&config(&unbound, "two"), "");
}
