//! What carries the frames between this coordinator and one agent: a command, or a NATS server.

use std::{fmt, io, rc::Rc};

use tokio::io::{AsyncRead, AsyncWrite};

#[cfg(feature = "nats")]
use super::bus::{BusClient, Talk};
use super::{failure::Fault, stderr::Stderr};
use crate::host::exec::{self, Conversation, Pipes};

/// The way to an agent.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// The command that connects.
    Command(Vec<String>),
    /// The NATS server of the fleet.
    #[cfg(feature = "nats")]
    Bus(Rc<BusClient>),
    /// There is no way, for this reason.
    None(Rc<str>),
}

/// A source of frames.
pub(super) trait Source: AsyncRead + Unpin + fmt::Debug {}

impl<T: AsyncRead + Unpin + fmt::Debug> Source for T {}

/// A receiver of frames.
pub(super) trait Sink: AsyncWrite + Unpin + fmt::Debug {}

impl<T: AsyncWrite + Unpin + fmt::Debug> Sink for T {}

/// The frames from an agent.
pub(super) type FromAgent = Box<dyn Source>;

/// The frames to an agent.
pub(super) type ToAgent = Box<dyn Sink>;

/// The command or the conversation that carries the frames.
#[derive(Debug)]
pub(super) enum Carrier {
    Command {
        command: Conversation,
        stderr: Stderr,
    },
    #[cfg(feature = "nats")]
    Bus(Talk),
}

impl Way {
    /// Returns the words of the command; none if there is none.
    pub(super) fn argv(&self) -> Vec<String> {
        match self {
            Self::Command(argv) => argv.clone(),
            _ => Vec::new(),
        }
    }

    /// Opens a connection to the agent of a host.
    ///
    /// # Errors
    /// Fails if the command cannot be started, or if there is no way.
    #[cfg_attr(
        not(feature = "nats"),
        expect(unused_variables, reason = "a command has the name of its host")
    )]
    pub(super) async fn open(
        &self,
        host: &crate::inventory::HostName,
    ) -> Result<(FromAgent, ToAgent, Carrier), Fault> {
        match self {
            Self::Command(argv) => {
                let (command, pipes) = exec::converse(argv).map_err(|e: io::Error| {
                    Fault::NotStarted(argv.first().cloned().unwrap_or_default(), e)
                })?;
                let Pipes {
                    input,
                    output,
                    errors,
                } = pipes;
                let stderr = Stderr::collect(errors);
                let carrier = Carrier::Command { command, stderr };
                Ok((Box::new(output), Box::new(input), carrier))
            }
            #[cfg(feature = "nats")]
            Self::Bus(client) => {
                let (output, input, talk) = client.talk(host).await;
                Ok((Box::new(output), Box::new(input), Carrier::Bus(talk)))
            }
            Self::None(why) => Err(Fault::Server(why.to_string())),
        }
    }
}

impl Carrier {
    /// Declares that an agent has greeted: what it carries out must not be cut short.
    pub(super) fn has_reached_agent(&mut self) {
        match self {
            Self::Command { command, .. } => command.has_reached_agent(),
            #[cfg(feature = "nats")]
            Self::Bus(_) => {}
        }
    }

    /// Leaves the agent alone from here on: it may wait for another connection.
    pub(super) fn leave(&mut self) {
        match self {
            Self::Command { command, .. } => command.leave(),
            #[cfg(feature = "nats")]
            Self::Bus(talk) => talk.leave(),
        }
    }

    /// Waits for the end, after the output has ended. Returns why it ended before a greeting.
    pub(super) async fn end(&mut self) -> Fault {
        match self {
            Self::Command { command, .. } => match command.end().await {
                Ok(Some(0)) | Err(_) => Fault::Quiet,
                Ok(Some(code)) => Fault::Ended(code),
                Ok(None) => Fault::Signalled,
            },
            #[cfg(feature = "nats")]
            Self::Bus(talk) => talk.why_ended(),
        }
    }

    /// Returns the lines that the command has written on stderr.
    pub(super) fn lines(&self) -> Vec<String> {
        match self {
            Self::Command { stderr, .. } => stderr.lines(),
            #[cfg(feature = "nats")]
            Self::Bus(_) => Vec::new(),
        }
    }

    /// Ends what carries the frames, and reads what is left of its stderr. It may be dropped while
    /// it waits: a process that the command left behind may hold the pipe open.
    pub(super) async fn finish(&mut self) {
        match self {
            Self::Command { command, stderr } => {
                command.stop();
                stderr.finish().await;
            }
            #[cfg(feature = "nats")]
            Self::Bus(_) => {}
        }
    }
}
