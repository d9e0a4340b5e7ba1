//! Daemons that a watch drives, with good and bad content.

use std::fs;

use super::Watch;
use crate::{
    daemons::{Daemon, services, web},
    support::until,
};

/// Starts a watch of a daemon's folder.
fn start(daemon: &Daemon) -> Watch {
    let mut watch = daemon.hello("watch");
    watch
        .args(["--debounce", "100ms", "--listen", "127.0.0.1:0", "--state"])
        .arg(daemon.path("state"));
    let watch = Watch::spawn(&mut watch);
    until("its first run has ended", || watch.runs() > 0);
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
    until("the run has ended", || watch.runs_with("converged") == 2);
    let signals = web.sighups();
    let bad = web
        .config("three")
        .replace("worker_connections", "worker_conections");
    fs::write(web.file(), bad).unwrap();
    until("it is refused", || watch.runs_with("invalid") > 0);
    watch.waits_for("worker_conections");
    assert_eq!(
        (web.sighups(), web.word().as_deref()),
        (signals, Some("two"))
    );
    fs::write(web.file(), web.config("three")).unwrap();
    until("it serves it", || web.word().as_deref() == Some("three"));
    until("the run has ended", || watch.runs_with("converged") == 3);
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
    until("the run has ended", || watch.runs_with("converged") == 2);
    assert_eq!(web.sighups(), signals + 1);
}

#[test]
fn prometheus_follows_its_config_and_a_bad_one_touches_nothing() {
    let Some(prometheus) = services::prometheus() else {
        return;
    };
    let daemon = &prometheus.daemon;
    daemon.write(
        "fleet.toml",
        &format!(
            "version = 1\n[[group]]\nname = \"one\"\nkind = \"prometheus\"\n\
             match = {{ exe = \"prometheus\", args = [\"--config.file={}\"] }}\n",
            daemon.path("prometheus.yml").display()
        ),
    );
    let watch = start(daemon);
    let interval = || {
        let yaml = prometheus.json("/api/v1/status/config", "/data/yaml");
        yaml.is_some_and(|yaml| yaml.as_str().unwrap().contains("scrape_interval: 30s"))
    };
    daemon.write("prometheus.yml", "global:\n  scrape_interval: 30s\n");
    until("it has loaded it", interval);
    until("the run has ended", || watch.runs_with("converged") == 2);
    daemon.write("prometheus.yml", "global:\n  scrape_intervall: 40s\n");
    until("it is refused", || watch.runs_with("invalid") > 0);
    assert!(interval(), "it keeps the old config");
    let succeeded =
        || watch.metric("hello_watch_last_reload_successful{group=\"one\"}") == Some(1.0);
    daemon.write("prometheus.yml", "global:\n  scrape_interval: 30s\n");
    until("it has converged", succeeded);
    // It passes the validator, and the daemon rejects it: the certificate is none.
    daemon.write("ca.pem", "none\n");
    daemon.write(
        "prometheus.yml",
        "global:\n  scrape_interval: 40s\nalerting:\n  alertmanagers:\n  - scheme: https\n    \
         tls_config: { ca_file: ca.pem }\n",
    );
    until("it is rolled back", || watch.runs_with("reverted") == 1);
    until("it runs the old config", interval);
    assert!(!succeeded(), "{}", watch.text());
}
