//! A connection to the agent of a host, by a command.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{
    beats::{Beats, Writer},
    carrier::{Carrier, FromAgent, Way},
    failure::{ConnectFailure, Fault},
};
use crate::{
    inventory::HostName,
    protocol::{
        Answer, FrameError, FrameReader, FrameWriter, Greeting, Operator, Refused, Request,
        VERSION, common_version,
    },
};

/// The attempts to connect to a host that drops connections (`MaxStartups` of sshd).
const ATTEMPTS: u32 = 4;

/// The pause before the second attempt. It doubles, with jitter.
const PAUSE: Duration = Duration::from_millis(300);

/// The longest time between two signs of life of a coordinator.
const BEAT: Duration = Duration::from_secs(5);

/// The signs of life in the time of a lease: one or two may be late on a busy machine.
const BEATS: u32 = 4;

/// The longest wait for the end of a command whose output has ended.
const ENDING: Duration = Duration::from_secs(2);

/// The largest answer of one host, in bytes of its rows.
const MAX_ANSWER: usize = 16 << 20;

/// The way to the agent of one host.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// The name of the host. An agent that calls itself otherwise is refused.
    pub(super) name: HostName,
    pub(super) way: Way,
    /// The longest time in which the host sends nothing.
    pub(super) silence: Duration,
    pub(super) operator: Operator,
    /// The key by which a later connection takes over the session of a run.
    pub(super) key: Option<String>,
}

/// A connection to an agent that has greeted.
#[derive(Debug)]
pub(crate) struct Connection {
    reader: FrameReader<FromAgent>,
    writer: Writer,
    silence: Duration,
    /// The last time that a frame was read.
    heard: Instant,
    carrier: Carrier,
    beats: Option<Beats>,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("nothing heard for {}s", .0.as_secs())]
    Silent(Duration),
    #[error("the connection ended")]
    Ended,
    /// The agent waits for a request, although one was sent.
    #[error("its agent did not get the request, or its answer was lost")]
    Idle,
    #[error("its answer has more than 16 MiB")]
    Large,
    #[error("it needs a candidate that this run does not have")]
    Unknown,
    #[error("{}", .0.text)]
    Refused(Refused),
}

/// The answer to a query: its rows, and the rest of the object that the command prints.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    pub(crate) rows: Vec<Value>,
    pub(crate) result: Map<String, Value>,
}

impl Route {
    /// Connects, and chooses the dialect. A connection that the server dropped before it looked at
    /// the client is made again.
    ///
    /// # Errors
    /// Fails if no agent greets in time, if it speaks another dialect, or if it is another host.
    pub(crate) async fn connect(&self) -> Result<(Connection, Greeting), ConnectFailure> {
        let mut attempt = 1;
        loop {
            match connect_once(self).await {
                Err(failure) if failure.may_pass() && attempt < ATTEMPTS => {
                    let jitter = 0.5 + fastrand::f64();
                    sleep((PAUSE * (1 << (attempt - 1))).mul_f64(jitter)).await;
                    attempt += 1;
                }
                Err(failure) => {
                    return Err(ConnectFailure {
                        argv: self.way.argv(),
                        ..failure
                    });
                }
                Ok((connection, greeting)) => match &greeting.host {
                    Some(name) if *name != self.name => {
                        return Err(ConnectFailure::new(Fault::OtherHost(name.clone())));
                    }
                    _ => return Ok((connection, greeting)),
                },
            }
        }
    }
}

async fn connect_once(route: &Route) -> Result<(Connection, Greeting), ConnectFailure> {
    let silence = route.silence;
    let opened = route.way.open(&route.name).await;
    let (output, input, mut carrier) = opened.map_err(ConnectFailure::new)?;
    let mut reader = FrameReader::new(output);
    let mut noise = Vec::new();
    let greeting = timeout(silence, reader.greeting(&mut noise)).await;
    let fault = match greeting {
        Ok(Ok(Some(greeting))) => {
            carrier.has_reached_agent();
            let mut connection = Connection {
                reader,
                writer: Rc::new(Mutex::new(FrameWriter::new(input))),
                silence,
                heard: Instant::now(),
                carrier,
                beats: None,
            };
            return match connection.take(&greeting, route).await {
                Ok(()) => Ok((connection, greeting)),
                Err(fault) => Err(ConnectFailure::new(fault)),
            };
        }
        Err(_) => Fault::Silent(silence),
        Ok(Err(why)) => Fault::Frame(why),
        Ok(Ok(None)) => {
            // It has closed its output, and may still run.
            drop(input);
            let ended = timeout(ENDING, carrier.end()).await;
            ended.unwrap_or(Fault::Quiet)
        }
    };
    let _ = timeout(ENDING, carrier.finish()).await;
    Err(ConnectFailure {
        fault,
        argv: Vec::new(),
        stderr: carrier.lines(),
        noise,
    })
}

impl Connection {
    /// Chooses the dialect.
    async fn take(&mut self, greeting: &Greeting, route: &Route) -> Result<(), Fault> {
        let v = common_version(greeting).ok_or_else(|| Fault::Skewed {
            min: greeting.min,
            max: greeting.v,
            own: VERSION,
            version: greeting.version.clone(),
        })?;
        let take = Request::Take {
            v,
            operator: route.operator.clone(),
            key: route.key.clone(),
            silence_ms: u64::try_from(route.silence.as_millis()).ok(),
        };
        Ok(self.writer.lock().await.write(&take).await?)
    }

    /// Sends a sign of life of the run's coordinator ever so often, until the connection ends.
    pub(super) fn beat(&mut self, run: &str, lease: Duration) {
        let every = BEAT.min(lease / BEATS);
        self.beats = Some(Beats::send(self.writer.clone(), run.to_owned(), every));
    }

    /// Returns the last time that a frame was read.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// Leaves the connection without an end of the conversation: the session goes on, and waits for
    /// another one.
    pub(super) fn leave(mut self) {
        self.carrier.leave();
    }

    /// Sends a query, and reads its whole answer.
    ///
    /// # Errors
    /// Fails if the agent refuses, the connection ends, or nothing is heard for too long.
    pub(crate) async fn query(&mut self, request: &Request) -> Result<Answered, Unanswered> {
        self.send(request).await?;
        let mut answered = Answered {
            rows: Vec::new(),
            result: Map::new(),
        };
        let mut bytes = 0;
        loop {
            let answer = self.answer().await?;
            if let Some(refused) = answer.no {
                return Err(Unanswered::Refused(refused));
            }
            bytes += serde_json::to_vec(&answer.rows)
                .map_err(FrameError::from)?
                .len();
            if bytes > MAX_ANSWER {
                return Err(Unanswered::Large);
            }
            answered.rows.extend(answer.rows);
            if !answer.more {
                answered.result = answer.result;
                return Ok(answered);
            }
        }
    }

    /// Reads the next line of an answer. Every other frame is a sign of life.
    async fn answer(&mut self) -> Result<Answer, Unanswered> {
        loop {
            let frame = self.receive().await?;
            if frame.get("a").is_some() {
                return Ok(serde_json::from_value(frame).map_err(FrameError::from)?);
            }
        }
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// Fails if the connection broke, or if the agent does not read for too long.
    pub(super) async fn send<T: Serialize>(&mut self, frame: &T) -> Result<(), Unanswered> {
        let written = async { self.writer.lock().await.write(frame).await };
        timeout(self.silence, written)
            .await
            .map_err(|_| Unanswered::Silent(self.silence))??;
        Ok(())
    }

    /// Reads the next frame, also a sign of life. It may be dropped while it waits.
    ///
    /// # Errors
    /// Fails if the connection broke or ended, or if nothing is heard for too long.
    pub(super) async fn receive(&mut self) -> Result<Value, Unanswered> {
        let frame: Option<Value> = timeout(self.silence, self.reader.next())
            .await
            .map_err(|_| Unanswered::Silent(self.silence))??;
        self.heard = Instant::now();
        frame.ok_or(Unanswered::Ended)
    }

    /// Reads the frames that have come between two requests, which are signs of life.
    ///
    /// # Errors
    /// Fails if the connection broke or ended, or if nothing was heard for too long.
    pub(super) async fn hear(&mut self) -> Result<(), Unanswered> {
        // The runtime looks at the pipe only while this task waits.
        tokio::task::yield_now().await;
        while let Some(frame) = self.receive().now_or_never() {
            frame?;
        }
        if self.heard.elapsed() > self.silence {
            return Err(Unanswered::Silent(self.silence));
        }
        Ok(())
    }

    /// Ends the conversation, and waits for the agent: it removes what it has staged first.
    pub(crate) async fn bye(self) {
        let Self {
            mut reader,
            writer,
            mut carrier,
            beats,
            ..
        } = self;
        let ended = async {
            if let Some(beats) = beats {
                beats.end().await;
            }
            let _ = writer.lock().await.write(&Request::Bye).await;
            drop(writer);
            // It must be able to write its last frames.
            while let Ok(Some(Value::Object(_))) = reader.next().await {}
            carrier.end().await;
        };
        let _ = timeout(ENDING, ended).await;
    }

    /// Returns the last line that the command has written on stderr.
    pub(crate) fn last_line(&self) -> Option<String> {
        self.carrier.lines().pop()
    }
}
