//! A run whose agent has ended: a new agent goes on with it, by the journal of its host.

use super::{CallError, CandidateBytes, RemoteRun, Waiting};
use crate::{
    hosts::{connection::Unanswered, link::RunThere},
    protocol::{RunAnswer, RunVerb},
    runs,
};

/// The answer of a host that has recorded the end of a run.
const RECORDED: RunAnswer = RunAnswer::Finished { is_recorded: true };

impl RemoteRun {
    /// Goes on with the run by the new agent of the present connection. The open request is the
    /// next one then. Returns its answer where the journal of the host has that.
    ///
    /// # Errors
    /// Fails if the new agent cannot go on with it: the host is lost.
    pub(super) async fn renew<C: CandidateBytes>(
        &mut self,
        waiting: &mut Waiting<'_, C>,
        why: String,
        is_sent: bool,
    ) -> Result<Option<RunAnswer>, CallError> {
        let lost = |why: String| CallError::Lost { why, is_sent };
        let Some(open) = self.open.take() else {
            return Err(lost(why));
        };
        let is_plan = matches!(open.verb, RunVerb::Plan { .. });
        let is_open = self.memory.there == Some(RunThere::Open);
        let renewed = match self.memory.there {
            Some(RunThere::Finished) if matches!(open.verb, RunVerb::Finish(_)) => {
                return Ok(Some(RECORDED));
            }
            Some(RunThere::Open) => self.continue_open(waiting).await,
            Some(RunThere::None) if is_plan => self.survey_again(waiting).await,
            _ => None,
        };
        if renewed.is_none() {
            self.open = Some(open);
            return Err(lost(why));
        }
        self.is_over = false;
        if is_plan && is_open {
            return Ok(Some(RunAnswer::Accepted));
        }
        self.notes = open.notes;
        self.open_request(open.verb);
        Ok(None)
    }

    /// Returns the answer to the end of the run, if the journal of the host has that end.
    pub(super) fn finished_there(&self) -> Option<RunAnswer> {
        let verb = self.open.as_ref().map(|open| &open.verb);
        let is_finish = matches!(verb, Some(RunVerb::Finish(_)));
        let is_there = self.memory.there == Some(RunThere::Finished);
        (is_finish && is_there).then_some(RECORDED)
    }

    /// Surveys the host again. Nothing was touched there, so its plan must be the same.
    async fn survey_again<C: CandidateBytes>(
        &mut self,
        waiting: &mut Waiting<'_, C>,
    ) -> Option<()> {
        let order = self.memory.survey()?;
        let expected = self.memory.plan()?;
        self.n = 0;
        self.epoch = None;
        match self.ask_new(RunVerb::Survey(order), waiting).await.ok()? {
            RunAnswer::Plan { plan, .. } if plan == expected => Some(()),
            _ => None,
        }
    }

    /// Begins a run that continues this one, which is open in the journal of the host.
    async fn continue_open<C: CandidateBytes>(
        &mut self,
        waiting: &mut Waiting<'_, C>,
    ) -> Option<()> {
        let order = self.memory.continuation(&self.run)?;
        self.run = runs::new_id();
        self.link.renew(&self.run);
        self.n = 0;
        self.epoch = None;
        let survey = RunVerb::Survey(Box::new(order));
        let RunAnswer::Plan { plan, reverted, .. } = self.ask_new(survey, waiting).await.ok()?
        else {
            return None;
        };
        let numbers = self.memory.numbers_of(&plan)?;
        let begin = self.memory.beginning(&numbers)?;
        self.memory.renew((&plan, &reverted), numbers);
        match self.ask_new(begin, waiting).await.ok()? {
            RunAnswer::Accepted => Some(()),
            _ => None,
        }
    }

    async fn ask_new<C: CandidateBytes>(
        &mut self,
        verb: RunVerb,
        waiting: &mut Waiting<'_, C>,
    ) -> Result<RunAnswer, Unanswered> {
        self.open_request(verb);
        self.exchange(&mut false, waiting).await
    }
}
