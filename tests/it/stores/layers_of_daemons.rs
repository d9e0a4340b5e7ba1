//! Layers of a server over a real etcd and a real NATS server.

use std::{process::Command, time::Duration};

use hello::fleet::Key;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

#[cfg(feature = "nats")]
use super::nats::Nats;
use super::{etcd::Etcd, overwrite, ready};
use crate::support::{Fleet, Killed, get, until};

/// The deadline of a request: a busy machine answers in time, and a paused store is waited for.
const DEADLINE: Duration = Duration::from_secs(5);

/// A store that can be paused, stopped and started again with its data.
trait Store {
    fn url(&self) -> String;
    fn key(&self) -> Key;
    fn server(&mut self) -> &mut Option<Killed>;
    fn serve_again(&mut self);
}

impl Store for Etcd {
    fn url(&self) -> String {
        self.url("web.toml")
    }

    fn key(&self) -> Key {
        self.key("web.toml")
    }

    fn server(&mut self) -> &mut Option<Killed> {
        &mut self.server
    }

    fn serve_again(&mut self) {
        self.serve("http", &[]);
    }
}

#[cfg(feature = "nats")]
impl Store for Nats {
    fn url(&self) -> String {
        self.url("web.toml")
    }

    fn key(&self) -> Key {
        self.key("web.toml", "")
    }

    fn server(&mut self) -> &mut Option<Killed> {
        &mut self.server
    }

    fn serve_again(&mut self) {
        self.serve();
    }
}

/// One server with a file, and the key of a store over it.
struct Testbed<S> {
    fleet: Fleet,
    store: S,
}

impl<S: Store> Testbed<S> {
    fn start(store: S, value: &str) -> Self {
        overwrite(&store.key(), value);
        let fleet = Fleet::start(0);
        let url = store.url();
        let origin = url.rsplit_once("/edge/").map_or_else(
            || url.trim_end_matches("/web.toml").to_owned(),
            |(origin, _)| origin.to_owned(),
        );
        let table = format!("version = 1\n[[store]]\nurl = \"{origin}\"\ntimeout = \"5s\"\n");
        fleet.write("stores.toml", &table);
        let mut testbed = Self { fleet, store };
        testbed.serve();
        testbed
    }

    fn serve(&mut self) {
        let [stores, last_good] = ["stores.toml", "last-good"].map(|name| self.text_path(name));
        let url = self.store.url();
        let args = [
            "--store",
            &url,
            "--fleet",
            &stores,
            "--last-good",
            &last_good,
        ];
        self.fleet.serve_with("web.toml", &args);
    }

    fn text_path(&self, name: &str) -> String {
        self.fleet.path(name).to_str().unwrap().to_owned()
    }

    fn write_file(&self, message: &str) {
        let text = format!("message = \"{message}\"\nlisten = \"127.0.0.1:0\"\n");
        self.fleet.write("web.toml", &text);
    }

    fn write_key(&self, text: &str) {
        overwrite(&self.store.key(), text);
    }

    fn last(&self) -> usize {
        self.fleet.len() - 1
    }

    fn body(&self) -> String {
        get(self.fleet.url(self.last()), "/").1
    }

    fn report(&self) -> Value {
        serde_json::from_str(&get(self.fleet.url(self.last()), "/-/config").1).unwrap()
    }

    /// Sends SIGHUP, and returns the attempt that it caused.
    fn reload(&self) -> Value {
        let attempt = || self.report()["last_attempt"].take();
        let before = attempt()["seq"].as_u64();
        self.fleet.signal(self.last(), Signal::SIGHUP);
        until("the reload ends", || attempt()["seq"].as_u64() > before);
        attempt()
    }

    fn signal_store(&mut self, signal: Signal) {
        let server = self.store.server().as_ref().unwrap();
        kill(Pid::from_raw(i32::try_from(server.id()).unwrap()), signal).unwrap();
    }
}

fn each_layer_may_change_first(store: impl Store) {
    let testbed = Testbed::start(store, "log = \"info\"\n");
    assert_eq!(testbed.body(), "one");
    // The file first, then the key.
    testbed.write_file("two");
    assert_eq!(testbed.reload()["result"], "applied");
    assert_eq!(testbed.body(), "two");
    testbed.write_key("message = \"three\"\n");
    assert_eq!(testbed.reload()["result"], "applied");
    assert_eq!(testbed.body(), "three");
    // The key first, then the file.
    testbed.write_key("log = \"warn\"\n");
    assert_eq!(testbed.reload()["result"], "applied");
    assert_eq!(testbed.body(), "two");
    testbed.write_file("four");
    assert_eq!(testbed.reload()["result"], "applied");
    assert_eq!(testbed.body(), "four");
    assert_eq!(testbed.reload()["result"], "unchanged");
}

fn a_reload_without_the_store_keeps_the_old_config(store: impl Store) {
    let mut testbed = Testbed::start(store, "message = \"of the store\"\n");
    testbed.write_file("another");
    testbed.signal_store(Signal::SIGSTOP);
    let attempt = testbed.reload();
    testbed.signal_store(Signal::SIGCONT);
    assert_eq!(attempt["result"], "io_error", "{attempt}");
    let error = attempt["error"].as_str().unwrap();
    // The limit of the whole request and that of the client's connection end at the same moment.
    let wanted = [
        format!("within {}s", DEADLINE.as_secs()),
        "timed out".into(),
    ];
    assert!(wanted.iter().any(|text| error.contains(text)), "{error}");
    assert_eq!(testbed.body(), "of the store");
    testbed.write_key("mesage = 1\n");
    let attempt = testbed.reload();
    assert_eq!(attempt["result"], "rejected", "{attempt}");
    assert_eq!(testbed.body(), "of the store");
    *testbed.store.server() = None;
    let attempt = testbed.reload();
    assert_eq!(attempt["result"], "io_error", "{attempt}");
    assert_eq!(testbed.body(), "of the store");
}

fn a_start_without_the_store_serves_the_last_good_config(store: impl Store) {
    let mut testbed = Testbed::start(store, "message = \"first\"\n");
    testbed.write_key("message = \"second\"\n");
    assert_eq!(testbed.reload()["result"], "applied");
    // It is kept after the reload was reported.
    let kept = testbed.fleet.path("last-good/last-good.json");
    until("the config is kept", || {
        std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("second"))
    });
    testbed.fleet.kill(0);
    *testbed.store.server() = None;
    testbed.serve();
    assert_eq!(testbed.body(), "second");
    let report = testbed.report();
    assert!(report["degraded"].is_string(), "{report}");
    testbed.store.serve_again();
    ready(&testbed.store.key());
    testbed.write_key("message = \"third\"\n");
    assert_eq!(testbed.reload()["result"], "applied");
    assert_eq!(testbed.body(), "third");
    assert!(testbed.report()["degraded"].is_null());
}

/// A start names the store that is away, and serves nothing.
fn a_start_without_store_and_last_good_config_fails(mut store: impl Store) {
    let url = store.url();
    *store.server() = None;
    let fleet = Fleet::start(0);
    let mut serve = Command::new(fleet.exe());
    serve.args(["serve", "--listen", "127.0.0.1:0", "--store", &url]);
    let end = crate::support::run_to_end(&mut serve);
    assert_eq!(end.code, Some(1), "{}", end.stderr);
    assert!(end.stderr.contains(&url), "{}", end.stderr);
}

macro_rules! over_each_store {
    ($($name:ident),+) => {
        mod over_etcd {
            $(#[test]
            fn $name() {
                let Some(etcd) = super::Etcd::start() else { return };
                super::$name(etcd);
            })+
        }

        #[cfg(feature = "nats")]
        mod over_nats {
            $(#[test]
            fn $name() {
                let Some(nats) = super::Nats::start("", None) else { return };
                super::$name(nats);
            })+
        }
    };
}

over_each_store!(
    each_layer_may_change_first,
    a_reload_without_the_store_keeps_the_old_config,
    a_start_without_the_store_serves_the_last_good_config,
    a_start_without_store_and_last_good_config_fails
);
