//! nats-server under `hello broadcast`, by the shipped kind.

use super::{
    case::Case,
    services::{Monitor, Service, nats},
};

fn loads(nats: &Service) -> String {
    nats.json("/varz", "/config_load_time").unwrap().to_string()
}

fn max_payload(nats: &Service) -> u64 {
    nats.json("/varz", "/max_payload")
        .unwrap()
        .as_u64()
        .unwrap()
}

fn case<'a>(nats: &'a Service, loads: &'a dyn Fn() -> String) -> Case<'a> {
    let group = format!(
        "match = {{ exe = \"nats-server\", args = [\"{}\"] }}",
        nats.daemon.path("nats.conf").display()
    );
    let case = Case {
        daemon: &nats.daemon,
        kind: "nats-server",
        file: "nats.conf",
        group,
        facts: String::new(),
        loads,
    };
    case.fleet("");
    case
}

#[test]
fn nats_loads_a_good_config_and_its_validator_rejects_a_bad_one() {
    let Some(nats) = nats(Monitor::CommandLine) else {
        return;
    };
    let loads = || loads(&nats);
    let case = case(&nats, &loads);
    let good = case.text();
    case.takes(&good.replace("1048576", "2097152"), "reloaded");
    assert_eq!(max_payload(&nats), 2_097_152);
    case.settles();
    case.refuses(&format!("{good}garbage: 1\n"), "unknown field \"garbage\"");
}

#[test]
fn nats_is_rolled_back_after_the_timeout_if_an_option_cannot_reload() {
    let Some(nats) = nats(Monitor::CommandLine) else {
        return;
    };
    let loads = || loads(&nats);
    let case = case(&nats, &loads);
    case.fleet("timeout = \"2s\"");
    let good = case.text();
    case.rolls_back(
        &format!("{}server_name: other\n", good.replace("1048576", "2097152")),
        "timed_out",
    );
    assert_eq!(max_payload(&nats), 1_048_576);
    assert!(
        nats.daemon
            .log()
            .contains("config reload not supported for ServerName"),
        "{}",
        nats.daemon.log()
    );
    case.settles();
}

/// Stops or kills it during a reload.
pub(super) fn stopped_or_killed() {
    let Some(nats) = nats(Monitor::CommandLine) else {
        return;
    };
    let loads = || loads(&nats);
    let case = case(&nats, &loads);
    let other = case.text().replace("1048576", "2097152");
    case.continues(&other);
    case.stops_and_dies(&other, "");
}

#[test]
fn nats_without_a_monitor_is_refused_with_a_hint() {
    if let Some(nats) = nats(Monitor::Config) {
        let loads = || loads(&nats);
        let case = case(&nats, &loads);
        let good = case.text();
        let other = good.replace("1048576", "2097152");
        case.untouched(
            5,
            &["listen = \"tcp:PORT\"", &format!("127.0.0.1:{}", nats.port)],
            || case.change(&other),
        );
        case.fleet(&format!("listen = \"tcp:{}\"", nats.port));
        case.takes(&other, "reloaded");
    }
    if let Some(nats) = nats(Monitor::None) {
        let trapped = || {
            nats.daemon
                .log()
                .matches("Trapped \"hangup\" signal")
                .count()
                .to_string()
        };
        let case = case(&nats, &trapped);
        let other = case.text().replace("1048576", "2097152");
        case.untouched(
            5,
            &[
                &format!("pid {}", nats.daemon.pid()),
                "`{arg:-http_port}`",
                "`hello kinds nats-server`",
            ],
            || case.change(&other),
        );
    }
}
