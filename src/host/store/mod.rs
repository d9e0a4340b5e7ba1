//! Stores: services that hold keys, each named by a URL.
//!
//! Three verbs are enough for every store: read a key, write it where it has an expected revision,
//! and wait for another revision. Each request has a deadline for all of it, and each value a limit
//! of 16 MiB.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use self::{
    deadline::{in_time, pause_until},
    error::{Fault, Outcome},
    value::Reading,
};
pub use self::{
    error::StoreError,
    value::{PutResult, Revision, Value, WaitResult},
};
use crate::{
    fleet::{Address, Key},
    refusal::Refusal,
};

mod client;
mod command;
mod deadline;
mod error;
mod etcd;
mod files;
mod http;
#[cfg(feature = "nats")]
mod nats;
mod value;

/// Connects to a NATS server. `tune` sets the options that differ from those of a store.
///
/// # Errors
/// Fails if a file of the access cannot be used, or if the server refuses.
#[cfg(feature = "nats")]
pub(crate) async fn connect_nats(
    access: &crate::fleet::StoreAccess,
    origin: &crate::fleet::Origin,
    tune: impl FnOnce(async_nats::ConnectOptions) -> async_nats::ConnectOptions,
) -> Result<async_nats::Client, StoreError> {
    Ok(nats::connect(access, origin, tune).await?)
}

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

/// Checks that a key could be written whose revision is `rev`, as far as that is known without a
/// request.
///
/// # Errors
/// Fails if its store cannot compare this revision, or has no command that writes.
pub fn check_writable(key: &Key, rev: &Revision) -> Result<(), StoreError> {
    let address = key.address().map_err(Fault::from).map_err(Refusal::from)?;
    let checked = match address {
        Address::Http(..) => http::check_writable(rev),
        Address::Exec(_) => command::check_writable(key),
        Address::Etcd(..) | Address::Nats { .. } => Ok(()),
    };
    Ok(checked.map_err(Refusal::from)?)
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
                if let Some(changed) = WaitResult::of(value, known) {
                    return Ok(changed);
                }
                // A watch that the store ends at once must not become a flood of requests.
                if !is_over && !etcd::watch(key, origin, name, revision, until).await? {
                    sleep(pause_until(key, until)).await;
                }
            }
            _ => {
                if let Reading::Value(value) = read(key, known).await?
                    && let Some(changed) = WaitResult::of(value, known)
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
