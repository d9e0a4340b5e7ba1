//! The way of an engine to a run on another machine.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::remote::{CallError, CandidateBytes, NoCandidates, RemoteRun};
use crate::{
    event::{Abort, Event, Interrupts, Outcome, Verdict, interrupted},
    fleet::Unproven,
    inventory::HostName,
    protocol::{
        Finish, HostLink, HostRows, Lost, Numbers, PartOf, Returned, RunAnswer, RunVerb,
        SessionAnswer, SessionRequest,
    },
};

/// The time that a host may take to roll back after its timer, before it is given up.
const ROLLBACK: Duration = Duration::from_secs(30);

/// The time between two looks whether a host is there again.
const AGAIN: Duration = Duration::from_secs(1);

/// The text of an answer to another request.
const UNEXPECTED: &str = "its agent answered something else";

impl RemoteRun {
    async fn ask(
        &mut self,
        verb: RunVerb,
        interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<RunAnswer, CallError> {
        self.call(verb, &NoCandidates, interrupts, emit).await
    }

    /// Gives the host the waves of its instances; it begins its journal, which names the run over
    /// all hosts.
    ///
    /// # Errors
    /// Fails if the host cannot begin, or is lost. Nothing is touched.
    pub(crate) async fn begin(
        &mut self,
        waves: Vec<(u16, Vec<u32>)>,
        (part_of, confirm_within): (&PartOf, Option<Duration>),
        candidates: &impl CandidateBytes,
        interrupts: &Interrupts,
    ) -> Result<(), Abort> {
        let waves = waves.into_iter();
        let waves = waves.map(|(wave, numbers)| (wave, Numbers(numbers)));
        let verb = RunVerb::Plan {
            waves: waves.collect(),
            part_of: Some(part_of.clone()),
            confirm_within_s: confirm_within.map(|time| time.as_secs()),
        };
        match self.call(verb, candidates, interrupts, &mut |_| {}).await {
            Ok(RunAnswer::Accepted) => Ok(()),
            other => Err(abort_of(other)),
        }
    }

    /// Ends a run that has nothing to do on this host. Returns its rows, and its outcomes with what
    /// the group of each says of an unproven instance.
    ///
    /// # Errors
    /// Fails if an instance is not what the survey showed, or if the host is lost.
    pub(crate) async fn unchanged(
        &mut self,
        interrupts: &Interrupts,
    ) -> Result<(HostRows, Vec<(Outcome, Unproven)>), Abort> {
        match self.ask(RunVerb::Unchanged, interrupts, &mut |_| {}).await {
            Ok(RunAnswer::Unchanged { rows, ends }) => Ok((rows, ends)),
            other => Err(abort_of(other)),
        }
    }

    /// Ends the run's hold on its targets. Returns the rows of the report.
    ///
    /// # Errors
    /// Fails if the host is lost.
    pub(crate) async fn close_up(
        &mut self,
        interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<HostRows, Lost> {
        match self.ask(RunVerb::CloseUp, interrupts, emit).await {
            Ok(RunAnswer::Rows(rows)) => Ok(rows),
            other => Err(lost(other)),
        }
    }

    /// Records how the run ended, and ends the conversation. A host that is lost then is asked
    /// again for the time of its commit-confirmed timer.
    ///
    /// # Errors
    /// Fails if the host is lost, or if its journal does not take the end: the run stays open
    /// there.
    pub(crate) async fn finish(
        mut self,
        (end, timer): (Finish, Option<Duration>),
        interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<(), NotFinished> {
        let lost = match self.ask(RunVerb::Finish(end), interrupts, emit).await {
            Ok(RunAnswer::Finished { is_recorded }) => return self.finished(is_recorded).await,
            other => NotFinished::Lost(lost(other).why),
        };
        let Some(timer) = timer else {
            return Err(lost);
        };
        let until = Instant::now() + timer + ROLLBACK;
        while Instant::now() < until && *interrupts.borrow() == 0 {
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = interrupted(interrupts, 0) => break,
            }
            let answer = self.returned_answer(emit).await;
            if let Some(Some(RunAnswer::Finished { is_recorded })) = answer {
                return self.finished(is_recorded).await;
            }
            if self.is_over() {
                break;
            }
        }
        Err(lost)
    }

    /// Ends the conversation with a host that has answered to the end of the run.
    async fn finished(self, is_recorded: bool) -> Result<(), NotFinished> {
        self.bye().await;
        if is_recorded {
            return Ok(());
        }
        Err(NotFinished::Unrecorded)
    }
}

/// Why a run has not come to its end on a host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotFinished {
    /// It is not known whether the host has recorded it.
    #[error("{0}")]
    Lost(String),
    /// The journal of the host did not take it.
    #[error("the journal of the host did not take the end of the run")]
    Unrecorded,
}

/// Returns the abort of a run by the answer of a host that has touched nothing.
fn abort_of(answer: Result<RunAnswer, CallError>) -> Abort {
    match answer {
        Ok(RunAnswer::Abort(abort)) => abort,
        Ok(_) => Abort::new(Verdict::Refused, UNEXPECTED),
        Err(CallError::Refused(why)) => Abort::new(Verdict::Refused, why.text),
        Err(lost) => Abort::new(Verdict::Unreachable, lost.to_string()),
    }
}

fn lost(answer: Result<RunAnswer, CallError>) -> Lost {
    match answer {
        Ok(_) => Lost {
            why: UNEXPECTED.into(),
            is_sent: true,
        },
        Err(error) => lost_by(&error),
    }
}

fn lost_by(error: &CallError) -> Lost {
    let is_unsent = matches!(error, CallError::Lost { is_sent: false, .. });
    Lost {
        why: error.to_string(),
        is_sent: !is_unsent,
    }
}

impl HostLink for RemoteRun {
    fn name(&self) -> &HostName {
        &self.name
    }

    fn note(&mut self, event: &Event) {
        self.keep_note(event);
    }

    fn is_journaled(&self) -> bool {
        self.is_journaled
    }

    async fn hear(&mut self, emit: &mut dyn FnMut(&Event)) -> Result<(), Lost> {
        let heard = self.hear_signs(emit).await;
        heard.map_err(|error| lost_by(&error))
    }

    async fn settle(
        &mut self,
        interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<(), Lost> {
        let settled = self.wait_for_connection(interrupts, emit).await;
        settled.map_err(|error| lost_by(&error))
    }

    async fn returned(&mut self, emit: &mut dyn FnMut(&Event)) -> Option<Returned> {
        match self.returned_answer(emit).await? {
            Some(RunAnswer::Done(answer)) => {
                self.is_journaled = answer.is_journaled;
                Some(Returned {
                    answer: Some(answer),
                })
            }
            Some(_) => None,
            None => Some(Returned::default()),
        }
    }

    async fn request(
        &mut self,
        request: SessionRequest,
        interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<SessionAnswer, Lost> {
        match self.ask(RunVerb::Do { request }, interrupts, emit).await {
            Ok(RunAnswer::Done(answer)) => {
                self.is_journaled = answer.is_journaled;
                Ok(answer)
            }
            other => Err(lost(other)),
        }
    }
}
