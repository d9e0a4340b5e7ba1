//! A key in a bucket of NATS JetStream. The revision of a key is the number of its last message in
//! the stream of the bucket.

use std::fmt::Display;

use async_nats::{
    Client, ConnectOptions,
    jetstream::{
        self,
        kv::{CreateErrorKind, Store, UpdateErrorKind},
        stream::{LastRawMessageErrorKind, Stream},
    },
};
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::{
    client::MAX_VALUE,
    deadline::{in_time, pause_until},
    error::{Fault, Outcome, unusable},
    files,
    value::{PutResult, Revision, Value, WaitResult},
};
use crate::{
    fleet::{Key, Origin, StoreAccess},
    host::net::{credentials::Credentials, tls},
};

/// The header by which a message says that the key was removed.
const OPERATION: &str = "KV-Operation";
/// The header by which the server says the same.
const MARKER: &str = "Nats-Marker-Reason";

/// Reads a key, from the leader of its stream: any other server may be behind.
pub(super) async fn get(
    key: &Key,
    origin: &Origin,
    bucket: &str,
    name: &str,
) -> Outcome<Option<Value>> {
    let context = context(key, origin).await?;
    let stream = stream(&context, bucket).await?;
    last_value(&stream, bucket, name).await
}

/// Writes a key whose revision is `expected`, or that does not exist.
pub(super) async fn put(
    key: &Key,
    origin: &Origin,
    (bucket, name): (&str, &str),
    bytes: &[u8],
    expected: Option<&Revision>,
) -> Outcome<PutResult> {
    let context = context(key, origin).await?;
    let store = store(&context, bucket).await?;
    let value = bytes.to_vec().into();
    let written = match expected {
        None => match store.create(name, value).await {
            Err(e) if e.kind() == CreateErrorKind::AlreadyExists => Ok(None),
            written => written.map(Some).map_err(|e| refused(&e)),
        },
        Some(rev) => {
            let rev = rev.as_str().parse().map_err(|_| Fault::Answer {
                store: "NATS",
                why: "a revision is not a number",
            })?;
            match store.update(name, value, rev).await {
                Err(e) if e.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
                written => written.map(Some).map_err(|e| refused(&e)),
            }
        }
    };
    Ok(match written? {
        Some(rev) => PutResult::Stored(Revision(rev.to_string())),
        None => PutResult::Conflict,
    })
}

/// Waits until a key has another revision than `known`, or until `until`.
pub(super) async fn wait(
    key: &Key,
    origin: &Origin,
    (bucket, name): (&str, &str),
    known: Option<&Revision>,
    until: Instant,
) -> Outcome<WaitResult> {
    loop {
        let is_over = Instant::now() >= until;
        let begun = async {
            let context = context(key, origin).await?;
            let store = store(&context, bucket).await?;
            // The watch comes first: a write after the reading cannot be missed then.
            let watch = store.watch(name).await.map_err(|e| refused(&e))?;
            let value = last_value(&store.stream, bucket, name).await?;
            Ok((watch, value))
        };
        let (mut watch, value) = in_time(key, begun).await?;
        if let Some(changed) = WaitResult::of(value, known) {
            return Ok(changed);
        }
        if is_over {
            return Ok(WaitResult::Unchanged);
        }
        match timeout_at(until, watch.next()).await {
            Ok(Some(Ok(_))) | Err(_) => {}
            // A watch that breaks off at once must not become a flood of requests.
            Ok(None | Some(Err(_))) => tokio::time::sleep(pause_until(key, until)).await,
        }
    }
}

async fn context(key: &Key, origin: &Origin) -> Outcome<jetstream::Context> {
    // The deadline of the whole request comes first.
    let limit = key.access.timeout * 2;
    let tune = |options: ConnectOptions| options.max_reconnects(1).connection_timeout(limit);
    let client = connect(&key.access, origin, tune).await?;
    let mut context = jetstream::new(client);
    context.set_timeout(key.access.timeout);
    Ok(context)
}

/// Connects to a server. `tune` sets the options that differ.
///
/// # Errors
/// Fails if a file of the access cannot be used, or if the server refuses.
pub(super) async fn connect(
    access: &StoreAccess,
    origin: &Origin,
    tune: impl FnOnce(ConnectOptions) -> ConnectOptions,
) -> Outcome<Client> {
    let request = files::request(access, origin)?;
    let credentials = Credentials::of(&request).map_err(unusable)?;
    let options = ConnectOptions::new()
        .name("hello")
        .connection_timeout(access.timeout)
        .request_timeout(Some(access.timeout))
        // The credentials are for this server, and not for those that it names.
        .ignore_discovered_servers()
        .require_tls(origin.tls);
    let mut options = tune(options);
    if origin.tls || request.ca.is_some() {
        let config = tls::config(&request, &credentials).map_err(|e| Fault::Http(e.into()))?;
        options = options.tls_client_config(config);
    }
    if let Some((user, password)) = credentials.user() {
        options = options.user_and_password(user, password);
    } else if let Some(token) = credentials.token() {
        let token = String::from_utf8_lossy(token.as_bytes()).into_owned();
        options = options.token(token);
    }
    let server = if origin.host == "localhost" {
        // The name service must not lead a connection without TLS elsewhere.
        format!("nats://127.0.0.1:{}", origin.port)
    } else {
        format!("nats://{origin}")
    };
    let connected = options.connect(server).await;
    Ok(connected.map_err(|e| refused(&e))?)
}

async fn stream(context: &jetstream::Context, bucket: &str) -> Result<Stream, Fault> {
    let stream = context.get_stream(format!("KV_{bucket}")).await;
    stream.map_err(|e| no_bucket(bucket, &e))
}

async fn store(context: &jetstream::Context, bucket: &str) -> Result<Store, Fault> {
    let store = context.get_key_value(bucket).await;
    store.map_err(|e| no_bucket(bucket, &e))
}

async fn last_value(stream: &Stream, bucket: &str, name: &str) -> Outcome<Option<Value>> {
    let subject = format!("$KV.{bucket}.{name}");
    let message = match stream.get_last_raw_message_by_subject(&subject).await {
        Ok(message) => message,
        Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
        Err(e) => return Err(refused(&e).into()),
    };
    if message.headers.get(OPERATION).is_some() || message.headers.get(MARKER).is_some() {
        return Ok(None);
    }
    if message.payload.len() > MAX_VALUE {
        return Err(Fault::TooLarge(MAX_VALUE).into());
    }
    Ok(Some(Value {
        bytes: message.payload.to_vec(),
        rev: Revision(message.sequence.to_string()),
    }))
}

fn no_bucket(bucket: &str, why: &dyn Display) -> Fault {
    Fault::Nats(format!("bucket `{bucket}`: {why}"))
}

fn refused(why: &dyn Display) -> Fault {
    Fault::Nats(why.to_string())
}
