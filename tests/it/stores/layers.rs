//! `hello serve --store URL`: a key lies over the file, and a store that is away changes nothing.

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::http_server::{HttpServer, Mode, answer};
use crate::support::{CommandEnd, Fleet, get, run_to_end, until};

const KEY: &str = "/layer.toml";
/// The deadline of a request: a busy machine answers in time, and a silent store is waited for.
const LATE: &str = "5s";

/// Servers with a file, and a key over it.
struct Testbed {
    fleet: Fleet,
    store: HttpServer,
}

impl Testbed {
    /// Starts the store, with this value, and no server.
    fn new(value: &str) -> Self {
        let testbed = Self {
            fleet: Fleet::start(0),
            store: HttpServer::start(),
        };
        testbed.store.write(KEY, value.as_bytes());
        let table = format!(
            "version = 1\n[[store]]\nurl = \"{}\"\ntimeout = \"{LATE}\"\n",
            testbed.store.url("")
        );
        testbed.fleet.write("stores.toml", &table);
        testbed
    }

    fn start(value: &str) -> Self {
        let mut testbed = Self::new(value);
        testbed.serve();
        testbed
    }

    /// Starts one more server.
    fn serve(&mut self) {
        let args = self.args();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.fleet.serve_with("web.toml", &args);
    }

    fn args(&self) -> Vec<String> {
        let stores = self.fleet.path("stores.toml");
        let last_good = self.fleet.path("last-good");
        vec![
            "--store".into(),
            self.store.url(KEY),
            "--fleet".into(),
            stores.to_str().unwrap().into(),
            "--last-good".into(),
            last_good.to_str().unwrap().into(),
        ]
    }

    fn file(&self, message: &str) {
        let text = format!("message = \"{message}\"\nlisten = \"127.0.0.1:0\"\n");
        self.fleet.write("web.toml", &text);
    }

    fn body(&self) -> String {
        get(self.fleet.url(0), "/").1
    }

    fn report(&self) -> Value {
        serde_json::from_str(&get(self.fleet.url(0), "/-/config").1).unwrap()
    }

    /// Sends SIGHUP, and returns the report after the attempt that it caused.
    fn reload(&self) -> Value {
        let seq = |report: &Value| report["last_attempt"]["seq"].as_u64().unwrap();
        let before = seq(&self.report());
        self.fleet.signal(0, Signal::SIGHUP);
        until("the reload ends", || seq(&self.report()) > before);
        self.report()
    }

    /// Runs a server that must not start, to its end.
    fn fails_to_start(&self, more: &[&str]) -> CommandEnd {
        let mut serve = std::process::Command::new(self.fleet.exe());
        serve
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(more)
            .stdin(Stdio::null());
        run_to_end(&mut serve)
    }
}

#[test]
fn the_key_wins_over_the_file_key_by_key() {
    let testbed = Testbed::start("message = \"of the store\"\n");
    assert_eq!(testbed.body(), "of the store");
    // `listen` comes from the file.
    assert_eq!(testbed.report()["restart_only"]["listen"], "127.0.0.1:0");
}

#[test]
fn the_report_names_each_layer_with_its_digest_and_revision() {
    let testbed = Testbed::start("message = \"of the store\"\n");
    let report = testbed.report();
    let layers = &report["effective"]["layers"];
    assert_eq!(
        layers[0]["path"],
        testbed.fleet.path("web.toml").to_str().unwrap()
    );
    assert_eq!(layers[1]["url"], testbed.store.url(KEY));
    assert_eq!(layers[1]["rev"], "\"1\"");
    let lines = [0, 1].map(|n| format!("sha256:{}\n", layers[n]["sha256"].as_str().unwrap()));
    let digest = hello::config::digest(lines.concat().as_bytes());
    assert_eq!(report["effective"]["sha256"], digest);
    let head = get(testbed.fleet.url(0), "/").0;
    assert!(
        head.contains(&format!("x-config-sha256: {digest}")),
        "{head}"
    );
    let file = layers[0]["sha256"].as_str().unwrap();
    assert!(
        head.contains(&format!("x-config-file-sha256: {file}")),
        "{head}"
    );
}

#[test]
fn each_layer_may_change_first() {
    let testbed = Testbed::start("log = \"info\"\n");
    assert_eq!(testbed.body(), "one");
    testbed.file("two");
    assert_eq!(testbed.reload()["last_attempt"]["result"], "applied");
    assert_eq!(testbed.body(), "two");
    testbed.store.write(KEY, b"message = \"three\"\n");
    assert_eq!(testbed.reload()["last_attempt"]["result"], "applied");
    assert_eq!(testbed.body(), "three");
    // A change below a key that the store gives is applied, and changes no answer.
    testbed.file("four");
    assert_eq!(testbed.reload()["last_attempt"]["result"], "applied");
    assert_eq!(testbed.body(), "three");
    testbed.store.write(KEY, b"log = \"info\"\n");
    testbed.reload();
    assert_eq!(testbed.body(), "four");
    assert_eq!(testbed.reload()["last_attempt"]["result"], "unchanged");
}

#[test]
fn a_server_may_have_a_store_and_no_file() {
    let mut testbed = Testbed::new("message = \"alone\"\nlisten = \"127.0.0.1:0\"\n");
    let mut serve = std::process::Command::new(testbed.fleet.exe());
    serve.args(["serve", "--store", &testbed.store.url(KEY)]);
    let url = testbed.fleet.serve_command(&mut serve);
    assert_eq!(get(&url, "/").1, "alone");
}

#[test]
fn a_fault_of_the_store_keeps_the_old_config_and_says_why() {
    let testbed = Testbed::start("message = \"of the store\"\n");
    testbed.file("another");
    let large = vec![b'#'; (1 << 20) + 1];
    for (mode, result, wanted) in [
        (Mode::Silent, "io_error", "within 5s"),
        (Mode::Drips, "io_error", "within 5s"),
        (
            Mode::Answers(answer("500 Internal Server Error", "", b"broken")),
            "io_error",
            "500",
        ),
        (
            Mode::Answers(answer("404 Not Found", "", b"")),
            "io_error",
            "no such key",
        ),
        (
            Mode::Answers(answer("200 OK", "", b"")),
            "io_error",
            "empty",
        ),
        (
            Mode::Answers(answer("200 OK", "", &large)),
            "io_error",
            "larger than",
        ),
        (
            Mode::Answers(answer("200 OK", "", b"\x1b[2Jgarbage")),
            "rejected",
            "line 1",
        ),
        (
            Mode::Answers(answer("200 OK", "", b"mesage = 1\n")),
            "rejected",
            "did you mean `message`?",
        ),
    ] {
        testbed.store.set(mode.clone());
        let attempt = &testbed.reload()["last_attempt"];
        assert_eq!(attempt["result"], result, "{mode:?}: {attempt}");
        let error = attempt["error"].as_str().unwrap();
        assert!(error.contains(&testbed.store.url(KEY)), "{error}");
        assert!(error.contains(wanted), "{wanted}: {error}");
        assert_eq!(testbed.body(), "of the store");
    }
    testbed.store.set(Mode::Serves(""));
    assert_eq!(testbed.reload()["last_attempt"]["result"], "applied");
}

#[test]
fn requests_are_answered_while_a_reload_waits_for_the_store() {
    let testbed = Testbed::start("message = \"of the store\"\n");
    testbed.store.set(Mode::Silent);
    let asked = testbed.store.requests();
    testbed.fleet.signal(0, Signal::SIGHUP);
    until("the store is asked", || testbed.store.requests() > asked);
    assert_eq!(testbed.body(), "of the store");
    assert_eq!(testbed.report()["last_attempt"]["seq"], 1);
}

#[test]
fn a_signal_during_a_reload_leads_to_one_more() {
    let testbed = Testbed::start("message = \"one\"\n");
    testbed.store.set(Mode::Silent);
    let asked = testbed.store.requests();
    testbed.fleet.signal(0, Signal::SIGHUP);
    until("the store is asked", || testbed.store.requests() > asked);
    testbed.store.write(KEY, b"message = \"two\"\n");
    testbed.store.set(Mode::Serves(""));
    testbed.fleet.signal(0, Signal::SIGHUP);
    until("the later value is served", || testbed.body() == "two");
    assert_eq!(testbed.report()["last_attempt"]["seq"], 3);
}

#[test]
fn a_start_without_the_store_serves_the_last_good_config_and_says_so() {
    let mut testbed = Testbed::start("message = \"first\"\n");
    testbed.store.write(KEY, b"message = \"second\"\n");
    testbed.reload();
    // It is kept after the reload was reported.
    let kept = testbed.fleet.path("last-good/last-good.json");
    until("the config is kept", || {
        std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("second"))
    });
    testbed.fleet.kill(0);
    testbed.store.set(Mode::Silent);
    testbed.serve();
    let url = testbed.fleet.url(1).to_owned();
    assert_eq!(get(&url, "/").1, "second");
    let report: Value = serde_json::from_str(&get(&url, "/-/config").1).unwrap();
    let why = report["degraded"].as_str().unwrap();
    assert!(why.contains("within 5s"), "{why}");
    let metric = |value| {
        let line = format!("hello_config_degraded {value}");
        get(&url, "/-/metrics").1.lines().any(|l| l == line)
    };
    assert!(metric(1), "the metric says so");
    // The store is back.
    testbed.store.set(Mode::Serves(""));
    testbed.fleet.signal(1, Signal::SIGHUP);
    let degraded = || {
        let report: Value = serde_json::from_str(&get(&url, "/-/config").1).unwrap();
        !report["degraded"].is_null()
    };
    until("it is not degraded any more", || !degraded());
    assert!(metric(0), "the metric says so");
}

#[test]
fn a_start_without_the_store_and_without_a_last_good_config_fails() {
    let testbed = Testbed::new("message = \"x\"\n");
    testbed
        .store
        .set(Mode::Answers(answer("503 Busy", "", b"")));
    let url = testbed.store.url(KEY);
    let end = testbed.fails_to_start(&["--store", &url]);
    assert_eq!(end.code, Some(1), "{}", end.stderr);
    assert!(end.stderr.contains("503"), "{}", end.stderr);
    let last_good = testbed.fleet.path("none");
    let last_good = last_good.to_str().unwrap();
    let end = testbed.fails_to_start(&["--store", &url, "--last-good", last_good]);
    assert_eq!(end.code, Some(1), "{}", end.stderr);
    assert!(end.stderr.contains("last-good.json"), "{}", end.stderr);
}

#[test]
fn a_last_good_config_does_not_hide_a_value_that_is_not_valid() {
    let testbed = Testbed::start("message = \"first\"\n");
    testbed.store.write(KEY, b"mesage = 1\n");
    let mut args: Vec<String> = vec!["--config".into()];
    args.push(testbed.fleet.path("web.toml").to_str().unwrap().into());
    args.extend(testbed.args());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let end = testbed.fails_to_start(&args);
    assert_eq!(end.code, Some(1), "{}", end.stderr);
    assert!(end.stderr.contains("did you mean"), "{}", end.stderr);
}

#[test]
fn a_broadcast_proves_the_file_below_the_key_of_a_store() {
    let mut testbed = Testbed::new("log = \"info\"\n");
    testbed.serve();
    testbed.serve();
    let new = testbed
        .fleet
        .write("new.toml", "message = \"two\"\nlisten = \"127.0.0.1:0\"\n");
    let result = testbed
        .fleet
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(0);
    assert_eq!(result.states(), ["confirmed", "confirmed"]);
    assert_eq!(testbed.fleet.bodies(), ["two", "two"]);
    // A store that is away fails the reload, and everything is rolled back.
    testbed
        .store
        .set(Mode::Answers(answer("503 Busy", "", b"")));
    let newer = testbed.fleet.write(
        "newer.toml",
        "message = \"three\"\nlisten = \"127.0.0.1:0\"\n",
    );
    let result = testbed
        .fleet
        .broadcast(&["--config", newer.to_str().unwrap()]);
    assert_ne!(result.code, 0, "{}", result.stderr);
    assert_eq!(testbed.fleet.bodies(), ["two", "two"]);
}

/// Gives the group of the servers an assertion that does not depend on the file alone.
fn confirm_health(fleet: &Fleet) {
    let confirm = "[[group.confirm]]\nhttp = \"http://{listen}/-/healthy\"\n\
                   read = \"status\"\nequals = \"200\"\n";
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write("fleet.toml", &format!("{text}{confirm}"));
}

#[test]
fn a_broadcast_of_the_same_file_reloads_a_key_that_has_changed() {
    let mut testbed = Testbed::new("log = \"info\"\n");
    testbed.serve();
    testbed.serve();
    confirm_health(&testbed.fleet);
    testbed.store.write(KEY, b"message = \"of the store\"\n");
    let result = testbed.fleet.broadcast(&["web"]).expect(0);
    assert_eq!(result.states(), ["confirmed", "confirmed"]);
    assert_eq!(result.json["instances"][0]["proof"], "exact");
    assert_eq!(testbed.fleet.bodies(), ["of the store", "of the store"]);
}

#[test]
fn a_broadcast_of_the_same_file_proves_nothing_of_a_server_that_refuses_its_key() {
    let testbed = Testbed::start("log = \"info\"\n");
    confirm_health(&testbed.fleet);
    for mode in [
        Mode::Answers(answer("200 OK", "", b"mesage = 1\n")),
        Mode::Answers(answer("503 Busy", "", b"")),
    ] {
        testbed.store.set(mode);
        let result = testbed.fleet.broadcast(&["web"]).expect(6);
        assert_eq!(result.states(), ["reverted"]);
        assert_eq!(testbed.body(), "one");
    }
}

#[test]
fn check_judges_the_layers_as_a_server_merges_them() {
    let testbed = Testbed::new("message = \"x\"\n");
    let part = testbed.fleet.write("part.toml", "log = \"info\"\n");
    let mut check = std::process::Command::new(testbed.fleet.exe());
    check.arg("check").arg(&part);
    assert_eq!(run_to_end(&mut check).code, Some(4), "no message");
    check.args(["--store", &testbed.store.url(KEY)]);
    let end = run_to_end(&mut check);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    testbed.store.write(KEY, b"mesage = 1\n");
    let end = run_to_end(&mut check);
    assert_eq!(end.code, Some(4), "{}", end.stderr);
    testbed
        .store
        .set(Mode::Answers(answer("503 Busy", "", b"")));
    let end = run_to_end(&mut check);
    assert_eq!(end.code, Some(1), "{}", end.stderr);
}

#[test]
fn a_url_with_a_password_is_refused_before_anything_is_served() {
    let testbed = Testbed::new("message = \"x\"\n");
    let end = testbed.fails_to_start(&["--store", "https://me:geheim@store.test/a"]);
    assert_eq!(end.code, Some(2), "{}", end.stderr);
    assert!(!end.stderr.contains("geheim"), "{}", end.stderr);
}
