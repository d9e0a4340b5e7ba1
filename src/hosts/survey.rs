//! The survey of a run on every host: connect, survey, validate. Nothing is touched.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, stream};

use super::{
    connection::{Connection, Route},
    failure::{ConnectFailure, Fault},
    query::{QueryError, Ways},
    remote::{CallError, CandidateBytes, RemoteRun},
};
use crate::{
    event::{Abort, Event, HostState, Interrupts, Verdict},
    fleet::Hosts,
    inventory::{Expression, HostEntry, HostName},
    protocol::{
        Greeting, HostPlan, HostRows, Limits, Operator, PartOf, RefusedKind, Request, RunAnswer,
        RunVerb, SurveyOrder, TakeOver,
    },
};

/// A host that is ready: everything is staged and valid there.
#[derive(Debug)]
pub(crate) struct ReadyHost {
    /// The run there.
    pub(crate) run: RemoteRun,
    pub(crate) greeting: Greeting,
    pub(crate) plan: HostPlan,
    /// What a dry run shows.
    pub(crate) rows: Option<HostRows>,
    /// Instances of the earlier run that have gone, for the reason of a good end.
    pub(crate) unreplaced: Option<String>,
    /// The config that is installed is an old one.
    pub(crate) back: bool,
    /// No bake, no gate, and no rollback.
    pub(crate) now: bool,
    /// The earlier run has reached its goal there.
    pub(crate) is_over: bool,
    /// The run over hosts that the earlier run is a part of.
    pub(crate) part_of: Option<PartOf>,
    /// The commit-confirmed timer that goes on with this run.
    pub(crate) armed: Option<Duration>,
}

/// Why a host is not ready.
#[derive(Debug)]
pub(crate) struct UnreadyHost {
    pub(crate) name: HostName,
    pub(crate) state: HostState,
    /// True if the earlier run never began there: it has touched nothing.
    pub(crate) never_began: bool,
    /// The version of its agent, if it greeted.
    pub(crate) version: Option<String>,
    /// The end of the run by this host.
    pub(crate) abort: Abort,
}

/// The part of a run that every host surveys.
#[derive(Debug)]
pub(crate) struct FleetSurvey<'a, C> {
    pub(crate) run: &'a str,
    pub(crate) hosts: &'a Hosts,
    pub(crate) operator: &'a Operator,
    pub(crate) order: &'a SurveyOrder,
    /// The hosts of the groups that have some of their own.
    pub(crate) hosts_of: &'a BTreeMap<String, Expression>,
    pub(crate) candidates: &'a C,
    /// The commit-confirmed timer that each host arms.
    pub(crate) confirm_within: Option<Duration>,
    /// The sessions of another coordinator that are ended first.
    pub(crate) take_over: Option<&'a TakeOver>,
    /// A host that does not know the earlier run is refused.
    pub(crate) must_know: bool,
    pub(crate) interrupts: &'a Interrupts,
}

/// Surveys each host; at most [`Hosts::parallel`] at once. Returns what came of each, in the order
/// of the entries. Each event is given to `emit` with its host.
pub(crate) async fn survey_hosts<C: CandidateBytes>(
    survey: &FleetSurvey<'_, C>,
    entries: &[HostEntry],
    emit: &mut dyn FnMut(&HostName, &Event),
) -> Vec<Result<ReadyHost, Box<UnreadyHost>>> {
    let emit = RefCell::new(emit);
    let ways = Ways::of(survey.hosts, survey.operator).await;
    let asked = entries.iter().enumerate().map(|(index, entry)| {
        let (emit, ways) = (&emit, &ways);
        async move {
            let mut of_host = |event: &Event| emit.borrow_mut()(&entry.name, event);
            let surveyed = survey.of_host((entry, ways), &mut of_host).await;
            let event = match &surveyed {
                Ok(ready) => host_event(&entry.name, HostState::Ready, &ready.greeting.version),
                Err(unready) => host_event(&entry.name, unready.state, &unready.abort.reason),
            };
            emit.borrow_mut()(&entry.name, &event);
            (index, surveyed)
        }
    });
    let mut surveyed: Vec<_> = stream::iter(asked)
        .buffer_unordered(survey.hosts.parallel)
        .collect()
        .await;
    surveyed.sort_by_key(|(index, _)| *index);
    surveyed.into_iter().map(|(_, surveyed)| surveyed).collect()
}

fn host_event(name: &HostName, state: HostState, why: &str) -> Event {
    Event::Host {
        host: name.clone(),
        state,
        why: (state != HostState::Ready).then(|| why.to_owned()),
    }
}

impl<C: CandidateBytes> FleetSurvey<'_, C> {
    /// Returns the order for one host, without the groups that other hosts have; none if no group
    /// is left.
    fn order_for(&self, entry: &HostEntry) -> Option<SurveyOrder> {
        let mut order = self.order.clone();
        if order.groups.is_empty() {
            return Some(order);
        }
        let is_here = |group: &String| {
            let hosts = self.hosts_of.get(group);
            hosts.is_none_or(|hosts| hosts.fits(entry))
        };
        order.groups.retain(is_here);
        let groups = &order.groups;
        order.named.retain(|group, _| groups.contains(group));
        (!order.groups.is_empty()).then_some(order)
    }

    /// Connects to a host, ends the sessions there that this run takes over, and checks that it
    /// takes the timer of the run.
    async fn connected(
        &self,
        (entry, ways): (&HostEntry, &Ways<'_>),
    ) -> Result<(Route, Connection, Greeting), Box<UnreadyHost>> {
        let unreached = |failure: ConnectFailure| {
            let state = match failure.fault {
                Fault::Skewed { .. } => HostState::Skewed,
                Fault::OtherHost(_) => HostState::Refused,
                _ => HostState::Unreachable,
            };
            let why = QueryError::Connect(failure);
            unready(entry, state, Abort::new(why.verdict(), why.text()))
        };
        let mut route = ways
            .to(entry)
            .map_err(|why| unreached(ConnectFailure::new(why)))?;
        route.key = new_key();
        let connected = tokio::select! {
            connected = route.connect() => connected,
            () = crate::event::interrupted(self.interrupts, 0) => {
                return Err(unready(entry, HostState::Excluded, Abort::interrupted()));
            }
        };
        let (mut connection, greeting) = connected.map_err(unreached)?;
        if let Some(order) = self.take_over.filter(|_| !self.order.dry_run) {
            let taken = connection.query(&Request::TakeOver(order.clone())).await;
            if let Err(why) = taken {
                let why = format!("a session there did not end: {why}");
                connection.bye().await;
                let abort = Abort::new(Verdict::Busy, why);
                return Err(unready(entry, HostState::Busy, abort));
            }
        }
        if let Some(why) = self
            .confirm_within
            .and_then(|time| no_timer(time, &greeting))
        {
            connection.bye().await;
            let abort = Abort::new(Verdict::Refused, why);
            return Err(unready(entry, HostState::Refused, abort));
        }
        Ok((route, connection, greeting))
    }

    async fn of_host(
        &self,
        (entry, ways): (&HostEntry, &Ways<'_>),
        emit: &mut dyn FnMut(&Event),
    ) -> Result<ReadyHost, Box<UnreadyHost>> {
        let order = self.order_for(entry).ok_or_else(|| {
            let why = "none of the groups is on it";
            let abort = Abort::new(Verdict::NoMatch, why);
            unready(entry, HostState::Excluded, abort)
        })?;
        let (route, connection, greeting) = self.connected((entry, ways)).await?;
        let mut run = RemoteRun::new(route, (connection, &greeting), self.run);
        let verb = RunVerb::Survey(Box::new(order));
        let answer = run.call(verb, self.candidates, self.interrupts, emit).await;
        let version = Some(greeting.version.clone());
        match answer {
            Ok(RunAnswer::Plan {
                plan,
                rows,
                unreplaced,
                back,
                now,
                is_over,
                part_of,
                armed_s,
                ..
            }) => Ok(ReadyHost {
                run,
                greeting,
                plan,
                rows,
                unreplaced,
                back,
                now,
                is_over,
                part_of,
                armed: armed_s.map(Duration::from_secs),
            }),
            Ok(RunAnswer::Abort(abort)) => {
                let state = match abort.verdict {
                    Verdict::Busy => HostState::Busy,
                    _ => HostState::Refused,
                };
                run.bye().await;
                let mut host = unready(entry, state, abort);
                host.version = version;
                Err(host)
            }
            Ok(_) => {
                run.bye().await;
                let abort = Abort::new(Verdict::Refused, "it answered something else than a plan");
                Err(unready(entry, HostState::Refused, abort))
            }
            Err(error) => {
                let mut host = self.unanswered(entry, &error);
                run.bye().await;
                host.version = version;
                Err(host)
            }
        }
    }
}

impl<C> FleetSurvey<'_, C> {
    fn unanswered(&self, entry: &HostEntry, error: &CallError) -> Box<UnreadyHost> {
        let refused = match error {
            CallError::Refused(refused) => Some(refused.kind),
            CallError::Lost { .. } => None,
        };
        let of = self.order.of.as_ref();
        let may_skip = of.is_some_and(|of| of.may_skip);
        let never_began = refused == Some(RefusedKind::NeverBegan);
        let (state, verdict) = match refused {
            // A host without one of the groups is no part of the run.
            Some(RefusedKind::NoGroup) => (HostState::Excluded, Verdict::NoMatch),
            Some(RefusedKind::NeverBegan) if may_skip => (HostState::Excluded, Verdict::NoMatch),
            Some(RefusedKind::NoRun | RefusedKind::NeverBegan) if !self.must_know => {
                (HostState::Excluded, Verdict::NoMatch)
            }
            Some(_) => (HostState::Refused, Verdict::Refused),
            None => (HostState::Unreachable, Verdict::Unreachable),
        };
        let mut host = unready(entry, state, Abort::new(verdict, error.to_string()));
        host.never_began = never_began && may_skip;
        host
    }
}

/// Returns why a host does not take a commit-confirmed timer of this length; none if it does.
fn no_timer(time: Duration, greeting: &Greeting) -> Option<String> {
    let Limits {
        lease_s,
        confirm_max_s,
        ..
    } = greeting.limits;
    let asked = time.as_secs();
    if asked < lease_s {
        return Some(format!(
            "--commit-confirmed {asked}s is shorter than the lease of its agent ({lease_s}s): a \
             broken link would roll it back before it could be made again"
        ));
    }
    (asked > confirm_max_s).then(|| {
        format!("--commit-confirmed {asked}s is longer than its `confirm_max` ({confirm_max_s}s)")
    })
}

/// Returns 128 random bits in hex: the session of a run answers to the coordinator that has them.
/// None if the system has no random bits; the session ends with its connection then.
fn new_key() -> Option<String> {
    let mut bytes = [0; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok()?;
    let hex = bytes.iter().map(|byte| format!("{byte:02x}"));
    (filled == bytes.len()).then(|| hex.collect())
}

fn unready(entry: &HostEntry, state: HostState, abort: Abort) -> Box<UnreadyHost> {
    Box::new(UnreadyHost {
        name: entry.name.clone(),
        state,
        never_began: false,
        version: None,
        abort,
    })
}
