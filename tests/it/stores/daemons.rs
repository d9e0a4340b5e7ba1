//! Daemons of Debian's packages, whose config comes from a real store.

use super::{etcd::Etcd, overwrite};
use crate::daemons::{
    Daemon,
    services::{Service, prometheus},
    web::{Web, nginx},
};

/// Writes a fleet with one group, whose config comes from a key of `etcd`.
fn fleet(daemon: &Daemon, etcd: &Etcd, name: &str, keys: &str) {
    let text = format!(
        "version = 1\n[[group]]\nname = \"one\"\n{keys}\nsource = \"{}\"\n[[store]]\nurl = \"{}\"\n\
         timeout = \"20s\"\n",
        etcd.url(name),
        etcd.url("").trim_end_matches('/')
    );
    daemon.write("fleet.toml", &text);
}

/// Starts nginx, whose config comes from the key `nginx.conf`.
pub(crate) fn nginx_from(etcd: &Etcd) -> Option<Web> {
    let web = nginx()?;
    let keys = format!(
        "kind = \"nginx\"\nmatch = {{ exe = \"nginx\", port = {} }}",
        web.port
    );
    fleet(&web.daemon, etcd, "nginx.conf", &keys);
    Some(web)
}

/// Starts Prometheus, whose config comes from the key `prometheus.yml`.
pub(crate) fn prometheus_from(etcd: &Etcd) -> Option<Service> {
    let prometheus = prometheus()?;
    let keys = format!(
        "kind = \"prometheus\"\nmatch = {{ exe = \"prometheus\", args = [\"--config.file={}\"] }}",
        prometheus.daemon.path("prometheus.yml").display()
    );
    fleet(&prometheus.daemon, etcd, "prometheus.yml", &keys);
    Some(prometheus)
}

#[test]
fn nginx_takes_a_good_value_and_its_validator_refuses_a_bad_one() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    let Some(web) = nginx_from(&etcd) else { return };
    let key = etcd.key("nginx.conf");
    let rev = overwrite(&key, &web.config("two"));
    let result = web.daemon.broadcast(&[]).expect(0);
    assert_eq!(result.states(), ["confirmed"]);
    assert_eq!(result.json["targets"][0]["source"]["rev"], rev.as_str());
    assert_eq!(web.word().as_deref(), Some("two"));
    let good = std::fs::read_to_string(web.file()).unwrap();
    overwrite(&key, &web.config("three").replace("return", "retrun"));
    let result = web.daemon.broadcast(&[]).expect(4);
    assert!(result.stderr.contains("retrun"), "{}", result.stderr);
    let named = format!("not valid: `{} revision ", key.url);
    assert!(result.stderr.contains(&named), "{}", result.stderr);
    assert_eq!(std::fs::read_to_string(web.file()).unwrap(), good);
    assert_eq!(web.word().as_deref(), Some("two"));
    // A store that lost its data, and one that is away, replace nothing.
    etcd.lose_data();
    let result = web.daemon.broadcast(&[]).expect(1);
    assert!(result.stderr.contains("no such key"), "{}", result.stderr);
    etcd.stop();
    let result = web.daemon.broadcast(&[]).expect(1);
    assert!(result.stderr.contains("refused"), "{}", result.stderr);
    assert_eq!(std::fs::read_to_string(web.file()).unwrap(), good);
    assert_eq!(web.word().as_deref(), Some("two"));
}

#[test]
fn prometheus_takes_a_good_value_and_is_rolled_back_from_one_that_it_cannot_apply() {
    let Some(etcd) = Etcd::start() else { return };
    let Some(prometheus) = prometheus_from(&etcd) else {
        return;
    };
    let text = |interval: &str| format!("global:\n  scrape_interval: {interval}\n");
    let runs = |interval: &str| {
        let yaml = prometheus.json("/api/v1/status/config", "/data/yaml");
        let wanted = format!("scrape_interval: {interval}\n");
        yaml.unwrap().as_str().unwrap().contains(&wanted)
    };
    let key = etcd.key("prometheus.yml");
    overwrite(&key, &text("20s"));
    prometheus.daemon.broadcast(&[]).expect(0);
    assert!(runs("20s"));
    overwrite(&key, &text("soon"));
    let result = prometheus.daemon.broadcast(&[]).expect(4);
    assert!(
        result.stderr.contains("not a valid duration"),
        "{}",
        result.stderr
    );
    // promtool does not open this file, and only the reload fails.
    prometheus.daemon.write("ca.pem", "no certificate\n");
    let bad = text("25s")
        + "alerting:\n  alertmanagers:\n  - scheme: https\n    tls_config: { ca_file: ca.pem }\n";
    overwrite(&key, &bad);
    let result = prometheus.daemon.broadcast(&[]).expect(6);
    assert_eq!(result.states(), ["reverted"]);
    assert!(runs("20s"));
    let disk = std::fs::read_to_string(prometheus.daemon.path("prometheus.yml")).unwrap();
    assert_eq!(disk, text("20s"));
}
