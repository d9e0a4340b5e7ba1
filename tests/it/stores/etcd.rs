//! Keys of a real etcd.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use hello::host::store::{self, PutResult, WaitResult};

use super::{LIMIT, authority::Authority, block_on, get, get_error, key, put, ready, verbs, wait};
use crate::{
    daemons::{command, free_port, need},
    support::{Killed, write},
};

/// One etcd, with its data in a folder of its own.
pub(crate) struct Etcd {
    pub(super) server: Option<Killed>,
    pub(super) dir: tempfile::TempDir,
    pub(super) port: u16,
    peers: u16,
}

impl Etcd {
    /// Starts an etcd, if there is one on this machine.
    pub(crate) fn start() -> Option<Self> {
        if !need("etcd") || !need("etcdctl") {
            return None;
        }
        let mut etcd = Self {
            server: None,
            dir: tempfile::tempdir().unwrap(),
            port: free_port(),
            peers: free_port(),
        };
        etcd.serve("http", &[]);
        ready(&etcd.key("ready"));
        Some(etcd)
    }

    pub(super) fn serve(&mut self, scheme: &str, more: &[String]) {
        let url = format!("{scheme}://127.0.0.1:{}", self.port);
        let peers = format!("http://127.0.0.1:{}", self.peers);
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let mut etcd = command("etcd");
        etcd.args(["--name", "one", "--unsafe-no-fsync", "--data-dir"])
            .arg(self.dir.path().join("data"))
            .args(["--listen-client-urls", &url])
            .args(["--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peers])
            .args(["--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("one={peers}")])
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.server = Some(Killed(etcd.spawn().unwrap()));
    }

    /// Starts it again without its data.
    pub(crate) fn lose_data(&mut self) {
        self.stop();
        std::fs::remove_dir_all(self.dir.path().join("data")).unwrap();
        self.serve("http", &[]);
        ready(&self.key("ready"));
    }

    pub(crate) fn stop(&mut self) {
        self.server = None;
    }

    /// Starts it again with its data.
    pub(crate) fn start_again(&mut self) {
        self.stop();
        self.serve("http", &[]);
        ready(&self.key("ready"));
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.as_ref().unwrap().0.id()
    }

    pub(crate) fn remove(&self, name: &str) {
        self.controlled(&["del", name]);
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("etcd+http://127.0.0.1:{}/{name}", self.port)
    }

    pub(crate) fn key(&self, name: &str) -> hello::fleet::Key {
        let table = format!(
            "[[store]]\nurl = \"{}\"\ntimeout = \"20s\"",
            self.url("").trim_end_matches('/')
        );
        key(self.dir.path(), &self.url(name), &table)
    }

    fn control(&self, args: &[&str]) -> Command {
        let mut etcdctl = command("etcdctl");
        etcdctl
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &format!("127.0.0.1:{}", self.port)])
            .args(args)
            .stdout(Stdio::null());
        etcdctl
    }

    fn controlled(&self, args: &[&str]) {
        assert!(self.control(args).status().unwrap().success(), "{args:?}");
    }
}

#[test]
fn a_key_is_read_written_and_watched() {
    let Some(etcd) = Etcd::start() else { return };
    verbs::reads_and_writes(&etcd.key("edge/nginx.conf"));
    verbs::waits(&etcd.key("wait"));
    verbs::waits_for_a_new_key(&etcd.key("new"));
    // etcdctl sees the same key, and hello its write.
    etcd.controlled(&["put", "/a b", "by etcdctl"]);
    assert_eq!(get(&etcd.key("/a%20b")).unwrap().bytes, b"by etcdctl");
    assert_eq!(get(&etcd.key("a%20b")), None);
}

#[test]
fn a_hundred_writers_lose_nothing() {
    let Some(etcd) = Etcd::start() else { return };
    verbs::writers_lose_nothing(&etcd.key("many"));
}

#[test]
fn a_removed_key_is_a_change_and_a_compacted_watch_begins_anew() {
    let Some(etcd) = Etcd::start() else { return };
    let key = etcd.key("a");
    let PutResult::Stored(known) = put(&key, "one", None) else {
        panic!("a conflict");
    };
    let PutResult::Stored(rev) = put(&etcd.key("other"), "x", None) else {
        panic!("a conflict");
    };
    etcd.controlled(&["compact", rev.as_str()]);
    assert_eq!(
        wait(&key, Some(&known), Duration::from_millis(300)),
        WaitResult::Unchanged
    );
    etcd.controlled(&["del", "a"]);
    assert_eq!(wait(&key, Some(&known), LIMIT), WaitResult::Changed(None));
    assert_eq!(put(&key, "two", Some(&known)), PutResult::Conflict);
}

#[test]
fn a_watch_whose_server_goes_ends_with_a_fresh_reading() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    let key = etcd.key("a");
    let PutResult::Stored(known) = put(&key, "one", None) else {
        panic!("a conflict");
    };
    let other = key.clone();
    let waiter = std::thread::spawn(move || {
        block_on(store::wait(&other, Some(&known), Duration::from_secs(3600)))
    });
    std::thread::sleep(Duration::from_millis(300));
    etcd.stop();
    let deadline = Instant::now() + 2 * LIMIT;
    while !waiter.is_finished() {
        assert!(Instant::now() < deadline, "it still waits");
        std::thread::sleep(Duration::from_millis(20));
    }
    let error = waiter.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
}

#[test]
fn an_etcd_over_tls_proves_its_name() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    etcd.stop();
    let at = |name: &str| etcd.dir.path().join(name).display().to_string();
    let authority = Authority::new();
    write(&etcd.dir.path().join("ca.pem"), &authority.pem());
    authority.issue(etcd.dir.path(), "server", &["127.0.0.1"]);
    let ca = format!("ca = \"{}\"", at("ca.pem"));
    let files = [
        format!("--cert-file={}", at("server.pem")),
        format!("--key-file={}", at("server.key")),
    ];
    etcd.serve("https", &files);
    let url = format!("etcd+https://127.0.0.1:{}", etcd.port);
    let with = |lines: &str| {
        let table = format!("[[store]]\nurl = \"{url}\"\n{lines}");
        key(etcd.dir.path(), &format!("{url}/a"), &table)
    };
    ready(&with(&ca));
    verbs::reads_and_writes(&with(&ca));
    verbs::waits(&with(&ca));
    let error = get_error(&with(""));
    assert!(error.contains("`ca`"), "{error}");
}

#[test]
fn a_user_logs_in_by_name_and_password() {
    let Some(etcd) = Etcd::start() else { return };
    for args in [
        &["user", "add", "root:geheim-1"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "edge:geheim-2"],
        &["role", "add", "edge"],
        &[
            "role",
            "grant-permission",
            "edge",
            "--prefix=true",
            "readwrite",
            "edge/",
        ],
        &["user", "grant-role", "edge", "edge"],
        &["auth", "enable"],
    ] {
        etcd.controlled(args);
    }
    let file = etcd.dir.path().join("auth");
    let with = |name: &str, line: &str| {
        write(&file, line);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, mode).unwrap();
        let table = format!(
            "[[store]]\nurl = \"{}\"\nauth_file = \"{}\"",
            etcd.url("").trim_end_matches('/'),
            file.display()
        );
        key(etcd.dir.path(), &etcd.url(name), &table)
    };
    let edge = with("edge/a", "edge:geheim-2\n");
    verbs::reads_and_writes(&edge);
    assert!(matches!(
        wait(&edge, None, LIMIT),
        WaitResult::Changed(Some(_))
    ));
    let known = get(&edge).unwrap().rev;
    assert_eq!(
        wait(&edge, Some(&known), Duration::from_millis(300)),
        WaitResult::Unchanged
    );
    for (name, line, wanted) in [
        ("other", "edge:geheim-2\n", "permission denied"),
        ("edge/a", "edge:geheim-3\n", "authentication failed"),
    ] {
        let error = get_error(&with(name, line));
        assert!(
            error.contains(wanted) && error.contains("[[store]]") && !error.contains("geheim"),
            "{wanted}: {error}"
        );
    }
    let error = get_error(&etcd.key("edge/a"));
    assert!(error.contains("user name is empty"), "{error}");
}

#[test]
fn an_answer_that_is_not_of_etcd_is_an_error() {
    use super::http_server::{HttpServer, Mode, answer};
    let dir = tempfile::tempdir().unwrap();
    let server = HttpServer::start();
    let url = server.url("/a").replace("http://", "etcd+http://");
    let key = key(dir.path(), &url, "");
    for (body, wanted) in [
        (&b"<html>"[..], "is none of etcd"),
        (b"{}", "missing field `header`"),
        (br#"{"header":{"revision":"x"}}"#, "not a number"),
        (
            br#"{"header":{"revision":"1"},"kvs":[{"mod_revision":"1","value":"*"}]}"#,
            "not base64",
        ),
    ] {
        server.set(Mode::Answers(answer("200 OK", "", body)));
        let error = get_error(&key);
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    server.set(Mode::Endless);
    let error = get_error(&key);
    assert!(error.contains("larger than 16 MiB"), "{error}");
}
