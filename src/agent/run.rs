//! The run that a coordinator carries out on this host: one request after another.

use std::{rc::Rc, time::Duration};

use super::{
    candidates::Candidates,
    card::{Card, EndedBy},
    host_agent::Agent,
    output::Output,
};
use crate::{
    event::{Event, Interrupts, Verdict},
    kernel::since_boot,
    protocol::{
        Finish, HostLink as _, Need, Progress, Refused, RefusedKind, RunAnswer, RunFrame, RunLine,
        RunVerb,
    },
    session::{Prepared, RunningSession},
};

/// How far a run has come on this host.
#[derive(Debug, Default)]
enum Stage {
    /// The bytes of its candidates are awaited.
    #[default]
    New,
    /// Everything is staged and valid.
    Prepared(Box<Prepared>),
    /// Its journal has begun.
    Running(Box<RunningSession>),
    /// It is over.
    Ended,
}

/// The commit-confirmed timer of a run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timer {
    /// Its length; none without a timer.
    seconds: Option<u64>,
    /// True once the run may have touched something.
    is_armed: bool,
}

fn heard_now() -> Event {
    Event::Heard {
        since_boot_s: since_boot().as_secs(),
    }
}

/// A run on this host.
#[derive(Debug)]
pub(super) struct AgentRun {
    /// Its id, the number of its last request, and its fencing token: a connection that attaches
    /// raises it while a request is carried out.
    pub(super) card: Rc<Card>,
    /// The lines of the last answer, which the coordinator may ask for again.
    last: Vec<String>,
    stage: Stage,
    timer: Timer,
    pub(super) candidates: Candidates,
    /// A survey that waits for bytes.
    pub(super) waiting: Option<RunFrame>,
}

impl AgentRun {
    pub(super) fn new(id: &str) -> Self {
        Self {
            card: Rc::new(Card {
                id: id.into(),
                ..Card::default()
            }),
            last: Vec::new(),
            stage: Stage::New,
            timer: Timer::default(),
            candidates: Candidates::default(),
            waiting: None,
        }
    }

    /// Returns true if the run has touched nothing yet, so that an interrupt simply ends it.
    pub(super) fn is_untouched(&self) -> bool {
        match &self.stage {
            Stage::New | Stage::Prepared(_) | Stage::Ended => true,
            Stage::Running(session) => !session.is_touched(),
        }
    }

    /// Returns the time after which a run that has touched something rolls back, if nothing is
    /// heard of its coordinator; none without such a timer.
    pub(super) fn armed(&self) -> Option<Duration> {
        let is_open = matches!(self.stage, Stage::Prepared(_) | Stage::Running(_));
        let seconds = self
            .timer
            .seconds
            .filter(|_| self.timer.is_armed && is_open);
        seconds.map(Duration::from_secs)
    }

    /// Returns true if its journal has begun, and not ended.
    pub(super) fn has_begun(&self) -> bool {
        matches!(self.stage, Stage::Running(_))
    }

    /// Keeps in the journal that the coordinator was heard.
    pub(super) fn stamp(&mut self) {
        if let Stage::Running(session) = &mut self.stage {
            session.note(&heard_now());
        }
    }

    /// Checks the order of the requests. Returns the lines to send where nothing is carried out.
    pub(super) fn check(&self, frame: &RunFrame) -> Option<Vec<String>> {
        let (n, epoch) = (self.card.n.get(), self.card.epoch.get());
        let refuse = |kind, text: String| {
            let line = RunLine::refused(frame.n, epoch, Refused { kind, text });
            Some(vec![serde_json::to_string(&line).unwrap_or_default()])
        };
        if frame.run != self.card.id {
            let why = format!("this connection is about run {}", self.card.id);
            return refuse(RefusedKind::NotAllowed, why);
        }
        // The answer to the survey has the counter, so every later request must name it.
        let is_survey = matches!(frame.verb, RunVerb::Survey(_));
        let is_first = is_survey && frame.epoch.is_none();
        if n > 0 && !is_first && frame.epoch != Some(epoch) {
            let why = format!("the host's counter is {epoch}");
            return refuse(RefusedKind::Stale, why);
        }
        if frame.n == n && n > 0 {
            return Some(self.last.clone());
        }
        if frame.n <= n {
            let why = format!("request {} is over; the last one is {n}", frame.n);
            return refuse(RefusedKind::Old, why);
        }
        if frame.n > n + 1 {
            let why = format!("request {} is missing", n + 1);
            return refuse(RefusedKind::Gap, why);
        }
        None
    }

    /// Returns what a survey must wait for.
    pub(super) fn need(&self, frame: &RunFrame) -> Option<Need> {
        let RunVerb::Survey(order) = &frame.verb else {
            return None;
        };
        let bytes = self.candidates.missing(order);
        (!bytes.is_empty()).then_some(Need {
            need: frame.n,
            bytes,
        })
    }

    /// Carries out a request, and keeps its answer.
    pub(super) async fn carry_out(
        &mut self,
        agent: &Agent,
        frame: RunFrame,
        interrupts: &mut Interrupts,
    ) -> Vec<String> {
        let n = frame.n;
        let mut emit = |event: &Event| {
            agent.output.progress(&Progress {
                ev: n,
                events: vec![event.clone()],
            })
        };
        if let Stage::Running(session) = &mut self.stage {
            for note in &frame.notes {
                session.note(note);
            }
        }
        let answer = self.answer(agent, frame.verb, interrupts, &mut emit).await;
        self.card.n.set(n);
        let epoch = self.card.epoch.get();
        self.last = match answer {
            Ok(answer) => RunLine::of(n, epoch, &answer).unwrap_or_default(),
            Err(refused) => {
                let line = RunLine::refused(n, epoch, refused);
                vec![serde_json::to_string(&line).unwrap_or_default()]
            }
        };
        self.last.clone()
    }

    async fn answer(
        &mut self,
        agent: &Agent,
        verb: RunVerb,
        interrupts: &mut Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<RunAnswer, Refused> {
        match (verb, std::mem::take(&mut self.stage)) {
            (RunVerb::Survey(order), Stage::New) => {
                match self.survey(agent, *order, interrupts, emit).await? {
                    Ok(answer) => Ok(answer),
                    Err(abort) => {
                        self.stage = Stage::Ended;
                        Ok(RunAnswer::Abort(abort))
                    }
                }
            }
            (
                RunVerb::Plan {
                    waves,
                    part_of,
                    confirm_within_s,
                },
                Stage::Prepared(mut prepared),
            ) => {
                prepared.join(part_of);
                self.timer.seconds = confirm_within_s.or(self.timer.seconds);
                prepared.arm(self.timer.seconds);
                let explain = prepared.explanation();
                let by_wave: Vec<(u16, Vec<u32>)> = waves
                    .into_iter()
                    .map(|(wave, numbers)| (wave, numbers.0))
                    .collect();
                match prepared.begin(Some(&by_wave), interrupts).await {
                    Ok(session) => {
                        self.stage = Stage::Running(Box::new(session));
                        Ok(RunAnswer::Accepted)
                    }
                    Err(abort) => {
                        self.stage = Stage::Ended;
                        Ok(RunAnswer::Abort(explain(abort)))
                    }
                }
            }
            (RunVerb::Unchanged, Stage::Prepared(prepared)) => {
                let explain = prepared.explanation();
                self.stage = Stage::Ended;
                match prepared.unchanged(interrupts).await {
                    Ok((rows, ends)) => Ok(RunAnswer::Unchanged { rows, ends }),
                    Err(abort) => Ok(RunAnswer::Abort(explain(abort))),
                }
            }
            (RunVerb::Do { request }, Stage::Running(mut session)) => {
                if self.timer.seconds.is_some() {
                    self.timer.is_armed = true;
                    session.note(&heard_now());
                }
                let answer = session.carry_out(request, interrupts, emit).await;
                self.stage = Stage::Running(session);
                Ok(RunAnswer::Done(answer))
            }
            (RunVerb::CloseUp, Stage::Running(mut session)) => {
                let rows = session.close_up(emit);
                self.stage = Stage::Running(session);
                Ok(RunAnswer::Rows(rows))
            }
            (RunVerb::Finish(end), Stage::Running(session)) => {
                let is_recorded = session.finish(end, interrupts, emit).await;
                self.stage = Stage::Ended;
                Ok(RunAnswer::Finished { is_recorded })
            }
            (_, stage) => {
                self.stage = stage;
                Err(Refused {
                    kind: RefusedKind::NotAllowed,
                    text: "the run has not come so far on this host, or is over there".into(),
                })
            }
        }
    }

    /// Ends the session. A host that its coordinator dismissed, and that has touched nothing, is
    /// over with it. Any other run stays open: it may have touched other hosts, and a resume goes
    /// on here then. Staged files do not stay.
    pub(super) async fn abandon(
        self,
        output: &Output,
        interrupts: &Interrupts,
        by: Option<EndedBy>,
    ) {
        let Stage::Running(mut session) = self.stage else {
            return;
        };
        let is_dismissed = by == Some(EndedBy::Coordinator);
        if session.is_touched() || !is_dismissed {
            let by = by.unwrap_or(EndedBy::Coordinator);
            session.note(&by.event());
            return;
        }
        let mut emit = |event: &Event| {
            output.progress(&Progress {
                ev: 0,
                events: vec![event.clone()],
            })
        };
        session.close_up(&mut emit);
        let end = Finish {
            verdict: Verdict::Failed,
            reason: "the coordinator ended before anything was touched here".into(),
            supersedes: false,
        };
        session.finish(end, interrupts, &mut emit).await;
    }
}

mod survey;
#[cfg(test)]
mod tests;
