//! Daemons that a watch drives, with good and bad content.

use std::fs;

use super::Watch;
use crate::{
    daemons::{Daemon, services, web},
    stores::{
        daemons::{nginx_from, prometheus_from},
        etcd::Etcd,
        overwrite,
    },
    support::until,
};

/// Starts a watch of a daemon's folder.
fn start(daemon: &Daemon) -> Watch {
    let mut watch = daemon.hello("watch");
    watch
        .args(["--debounce", "100ms", "--listen", "127.0.0.1:0", "--state"])
        .arg(daemon.path("state"));
    let watch = Watch::spawn(&mut watch);
    watch.until("its first run has ended", || watch.runs() > 0);
    assert_eq!(watch.runs_with("converged"), 1, "{}", watch.text());
    watch
}

#[test]
fn nginx_follows_its_config_and_a_bad_one_touches_nothing() {
    let Some(web) = web::nginx() else { return };
    web.fleet("");
    let watch = start(&web.daemon);
    fs::write(web.file(), web.config("two")).unwrap();
    until("it serves it", || web.word().as_deref() == Some("two"));
    watch.until("the run has ended", || watch.runs_with("converged") == 2);
    let signals = web.sighups();
    let bad = web
        .config("three")
        .replace("worker_connections", "worker_conections");
    fs::write(web.file(), bad).unwrap();
    watch.until("it is refused", || watch.runs_with("invalid") > 0);
    watch.waits_for("worker_conections");
    assert_eq!(
        (web.sighups(), web.word().as_deref()),
        (signals, Some("two"))
    );
    fs::write(web.file(), web.config("three")).unwrap();
    until("it serves it", || web.word().as_deref() == Some("three"));
    watch.until("the run has ended", || watch.runs_with("converged") == 3);
}

#[test]
fn nginx_follows_a_file_that_its_config_includes() {
    let Some(web) = web::nginx() else { return };
    let conf = web.daemon.path("etc/conf.d");
    fs::create_dir(&conf).unwrap();
    let all = web.config("one");
    let include = format!("http {{\n  include {}/*.conf;\n", conf.display());
    fs::write(web.file(), all.replace("http {\n", &include)).unwrap();
    web.fleet("");
    let watch = start(&web.daemon);
    let signals = web.sighups();
    fs::write(conf.join("a.conf"), "server_tokens off;\n").unwrap();
    watch.until("the run has ended", || watch.runs_with("converged") == 2);
    assert_eq!(web.sighups(), signals + 1);
}

#[test]
fn prometheus_gets_the_content_of_a_source_and_a_bad_one_is_rolled_back() {
    let Some(prometheus) = services::prometheus() else {
        return;
    };
    let daemon = &prometheus.daemon;
    let source = |text: &str| drop(daemon.write("prometheus.yml.new", text));
    daemon.write(
        "fleet.toml",
        &format!(
            "version = 1\n[[group]]\nname = \"one\"\nkind = \"prometheus\"\n\
             source = \"{{config}}.new\"\n\
             match = {{ exe = \"prometheus\", args = [\"--config.file={}\"] }}\n",
            daemon.path("prometheus.yml").display()
        ),
    );
    source("global:\n  scrape_interval: 15s\n");
    let watch = start(daemon);
    let interval = || {
        let yaml = prometheus.json("/api/v1/status/config", "/data/yaml");
        yaml.is_some_and(|yaml| yaml.as_str().unwrap().contains("scrape_interval: 30s"))
    };
    source("global:\n  scrape_interval: 30s\n");
    watch.until("it has loaded it", interval);
    watch.until("the run has ended", || watch.runs_with("converged") == 2);
    source("global:\n  scrape_intervall: 40s\n");
    watch.until("its validator refuses it", || {
        watch.runs_with("invalid") > 0
    });
    assert!(interval(), "it keeps the old config");
    // It passes the validator, and the daemon rejects it: the certificate is none.
    daemon.write("ca.pem", "none\n");
    source(
        "global:\n  scrape_interval: 40s\nalerting:\n  alertmanagers:\n  - scheme: https\n    \
         tls_config: { ca_file: ca.pem }\n",
    );
    watch.until("it is rolled back", || watch.runs_with("reverted") == 1);
    assert!(interval(), "it runs the old config");
    let successful = "hello_watch_last_reload_successful{group=\"one\"}";
    assert_eq!(watch.metric(successful), Some(0.0), "{}", watch.text());
    source("global:\n  scrape_interval: 30s\n");
    watch.until("it has converged", || watch.metric(successful) == Some(1.0));
}

#[test]
fn nginx_follows_a_key_and_a_bad_value_touches_nothing() {
    let Some(etcd) = Etcd::start() else { return };
    let Some(web) = nginx_from(&etcd) else { return };
    let key = etcd.key("nginx.conf");
    overwrite(&key, &web.config("two"));
    let watch = start(&web.daemon);
    until("it serves it", || web.word().as_deref() == Some("two"));
    let signals = web.sighups();
    overwrite(&key, &web.config("three").replace("return", "retrun"));
    watch.until("it is refused", || watch.runs_with("invalid") > 0);
    watch.waits_for("retrun");
    assert_eq!(web.sighups(), signals);
    assert_eq!(web.word().as_deref(), Some("two"));
    overwrite(&key, &web.config("three"));
    until("it serves it", || web.word().as_deref() == Some("three"));
}

#[test]
fn prometheus_follows_a_key_and_is_rolled_back_from_a_value_that_it_cannot_apply() {
    let Some(etcd) = Etcd::start() else { return };
    let Some(prometheus) = prometheus_from(&etcd) else {
        return;
    };
    let key = etcd.key("prometheus.yml");
    let text = |interval: &str| format!("global:\n  scrape_interval: {interval}\n");
    let runs = |interval: &str| {
        let yaml = prometheus.json("/api/v1/status/config", "/data/yaml");
        let wanted = format!("scrape_interval: {interval}\n");
        yaml.is_some_and(|yaml| yaml.as_str().unwrap().contains(&wanted))
    };
    overwrite(&key, &text("20s"));
    let watch = start(&prometheus.daemon);
    assert!(runs("20s"), "{}", watch.text());
    // promtool does not open this file, and only the reload fails.
    prometheus.daemon.write("ca.pem", "no certificate\n");
    let bad = text("25s")
        + "alerting:\n  alertmanagers:\n  - scheme: https\n    tls_config: { ca_file: ca.pem }\n";
    overwrite(&key, &bad);
    watch.until("it is rolled back", || watch.runs_with("reverted") == 1);
    assert!(runs("20s"), "{}", watch.text());
    overwrite(&key, &text("30s"));
    watch.until("it has loaded it", || runs("30s"));
}
