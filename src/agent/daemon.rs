//! `hello agent --nats`: the agent of this host as a daemon. Each conversation with a coordinator
//! has a process of its own, `hello agent --stdio`: it outlives the daemon, and its session waits
//! for its coordinator.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, process::Stdio, time::Duration};

use async_nats::{Client, ConnectOptions, Event, Message, Subscriber};
use futures_util::StreamExt as _;
use sd_notify::NotifyState;
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    process::{ChildStdin, ChildStdout, Command},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::spawn_local,
    time::{Instant, interval},
};

use super::options::Options;
use crate::{
    event::Verdict,
    fleet::{Bus, Fleet},
    host::store::connect_nats,
    hosts::this_machine,
    inventory::HostName,
    kernel::strip_deleted,
    protocol::{GREET, next_payload, subject_of},
    screen,
    serve::notify,
};

/// The most conversations at once. Each is a process of about 3 MB.
const MAX_TALKS: usize = 64;

/// The messages that wait for the process of a conversation. A coordinator sends few.
const WAITING: usize = 1024;

/// The longest time in which a coordinator sends nothing: it sends a sign of life every 5 seconds
/// during a run, and a query is one message.
const SILENCE: Duration = Duration::from_secs(120);

/// The time between two looks for silent coordinators.
const LOOK: Duration = Duration::from_secs(10);

/// The longest pause before the next attempt to connect to the server.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// A conversation with one coordinator.
#[derive(Debug)]
struct Talk {
    /// The frames for its process. Without the sender, its input ends.
    frames: mpsc::Sender<Message>,
    heard: Instant,
}

/// The agent of this host on a NATS server.
struct Daemon {
    options: Options,
    client: Client,
    /// The conversations, by the inboxes of their coordinators.
    talks: BTreeMap<String, Talk>,
    /// Takes the inbox of each conversation whose process has ended.
    ended: mpsc::UnboundedSender<String>,
}

/// Listens until SIGTERM. Returns the exit code.
pub(crate) async fn serve(options: Options, url: &str) -> u8 {
    match Box::pin(run(options, url)).await {
        Ok(()) => 0,
        Err((verdict, why)) => {
            screen::tell(&screen::failure(&why));
            verdict.exit()
        }
    }
}

async fn run(options: Options, url: &str) -> Result<(), (Verdict, String)> {
    let unusable = |why: String| (Verdict::Usage, why);
    let loaded = Fleet::load_with_bus(&options.file, url);
    let (fleet, bus) = loaded.map_err(|why| unusable(why.to_string()))?;
    let name = name_of(&options, &fleet).map_err(unusable)?;
    let failed = |why: String| (Verdict::Failed, why);
    let client = connect(&bus).await.map_err(failed)?;
    let subject = subject_of(&bus.fleet, &name);
    let requests = client.subscribe(subject.clone()).await;
    let requests = requests.map_err(|why| failed(format!("{subject}: {why}")))?;
    let (ended, of_talks) = mpsc::unbounded_channel();
    let daemon = Daemon {
        options,
        client,
        talks: BTreeMap::new(),
        ended,
    };
    daemon.listen(requests, of_talks, &subject).await
}

/// Returns the name of this host: the option, that of its file, or that of the machine.
fn name_of(options: &Options, fleet: &Fleet) -> Result<HostName, String> {
    let named = options.name_of(fleet.agent.as_ref()).or_else(this_machine);
    named.ok_or_else(|| "the name of this machine is no name of a host: set --name".into())
}

/// Connects, and goes on with that for ever: a server that is down must not end the agents of all
/// hosts.
async fn connect(bus: &Bus) -> Result<Client, String> {
    let tune = |options: ConnectOptions| {
        options
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(pause)
            .event_callback(|event| async move { report(&event) })
    };
    let client = connect_nats(&bus.access, &bus.origin, tune).await;
    client.map_err(|why| format!("nats://{}: {why}", bus.origin))
}

/// Returns a random pause: ten thousand agents that lost one server must not come back at once.
fn pause(attempts: usize) -> Duration {
    let most = Duration::from_millis(250)
        * 2_u32.saturating_pow(u32::try_from(attempts).unwrap_or(16).min(16));
    most.min(MAX_PAUSE).mul_f64(fastrand::f64())
}

fn report(event: &Event) {
    let (word, text) = match event {
        Event::Connected => ("Connected", "to the NATS server".to_owned()),
        Event::Disconnected => (
            "Disconnected",
            "from the NATS server; connecting again".to_owned(),
        ),
        Event::ServerError(why) => ("Refused", format!("by the NATS server: {why}")),
        Event::ClientError(why) => ("Failed", why.to_string()),
        _ => return,
    };
    screen::tell(&screen::worded(word, &text));
}

impl Daemon {
    async fn listen(
        mut self,
        mut requests: Subscriber,
        mut ended: mpsc::UnboundedReceiver<String>,
        subject: &str,
    ) -> Result<(), (Verdict, String)> {
        let failed =
            |why: std::io::Error| (Verdict::Failed, format!("no signal can be taken: {why}"));
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        let mut look = interval(LOOK);
        // It is ready once the server has taken the subscription.
        let flushed = self.client.clone();
        let ready = async move { flushed.flush().await };
        tokio::pin!(ready);
        let mut is_ready = false;
        loop {
            tokio::select! {
                Ok(()) = &mut ready, if !is_ready => {
                    is_ready = true;
                    screen::tell(&screen::worded("Listening", subject));
                    notify(&[NotifyState::Ready]);
                }
                request = requests.next() => match request {
                    Some(request) => self.hear(request).await,
                    None => return Err((Verdict::Failed, "the subscription ended".into())),
                },
                Some(inbox) = ended.recv() => {
                    self.talks.remove(&inbox);
                }
                _ = look.tick(), if !self.talks.is_empty() => {
                    // A session that has begun waits for its coordinator as long as its lease says.
                    self.talks.retain(|_, talk| talk.heard.elapsed() < SILENCE);
                }
                _ = hangup.recv() => self.reload(),
                _ = terminate.recv() => {
                    notify(&[NotifyState::Stopping]);
                    return Ok(());
                }
            }
        }
    }

    /// Checks the host's own file again: each conversation reads it when it begins.
    fn reload(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, now]);
        }
        let file = &self.options.file;
        match Fleet::load(file) {
            Ok(fleet) => {
                let groups = screen::counted(fleet.groups.len(), "group");
                screen::tell(&screen::worded(
                    "Reloaded",
                    &format!("{}: {groups}", file.display()),
                ));
            }
            Err(why) => {
                let why = format!("{why}; coordinators are refused until it is corrected");
                screen::tell(&screen::failure(&why));
            }
        }
        notify(&[NotifyState::Ready]);
    }

    /// Gives a message to its conversation. The first one begins it, and an empty one ends it.
    async fn hear(&mut self, message: Message) {
        let Some(reply) = message.reply.as_ref().map(ToString::to_string) else {
            return;
        };
        let is_greet = &message.payload[..] == GREET;
        match self.talks.get_mut(&reply) {
            // The message was doubled on the way.
            Some(_) if is_greet => {}
            Some(_) if message.payload.is_empty() => {
                self.talks.remove(&reply);
            }
            Some(talk) => {
                talk.heard = Instant::now();
                // The process does not read any more.
                if talk.frames.try_send(message).is_err() {
                    self.talks.remove(&reply);
                }
            }
            None if is_greet => match self.begin(&reply) {
                Ok(talk) => drop(self.talks.insert(reply, talk)),
                Err(why) => {
                    screen::tell(&screen::failure(&why));
                    self.end(&reply).await;
                }
            },
            None if message.payload.is_empty() => {}
            // The conversation is over.
            None => self.end(&reply).await,
        }
    }

    async fn end(&self, reply: &str) {
        let _ = self.client.publish(reply.to_owned(), "".into()).await;
    }

    /// Starts the process of a conversation.
    fn begin(&self, reply: &str) -> Result<Talk, String> {
        if self.talks.len() >= MAX_TALKS {
            return Err(format!("{MAX_TALKS} coordinators are there already"));
        }
        let failed = |why: std::io::Error| format!("no process for a coordinator: {why}");
        let mut child = Command::new(program().map_err(failed)?)
            .args(arguments(&self.options))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("no pipe to a process".into());
        };
        let (frames, of_talk) = mpsc::channel(WAITING);
        spawn_local(pass_in(of_talk, input));
        let (client, ended, inbox) = (self.client.clone(), self.ended.clone(), reply.to_owned());
        spawn_local(async move {
            pass_out(&client, &inbox, output).await;
            let _ = client.publish(inbox.clone(), "".into()).await;
            let _ = ended.send(inbox);
            let _ = child.wait().await;
        });
        let heard = Instant::now();
        Ok(Talk { frames, heard })
    }
}

/// Returns the program of this process: the one of its path, also where it was replaced.
fn program() -> std::io::Result<PathBuf> {
    Ok(strip_deleted(&std::env::current_exe()?).to_owned())
}

fn arguments(options: &Options) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["agent".into(), "--stdio".into()];
    let mut add = |option: &str, value: OsString| words.extend([option.into(), value]);
    add("--fleet", options.file.clone().into());
    if let Some(state) = &options.state {
        add("--state", state.clone().into());
    }
    add("--keep", options.keep.to_string().into());
    if let Some(name) = &options.name {
        add("--name", name.as_str().into());
    }
    for (key, value) in &options.labels {
        add("--label", format!("{key}={value}").into());
    }
    words
}

/// Writes each message as a line.
async fn pass_in(mut frames: mpsc::Receiver<Message>, mut input: ChildStdin) {
    while let Some(frame) = frames.recv().await {
        let line = [&frame.payload[..], b"\n"].concat();
        if input.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// Publishes each line as a message, to the end of the output.
async fn pass_out(client: &Client, inbox: &str, output: ChildStdout) {
    let mut lines = BufReader::new(output);
    let mut payload = Vec::new();
    while next_payload(&mut lines, &mut payload).await {
        let published = client.publish(inbox.to_owned(), payload.clone().into());
        if published.await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_at_most_a_minute() {
        for attempts in 0..100 {
            assert!(pause(attempts) <= MAX_PAUSE);
        }
        assert!(pause(0) <= Duration::from_millis(250));
    }
}
