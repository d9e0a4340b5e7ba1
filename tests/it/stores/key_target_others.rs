//! Keys as targets in other stores, of other daemons, and where they cannot be written.

use std::{
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use super::{
    etcd::Etcd,
    get,
    http_server::{HttpServer, Mode, answer},
    key,
    key_target::{OLD, Testbed, has_curl},
    overwrite,
};
use crate::{
    daemons::need,
    support::{Fleet, get as body_of, run_to_end},
};

const NEW: &str = "message = \"new\"\n";

#[cfg(feature = "nats")]
#[test]
fn a_key_of_nats_is_replaced_and_rolled_back() {
    let Some(nats) = super::nats::Nats::start("", None) else {
        return;
    };
    if !has_curl() {
        return;
    }
    let testbed = Testbed::start(nats.url("web"), nats.key("web", ""), 3);
    testbed.broadcast().expect(0);
    testbed.is_all(NEW, "new");
    testbed.fleet.broadcast(&["--set", "message=old"]).expect(0);
    testbed.is_all(OLD, "old");
    testbed.refuse_new(1, "[group.rollout]\nwaves = [\"1\", \"100%\"]");
    testbed.broadcast().expect(6);
    testbed.is_all(OLD, "old");
}

#[test]
fn a_resource_of_an_http_server_is_replaced() {
    let server = HttpServer::start();
    let dir = tempfile::tempdir().unwrap();
    let url = server.url("/web");
    let testbed = Testbed::start(url.clone(), key(dir.path(), &url, ""), 2);
    testbed.broadcast().expect(0);
    testbed.is_all(NEW, "new");
}

#[test]
fn a_key_with_a_weak_revision_is_refused_and_can_be_adopted() {
    let server = HttpServer::start();
    let dir = tempfile::tempdir().unwrap();
    let url = server.url("/web");
    let testbed = Testbed::start(url.clone(), key(dir.path(), &url, ""), 1);
    let weak = answer("200 OK", "ETag: W/\"1\"\r\n", NEW.as_bytes());
    server.set(Mode::Answers(weak));
    // What the instance runs is the old value: a change to a third one is refused as drift first.
    testbed.fleet.broadcast(&[]).expect(0);
    let result = testbed.fleet.broadcast(&["--set", "message=x"]).expect(5);
    assert!(
        result.stderr.contains("no strong ETag") && result.stderr.contains("adopt it"),
        "{}",
        result.stderr
    );
}

#[test]
fn a_value_of_a_store_with_credentials_is_a_secret() {
    let server = HttpServer::start();
    let dir = tempfile::tempdir().unwrap();
    let url = server.url("/web");
    let testbed = Testbed::start(url.clone(), key(dir.path(), &url, ""), 1);
    let token = testbed.fleet.write("token", "secret\n");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    testbed.group("", &format!("bearer_file = {:?}", token.to_str().unwrap()));
    let mut dry = testbed
        .fleet
        .command(&["-o", "json", "--dry-run", "--set", "message=new"]);
    let end = run_to_end(dry.stdin(Stdio::null()));
    assert_eq!(end.json["targets"][0]["secret"], true, "{:#}", end.json);
    assert!(end.json["targets"][0]["diff"].is_null());
}

#[test]
fn a_key_of_commands_is_written_by_put_and_refused_without_one() {
    let mut fleet = Fleet::start(0);
    let value = fleet.write("value", OLD);
    let dir = fleet.dir.path().to_owned();
    let name = fleet.exe().file_name().unwrap().to_owned();
    let table = |put: &str| {
        let dir = dir.display();
        format!(
            "version = 1\n[[store]]\nurl = \"exec://files\"\nget = [\"cat\", \"{dir}/{{key}}\"]\n{put}\n\
             [[group]]\nname = \"web\"\nkind = \"hello\"\nconfig = \"exec://files/value\"\n\
             match = {{ exe = {name:?}, args = [\"serve\"] }}\n"
        )
    };
    let put = format!(
        "put = [\"sh\", \"-c\", '[ \"$(sha256sum <{dir}/$0)\" = \"$1  -\" ] || exit 3; cat >{dir}/$0', \
         \"{{key}}\", \"{{rev}}\"]",
        dir = dir.display()
    );
    let tables = fleet.write("fleet.toml", &table(""));
    fleet.serve_with(
        "web.toml",
        &[
            "--store",
            "exec://files/value",
            "--fleet",
            tables.to_str().unwrap(),
        ],
    );
    let set = ["--set", "message=new"];
    let result = fleet.broadcast(&set).expect(5);
    assert!(
        result.stderr.contains("has no `put`") && result.stderr.contains("adopt it"),
        "{}",
        result.stderr
    );
    fleet.write("fleet.toml", &table(&put));
    fleet.broadcast(&set).expect(0);
    assert_eq!(fleet.bodies(), ["new"]);
    assert_eq!(std::fs::read_to_string(value).unwrap(), NEW);
}

/// A daemon that reads its config from etcd itself.
struct Daemon {
    fleet: Fleet,
    etcd: Etcd,
    urls: Vec<String>,
}

impl Daemon {
    fn start(count: usize) -> Option<Self> {
        if !need("python3") {
            return None;
        }
        let etcd = Etcd::start()?;
        overwrite(&etcd.key("app"), "word = one\n");
        let mut daemon = Self {
            fleet: Fleet::start(0),
            etcd,
            urls: Vec::new(),
        };
        let script = daemon
            .fleet
            .write("key_daemon.py", include_str!("key_daemon.py"));
        for _ in 0..count {
            let mut python = Command::new("python3");
            python
                .arg(&script)
                .arg(format!("http://127.0.0.1:{}", daemon.etcd.port))
                .arg("app");
            daemon.urls.push(daemon.fleet.serve_command(&mut python));
        }
        daemon.fleet.write(
            "fleet.toml",
            &format!(
                "version = 1\n[[store]]\nurl = \"{server}\"\ntimeout = \"3s\"\n\
                 [[group]]\nname = \"app\"\nreloads = true\ntimeout = \"3s\"\n\
                 config = \"{url}\"\nvalidate = [\"grep\", \"-q\", \"word\", \"{{candidate}}\"]\n\
                 match = {{ exe = \"python3*\", args = [{script:?}] }}\n\
                 [[group.confirm]]\nhttp = \"http://{{listen}}/\"\nread = \"body\"\nchanged = true\n\
                 [[group.confirm]]\nhttp = \"http://{{listen}}/loads\"\nincreased = true\n\
                 [[group.reject]]\nhttp = \"http://{{listen}}/refused\"\nincreased = true\n",
                server = daemon.etcd.url("").trim_end_matches('/'),
                url = daemon.etcd.url("app"),
                script = script.to_str().unwrap(),
            ),
        );
        Some(daemon)
    }

    fn broadcast(&self, text: &str, code: i32) -> crate::support::CommandResult {
        let new = self.fleet.write("new", text);
        self.fleet
            .broadcast(&["--config", new.to_str().unwrap()])
            .expect(code)
    }

    fn run(&self, value: &str) {
        assert_eq!(get(&self.etcd.key("app")).unwrap().bytes, value.as_bytes());
        for url in &self.urls {
            assert_eq!(body_of(url, "/").1, value);
        }
    }
}

#[test]
fn a_daemon_that_reads_a_store_itself_is_proven_and_rolled_back() {
    let Some(daemon) = Daemon::start(2) else {
        return;
    };
    let result = daemon.broadcast("word = two\n", 0);
    assert_eq!(result.states(), ["confirmed"; 2]);
    daemon.run("word = two\n");
    // Its validator accepts this, and the daemon does not.
    let result = daemon.broadcast("word: three\n", 6);
    assert!(result.stderr.contains("Rolled back"), "{}", result.stderr);
    daemon.run("word = two\n");
    daemon.broadcast("nothing\n", 4);
    daemon.run("word = two\n");
}

#[test]
fn status_names_a_daemon_whose_key_was_written_since_its_proof() {
    let Some(daemon) = Daemon::start(1) else {
        return;
    };
    daemon.broadcast("word = two\n", 0);
    let status = daemon.fleet.status();
    assert_eq!(status.json["instances"][0]["targets"][0]["known"], "proven");
    overwrite(&daemon.etcd.key("app"), "word = other\n");
    let status = daemon.fleet.status();
    assert_eq!(status.code, 7, "{:#}", status.json);
    let text = status.json["instances"][0]["faults"].to_string();
    assert!(text.contains("was changed after it was proven"), "{text}");
}
