//! What a coordinator keeps of a run on a host, so that a new agent can go on with it.

use std::collections::{BTreeMap, BTreeSet};

use super::link::RunThere;
use crate::{
    event::Outcome,
    protocol::{
        ChangeOrder, ContinuedRun, HostPlan, HostRows, Numbers, RunAnswer, RunVerb, Scope,
        SessionAnswer, SessionRequest, SurveyOrder,
    },
};

/// What a new agent needs to go on with a run.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The order of the survey.
    survey: Option<Box<SurveyOrder>>,
    /// The plan of the host, until the run has begun there.
    plan: Option<HostPlan>,
    /// The instances, by their numbers.
    instances: Vec<(i32, u64)>,
    /// Those of them that needed nothing at the first survey.
    unchanged: BTreeSet<u32>,
    /// The request that began the run.
    begun: Option<RunVerb>,
    /// The run in the journal of its host, since the last session has ended.
    pub(super) there: Option<RunThere>,
    /// The number of each instance in the first plan, by its number in that of a new agent. None if
    /// the agent is the first one.
    numbers: Option<Vec<u32>>,
    /// The last outcome of each instance, by its first number, that an agent has answered.
    outcomes: BTreeMap<u32, Outcome>,
    /// Instances, by their first numbers, that the survey of a new agent has found on the new
    /// config. The next answer says so.
    proven: Vec<u32>,
}

impl Memory {
    /// Keeps what a new agent would need of a request.
    pub(super) fn keep(&mut self, verb: &RunVerb) {
        match verb {
            RunVerb::Survey(order) => self.survey = Some(order.clone()),
            RunVerb::Plan { .. } => self.begun = Some(verb.clone()),
            _ => {}
        }
    }

    /// Keeps what a new agent would need of an answer, and returns it with the numbers of the first
    /// agent.
    pub(super) fn take(&mut self, answer: RunAnswer) -> RunAnswer {
        match answer {
            RunAnswer::Plan { ref plan, .. } => {
                self.instances = identities(plan);
                self.unchanged = unchanged(plan).collect();
                self.plan = Some(plan.clone());
                answer
            }
            RunAnswer::Accepted => {
                self.plan = None;
                answer
            }
            RunAnswer::Done(done) => {
                let done = self.restore(done);
                RunAnswer::Done(self.settle(done))
            }
            RunAnswer::Rows(rows) => RunAnswer::Rows(self.settle_rows(rows)),
            answer => answer,
        }
    }

    /// Keeps the outcomes of an answer, with those that a new agent knows by its survey alone.
    fn settle(&mut self, mut answer: SessionAnswer) -> SessionAnswer {
        let mut settled: Vec<(Outcome, Numbers)> = Vec::new();
        for (outcome, Numbers(numbers)) in answer.outcomes {
            for number in numbers {
                let outcome = self.settled(number, outcome);
                self.outcomes.insert(number, outcome);
                match settled.last_mut() {
                    Some((last, Numbers(named))) if *last == outcome => named.push(number),
                    _ => settled.push((outcome, Numbers(vec![number]))),
                }
            }
        }
        answer.outcomes = settled;
        answer
    }

    /// Gives the rows of a new agent the outcomes of the run.
    fn settle_rows(&self, mut rows: HostRows) -> HostRows {
        for instance in &mut rows.instances {
            let id = (instance.pid, instance.started);
            let number = (0..).zip(&self.instances).find(|(_, known)| **known == id);
            if let Some((number, _)) = number {
                instance.outcome = self.settled(number, instance.outcome);
            }
        }
        rows
    }

    /// Returns the outcome of an instance. A new agent takes one that the first one has rolled back
    /// for untouched, and one that it has confirmed for unchanged.
    fn settled(&self, number: u32, outcome: Outcome) -> Outcome {
        let known = self.outcomes.get(&number).copied();
        match (known.filter(|_| self.numbers.is_some()), outcome) {
            (Some(Outcome::Reverted), Outcome::Untouched) => Outcome::Reverted,
            (Some(known @ (Outcome::Confirmed | Outcome::Unconfirmed)), Outcome::Unchanged) => {
                known
            }
            _ => outcome,
        }
    }

    /// Returns a request with the numbers of the present agent.
    pub(super) fn renumbered(&self, mut verb: RunVerb) -> RunVerb {
        if let (Some(numbers), RunVerb::Do { request }) = (&self.numbers, &mut verb)
            && let SessionRequest::RollBack {
                scope: Scope::Named(named),
                ..
            } = request
        {
            let new = |old: &u32| numbers.iter().position(|number| number == old);
            let mut renamed: Vec<u32> = named
                .iter()
                .filter_map(|old| u32::try_from(new(old)?).ok())
                .collect();
            renamed.sort_unstable();
            *named = renamed;
        }
        verb
    }

    /// Returns an answer with the numbers of the first agent. What the first one has touched is
    /// touched.
    fn restore(&mut self, mut answer: SessionAnswer) -> SessionAnswer {
        let Some(numbers) = &self.numbers else {
            return answer;
        };
        let old = |new: u32| {
            let index = usize::try_from(new).unwrap_or(usize::MAX);
            numbers.get(index).copied()
        };
        for (_, Numbers(named)) in &mut answer.outcomes {
            *named = named.iter().filter_map(|new| old(*new)).collect();
        }
        let failures = answer.failures.into_iter();
        answer.failures = failures
            .filter_map(|(new, why)| Some((old(new)?, why)))
            .collect();
        if !self.proven.is_empty() {
            let proven = Numbers(std::mem::take(&mut self.proven));
            answer.outcomes.insert(0, (Outcome::Confirmed, proven));
        }
        answer.is_touched = true;
        answer
    }

    /// Goes on with the plan of a new agent, in which each instance has this first number. The
    /// journal of the host has that those of `reverted` were rolled back before.
    pub(super) fn renew(&mut self, (plan, reverted): (&HostPlan, &Numbers), numbers: Vec<u32>) {
        let old = |new: u32| numbers.get(usize::try_from(new).ok()?).copied();
        let reverted = reverted.0.iter().filter_map(|new| old(*new));
        let reverted = reverted.map(|number| (number, Outcome::Reverted));
        self.outcomes.extend(reverted);
        let proven = unchanged(plan).filter_map(old);
        self.proven = proven.filter(|old| !self.unchanged.contains(old)).collect();
        self.numbers = Some(numbers);
    }

    /// Returns the order of the survey.
    pub(super) fn survey(&self) -> Option<Box<SurveyOrder>> {
        self.survey.clone()
    }

    /// Returns the plan of the host, before the run has begun there.
    pub(super) fn plan(&self) -> Option<HostPlan> {
        self.plan.clone()
    }

    /// Returns the number of each instance of a new plan in the first one; none if they have other
    /// instances.
    pub(super) fn numbers_of(&self, plan: &HostPlan) -> Option<Vec<u32>> {
        let first: BTreeMap<(i32, u64), u32> = self.instances.iter().copied().zip(0..).collect();
        let new = identities(plan);
        let numbers: Option<Vec<u32>> = new.iter().map(|id| first.get(id).copied()).collect();
        numbers.filter(|numbers| numbers.len() == first.len())
    }

    /// Returns the order of the survey that continues the run.
    pub(super) fn continuation(&self, run: &str) -> Option<SurveyOrder> {
        let order = self.survey.as_deref()?.clone();
        Some(SurveyOrder {
            named: BTreeMap::new(),
            others: ChangeOrder::Adopt,
            of: Some(ContinuedRun {
                run: run.into(),
                revert: false,
                may_skip: false,
            }),
            ..order
        })
    }

    /// Returns the request that begins the run again, with the numbers of a new plan.
    pub(super) fn beginning(&self, numbers: &[u32]) -> Option<RunVerb> {
        let Some(RunVerb::Plan {
            waves,
            part_of,
            confirm_within_s,
        }) = &self.begun
        else {
            return None;
        };
        let mut wave_of = BTreeMap::new();
        for (wave, Numbers(named)) in waves {
            wave_of.extend(named.iter().map(|number| (*number, *wave)));
        }
        let mut new: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
        for (number, old) in (0..).zip(numbers) {
            let wave = wave_of.get(old).copied().unwrap_or(0);
            new.entry(wave).or_default().push(number);
        }
        let waves = new.into_iter().map(|(wave, named)| (wave, Numbers(named)));
        Some(RunVerb::Plan {
            waves: waves.collect(),
            part_of: part_of.clone(),
            confirm_within_s: *confirm_within_s,
        })
    }
}

/// Iterates over the numbers of the instances that run the new config.
fn unchanged(plan: &HostPlan) -> impl Iterator<Item = u32> {
    let entries = (0..).zip(&plan.entries);
    entries
        .filter(|(_, entry)| entry.outcome == Outcome::Unchanged)
        .map(|(number, _)| number)
}

fn identities(plan: &HostPlan) -> Vec<(i32, u64)> {
    let entries = plan.entries.iter();
    entries.map(|entry| (entry.pid, entry.started)).collect()
}
