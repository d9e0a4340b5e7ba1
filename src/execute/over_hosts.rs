//! A run over other machines: connect, survey all, accept everywhere, then the engine.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, stream};

use super::{
    continued::EarlierRun,
    decision::{Absent, Ready, decide, worst},
    dry_run,
    fleet_run::FleetRun,
    hosts_end::{HostsEnd, host_lost},
    hosts_order::{Candidates, HostsOrder},
    index,
    policies::{
        HostGroup, check_counts, check_keys, check_unresponsive, group_policies, set_waves,
    },
    reason::Reasons,
    rows::Rows,
};
use crate::{
    engine::FleetPlan,
    event::{Abort, Event, HostState, Interrupts, Phase, Verdict, check_interrupts},
    fleet::{Fleet, Share},
    hosts::{
        FleetSurvey, ReadyHost, RemoteRun, UnreadyHost, claimed_operator, dismiss, select,
        survey_hosts, this_machine,
    },
    inventory::{Expression, HostEntry, HostName},
    protocol::{HostLink, HostPlan, PartOf},
    report::RunReport,
};

/// Carries out the run, or shows what it would do. Each event comes with its host; those of the
/// coordinator are of `local`.
///
/// # Errors
/// Fails if the run ended before it touched anything on any host.
pub(crate) async fn execute_over_hosts(
    order: &HostsOrder<'_>,
    interrupts: &mut Interrupts,
    on_event: &mut dyn FnMut(&HostName, &Event),
) -> Result<RunReport, Abort> {
    let terms = (order.on, order.except);
    let selected = select(order.hosts, terms, Some(&order.options.state))
        .await
        .map_err(|fault| Abort::new(fault.verdict(), fault.to_string()))?;
    let connecting = Event::Phase {
        phase: Phase::Connecting,
        done: 0,
        all: selected.len(),
        limit: None,
    };
    on_event(&HostName::local(), &connecting);
    let operator = claimed_operator();
    let survey = FleetSurvey {
        run: &order.options.id,
        hosts: order.hosts,
        operator: &operator,
        order: &order.order,
        hosts_of: &hosts_of(order.fleet),
        candidates: &order.candidates,
        confirm_within: order.confirm_within,
        take_over: order.take_over.as_ref(),
        must_know: order.earlier.as_ref().is_some_and(EarlierRun::has_index),
        interrupts,
    };
    let surveyed = survey_hosts(&survey, &selected, on_event).await;
    check_interrupts(interrupts)?;
    let max_unreachable = order.max_unreachable.unwrap_or(order.hosts.max_unreachable);
    let ready = ready_to_go(order, surveyed, (&selected, max_unreachable))
        .await
        .map_err(|abort| of_one_machine(abort, &order.options.id))
        .map_err(|abort| with_take_over(abort, order))?;
    let run = RunOverHosts {
        order,
        entries: entries_of(&selected, &ready.hosts),
        ready,
    };
    run.carry_out(interrupts, on_event).await
}

/// Returns the abort of a run that has found its own lock: two of its hosts are one machine. No
/// wait would end that.
fn of_one_machine(abort: Abort, run: &str) -> Abort {
    if abort.verdict != Verdict::Busy || !abort.reason.contains(run) {
        return abort;
    }
    let why = format!(
        "two hosts of this run are one machine, since the run itself holds the lock there: {}",
        abort.reason
    );
    Abort::new(Verdict::Refused, why).with_hint(
        "remove one of its names from [hosts], or exclude it; the hosts:",
        vec!["hello hosts".into()],
    )
}

/// Adds to a refusal by the lock of another run how that run ends, unless the command ends it
/// already.
fn with_take_over(abort: Abort, order: &HostsOrder<'_>) -> Abort {
    if abort.verdict != Verdict::Busy || order.take_over.is_some() {
        return abort;
    }
    let what = "nothing was touched; wait for the other run with --lock-timeout 60s; a session \
                whose coordinator has gone ends with its lease, or at once with --take-over; what \
                each runs now:";
    let arguments = order.fleet.arguments();
    let command = format!("hello status {arguments}{}", order.options.state_args);
    abort.with_hint(what, vec![command])
}

/// Decides whether the run may begin, also by what its hosts know of the run that it continues.
///
/// # Errors
/// Fails if it may not; nothing was touched.
async fn ready_to_go(
    order: &HostsOrder<'_>,
    surveyed: Vec<Result<ReadyHost, Box<UnreadyHost>>>,
    (selected, max_unreachable): (&[HostEntry], Share),
) -> Result<Ready, Abort> {
    let refusing = EarlierRun::refusing(&surveyed);
    let all = surveyed.len();
    let decided = decide(surveyed, max_unreachable).await;
    let Some(earlier) = &order.earlier else {
        return decided;
    };
    let mut ready = decided.map_err(|abort| earlier.explain(abort, &refusing, all))?;
    match earlier.check(&mut ready, selected) {
        Ok(()) => Ok(ready),
        Err(abort) => {
            dismiss(ready.hosts.into_iter().map(|host| host.run)).await;
            Err(abort)
        }
    }
}

/// Returns the hosts of each group of the coordinator's file that has some of its own.
fn hosts_of(fleet: &Fleet) -> BTreeMap<String, Expression> {
    let groups = fleet.groups.iter();
    groups
        .filter_map(|group| Some((group.name.clone(), group.hosts.clone()?)))
        .collect()
}

/// Returns the inventory entries of the hosts that are ready.
fn entries_of(selected: &[HostEntry], ready: &[ReadyHost]) -> Vec<HostEntry> {
    let of_host = |host: &ReadyHost| {
        let entry = selected.iter().find(|entry| entry.name == *host.run.name());
        entry
            .cloned()
            .unwrap_or_else(|| HostEntry::named(host.run.name().clone()))
    };
    ready.iter().map(of_host).collect()
}

struct RunOverHosts<'a> {
    order: &'a HostsOrder<'a>,
    /// The entries of the ready hosts, in the same order.
    entries: Vec<HostEntry>,
    ready: Ready,
}

impl RunOverHosts<'_> {
    async fn carry_out(
        self,
        interrupts: &mut Interrupts,
        on_event: &mut dyn FnMut(&HostName, &Event),
    ) -> Result<RunReport, Abort> {
        let order = self.order;
        let groups = group_policies((order.fleet, order.count), &self.ready.hosts);
        let mut run = self.fleet_run(&groups);
        let plans = match self.arranged(&mut run, &groups) {
            Ok(plans) => plans,
            Err(abort) => {
                dismiss(self.ready.hosts.into_iter().map(|host| host.run)).await;
                return Err(abort);
            }
        };
        let has_work = plans.iter().any(|plan| plan.has_work);
        let must_record = plans.iter().any(|plan| plan.must_record);
        if run.dry_run {
            return Ok(self.preview(&run, plans, has_work));
        }
        if !has_work && !must_record {
            return self.unchanged(&run, interrupts).await;
        }
        check_interrupts(interrupts)?;
        let taken_over = self.ready.hosts.iter().filter_map(|host| host.armed).max();
        let timer = order.confirm_within.or(taken_over);
        let links: Vec<RemoteRun> = self.ready.hosts.into_iter().map(|host| host.run).collect();
        let missing = match &order.earlier {
            Some(_) => self.ready.absent.missing_of_earlier(),
            None => 0,
        };
        let part_of = PartOf {
            coordinator: this_machine(),
            hosts: links.len() + missing,
        };
        let orders = (&part_of, timer, &order.candidates);
        let begun = begin_all(links, &plans, (&run, orders), interrupts).await?;
        let (links, lost): (Vec<RemoteRun>, Vec<_>) = begun.into_iter().unzip();
        let hosts = links.into_iter().zip(plans).collect();
        let mut plan = FleetPlan::new(hosts, run.groups.clone());
        for (host, why) in plan.hosts.iter_mut().zip(lost) {
            if let Some(why) = why {
                host.skip(&why);
            }
        }
        let begun = Begun {
            run: &run,
            order,
            has_work,
            timer,
            absent: self.ready.absent,
        };
        begun.carry_out(plan, interrupts, on_event).await
    }

    fn fleet_run(&self, groups: &[HostGroup]) -> FleetRun {
        let hosts = &self.ready.hosts;
        let first = hosts.first();
        FleetRun {
            id: self.order.options.id.clone(),
            verb: self.order.verb,
            back: first.is_some_and(|host| host.back),
            now: first.is_some_and(|host| host.now),
            dry_run: self.order.order.dry_run,
            alone_in: None,
            unreplaced: hosts.iter().find_map(|host| host.unreplaced.clone()),
            groups: groups.iter().map(|group| group.policy.clone()).collect(),
            parallel: self.order.hosts.parallel,
            reach: self.ready.reach,
        }
    }

    /// Returns the plan of each host, with its waves over all hosts.
    ///
    /// # Errors
    /// Fails if a number of instances is wrong, or if there are no such waves.
    fn arranged(&self, run: &mut FleetRun, groups: &[HostGroup]) -> Result<Vec<HostPlan>, Abort> {
        let hosts = self.ready.hosts.iter();
        let mut plans: Vec<HostPlan> = hosts.map(|host| host.plan.clone()).collect();
        check_keys(&self.entries, &plans)?;
        // A run that is continued has the instances that are left of it.
        if self.order.order.of.is_none() {
            check_counts(&self.entries, &plans, groups)?;
            check_unresponsive(&self.entries, &plans, groups)?;
        }
        if !run.now && !run.back {
            let beyond = &self.order.fleet.order;
            let rounds = set_waves(&mut plans, &self.entries, groups, beyond)?;
            for (group, rounds) in run.groups.iter_mut().zip(rounds) {
                group.rounds = rounds;
            }
        }
        Ok(plans)
    }

    /// Shows what the run would do on every host.
    fn preview(self, run: &FleetRun, plans: Vec<HostPlan>, has_work: bool) -> RunReport {
        let mut rows = Rows::default();
        for (host, plan) in self.ready.hosts.into_iter().zip(&plans) {
            let name = host.run.name().clone();
            let mut of_host = host.rows.unwrap_or_default();
            for (instance, entry) in of_host.instances.iter_mut().zip(&plan.entries) {
                instance.wave = usize::from(entry.wave);
            }
            rows.add(&name, of_host);
        }
        let reason = Reasons::new(run, &rows.instances, has_work).dry_run();
        let links = plans.into_iter().map(|plan| ((), plan)).collect();
        let plan = FleetPlan::new(links, run.groups.clone());
        let report = RunReport {
            hosts: self.ready.absent.reports(&rows.instances, HostState::Ready),
            ..rows.report(Verdict::Converged, reason)
        };
        dry_run::report(run, &plan, report)
    }

    /// Ends a run that has nothing to do on any host.
    async fn unchanged(self, run: &FleetRun, interrupts: &Interrupts) -> Result<RunReport, Abort> {
        let asked = self.ready.hosts.into_iter().map(|host| async move {
            let mut link = host.run;
            let unchanged = link.unchanged(interrupts).await;
            let name = link.name().clone();
            link.bye().await;
            (name, unchanged)
        });
        let answers: Vec<_> = stream::iter(asked).buffered(run.parallel).collect().await;
        let mut rows = Rows::default();
        let mut ends = Vec::new();
        for (name, answer) in answers {
            let (of_host, of_instances) = answer.map_err(|abort| abort.at(&name))?;
            rows.add(&name, of_host);
            ends.extend(of_instances);
        }
        let absent = &self.ready.absent;
        let reasons = Reasons::new(run, &rows.instances, false).over_some(absent.misses_hosts());
        let verdict = absent.worsen(Verdict::of(ends, false));
        let reason = absent.with_reason(reasons.unchanged());
        Ok(RunReport {
            hosts: absent.reports(&rows.instances, HostState::Done),
            ..rows.report(verdict, reason)
        })
    }
}

/// A run that every host has accepted.
struct Begun<'a> {
    run: &'a FleetRun,
    order: &'a HostsOrder<'a>,
    has_work: bool,
    /// The commit-confirmed timer of each host.
    timer: Option<Duration>,
    absent: Absent,
}

impl Begun<'_> {
    async fn carry_out(
        self,
        mut plan: FleetPlan<RemoteRun>,
        interrupts: &mut Interrupts,
        on_event: &mut dyn FnMut(&HostName, &Event),
    ) -> Result<RunReport, Abort> {
        let Self {
            run,
            order,
            has_work,
            timer,
            absent,
        } = self;
        let mut index = match index::begin(order, (&plan, run.back), interrupts).await {
            Ok(index) => index,
            Err(abort) => {
                dismiss(plan.hosts.into_iter().map(|host| host.link)).await;
                return Err(abort);
            }
        };
        absent
            .events()
            .for_each(|event| index.record(&HostName::local(), &event));
        let mut report = |host: &HostName, event: &Event| {
            index.record(host, event);
            on_event(host, event);
        };
        if let Some(timer) = timer {
            let seconds = timer.as_secs();
            report(&HostName::local(), &Event::Armed { seconds });
        }
        for host in &plan.hosts {
            if let Some(why) = &host.lost {
                report(host.link.name(), &host_lost(host.link.name(), why));
            }
        }
        let ended = run.carry_out(&mut plan, interrupts, &mut report).await;
        let end = HostsEnd {
            run,
            ended,
            has_work,
            timer,
            absent,
            earlier: order.earlier.as_ref(),
            interrupts,
        };
        end.conclude(plan, index, on_event).await
    }
}

/// Gives every host its waves; each begins its journal. Returns each host, and why it was lost if
/// it was.
///
/// # Errors
/// Fails if one does not accept, or if too many are lost: nothing is touched, and the run ends on
/// each host.
async fn begin_all(
    links: Vec<RemoteRun>,
    plans: &[HostPlan],
    (run, orders): (&FleetRun, (&PartOf, Option<Duration>, &Candidates)),
    interrupts: &Interrupts,
) -> Result<Vec<(RemoteRun, Option<String>)>, Abort> {
    let asked = links
        .into_iter()
        .zip(plans)
        .map(|(mut link, plan)| async move {
            let (part_of, timer, candidates) = orders;
            let begun = link.begin(waves_of(plan), (part_of, timer), candidates, interrupts);
            let begun = begun.await;
            (link, begun.err())
        });
    let begun: Vec<(RemoteRun, Option<Abort>)> =
        stream::iter(asked).buffered(run.parallel).collect().await;
    let is_lost = |abort: &&Abort| abort.verdict == Verdict::Unreachable;
    let aborts = begun.iter().filter_map(|(_, abort)| abort.as_ref());
    let lost = aborts.clone().filter(is_lost).count();
    let is_reached = lost <= run.reach.left() && lost < begun.len();
    if lost == aborts.count() && (lost == 0 || is_reached) {
        let why = |abort: Abort| abort.reason;
        let begun = begun.into_iter();
        return Ok(begun.map(|(link, abort)| (link, abort.map(why))).collect());
    }
    let (links, aborts): (Vec<RemoteRun>, Vec<_>) = begun.into_iter().unzip();
    let named = links.iter().zip(aborts);
    let aborts = named.filter_map(|(link, abort)| Some((link.name().clone(), abort?)));
    let aborts = aborts.collect();
    dismiss(links).await;
    let none = || Abort::new(Verdict::NoMatch, "no host is part of the run");
    Err(worst(aborts).unwrap_or_else(none))
}

/// Returns the numbers of the instances of each wave on one host.
fn waves_of(plan: &HostPlan) -> Vec<(u16, Vec<u32>)> {
    let mut waves: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
    for (number, entry) in (0..).zip(&plan.entries) {
        waves.entry(entry.wave).or_default().push(number);
    }
    waves.into_iter().collect()
}
