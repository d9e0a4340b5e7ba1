//! A run on another machine: numbered requests to its agent, over one connection after another.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{
    connection::{Connection, Route, Unanswered},
    link::{Again, NoSession, RunThere, SessionLink},
    memory::Memory,
};
use crate::{
    event::{Event, HostState, Interrupts, interrupted},
    inventory::HostName,
    protocol::{Greeting, Refused, RunAnswer, RunFrame, RunVerb},
};

/// The most connections on which one request is sent: its answer may be one that this version
/// cannot read.
const MAX_CONNECTIONS: u32 = 20;

/// The longest wait for the answer of a host that is there again: it is made already, unless the
/// host still works on it.
const LATE_ANSWER: Duration = Duration::from_secs(2);

/// A run on one host.
#[derive(Debug)]
pub(crate) struct RemoteRun {
    pub(super) name: HostName,
    link: SessionLink,
    silence: Duration,
    run: String,
    /// The number of the last request.
    n: u64,
    /// The fencing token of the host; none before its survey.
    epoch: Option<u64>,
    /// Events of the coordinator since the last request.
    notes: Vec<Event>,
    /// The request whose answer has not come.
    open: Option<RunFrame>,
    /// True once its agent has said that the session has ended.
    is_over: bool,
    /// Why the session has ended, where a new agent can go on with the run at the next request.
    renews: Option<String>,
    /// What a new agent needs to go on with the run.
    memory: Memory,
    pub(super) is_journaled: bool,
}

/// Why a request of a run has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nothing was heard of the host for too long, or its session is over.
    #[error("{why}")]
    Lost {
        why: String,
        /// False if not all of the request was written.
        is_sent: bool,
    },
    /// The agent refuses.
    #[error("{}", .0.text)]
    Refused(Refused),
}

/// Bytes of candidates, by digest.
pub(crate) trait CandidateBytes {
    /// Returns the bytes of a candidate of the run.
    fn bytes(&self, sha256: &str) -> Option<&[u8]>;
}

/// What a request needs while its answer is awaited.
struct Waiting<'a, C> {
    candidates: &'a C,
    interrupts: &'a Interrupts,
    emit: &'a mut dyn FnMut(&Event),
}

/// No candidate is sent after the survey.
pub(super) struct NoCandidates;

impl CandidateBytes for NoCandidates {
    fn bytes(&self, _: &str) -> Option<&[u8]> {
        None
    }
}

impl RemoteRun {
    /// Begins a run over a connection. Nothing is sent yet.
    pub(crate) fn new(
        route: Route,
        (connection, greeting): (Connection, &Greeting),
        run: &str,
    ) -> Self {
        Self {
            name: route.name.clone(),
            silence: route.silence,
            link: SessionLink::new(route, connection, greeting, run),
            run: run.into(),
            n: 0,
            epoch: None,
            notes: Vec::new(),
            open: None,
            is_over: false,
            renews: None,
            memory: Memory::default(),
            is_journaled: true,
        }
    }

    /// Keeps an event of the coordinator for the host's journal: the next request carries it.
    pub(super) fn keep_note(&mut self, event: &Event) {
        self.notes.push(event.clone());
    }

    /// Sends the next request, and waits for its answer. Sends the bytes that the host lacks, and
    /// passes on each interrupt meanwhile. If the connection breaks, the request goes on over
    /// another one.
    ///
    /// # Errors
    /// Fails if the host is lost, or if its agent refuses.
    pub(crate) async fn call(
        &mut self,
        verb: RunVerb,
        candidates: &impl CandidateBytes,
        interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<RunAnswer, CallError> {
        self.memory.keep(&verb);
        self.open_request(verb);
        let mut waiting = Waiting {
            candidates,
            interrupts,
            emit,
        };
        let mut is_sent = false;
        if let Some(why) = self.renews.take()
            && let Some(answer) = self.renew(&mut waiting, why, is_sent).await?
        {
            return Ok(answer);
        }
        for _ in 0..MAX_CONNECTIONS {
            let why = match self.exchange(&mut is_sent, &mut waiting).await {
                Ok(answer) => return Ok(self.memory.take(answer)),
                Err(Unanswered::Refused(refused)) => {
                    self.open = None;
                    return Err(CallError::Refused(refused));
                }
                Err(why) => why,
            };
            self.break_off(&why, waiting.emit);
            match self.go_on(interrupts, is_sent, waiting.emit).await {
                Err(CallError::Lost { why, .. }) if self.is_over => {
                    if let Some(answer) = self.renew(&mut waiting, why, is_sent).await? {
                        return Ok(answer);
                    }
                }
                gone_on => gone_on?,
            }
        }
        let why = self.link.why_lost();
        Err(CallError::Lost { why, is_sent })
    }

    /// Makes a request the open one.
    fn open_request(&mut self, verb: RunVerb) {
        self.n += 1;
        self.open = Some(RunFrame {
            run: self.run.clone(),
            n: self.n,
            epoch: self.epoch,
            notes: std::mem::take(&mut self.notes),
            verb: self.memory.renumbered(verb),
        });
    }

    /// Sends the open request over the present connection, and waits for its answer.
    async fn exchange<C: CandidateBytes>(
        &mut self,
        is_sent: &mut bool,
        waiting: &mut Waiting<'_, C>,
    ) -> Result<RunAnswer, Unanswered> {
        let Some(frame) = &self.open else {
            return Err(Unanswered::Ended);
        };
        let connection = self.link.connection().ok_or(Unanswered::Ended)?;
        // An agent reads whole lines: without its end, this one is no request.
        connection.send(frame).await?;
        *is_sent = true;
        let line = self.answer(waiting).await?;
        // The remembered answer has the token of the connection that it was made for.
        self.epoch = self.epoch.max(Some(line.epoch));
        // One that cannot be read is asked for again.
        let answer = line.ok.ok_or(Unanswered::Ended)?;
        self.open = None;
        Ok(answer)
    }

    /// Leaves a connection that broke, and says so.
    fn break_off(&mut self, why: &Unanswered, emit: &mut dyn FnMut(&Event)) {
        let text = self.link.break_off(why);
        emit(&Event::Host {
            host: self.name.clone(),
            state: HostState::Silent,
            why: Some(format!("{text}; connecting again")),
        });
    }

    /// Goes on with a session over a new connection.
    ///
    /// # Errors
    /// Fails if there is no session to go on with.
    fn resumed(
        &mut self,
        again: Again,
        is_sent: bool,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<(), CallError> {
        match again {
            Again::Session(epoch) => {
                self.epoch = self.epoch.max(Some(epoch));
                if let Some(open) = &mut self.open {
                    open.epoch = self.epoch;
                }
            }
            // Nothing is staged there, and the new agent can survey as well.
            Again::None(none)
                if self.n == 1 && self.open.is_some() && none.run == RunThere::None => {}
            Again::None(NoSession {
                why,
                run: RunThere::Open,
            }) if self.open.is_none() => {
                self.memory.there = Some(RunThere::Open);
                self.renews = Some(why);
            }
            Again::None(NoSession { why, run }) => {
                self.is_over = true;
                self.memory.there = Some(run);
                return Err(CallError::Lost { why, is_sent });
            }
        }
        emit(&Event::Host {
            host: self.name.clone(),
            state: HostState::Ready,
            why: None,
        });
        Ok(())
    }

    /// Waits until a connection that broke is made again.
    ///
    /// # Errors
    /// Fails if the host is lost.
    pub(super) async fn wait_for_connection(
        &mut self,
        interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<(), CallError> {
        self.hear_signs(emit).await?;
        if self.link.connection().is_some() {
            return Ok(());
        }
        self.go_on(interrupts, false, emit).await
    }

    /// Waits for the next connection after one that broke, unless the operator leaves at once.
    ///
    /// # Errors
    /// Fails if the host is lost, or if there is no session to go on with.
    async fn go_on(
        &mut self,
        interrupts: &Interrupts,
        is_sent: bool,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<(), CallError> {
        let again = tokio::select! {
            again = self.link.again() => again,
            () = interrupted(interrupts, 1) => None,
        };
        match again {
            Some(again) => self.resumed(again, is_sent, emit),
            None => Err(CallError::Lost {
                why: self.link.why_lost(),
                is_sent,
            }),
        }
    }

    /// Looks whether a lost host is there again. Returns the answer to the request that it was lost
    /// in, if there was one; nothing as long as the host is lost.
    pub(super) async fn returned_answer(
        &mut self,
        emit: &mut dyn FnMut(&Event),
    ) -> Option<Option<RunAnswer>> {
        if self.is_over {
            return None;
        }
        if self.link.connection().is_none() {
            let again = self.link.again_now()?;
            if self.resumed(again, true, emit).is_err() {
                return self.finished_there().map(Some);
            }
        }
        if self.open.is_none() {
            return Some(None);
        }
        // It may still carry the request out: a later look finds its answer then.
        let (_keep, interrupts) = tokio::sync::watch::channel(0);
        let mut waiting = Waiting {
            candidates: &NoCandidates,
            interrupts: &interrupts,
            emit,
        };
        match timeout(LATE_ANSWER, self.exchange(&mut true, &mut waiting)).await {
            Ok(Ok(answer)) => Some(Some(self.memory.take(answer))),
            Ok(Err(Unanswered::Refused(_))) => {
                self.is_over = true;
                None
            }
            Ok(Err(why)) => {
                self.link.break_off(&why);
                None
            }
            Err(_) => None,
        }
    }

    /// Tells whether its agent has said that the session has ended.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Reads what has come since the last answer. A connection that broke is made again meanwhile.
    ///
    /// # Errors
    /// Fails if the host is lost.
    pub(super) async fn hear_signs(
        &mut self,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<(), CallError> {
        if let Some(connection) = self.link.connection() {
            let Err(why) = connection.hear().await else {
                return Ok(());
            };
            self.break_off(&why, emit);
            return Ok(());
        }
        match self.link.again_now() {
            Some(again) => self.resumed(again, false, emit),
            None if Instant::now() < self.link.lost_at() => Ok(()),
            None => Err(CallError::Lost {
                why: self.link.why_lost(),
                is_sent: false,
            }),
        }
    }

    /// Ends the conversation. A run that has touched nothing ends on its host.
    pub(crate) async fn bye(self) {
        self.link.bye().await;
    }
}

/// Ends the conversation with each host, and so the run where it has touched nothing.
pub(crate) async fn dismiss(runs: impl IntoIterator<Item = RemoteRun>) {
    futures_util::future::join_all(runs.into_iter().map(RemoteRun::bye)).await;
}

mod answer;
mod renew;
#[cfg(test)]
mod tests;
