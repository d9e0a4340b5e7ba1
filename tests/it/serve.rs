//! `hello serve` and `hello check`: their answers, and the effect of a reload.

use std::{
    io::{BufRead, Read, Write},
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Fleet, Killed, get, run_to_end, until};

fn reported_config(fleet: &Fleet) -> Value {
    serde_json::from_str(&get(fleet.url(0), "/-/config").1).unwrap()
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("no {name} in {head}"))
}

#[test]
fn an_answer_carries_the_message_and_its_own_proof() {
    let fleet = Fleet::start(1);
    let (head, body) = get(fleet.url(0), "/");
    assert_eq!(body, "one", "exactly the bytes of the message");
    assert_eq!(header(&head, "content-type"), "text/plain; charset=utf-8");
    let told = reported_config(&fleet);
    assert_eq!(
        header(&head, "x-config-sha256"),
        told["effective"]["sha256"].as_str().unwrap()
    );
    assert_eq!(header(&head, "x-config-generation"), "1");
    assert_eq!(
        header(&head, "x-instance"),
        format!("{}:{}", fleet.pid(0), told["instance"]["started"])
    );
    assert_eq!(told["v"], 1);
    assert_eq!(told["instance"]["pid"], fleet.pid(0));
    assert_eq!(
        told["effective"]["path"],
        fleet.path("web.toml").to_str().unwrap()
    );
    assert_eq!(
        (
            &told["last_attempt"]["seq"],
            &told["last_attempt"]["result"]
        ),
        (&Value::from(1), &Value::from("applied"))
    );
    assert_eq!(told["restart_only"]["listen"], "127.0.0.1:0");
}

#[test]
fn every_method_is_answered_with_the_same_proof() {
    let fleet = Fleet::start(1);
    let ask = |method: &str| {
        let mut stream = std::net::TcpStream::connect(
            fleet
                .url(0)
                .trim_start_matches("http://")
                .trim_end_matches('/'),
        )
        .unwrap();
        write!(
            stream,
            "{method} /?x=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines: Vec<String> = head
            .to_lowercase()
            .lines()
            .filter(|line| !line.starts_with("date:"))
            .map(str::to_owned)
            .collect();
        lines.sort();
        (lines, body.to_owned())
    };
    let (get, head, post) = (ask("GET"), ask("HEAD"), ask("POST"));
    assert_eq!(
        (&get.0, get.1.as_str(), head.1.as_str()),
        (&head.0, "one", "")
    );
    assert!(
        post.0
            .contains(&"http/1.1 405 method not allowed".to_owned()),
        "{post:?}"
    );
    let proof = |lines: &[String]| {
        lines
            .iter()
            .filter(|line| line.starts_with("x-"))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!((proof(&get.0).len(), proof(&get.0)), (3, proof(&post.0)));
}

#[test]
fn sighup_swaps_the_message() {
    let fleet = Fleet::start(1);
    let before = reported_config(&fleet);
    fleet.write("web.toml", "message = \"two\"\nlisten = \"127.0.0.1:0\"\n");
    assert_eq!(fleet.bodies(), ["one"], "not before the signal");
    fleet.signal(0, Signal::SIGHUP);
    until("it serves the new message", || fleet.bodies() == ["two"]);
    let after = reported_config(&fleet);
    assert_eq!(
        (
            &after["effective"]["generation"],
            &after["last_attempt"]["result"]
        ),
        (&Value::from(2), &Value::from("applied"))
    );
    assert_ne!(after["effective"]["sha256"], before["effective"]["sha256"]);
    assert_eq!(after["instance"], before["instance"], "the same process");
}

#[test]
fn a_request_after_sighup_is_answered_by_the_new_config_at_once() {
    let fleet = Fleet::start(1);
    for round in 0..200 {
        let message = format!("round {round}");
        fleet.write(
            "web.toml",
            &format!("message = \"{message}\"\nlisten = \"127.0.0.1:0\"\n"),
        );
        fleet.signal(0, Signal::SIGHUP);
        assert_eq!(fleet.bodies(), [message]);
    }
    assert_eq!(fleet.attempts(), [201], "each was loaded once");
}

#[test]
fn a_rejected_config_changes_neither_message_nor_generation() {
    let fleet = Fleet::start(1);
    for (seq, text, result) in [
        (
            2,
            "message = \"two\"\nlisne = \"127.0.0.1:0\"\n",
            "rejected",
        ),
        (
            3,
            "message = \"two\"\nlisten = \"127.0.0.1:1\"\n",
            "restart_required",
        ),
    ] {
        fleet.write("web.toml", text);
        fleet.signal(0, Signal::SIGHUP);
        until("it looked", || fleet.attempts() == [seq]);
        let told = reported_config(&fleet);
        assert_eq!(told["last_attempt"]["result"], result, "{told:#}");
        assert_eq!(told["effective"]["generation"], 1);
        assert_eq!(fleet.bodies(), ["one"]);
    }
    assert_eq!(
        reported_config(&fleet)["restart_required"],
        serde_json::json!(["listen"])
    );
    std::fs::remove_file(fleet.path("web.toml")).unwrap();
    fleet.signal(0, Signal::SIGHUP);
    until("it looked", || fleet.attempts() == [4]);
    assert_eq!(
        reported_config(&fleet)["last_attempt"]["result"],
        "io_error"
    );
    assert_eq!(fleet.bodies(), ["one"]);
}

#[test]
fn check_distinguishes_valid_invalid_and_unreadable() {
    let fleet = Fleet::start(0);
    let check = |path: &std::path::Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_hello"))
            .arg("check")
            .arg(path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(check(&fleet.path("web.toml")).0, Some(0));
    let (code, stderr) =
        check(&fleet.write("broken.toml", "message = \"x\"\nlisne = \"127.0.0.1:0\"\n"));
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("listen"), "{stderr}");
    assert_eq!(check(fleet.dir.path()).0, Some(4));
    assert_eq!(check(&fleet.path("none.toml")).0, Some(1));
}

#[test]
fn metrics_show_the_served_config_and_the_reload_results() {
    let fleet = Fleet::start(1);
    fleet.broadcast(&["--set", "message=two"]).expect(0);
    fleet.write("web.toml", "message = 1\n");
    fleet.signal(0, Signal::SIGHUP);
    until("it looked", || fleet.attempts() == [3]);
    let (head, page) = get(fleet.url(0), "/-/metrics");
    assert!(
        header(&head, "content-type").starts_with("application/openmetrics-text"),
        "{head}"
    );
    let sha256 = reported_config(&fleet)["effective"]["sha256"]
        .as_str()
        .unwrap()
        .to_owned();
    for line in [
        format!("hello_config_info{{sha256=\"{sha256}\"}} 1"),
        "hello_config_last_reload_successful 0".into(),
        "hello_config_reloads_total{result=\"applied\"} 1".into(),
        "hello_config_reloads_total{result=\"rejected\"} 1".into(),
        "hello_config_reload_duration_seconds_count 2".into(),
    ] {
        assert!(page.lines().any(|l| l == line), "no {line} in\n{page}");
    }
    assert!(
        page.contains("hello_config_last_reload_success_timestamp_seconds 1"),
        "{page}"
    );
    assert!(page.contains("hello_http_requests_total "), "{page}");
    assert!(page.ends_with("# EOF\n"), "{page}");
}

#[test]
fn a_forwarded_request_gets_no_proof() {
    let fleet = Fleet::start(1);
    let address = fleet
        .url(0)
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    for (name, path, wanted) in [
        ("X-Forwarded-For", "/-/config", "403"),
        ("Forwarded", "/-/metrics", "403"),
        ("X-Other", "/-/config", "200"),
        ("Forwarded", "/", "200"),
    ] {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\n{name}: 10.0.0.1\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(
            text.starts_with(&format!("HTTP/1.1 {wanted}")),
            "{name} {path}: {text}"
        );
    }
}

#[test]
fn a_burst_of_signals_ends_on_the_newest_file() {
    let fleet = Fleet::start(1);
    for n in 0..1000 {
        if n % 100 == 0 {
            fleet.write(
                "web.toml",
                &format!("message = \"{n}\"\nlisten = \"127.0.0.1:0\"\n"),
            );
        }
        fleet.signal(0, Signal::SIGHUP);
    }
    until("it serves what stood there at the last signal", || {
        fleet.bodies() == ["900"]
    });
    let told = reported_config(&fleet);
    assert!(
        told["last_attempt"]["seq"].as_u64().unwrap() <= 1001,
        "{told:#}"
    );
}

#[test]
fn two_reloads_within_a_second_and_a_return_to_the_same_bytes_are_distinguished() {
    let fleet = Fleet::start(1);
    let (one, two) = (
        fleet.text(),
        "message = \"two\"\nlisten = \"127.0.0.1:0\"\n",
    );
    for (seq, text, result) in [
        (2, two, "applied"),
        (3, &one, "applied"),
        (4, "broken", "rejected"),
        (5, &one, "unchanged"),
        (6, two, "applied"),
    ] {
        fleet.write("web.toml", text);
        fleet.signal(0, Signal::SIGHUP);
        until("it looked", || fleet.attempts() == [seq]);
        assert_eq!(reported_config(&fleet)["last_attempt"]["result"], result);
    }
    assert_eq!(reported_config(&fleet)["effective"]["generation"], 4);
    assert_eq!(
        std::fs::read_dir(format!("/proc/{}/task", fleet.pid(0)))
            .unwrap()
            .count(),
        1,
        "one thread"
    );
}

/// A server that the test starts itself.
struct Own(Killed, String);

impl Own {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        let stdout = child.stdout.take().unwrap();
        let mut own = Self(Killed(child), String::new());
        std::io::BufReader::new(stdout).read_line(&mut url).unwrap();
        own.1 = url.trim().to_owned();
        assert!(!own.1.is_empty(), "the server ended before it served");
        own
    }

    fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap()),
            signal,
        )
        .unwrap();
    }
}

#[test]
fn an_inherited_ignored_signal_is_handled_anyway() {
    let fleet = Fleet::start(0);
    let script = "trap '' HUP; exec \"$0\" serve --config \"$1\"";
    let own = Own::start(
        Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_hello")])
            .arg(fleet.path("web.toml")),
    );
    fleet.write("web.toml", "message = \"two\"\nlisten = \"127.0.0.1:0\"\n");
    own.signal(Signal::SIGHUP);
    until("it serves the new message", || get(&own.1, "/").1 == "two");
}

#[test]
fn a_drain_finishes_open_requests_and_closes_idle_connections() {
    let fleet = Fleet::start(0);
    let mut own = Own::start(
        Command::new(env!("CARGO_BIN_EXE_hello"))
            .args(["serve", "--drain", "20s", "--config"])
            .arg(fleet.path("web.toml")),
    );
    let connect = || {
        std::net::TcpStream::connect(own.1.trim_start_matches("http://").trim_end_matches('/'))
            .unwrap()
    };
    let mut idle = connect();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut answer = [0; 512];
    assert!(idle.read(&mut answer).unwrap() > 0, "a kept connection");
    let mut open = connect();
    open.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
    own.signal(Signal::SIGTERM);
    // A client finishes a half-sent request during the drain, or the server closes it. A half
    // answer is never seen.
    let _ = open.write_all(b"st: x\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    if open.read_to_string(&mut text).is_ok() && !text.is_empty() {
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.ends_with("one"), "{text}");
    }
    until("it ended long before the limit of the drain", || {
        own.0.try_wait().unwrap().is_some()
    });
    assert_eq!(own.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_unix_socket_is_served_found_and_removed() {
    let fleet = Fleet::start(0);
    let socket = fleet.path("web.sock");
    fleet.write(
        "web.toml",
        &format!(
            "message = \"one\"\nlisten = \"unix:{}\"\n",
            socket.display()
        ),
    );
    let mut own = Own::start(
        Command::new(fleet.exe())
            .args(["serve", "--config"])
            .arg(fleet.path("web.toml")),
    );
    assert_eq!(own.1, format!("unix:{}", socket.display()));
    fleet
        .broadcast(&["--validate", "--set", "message=two"])
        .expect(0);
    own.signal(Signal::SIGTERM);
    until("it ended", || own.0.try_wait().unwrap().is_some());
    assert!(!socket.exists());
}

#[test]
fn only_a_stale_socket_is_replaced_by_a_server() {
    let fleet = Fleet::start(0);
    let path = fleet.path("web.sock");
    let serve = || {
        let listen = format!("unix:{}", path.display());
        let mut command = Command::new(fleet.exe());
        command
            .args(["serve", "--listen", &listen, "--config"])
            .arg(fleet.path("web.toml"))
            .stdin(Stdio::null());
        command
    };
    let refused = |what: &str| {
        let before = path.symlink_metadata().unwrap();
        let ended = run_to_end(&mut serve());
        assert!(ended.code == Some(1), "{what}: {}", ended.stderr);
        assert!(ended.stderr.contains(what), "{what}: {}", ended.stderr);
        assert_eq!(
            before.ino(),
            path.symlink_metadata().unwrap().ino(),
            "it stays"
        );
    };
    std::fs::write(&path, "precious").unwrap();
    refused("a regular file");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused("a FIFO");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(fleet.path("web.toml"), &path).unwrap();
    refused("a symbolic link");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    refused("a directory");
    std::fs::remove_dir(&path).unwrap();
    let live = std::os::unix::net::UnixListener::bind(&path).unwrap();
    refused("a process listens there");
    drop(live);
    // A stale socket of an earlier server.
    let mut own = Own::start(&mut serve());
    // A socket that another process created while it served is not its own to remove.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    own.signal(Signal::SIGTERM);
    until("it ended", || own.0.try_wait().unwrap().is_some());
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn the_service_manager_is_notified_after_every_reload() {
    let fleet = Fleet::start(0);
    let path = fleet.path("notify.sock");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(std::time::Duration::from_secs(30)))
        .unwrap();
    let heard = || {
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let own = Own::start(
        Command::new(env!("CARGO_BIN_EXE_hello"))
            .args(["serve", "--config"])
            .arg(fleet.path("web.toml"))
            .env("NOTIFY_SOCKET", &path),
    );
    assert!(heard().contains("READY=1"));
    for (text, status) in [
        ("message = \"two\"\nlisten = \"127.0.0.1:0\"\n", "Applied"),
        ("message = 1\n", "Rejected"),
    ] {
        fleet.write("web.toml", text);
        own.signal(Signal::SIGHUP);
        let notification = heard();
        assert!(notification.contains("RELOADING=1"), "{notification}");
        assert!(notification.contains("MONOTONIC_USEC="), "{notification}");
        let notification = heard();
        assert!(notification.contains("READY=1"), "{notification}");
        assert!(notification.contains("STATUS="), "{notification}");
        assert!(notification.contains(status), "{notification}");
    }
}
