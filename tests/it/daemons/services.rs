//! Services that report their config over HTTP or DNS, and programs that do not reload.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpStream, UdpSocket},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{Daemon, command, folder, free_port, need, words};
use crate::support::{until, write};

/// The time limit for one answer. A busy machine needs seconds.
const ANSWER: Duration = Duration::from_secs(20);
/// The longest answer that is read, in bytes. A page of metrics is shorter.
const LONGEST: u64 = 4 << 20;

/// A daemon, and the loopback port that reports its state.
pub(crate) struct Service {
    pub(crate) daemon: Daemon,
    pub(crate) port: u16,
}

impl Service {
    /// Waits until it answers. Fails with its log if it ends before.
    pub(super) fn start(daemon: Daemon, port: u16, mut answers: impl FnMut(&Self) -> bool) -> Self {
        let service = Self { daemon, port };
        until("it answers", || {
            let runs = service.daemon.runs();
            let there = answers(&service);
            assert!(there || runs, "it ended: {}", service.daemon.log());
            there
        });
        service
    }

    pub(super) fn connect(&self) -> Option<TcpStream> {
        let stream =
            TcpStream::connect_timeout(&([127, 0, 0, 1], self.port).into(), ANSWER).ok()?;
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        Some(stream)
    }

    /// Returns the body of an answer with status 200. `None` also if nothing listens yet.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut stream = self.connect()?;
        // In HTTP/1.1 a Go server sends a long answer in chunks.
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.take(LONGEST).read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        (head.split(' ').nth(1)? == "200").then(|| body.to_owned())
    }

    /// Returns a value of the JSON at a path.
    pub(crate) fn json(&self, path: &str, pointer: &str) -> Option<Value> {
        serde_json::from_str::<Value>(&self.get(path)?)
            .ok()?
            .pointer(pointer)
            .cloned()
    }

    /// Returns a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        self.get("/metrics")?
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }
}

/// Waits until a file is older than a process that starts now, by more than the granularity of both
/// clocks.
pub(super) fn aged(file: PathBuf) -> PathBuf {
    let changed =
        || SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(ctime(&file)).unwrap());
    until("the file is a little older", || {
        changed()
            .elapsed()
            .is_ok_and(|age| age > Duration::from_millis(60))
    });
    file
}

/// Returns the time of the last status change of a file, in nanoseconds since 1970.
pub(crate) fn ctime(file: &Path) -> i64 {
    let meta = file.metadata().unwrap();
    meta.ctime() * 1_000_000_000 + meta.ctime_nsec()
}

/// Starts Prometheus. `prometheus.yml` scrapes nothing, every 15 s.
pub(crate) fn prometheus() -> Option<Service> {
    let dir = folder();
    let config = write(
        &dir.path().join("prometheus.yml"),
        "global:\n  scrape_interval: 15s\n",
    );
    prometheus_of(dir, &config)
}

/// Starts Prometheus in `dir`, with a config that may be elsewhere.
pub(crate) fn prometheus_of(dir: TempDir, config: &Path) -> Option<Service> {
    let there = need("prometheus") && need("promtool");
    there.then(|| {
        let port = free_port();
        let mut command = command("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        Service::start(Daemon::spawn(dir, &mut command), port, |s| {
            s.get("/-/ready").is_some()
        })
    })
}

/// Starts Alertmanager without a cluster. `alertmanager.yml` has a receiver without a target, and a
/// `group_wait` of 30 s.
pub(crate) fn alertmanager() -> Option<Service> {
    alertmanager_at("")
}

/// Does the same with a second socket for its peers, as is its default.
pub(crate) fn clustered_alertmanager() -> Option<Service> {
    alertmanager_at(&format!("127.0.0.1:{}", free_port()))
}

fn alertmanager_at(cluster: &str) -> Option<Service> {
    let there = need("prometheus-alertmanager") && need("amtool");
    there.then(|| {
        let (dir, port) = (folder(), free_port());
        let text = "route:\n  receiver: nobody\n  group_wait: 30s\nreceivers:\n- name: nobody\n";
        let config = write(&dir.path().join("alertmanager.yml"), text);
        let mut command = command("prometheus-alertmanager");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.path={}",
                dir.path().join("data").display()
            ));
        command
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!("--cluster.listen-address={cluster}"));
        Service::start(Daemon::spawn(dir, &mut command), port, |s| {
            s.get("/-/ready").is_some()
        })
    })
}

/// The place that configures the monitor of nats-server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Monitor {
    CommandLine,
    Config,
    /// Nowhere: it has no monitor, and the port is that of its clients.
    None,
}

/// Starts nats-server. `nats.conf` has a `max_payload` of 1 MiB. The port is its monitor; clients
/// have another one.
pub(crate) fn nats(monitor: Monitor) -> Option<Service> {
    need("nats-server").then(|| {
        let (dir, port, clients) = (folder(), free_port(), free_port());
        let http = if monitor == Monitor::Config {
            format!("http: \"127.0.0.1:{port}\"\n")
        } else {
            String::new()
        };
        let config = write(
            &dir.path().join("nats.conf"),
            &format!("listen: \"127.0.0.1:{clients}\"\n{http}max_payload: 1048576\n"),
        );
        let mut command = command("nats-server");
        command.arg("-c").arg(config);
        if monitor == Monitor::CommandLine {
            command.args(["-m", &port.to_string()]);
        }
        let daemon = Daemon::spawn(dir, &mut command);
        match monitor {
            Monitor::None => Service::start(daemon, clients, |s| s.connect().is_some()),
            _ => Service::start(daemon, port, |s| s.get("/varz").is_some()),
        }
    })
}

/// Starts dnsmasq, as the user of its package if the tests are root. `hosts` has `a.test` at
/// 192.0.2.1, `dnsmasq.conf` has `conf.test` at 192.0.2.50.
pub(crate) fn dnsmasq() -> Option<Service> {
    let there = need("dnsmasq") && need("dig");
    there.then(|| {
        // Its probe uses UDP.
        let (dir, port) = (
            folder(),
            std::iter::repeat_with(free_port)
                .find(|p| UdpSocket::bind(("127.0.0.1", *p)).is_ok())
                .unwrap(),
        );
        let config = aged(write(
            &dir.path().join("dnsmasq.conf"),
            "no-resolv\nno-hosts\naddress=/conf.test/192.0.2.50\n",
        ));
        let hosts = write(&dir.path().join("hosts"), "192.0.2.1 a.test\n");
        let mut command = command("dnsmasq");
        command
            .arg("-C")
            .arg(config)
            .arg("-H")
            .arg(hosts)
            .arg(format!("--port={port}"));
        command.args([
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--keep-in-foreground",
            "--log-facility=-",
            "--pid-file=",
        ]);
        // By default it switches to the user of its package. Without root it stays as it is.
        Service::start(Daemon::spawn(dir, &mut command), port, |s| {
            address(s, "a.test") == "192.0.2.1"
        })
    })
}

/// Returns the address that dnsmasq has for a name. Empty for an unknown name.
pub(crate) fn address(dnsmasq: &Service, name: &str) -> String {
    let output = command("dig")
        .args(["+short", "+tries=1", "+time=5", "@127.0.0.1", "-p"])
        .arg(dnsmasq.port.to_string())
        .arg(name)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Starts rsyslog. `rsyslog.conf` takes lines over TCP and writes their text to `out`.
pub(crate) fn rsyslog() -> Option<Service> {
    need("rsyslogd").then(|| {
        let (dir, port) = (folder(), free_port());
        let text = format!(
            "module(load=\"imtcp\")\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
             template(name=\"text\" type=\"string\" string=\"%msg%\\n\")\naction(type=\"omfile\" file=\"{}\" template=\"text\")\n",
            dir.path().join("out").display()
        );
        let config = aged(write(&dir.path().join("rsyslog.conf"), &text));
        let pid_file = dir.path().join("pid");
        let mut command = command("rsyslogd");
        command.arg("-n").arg("-f").arg(config).arg("-i").arg(pid_file);
        Service::start(Daemon::spawn(dir, &mut command), port, |s| s.connect().is_some())
    })
}

/// Sends rsyslog one line.
pub(crate) fn log_line(rsyslog: &Service, text: &str) {
    writeln!(rsyslog.connect().unwrap(), "<13>test: {text}").unwrap();
}

/// Starts redis-server, which ignores the signal.
pub(crate) fn redis() -> Option<Service> {
    need("redis-server").then(|| {
        let (dir, port) = (folder(), free_port());
        let mut command = command("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--port"])
            .arg(port.to_string());
        Service::start(Daemon::spawn(dir, &mut command), port, pong)
    })
}

/// Whether redis-server answers.
pub(crate) fn pong(redis: &Service) -> bool {
    let answer = || {
        let mut stream = redis.connect()?;
        stream.write_all(b"PING\r\n").ok()?;
        let mut line = String::new();
        BufReader::new(stream.take(LONGEST))
            .read_line(&mut line)
            .ok()?;
        Some(line)
    };
    answer().is_some_and(|line| line == "+PONG\r\n")
}

/// Starts an HTTP server in Go without a handler. The Go runtime catches the signal and ends the
/// process.
pub(crate) fn plain_go() -> Option<Service> {
    need("prometheus-node-exporter").then(|| {
        let (dir, port) = (folder(), free_port());
        let mut command = unguarded("prometheus-node-exporter");
        command
            .arg("--collector.disable-defaults")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        Service::start(Daemon::spawn(dir, &mut command), port, |s| {
            s.get("/").is_some()
        })
    })
}

/// Starts `sleep`, which has no handler. No other test uses its argument.
pub(crate) fn sleep() -> Daemon {
    let sleep = Daemon::spawn(
        folder(),
        unguarded("sleep").arg(format!("600.{}", free_port())),
    );
    let is_sleep = || {
        std::fs::read_link(format!("/proc/{}/exe", sleep.pid()))
            .is_ok_and(|exe| exe.ends_with("sleep"))
    };
    // Its command line appears a little later than its executable.
    until("it sleeps", || is_sleep() && words(sleep.pid()).len() == 2);
    sleep
}

/// Returns a command that dies of the signal even if the tests run under `nohup`.
fn unguarded(name: &str) -> Command {
    let mut wrapped = command("env");
    wrapped
        .arg("--default-signal=HUP")
        .arg(command(name).get_program());
    wrapped
}

/// Whether a process catches SIGHUP, and whether it ignores it.
fn masks(pid: i32) -> (bool, bool) {
    let status = procfs::process::Process::new(pid)
        .unwrap()
        .status()
        .unwrap();
    (status.sigcgt & 1 == 1, status.sigign & 1 == 1)
}

#[test]
fn prometheus_reports_every_reload_and_every_rejection() {
    let Some(prometheus) = prometheus() else {
        return;
    };
    let runs = |interval: &str| {
        prometheus
            .json("/api/v1/status/config", "/data/yaml")
            .unwrap()
            .as_str()
            .unwrap()
            .contains(&format!("scrape_interval: {interval}\n"))
    };
    let loaded = || {
        prometheus
            .metric("prometheus_config_last_reload_success_timestamp_seconds")
            .unwrap()
    };
    let successful = || {
        prometheus
            .metric("prometheus_config_last_reload_successful")
            .unwrap()
            == 1.0
    };
    let before = loaded();
    assert!(successful());
    assert!(runs("15s"));
    prometheus
        .daemon
        .write("prometheus.yml", "global:\n  scrape_interval: 20s\n");
    prometheus.daemon.signal(Signal::SIGHUP);
    until("it has reloaded", || loaded() > before && successful());
    assert!(runs("20s"));
    // It passes promtool, which does not open the file, and cannot be applied.
    prometheus.daemon.write("ca.pem", "no certificate\n");
    let bad = "global:\n  scrape_interval: 25s\nalerting:\n  alertmanagers:\n  - scheme: https\n    tls_config: { ca_file: ca.pem }\n";
    let before = loaded();
    let path = prometheus.daemon.write("prometheus.yml", bad);
    assert!(
        command("promtool")
            .args(["check", "config"])
            .arg(path)
            .output()
            .unwrap()
            .status
            .success()
    );
    prometheus.daemon.signal(Signal::SIGHUP);
    until("it has refused", || !successful());
    assert_eq!(loaded(), before);
    prometheus
        .daemon
        .write("prometheus.yml", "global:\n  scrape_interval: 20s\n");
    prometheus.daemon.signal(Signal::SIGHUP);
    until("it runs the old config again", || {
        loaded() > before && successful()
    });
    assert!(runs("20s"));
}

#[test]
fn alertmanager_reports_every_reload_and_every_rejection() {
    let Some(alertmanager) = alertmanager() else {
        return;
    };
    let metric = |name: &str| {
        alertmanager
            .metric(&format!("alertmanager_config_{name}"))
            .unwrap()
    };
    let loaded = || metric("last_reload_success_timestamp_seconds");
    let successful = || metric("last_reload_successful") == 1.0;
    let good = std::fs::read_to_string(alertmanager.daemon.path("alertmanager.yml")).unwrap();
    let (before, hash) = (loaded(), metric("hash"));
    // It passes amtool, which does not open the file, and cannot be applied.
    alertmanager.daemon.write("ca.pem", "no certificate\n");
    let bad = format!(
        "{good}  webhook_configs:\n  - url: http://127.0.0.1:1/\n    http_config: {{ tls_config: {{ ca_file: ca.pem }} }}\n"
    );
    let path = alertmanager.daemon.write("alertmanager.yml", &bad);
    assert!(
        command("amtool")
            .arg("check-config")
            .arg(path)
            .output()
            .unwrap()
            .status
            .success()
    );
    alertmanager.daemon.signal(Signal::SIGHUP);
    until("it has refused", || !successful());
    assert_eq!((loaded(), metric("hash")), (before, hash));
    alertmanager
        .daemon
        .write("alertmanager.yml", &good.replace("30s", "20s"));
    alertmanager.daemon.signal(Signal::SIGHUP);
    until("it has reloaded", || loaded() > before && successful());
    let runs = alertmanager
        .json("/api/v2/status", "/config/original")
        .unwrap();
    assert!(
        runs.as_str().unwrap().contains("group_wait: 20s\n"),
        "{runs}"
    );
    assert!(metric("hash") != hash, "{runs}");
}

#[test]
fn nats_reports_a_reload_and_no_rejection() {
    let Some(nats) = nats(Monitor::Config) else {
        return;
    };
    let varz = |key: &str| nats.json("/varz", &format!("/{key}")).unwrap();
    let loaded = || varz("config_load_time");
    let good = std::fs::read_to_string(nats.daemon.path("nats.conf")).unwrap();
    let before = loaded();
    // It passes `-t`, and a running server cannot apply it.
    let path = nats
        .daemon
        .write("nats.conf", &format!("{good}server_name: other\n"));
    assert!(
        command("nats-server")
            .arg("-t")
            .arg("-c")
            .arg(path)
            .output()
            .unwrap()
            .status
            .success()
    );
    nats.daemon.signal(Signal::SIGHUP);
    until("it has refused", || {
        nats.daemon
            .log()
            .contains("config reload not supported for ServerName")
    });
    assert_eq!(loaded(), before);
    nats.daemon
        .write("nats.conf", &good.replace("1048576", "2097152"));
    nats.daemon.signal(Signal::SIGHUP);
    until("it has reloaded", || loaded() != before);
    assert_eq!(varz("max_payload"), 2_097_152);
}

#[test]
fn dnsmasq_rereads_its_hosts_and_never_its_config() {
    let Some(dnsmasq) = dnsmasq() else { return };
    assert_eq!(address(&dnsmasq, "conf.test"), "192.0.2.50");
    dnsmasq.daemon.write("hosts", "192.0.2.2 a.test\n");
    dnsmasq.daemon.write(
        "dnsmasq.conf",
        "no-resolv\nno-hosts\naddress=/conf.test/192.0.2.51\n",
    );
    dnsmasq.daemon.signal(Signal::SIGHUP);
    until("it has read its hosts", || {
        address(&dnsmasq, "a.test") == "192.0.2.2"
    });
    assert_eq!(address(&dnsmasq, "conf.test"), "192.0.2.50");
}

#[test]
fn rsyslog_reopens_its_files_and_never_rereads_its_config() {
    let Some(rsyslog) = rsyslog() else { return };
    let (out, old, other) = (
        rsyslog.daemon.path("out"),
        rsyslog.daemon.path("out.old"),
        rsyslog.daemon.path("other"),
    );
    let holds = |path: &std::path::Path, text: &str| {
        std::fs::read_to_string(path).is_ok_and(|t| t.contains(text))
    };
    log_line(&rsyslog, "one");
    until("the line is in the file", || holds(&out, "one"));
    let config = std::fs::read_to_string(rsyslog.daemon.path("rsyslog.conf")).unwrap();
    rsyslog.daemon.write(
        "rsyslog.conf",
        &config.replace(out.to_str().unwrap(), other.to_str().unwrap()),
    );
    std::fs::rename(&out, old).unwrap();
    rsyslog.daemon.signal(Signal::SIGHUP);
    until("it has opened its file again", || {
        log_line(&rsyslog, "two");
        holds(&out, "two")
    });
    assert!(!other.exists());
}

#[test]
fn redis_ignores_the_signal_sleep_has_no_handler_and_go_catches_it_and_dies() {
    let sleep = sleep();
    assert_eq!(masks(sleep.pid()), (false, false));
    if let Some(redis) = redis() {
        assert_eq!(masks(redis.daemon.pid()), (false, true));
        redis.daemon.signal(Signal::SIGHUP);
        assert!(pong(&redis));
    }
    if let Some(go) = plain_go() {
        assert_eq!(masks(go.daemon.pid()), (true, false));
        go.daemon.signal(Signal::SIGHUP);
        until("it has died", || !go.daemon.runs());
    }
}
