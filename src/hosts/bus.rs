//! Conversations with agents over a NATS server: one subject for each host, and one inbox for each
//! conversation.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use async_nats::{Client, Message, StatusCode, SubscribeError};
use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncWriteExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    sync::mpsc,
    task::{JoinHandle, spawn_local},
};

use super::failure::Fault;
use crate::{
    fleet::{Bus, FleetName, Origin},
    host::store::{StoreError, connect_nats},
    inventory::HostName,
    protocol::{GREET, next_payload, subject_of},
};

/// The bytes that wait between a task of a conversation and its reader.
const BUFFER: usize = 64 << 10;

/// The messages that wait for the conversations of a client. The library drops later ones.
const WAITING: usize = 65_536;

/// A message to a conversation.
#[derive(Debug)]
enum Heard {
    Frame(Message),
    /// The agent has ended the conversation.
    Ended,
    /// No agent listens on the subject of the host.
    NoAgent,
}

/// Why there is no connection to the server of a fleet.
#[derive(Debug, thiserror::Error)]
pub(super) enum BusError {
    #[error("nats://{0}: {1}")]
    Connect(Origin, StoreError),
    #[error("nats://{0}: {1}")]
    Subscribe(Origin, SubscribeError),
}

/// The conversations, by their numbers.
type Talks = Rc<RefCell<BTreeMap<u64, mpsc::UnboundedSender<Heard>>>>;

/// A connection to a NATS server.
#[derive(Debug)]
pub(super) struct BusClient {
    client: Client,
    fleet: FleetName,
    /// The inboxes of the conversations begin with it.
    inbox: String,
    next: Cell<u64>,
    talks: Talks,
    reader: JoinHandle<()>,
}

/// A conversation with an agent. When it is dropped, the agent is told, unless it was left.
#[derive(Debug)]
pub(super) struct Talk {
    number: u64,
    talks: Talks,
    is_left: Rc<Cell<bool>>,
    /// True once the server has said that no agent listens.
    is_alone: Rc<Cell<bool>>,
}

impl BusClient {
    /// Connects to the server.
    ///
    /// # Errors
    /// Fails if it cannot be reached, or refuses.
    pub(super) async fn connect(bus: &Bus) -> Result<Rc<Self>, BusError> {
        let server = || bus.origin.clone();
        let tune = |options: async_nats::ConnectOptions| {
            options.max_reconnects(None).subscription_capacity(WAITING)
        };
        let client = connect_nats(&bus.access, &bus.origin, tune).await;
        let client = client.map_err(|why| BusError::Connect(server(), why))?;
        let inbox = client.new_inbox();
        let messages = client.subscribe(format!("{inbox}.*")).await;
        let mut messages = messages.map_err(|why| BusError::Subscribe(server(), why))?;
        let talks = Talks::default();
        let of_reader = talks.clone();
        let reader = spawn_local(async move {
            while let Some(message) = messages.next().await {
                let number = message.subject.rsplit('.').next();
                let number = number.and_then(|number| number.parse::<u64>().ok());
                let talks = of_reader.borrow();
                let Some(talk) = number.and_then(|number| talks.get(&number)) else {
                    continue;
                };
                let heard = match message.status {
                    Some(StatusCode::NO_RESPONDERS) => Heard::NoAgent,
                    _ if message.payload.is_empty() => Heard::Ended,
                    _ => Heard::Frame(message),
                };
                let _ = talk.send(heard);
            }
        });
        Ok(Rc::new(Self {
            client,
            fleet: bus.fleet.clone(),
            inbox,
            next: Cell::new(1),
            talks,
            reader,
        }))
    }

    /// Begins a conversation with the agent of a host, which greets then.
    pub(super) async fn talk(
        &self,
        host: &HostName,
    ) -> (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>, Talk) {
        let number = self.next.replace(self.next.get() + 1);
        let (sender, heard) = mpsc::unbounded_channel();
        self.talks.borrow_mut().insert(number, sender);
        let talk = Talk {
            number,
            talks: self.talks.clone(),
            is_left: Rc::default(),
            is_alone: Rc::default(),
        };
        let (near, far) = duplex(BUFFER);
        let (far_reader, far_writer) = split(far);
        spawn_local(pass_on(heard, far_writer, talk.is_alone.clone()));
        let publisher = Publisher {
            client: self.client.clone(),
            subject: subject_of(&self.fleet, host),
            reply: format!("{}.{number}", self.inbox),
        };
        publisher.publish(GREET).await;
        spawn_local(publisher.publish_all(far_reader, talk.is_left.clone()));
        let (reader, writer) = split(near);
        (reader, writer, talk)
    }
}

impl Drop for BusClient {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Talk {
    /// Leaves the conversation without a word: the session goes on, and waits for another one.
    pub(super) fn leave(&self) {
        self.is_left.set(true);
    }

    /// Returns why it ended before a greeting.
    pub(super) fn why_ended(&self) -> Fault {
        if self.is_alone.get() {
            Fault::NoAgent
        } else {
            Fault::Quiet
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.talks.borrow_mut().remove(&self.number);
    }
}

/// Writes each message of an agent as a line, until the conversation ends.
async fn pass_on(
    mut heard: mpsc::UnboundedReceiver<Heard>,
    mut to: WriteHalf<DuplexStream>,
    is_alone: Rc<Cell<bool>>,
) {
    while let Some(heard) = heard.recv().await {
        let frame = match heard {
            Heard::Frame(frame) => frame,
            Heard::Ended => break,
            Heard::NoAgent => {
                is_alone.set(true);
                break;
            }
        };
        let line = [&frame.payload[..], b"\n"].concat();
        if to.write_all(&line).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// The messages to one agent.
struct Publisher {
    client: Client,
    subject: String,
    reply: String,
}

impl Publisher {
    /// Publishes each line as a message. The end of the conversation is an empty one.
    async fn publish_all(self, from: ReadHalf<DuplexStream>, is_left: Rc<Cell<bool>>) {
        let mut lines = BufReader::new(from);
        let mut payload = Vec::new();
        while next_payload(&mut lines, &mut payload).await {
            self.publish(&payload).await;
        }
        if !is_left.get() {
            self.publish(b"").await;
        }
    }

    /// A message that the server does not get is repeated by the protocol above it.
    async fn publish(&self, payload: &[u8]) {
        let (subject, reply) = (self.subject.clone(), self.reply.clone());
        let published = self
            .client
            .publish_with_reply(subject, reply, payload.to_vec().into());
        let _ = published.await;
    }
}
