//! Prometheus under `hello broadcast`, by the shipped kind.

use nix::sys::signal::Signal;

use super::{
    case::Case,
    folder,
    services::{Service, prometheus, prometheus_of},
};
use crate::support::until;

fn text(interval: &str) -> String {
    format!("global:\n  scrape_interval: {interval}\n")
}

/// Returns a config with a certificate file. It passes promtool, which does not open the file, and
/// applies only if that is a certificate.
fn with_ca(interval: &str) -> String {
    text(interval)
        + "alerting:\n  alertmanagers:\n  - scheme: https\n    tls_config: { ca_file: ca.pem }\n"
}

fn loads(prometheus: &Service) -> String {
    prometheus
        .metric("prometheus_config_last_reload_success_timestamp_seconds")
        .unwrap()
        .to_string()
}

fn is_well(prometheus: &Service) -> bool {
    prometheus
        .metric("prometheus_config_last_reload_successful")
        .unwrap()
        == 1.0
}

fn runs(prometheus: &Service, interval: &str) -> bool {
    prometheus
        .json("/api/v1/status/config", "/data/yaml")
        .unwrap()
        .as_str()
        .unwrap()
        .contains(&format!("scrape_interval: {interval}\n"))
}

fn case<'a>(prometheus: &'a Service, loads: &'a dyn Fn() -> String) -> Case<'a> {
    let config = prometheus.daemon.path("prometheus.yml");
    let group = format!(
        "match = {{ exe = \"prometheus\", args = [\"--config.file={}\"] }}",
        config.display()
    );
    let case = Case {
        daemon: &prometheus.daemon,
        kind: "prometheus",
        file: "prometheus.yml",
        group,
        facts: String::new(),
        loads,
    };
    case.fleet("");
    case
}

#[test]
fn prometheus_loads_a_good_config_and_its_validator_rejects_a_bad_one() {
    let Some(prometheus) = prometheus() else {
        return;
    };
    let loads = || loads(&prometheus);
    let case = case(&prometheus, &loads);
    case.takes(&text("20s"), "reloaded");
    assert!(runs(&prometheus, "20s"));
    case.settles();
    case.refuses(
        "global:\n  scrape_interval: soon\n",
        "not a valid duration string",
    );
    case.edit(&text("25s"));
    assert_eq!(
        prometheus.daemon.broadcast(&[]).expect(0).states(),
        ["confirmed"],
        "what stands there is taken over"
    );
    assert!(runs(&prometheus, "25s"));
}

#[test]
fn prometheus_reports_a_config_it_cannot_apply_and_is_rolled_back() {
    let Some(prometheus) = prometheus() else {
        return;
    };
    let loads = || loads(&prometheus);
    let case = case(&prometheus, &loads);
    case.takes(&text("20s"), "reloaded");
    prometheus.daemon.write("ca.pem", "no certificate\n");
    // The kind's timeout of ten minutes is longer than any test may take.
    case.rolls_back(&with_ca("25s"), "rejected");
    assert!(is_well(&prometheus));
    assert!(runs(&prometheus, "20s"));
    case.settles();
    // It rejects a config that was edited by hand. The next good one still loads.
    case.edit(&with_ca("25s"));
    prometheus.daemon.signal(Signal::SIGHUP);
    until("it has refused", || !is_well(&prometheus));
    case.takes(&text("30s"), "content");
    assert!(is_well(&prometheus));
    assert!(runs(&prometheus, "30s"));
}

/// Stops or kills it during a reload.
pub(super) fn stopped_or_killed() {
    let Some(prometheus) = prometheus() else {
        return;
    };
    let loads = || loads(&prometheus);
    let case = case(&prometheus, &loads);
    case.continues(&text("20s"));
    case.stops_and_dies(&text("20s"), "");
}

/// Starts two in one group, each with its own `prometheus.yml` or both with that of the first.
fn two(shared: bool) -> Option<[Service; 2]> {
    let first = prometheus()?;
    let dir = folder();
    let own = crate::support::write(&dir.path().join("prometheus.yml"), &text("15s"));
    let config = if shared {
        first.daemon.path("prometheus.yml")
    } else {
        own
    };
    let second = prometheus_of(dir, &config)?;
    let of = |p: &Service| format!("\"--web.listen-address=127.0.0.1:{}\"", p.port);
    let group = format!(
        "match = {{ exe = \"prometheus\", args = [[{}, {}]] }}\ncount = 2\n",
        of(&first),
        of(&second)
    );
    first.daemon.write(
        "fleet.toml",
        &format!("version = 1\n[[group]]\nname = \"both\"\nkind = \"prometheus\"\n{group}"),
    );
    Some([first, second])
}

#[test]
fn two_prometheus_with_a_config_each_are_reloaded_and_rolled_back_together() {
    let Some(both) = two(false) else { return };
    let daemon = &both[0].daemon;
    let broadcast = |text: &str| {
        daemon.broadcast(&[
            "--waves",
            "100%",
            "--config",
            daemon.write("new", text).to_str().unwrap(),
        ])
    };
    let result = broadcast(&text("20s")).expect(0);
    assert_eq!(
        (
            result.states(),
            result.json["targets"].as_array().unwrap().len()
        ),
        (vec!["confirmed", "confirmed"], 2),
        "{:#}",
        result.json
    );
    assert!(both.iter().all(|p| runs(p, "20s")));
    // The first can apply the next one, the second cannot.
    let certificate = rcgen::generate_simple_self_signed(["prometheus.test".to_owned()])
        .unwrap()
        .cert
        .pem();
    both[0].daemon.write("ca.pem", &certificate);
    both[1].daemon.write("ca.pem", "no certificate\n");
    let before = both.each_ref().map(loads);
    let result = broadcast(&with_ca("25s")).expect(6);
    assert_eq!(result.states(), ["reverted", "reverted"]);
    let failure = |p: &Service| {
        result.json["instances"]
            .as_array()
            .unwrap()
            .iter()
            .find(|i| i["pid"] == p.daemon.pid())
            .unwrap()["failure"]["kind"]
            .clone()
    };
    assert_eq!(
        [failure(&both[0]), failure(&both[1])],
        [serde_json::Value::Null, "rejected".into()],
        "{:#}",
        result.json
    );
    for (prometheus, before) in both.iter().zip(before) {
        assert_eq!(
            std::fs::read_to_string(prometheus.daemon.path("prometheus.yml")).unwrap(),
            text("20s")
        );
        assert!(is_well(prometheus));
        assert!(runs(prometheus, "20s"));
        assert!(loads(prometheus) != before);
    }
}

#[test]
fn two_prometheus_with_one_config_are_one_step() {
    let Some(both) = two(true) else { return };
    let daemon = &both[0].daemon;
    let result = daemon
        .broadcast(&[
            "--config",
            daemon.write("new", &text("20s")).to_str().unwrap(),
        ])
        .expect(0);
    assert_eq!(
        (
            result.states(),
            result.json["targets"].as_array().unwrap().len()
        ),
        (vec!["confirmed", "confirmed"], 1),
        "{:#}",
        result.json
    );
    assert!(both.iter().all(|p| runs(p, "20s")));
    assert_eq!(
        std::fs::read_to_string(both[1].daemon.path("prometheus.yml")).unwrap(),
        text("15s"),
        "the file that no instance reads"
    );
}
