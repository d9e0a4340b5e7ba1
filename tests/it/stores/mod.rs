//! Real stores: etcd, NATS, an HTTP server, Redis and PostgreSQL. Their values become configs.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use hello::{
    fleet::{Fleet, Key},
    host::store::{self, PutResult, Revision, Value, WaitResult},
};

use crate::support::write;

mod authority;
pub(crate) mod daemons;
pub(crate) mod etcd;
mod http;
mod http_server;
mod key_target;
mod key_target_lost;
mod key_target_others;
mod layers;
mod layers_of_daemons;
#[cfg(feature = "nats")]
mod nats;
mod proxy;
mod recipes;
mod run;
mod verbs;

/// The longest wait for one condition. A busy machine starts a store within seconds.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs a future on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Returns the key of a URL, as a `fleet.toml` with these tables names it.
fn key(dir: &Path, url: &str, tables: &str) -> Key {
    let text = format!(
        "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\nsource = \"{url}\"\n{tables}\n"
    );
    let fleet = Fleet::load(&write(&dir.join("key.toml"), &text)).unwrap();
    let source = fleet.groups[0].source.clone().unwrap();
    source.key().unwrap().clone()
}

fn get(key: &Key) -> Option<Value> {
    block_on(store::get(key)).unwrap()
}

/// Returns the text of the error of a reading.
fn get_error(key: &Key) -> String {
    block_on(store::get(key)).unwrap_err().to_string()
}

fn put(key: &Key, text: &str, expected: Option<&Revision>) -> PutResult {
    block_on(store::put(key, text.as_bytes(), expected)).unwrap()
}

/// Writes a key that no other process writes.
pub(crate) fn overwrite(key: &Key, text: &str) -> Revision {
    let now = get(key).map(|value| value.rev);
    match put(key, text, now.as_ref()) {
        PutResult::Stored(rev) => rev,
        PutResult::Conflict => panic!("another writer"),
    }
}

fn wait(key: &Key, known: Option<&Revision>, limit: Duration) -> WaitResult {
    block_on(store::wait(key, known, limit)).unwrap()
}

/// Waits until a store answers.
fn ready(key: &Key) {
    let deadline = Instant::now() + LIMIT;
    while let Err(why) = block_on(store::get(key)) {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {why}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
