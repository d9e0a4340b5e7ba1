//! Keys of a real NATS server with JetStream.

use std::{path::PathBuf, process::Stdio};

use hello::host::store::{PutResult, WaitResult};

use super::{LIMIT, authority::Authority, block_on, get_error, key, put, verbs, wait};
use crate::{
    daemons::{command, free_port, need},
    support::{Killed, until, write},
};

pub(super) struct Nats {
    _server: Killed,
    dir: tempfile::TempDir,
    port: u16,
}

impl Nats {
    /// Starts a server with the bucket `edge`, and these lines in its config.
    pub(super) fn start(config: &str, login: Option<(&str, &str)>) -> Option<Self> {
        Self::start_with(config, login, None)
    }

    /// Starts a server whose certificate is trusted by this file.
    fn start_with(config: &str, login: Option<(&str, &str)>, ca: Option<PathBuf>) -> Option<Self> {
        if !need("nats-server") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let text = format!(
            "listen: 127.0.0.1:{port}\njetstream {{ store_dir: \"{}\" }}\n{config}\n",
            dir.path().join("data").display()
        );
        let file = write(&dir.path().join("nats.conf"), &text);
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let server = command("nats-server")
            .arg("-c")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let nats = Self {
            _server: Killed(server),
            dir,
            port,
        };
        until("the bucket is made", || {
            block_on(nats.make_bucket(login, ca.clone())).is_ok()
        });
        Some(nats)
    }

    /// Makes the bucket as a stream: `create_key_value` of the client fails with this server.
    async fn make_bucket(
        &self,
        login: Option<(&str, &str)>,
        ca: Option<PathBuf>,
    ) -> Result<(), async_nats::Error> {
        use async_nats::jetstream::stream::{Config, DiscardPolicy};
        let options = async_nats::ConnectOptions::new();
        let options = match login {
            Some((user, password)) => options.user_and_password(user.into(), password.into()),
            None => options,
        };
        let options = match ca {
            Some(ca) => options.add_root_certificates(ca),
            None => options,
        };
        let client = options.connect(format!("127.0.0.1:{}", self.port)).await?;
        let context = async_nats::jetstream::new(client);
        context
            .create_stream(Config {
                name: "KV_edge".into(),
                subjects: vec!["$KV.edge.>".into()],
                max_messages_per_subject: 3,
                allow_rollup: true,
                deny_delete: true,
                allow_direct: true,
                discard: DiscardPolicy::New,
                ..Config::default()
            })
            .await?;
        Ok(())
    }

    pub(super) fn url(&self, name: &str) -> String {
        format!("nats://127.0.0.1:{}/edge/{name}", self.port)
    }

    pub(super) fn key(&self, name: &str, rest: &str) -> hello::fleet::Key {
        let table = format!(
            "[[store]]\nurl = \"nats://127.0.0.1:{}\"\ntimeout = \"20s\"\n{rest}",
            self.port
        );
        key(self.dir.path(), &self.url(name), &table)
    }
}

#[test]
fn a_key_is_read_written_and_watched() {
    let Some(nats) = Nats::start("", None) else {
        return;
    };
    verbs::reads_and_writes(&nats.key("nginx.conf", ""));
    verbs::waits(&nats.key("wait", ""));
    verbs::waits_for_a_new_key(&nats.key("new", ""));
}

#[test]
fn a_hundred_writers_lose_nothing() {
    let Some(nats) = Nats::start("", None) else {
        return;
    };
    verbs::writers_lose_nothing(&nats.key("many", ""));
}

#[test]
fn a_removed_key_is_a_change_and_can_be_made_again() {
    let Some(nats) = Nats::start("", None) else {
        return;
    };
    let key = nats.key("a", "");
    let PutResult::Stored(known) = put(&key, "one", None) else {
        panic!("a conflict");
    };
    block_on(async {
        let client = async_nats::connect(format!("127.0.0.1:{}", nats.port));
        let context = async_nats::jetstream::new(client.await.unwrap());
        let bucket = context.get_key_value("edge").await.unwrap();
        bucket.delete("a").await.unwrap();
    });
    assert_eq!(wait(&key, Some(&known), LIMIT), WaitResult::Changed(None));
    assert_eq!(put(&key, "two", Some(&known)), PutResult::Conflict);
    assert!(matches!(put(&key, "two", None), PutResult::Stored(_)));
}

#[test]
fn a_bucket_that_does_not_exist_and_a_server_that_is_away_are_errors() {
    let Some(nats) = Nats::start("", None) else {
        return;
    };
    let url = nats.url("a").replace("/edge/", "/other/");
    let error = get_error(&key(nats.dir.path(), &url, ""));
    assert!(error.contains("bucket `other`"), "{error}");
    let url = format!("nats://127.0.0.1:{}/edge/a", free_port());
    let table = "[[store]]\nurl = \"nats://127.0.0.1\"\ntimeout = \"5s\"";
    let error = get_error(&key(nats.dir.path(), &url, table));
    assert!(error.contains("refused"), "{error}");
    // A server that accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let table = format!("[[store]]\nurl = \"nats://127.0.0.1:{port}\"\ntimeout = \"1s\"");
    let url = format!("nats://127.0.0.1:{port}/edge/a");
    let error = get_error(&key(nats.dir.path(), &url, &table));
    assert!(error.contains("no whole answer within 1s"), "{error}");
}

#[test]
fn a_server_that_wants_tls_proves_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let authority = Authority::new();
    write(&dir.path().join("ca.pem"), &authority.pem());
    authority.issue(dir.path(), "server", &["127.0.0.1"]);
    let config = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\" }}",
        at("server.pem"),
        at("server.key")
    );
    let Some(nats) = Nats::start_with(&config, None, Some(dir.path().join("ca.pem"))) else {
        return;
    };
    let ca = format!("ca = \"{}\"", at("ca.pem"));
    verbs::reads_and_writes(&nats.key("a", &ca));
    let error = get_error(&nats.key("a", ""));
    assert!(error.contains("certificate"), "{error}");
}

#[test]
fn a_user_logs_in_by_name_and_password() {
    let config = "authorization { user: edge, password: geheim }";
    let Some(nats) = Nats::start(config, Some(("edge", "geheim"))) else {
        return;
    };
    let file = nats.dir.path().join("auth");
    let with = |line: &str| {
        std::fs::write(&file, line).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, mode).unwrap();
        nats.key("a", &format!("auth_file = \"{}\"", file.display()))
    };
    verbs::reads_and_writes(&with("edge:geheim\n"));
    for key in [with("edge:falsch-1\n"), nats.key("a", "")] {
        let error = get_error(&key);
        assert!(
            error.to_lowercase().contains("auth") && !error.contains("falsch"),
            "{error}"
        );
    }
}
