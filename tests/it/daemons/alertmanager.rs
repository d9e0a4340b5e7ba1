//! Alertmanager under `hello broadcast`, by the shipped kind.

use super::{
    case::Case,
    listening,
    services::{Service, clustered_alertmanager},
};

/// Returns the first config with another `group_wait`.
fn text(wait: &str) -> String {
    format!("route:\n  receiver: nobody\n  group_wait: {wait}\nreceivers:\n- name: nobody\n")
}

fn metric(alertmanager: &Service, name: &str) -> f64 {
    alertmanager
        .metric(&format!("alertmanager_config_{name}"))
        .unwrap()
}

fn runs(alertmanager: &Service, wait: &str) -> bool {
    alertmanager
        .json("/api/v2/status", "/config/original")
        .unwrap()
        .as_str()
        .unwrap()
        .contains(&format!("group_wait: {wait}\n"))
}

fn case<'a>(alertmanager: &'a Service, loads: &'a dyn Fn() -> String) -> Case<'a> {
    let config = alertmanager.daemon.path("alertmanager.yml");
    let group = format!(
        "match = {{ exe = \"prometheus-alertmanager\", args = [\"--config.file={}\"] }}",
        config.display()
    );
    let case = Case {
        daemon: &alertmanager.daemon,
        kind: "alertmanager",
        file: "alertmanager.yml",
        group,
        facts: String::new(),
        loads,
    };
    case.fleet("");
    case
}

#[test]
fn alertmanager_in_a_cluster_loads_a_good_config_and_its_validator_rejects_a_bad_one() {
    let Some(alertmanager) = clustered_alertmanager() else {
        return;
    };
    let loads = || metric(&alertmanager, "last_reload_success_timestamp_seconds").to_string();
    let case = case(&alertmanager, &loads);
    assert_eq!(
        listening(alertmanager.daemon.pid()).len(),
        2,
        "one socket for people, one for its peers"
    );
    case.takes(&text("20s"), "reloaded");
    assert!(runs(&alertmanager, "20s"));
    let endpoint =
        alertmanager.daemon.broadcast(&[]).expect(0).json["instances"][0]["endpoint"].clone();
    assert_eq!(endpoint, format!("http://127.0.0.1:{}/", alertmanager.port));
    case.settles();
    case.refuses(
        &text("20s").replace("receiver: nobody", "receiver: other"),
        "undefined receiver",
    );
}

#[test]
fn alertmanager_reports_a_config_it_cannot_load_and_is_rolled_back() {
    let Some(alertmanager) = clustered_alertmanager() else {
        return;
    };
    let loads = || metric(&alertmanager, "last_reload_success_timestamp_seconds").to_string();
    let case = case(&alertmanager, &loads);
    let hash = metric(&alertmanager, "hash");
    // It passes amtool, which does not open the file.
    alertmanager.daemon.write("ca.pem", "no certificate\n");
    let bad = text("25s")
        + "  webhook_configs:\n  - url: http://127.0.0.1:1/\n    http_config: { tls_config: { ca_file: ca.pem } }\n";
    case.rolls_back(&bad, "rejected");
    assert_eq!(
        (
            metric(&alertmanager, "last_reload_successful"),
            metric(&alertmanager, "hash")
        ),
        (1.0, hash)
    );
    assert!(runs(&alertmanager, "30s"));
    case.settles();
}

/// Stops or kills it during a reload.
pub(super) fn stopped_or_killed() {
    let Some(alertmanager) = clustered_alertmanager() else {
        return;
    };
    let loads = || metric(&alertmanager, "last_reload_success_timestamp_seconds").to_string();
    let case = case(&alertmanager, &loads);
    case.continues(&text("20s"));
    case.stops_and_dies(&text("20s"), "");
}
