//! Stores: services that hold keys, each named by a URL.
//!
//! Three verbs are enough for every store: read a key, write it where it has an expected revision,
//! and wait for another revision. Each request has a deadline for all of it, and each value a limit
//! of 16 MiB.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use self::error::Fault;
pub use self::error::StoreError;
use crate::{
    fleet::{Address, Key},
    refusal::Refusal,
};

mod client;
mod command;
mod error;
mod etcd;
mod files;
mod http;
#[cfg(feature = "nats")]
mod nats;

/// The revision of a key: a text that changes with every write, and has no other meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The value of a key, at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// All of its bytes.
    pub bytes: Vec<u8>,
    /// Its revision.
    pub rev: Revision,
}

/// The end of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutResult {
    /// The key has the new value, at this revision.
    Stored(Revision),
    /// The key has another revision than the expected one, and stays as it is.
    Conflict,
}

/// The end of a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitResult {
    /// The key has another revision than the known one; none if it does not exist any more.
    Changed(Option<Value>),
    /// The limit is over, and the key still has the known revision.
    Unchanged,
}

/// One reading of a key.
enum Reading {
    /// The key has this value; none if it does not exist.
    Value(Option<Value>),
    /// The store says that the known revision is still the present one.
    Unchanged,
}

type Outcome<T> = Result<T, Refusal<Fault>>;

/// Reads a key. Returns none if it does not exist.
///
/// # Errors
/// Fails if the store does not answer in time, refuses the request, or answers with something else
/// than a value of at most 16 MiB.
pub async fn get(key: &Key) -> Result<Option<Value>, StoreError> {
    match read(key, None).await? {
        Reading::Value(value) => Ok(value),
        Reading::Unchanged => Err(Refusal::from(Fault::NotRequested).into()),
    }
}

/// Writes a key if its revision is `expected`; with none, if the key does not exist.
///
/// # Errors
/// Fails as [`get`] does, and if the store cannot compare revisions. After such an error the key
/// may have either value.
pub async fn put(
    key: &Key,
    bytes: &[u8],
    expected: Option<&Revision>,
) -> Result<PutResult, StoreError> {
    let address = key.address().map_err(Fault::from).map_err(Refusal::from)?;
    let written = async {
        match &address {
            Address::Http(origin, path) => http::put(key, origin, path, bytes, expected).await,
            Address::Etcd(origin, name) => etcd::put(key, origin, name, bytes, expected).await,
            Address::Exec(_) => command::put(key, bytes, expected).await,
            #[cfg(feature = "nats")]
            Address::Nats {
                origin,
                bucket,
                key: name,
            } => nats::put(key, origin, (bucket, name), bytes, expected).await,
            #[cfg(not(feature = "nats"))]
            Address::Nats { .. } => Err(Fault::NoNats.into()),
        }
    };
    Ok(in_time(key, written).await?)
}

/// Waits until a key has another revision than `known`; with none, until it exists. Returns no
/// later than `limit` and two deadlines of a request, with a fresh reading: a watch that has died
/// unnoticed costs one limit.
///
/// # Errors
/// Fails as [`get`] does, without another attempt.
pub async fn wait(
    key: &Key,
    known: Option<&Revision>,
    limit: Duration,
) -> Result<WaitResult, StoreError> {
    let until = Instant::now() + limit;
    let address = key.address().map_err(Fault::from).map_err(Refusal::from)?;
    #[cfg(feature = "nats")]
    if let Address::Nats {
        origin,
        bucket,
        key: name,
    } = &address
    {
        return Ok(nats::wait(key, origin, (bucket, name), known, until).await?);
    }
    loop {
        let is_over = Instant::now() >= until;
        match &address {
            Address::Etcd(origin, name) => {
                let (value, revision) = in_time(key, etcd::read(key, origin, name)).await?;
                if let Some(changed) = changed(value, known) {
                    return Ok(changed);
                }
                // A watch that the store ends at once must not become a flood of requests.
                if !is_over && !etcd::watch(key, origin, name, revision, until).await? {
                    sleep(pause_until(key, until)).await;
                }
            }
            _ => {
                if let Reading::Value(value) = read(key, known).await?
                    && let Some(changed) = changed(value, known)
                {
                    return Ok(changed);
                }
                if !is_over {
                    sleep(pause_until(key, until)).await;
                }
            }
        }
        if is_over {
            return Ok(WaitResult::Unchanged);
        }
    }
}

fn changed(value: Option<Value>, known: Option<&Revision>) -> Option<WaitResult> {
    let rev = value.as_ref().map(|value| &value.rev);
    (rev != known).then_some(WaitResult::Changed(value))
}

/// Returns the pause before the next reading, up to a fifth shorter than its store sets: hosts that
/// poll one store spread over it.
fn pause_until(key: &Key, until: Instant) -> Duration {
    let poll = key.access.poll.mul_f64(1.0 - fastrand::f64() / 5.0);
    poll.min(until.saturating_duration_since(Instant::now()))
}

/// Reads a key within its deadline. A store may answer that `known` is still its revision.
async fn read(key: &Key, known: Option<&Revision>) -> Outcome<Reading> {
    let address = key.address().map_err(Fault::from)?;
    let reading = async {
        match &address {
            Address::Http(origin, path) => http::read(key, origin, path, known).await,
            Address::Etcd(origin, name) => {
                let (value, _) = etcd::read(key, origin, name).await?;
                Ok(Reading::Value(value))
            }
            Address::Exec(_) => command::get(key).await.map(Reading::Value),
            #[cfg(feature = "nats")]
            Address::Nats {
                origin,
                bucket,
                key: name,
            } => nats::get(key, origin, bucket, name)
                .await
                .map(Reading::Value),
            #[cfg(not(feature = "nats"))]
            Address::Nats { .. } => Err(Fault::NoNats.into()),
        }
    };
    in_time(key, reading).await
}

/// Waits for a request, from its connection to its last byte.
async fn in_time<T>(key: &Key, request: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let limit = key.access.timeout;
    timeout(limit, request)
        .await
        .unwrap_or_else(|_| Err(Fault::Late(limit).into()))
}
