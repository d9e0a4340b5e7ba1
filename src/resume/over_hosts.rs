//! A resume or revert of a run over other machines. Each host goes by its own journal.

use std::collections::BTreeMap;

use super::{open_on_hosts, options::Options};
use crate::{
    event::{Abort, Event, HostState, Interrupts, Verdict, interrupted},
    execute::{Candidates, EarlierRun, HostsOrder, execute_over_hosts},
    fleet::{Fleet, Hosts},
    hosts::{claimed_operator, close_indexes, select},
    inventory::{Expression, HostName},
    protocol::{ChangeOrder, ContinuedRun, CountedGroups, SurveyOrder, TakeOver},
    report::RunReport,
    runs::{self, RunInfo, RunOverHosts, Verb},
    screen,
};

/// Returns the run over hosts that the command means; none if its run is on this machine.
///
/// # Errors
/// Fails if no index here knows the run, and the hosts do not name exactly one.
pub(super) async fn find(
    options: &Options,
    interrupts: &Interrupts,
) -> Result<Option<RunOverHosts>, Abort> {
    let known = runs::over_hosts(&options.shared.state, options.run.as_deref());
    if known.is_some() {
        return Ok(known);
    }
    let Some(fleet) = fleet_of_unknown(options)? else {
        return Ok(None);
    };
    let Some(hosts) = &fleet.hosts else {
        return Ok(None);
    };
    let id = match &options.run {
        Some(name) => runs::whole_id(name).ok_or_else(|| {
            let why = format!(
                "no run `{name}` is kept here, and its first digits may mean another run on each \
                 host: name it by its whole id"
            );
            Abort::new(Verdict::Usage, why)
        })?,
        None => open_on_hosts::find(options, (&fleet, hosts), interrupts).await?,
    };
    let file = fleet.path.clone().unwrap_or_default();
    Ok(Some(RunOverHosts::without_index(id, file)))
}

/// Returns the file with the hosts of a run that no index here knows; none if the command is about
/// this machine. The usual file counts only if this machine has no such run itself.
///
/// # Errors
/// Fails if the usual file cannot be read.
fn fleet_of_unknown(options: &Options) -> Result<Option<Fleet>, Abort> {
    if options.fleet.is_some() {
        return Ok(options.fleet.clone());
    }
    let state = &options.shared.state;
    let is_own = match &options.run {
        Some(name) => runs::whole_id(name).is_none() || runs::find(state, name).is_ok(),
        None => open_on_hosts::has_own(state),
    };
    match &options.usual {
        Some(path) if !is_own => {
            let fleet = Fleet::load(path).map_err(|why| {
                let why = format!(
                    "no such run is kept here, and the file that may name hosts cannot be used: \
                     {why}"
                );
                Abort::new(Verdict::Usage, why)
            })?;
            Ok(Some(fleet))
        }
        _ => Ok(None),
    }
}

/// Carries out the command on the hosts of the run.
pub(super) async fn attempt(
    options: &Options,
    run: RunOverHosts,
    interrupts: &mut Interrupts,
    on_event: &mut dyn FnMut(&HostName, &Event),
) -> Result<RunReport, Abort> {
    let fleet = match &options.fleet {
        Some(fleet) => fleet.clone(),
        None => Fleet::load(&run.fleet).map_err(|why| {
            let hint = "name the file of the hosts with --fleet";
            Abort::new(Verdict::Usage, format!("{why}; {hint}"))
        })?,
    };
    let Some(hosts) = &fleet.hosts else {
        let id = &run.id;
        let why = format!("run {id} was over hosts, and the fleet file names none");
        return Err(Abort::new(Verdict::Usage, why));
    };
    let on = if options.on.is_empty() {
        Expression::of_hosts(&run.hosts)
    } else {
        options.on.clone()
    };
    let shared = &options.shared;
    let of = run.id.clone();
    let of_run = Expression::of_hosts(&run.hosts);
    let earlier = earlier(options, run);
    let session = shared.of_session(&runs::new_id());
    let order = HostsOrder {
        fleet: &fleet,
        hosts,
        on: &on,
        except: &options.except,
        max_unreachable: options.max_unreachable,
        count: None,
        confirm_within: None,
        take_over: take_over(options, &earlier),
        verb: earlier.verb,
        order: SurveyOrder {
            groups: Vec::new(),
            every: true,
            named: BTreeMap::new(),
            others: ChangeOrder::Adopt,
            prune: false,
            overwrite: false,
            validate: shared.validate,
            include_unresponsive: shared.include_unresponsive,
            counted: CountedGroups::default(),
            now: false,
            dry_run: shared.dry_run,
            timeout: shared.timeout,
            lock_timeout: shared.lock_timeout,
            of: Some(ContinuedRun {
                run: earlier.run.id.clone(),
                revert: earlier.verb == Verb::Revert,
                may_skip: earlier.run.is_first && !earlier.run.hosts.is_empty(),
            }),
            reason: shared.reason.clone(),
            command: session.command.clone(),
        },
        candidates: Candidates::default(),
        earlier: Some(earlier),
        options: session,
    };
    let ended = execute_over_hosts(&order, interrupts, on_event).await;
    let is_over_all = options.on.is_empty() && options.except.is_empty();
    if is_over_all && !shared.dry_run && is_reached(&ended) {
        let closing = close_index(options, (hosts, &of_run), &of, on_event);
        tokio::select! {
            () = closing => {}
            () = interrupted(interrupts, 0) => {}
        }
    }
    ended
}

/// Tells whether every host of the command was reached.
fn is_reached(ended: &Result<RunReport, Abort>) -> bool {
    let is_away = |state| matches!(state, HostState::Unreachable | HostState::Lost);
    match ended {
        Ok(report) => !report.hosts.iter().any(|host| is_away(host.state)),
        Err(abort) => abort.verdict != Verdict::Unreachable,
    }
}

/// Closes the index of the earlier run if the command has left it open, and each of its hosts has
/// recorded that it is over there: another coordinator has ended it.
async fn close_index(
    options: &Options,
    (hosts, of_run): (&Hosts, &Expression),
    of: &str,
    on_event: &mut dyn FnMut(&HostName, &Event),
) {
    let state = &options.shared.state;
    let open = runs::open_runs(state);
    if !open.iter().any(|run| run.id == of) {
        return;
    }
    let Ok(entries) = select(hosts, (of_run, &Expression::default()), None).await else {
        return;
    };
    for closed in close_indexes(state, hosts, &entries, |run| run == of).await {
        let (run, why) = (closed.run, closed.why);
        on_event(&HostName::local(), &Event::IndexClosed { run, why });
    }
}

/// Returns the sessions on the hosts that end first. A coordinator of this machine that has died
/// has left some, which wait for it in vain. A session of any other coordinator ends only if the
/// operator says so.
fn take_over(options: &Options, earlier: &EarlierRun) -> Option<TakeOver> {
    let state = &options.shared.state;
    let id = &earlier.run.id;
    let own = RunInfo::of(state, id);
    let later = runs::open_runs(state).into_iter();
    let later = later.filter(|run| run.began.as_ref().and_then(|b| b.of.as_ref()) == Some(id));
    let has_died = |run: &RunInfo| run.began.is_some() && !run.running;
    let dead = [own].into_iter().chain(later).filter(has_died);
    let order = TakeOver {
        runs: dead.map(|run| run.id).collect(),
        of: options.take_over.then(|| id.clone()),
        groups: None,
        operator: claimed_operator(),
    };
    (options.take_over || !order.runs.is_empty()).then_some(order)
}

/// Returns the run that the command continues, with its direction on every host. An open run that
/// restores an old config is continued by a revert, also on hosts where it has reached its goal.
fn earlier(options: &Options, run: RunOverHosts) -> EarlierRun {
    let state_args = &options.shared.state_args;
    let named = options.fleet.as_ref().and_then(|fleet| fleet.path.as_ref());
    // Without an index, only the file tells which hosts are meant.
    let asked = Some(&run.fleet).filter(|_| run.hosts.is_empty());
    let fleet = named.or(asked).map_or_else(String::new, |path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        format!(" --fleet {}", screen::quote(path))
    });
    EarlierRun {
        verb: if run.is_open && run.is_back {
            Verb::Resume
        } else {
            options.verb
        },
        run,
        arguments: format!("{fleet}{state_args}"),
        state_args: state_args.clone(),
    }
}
