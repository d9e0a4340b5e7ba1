//! Inspects one matched process by the kernel and by its endpoint.

use std::sync::Arc;

use crate::{
    event::Instance,
    fleet::{Group, Speaks, Trigger},
    host::{
        discover::{self, found::Found, renewal},
        local::{
            baseline::take_baseline,
            guards::{
                check_declared, check_exclusive_address, check_not_stopped, check_takes_signal,
                may_signal,
            },
            host::SurveyRequest,
            refusals::refused,
            reload_command,
        },
        net::sockets::Listeners,
        probe::limits::ProbeLimits,
        proc::guard,
    },
    step::PlannedInstance,
};

/// An instance that every guard has let pass so far, or a refused one. Both are boxed: they are
/// large, and are moved several times.
pub(super) type SurveyedInstance = Result<Box<PlannedInstance>, Box<Instance>>;

fn refuse(planned: &PlannedInstance, why: impl ToString) -> Box<Instance> {
    Box::new(refused(planned.instance.clone(), why))
}

/// Applies the guards that need only the kernel; waits for no process.
pub(super) fn inspect(
    group: &Arc<Group>,
    found: &Found,
    request: SurveyRequest<'_>,
    listeners: &Listeners,
    limits: &ProbeLimits,
) -> SurveyedInstance {
    let mut instance = found.instance(group);
    // Where nothing reloads it, no other reason matters.
    if group.never_reloads().is_some()
        && let Err(why) = check_declared(group)
    {
        return Err(Box::new(refused(instance, why)));
    }
    let mut unresponsive = None;
    let endpoint = found
        .endpoint
        .clone()
        .map_or_else(|| listeners.endpoint(found.pid, &found.args, group), Ok);
    match endpoint {
        Ok(endpoint) => instance.endpoint = endpoint,
        Err(why) if group.needs_endpoint() => {
            if !listeners.is_deaf(found.pid, &found.args, group) {
                return Err(Box::new(refused(instance, why)));
            }
            unresponsive = Some(why);
        }
        // No probe needs its endpoint.
        Err(_) => {}
    }
    check_exclusive_address(found, &instance.endpoint, listeners, limits)
        .and_then(|()| check_declared(group))
        .and_then(|()| match group.trigger() {
            Trigger::Signal(_) => may_signal(found.pid),
            Trigger::Command(_) => Ok(()),
        })
        .map_err(|why| Box::new(refused(instance.clone(), why)))?;
    let mut planned = Box::new(PlannedInstance::new(
        instance,
        group.clone(),
        found.args.clone(),
    ));
    planned.identity = found.identity(group);
    planned.assumed = found
        .configs
        .iter()
        .filter(|config| config.assumed)
        .map(|config| config.path.clone())
        .collect();
    if let Some(why) = renewal::refuses(&planned.identity.renewal, group) {
        return Err(refuse(&planned, why));
    }
    planned.timeout = request.timeout.unwrap_or(group.timeout);
    planned.cwd = std::fs::read_link(format!("/proc/{}/cwd", found.pid)).unwrap_or_default();
    planned.variables = found.named_variables(group);
    reload_command::check(&planned).map_err(|why| refuse(&planned, why))?;
    planned.restart_only_paths = discover::fixed_of(found, group);
    planned.started_ns = guard::start_time_ns(found.started);
    if let Some(why) = unresponsive {
        planned.mark_unresponsive(why.to_string());
    }
    Ok(planned)
}

/// Refuses the instances that are stopped, or do not take the signal. Those that did not when they
/// were found (`was_late`, in the same order) are all waited for at the same time.
pub(super) async fn wait_until_ready(
    mut surveyed: Vec<SurveyedInstance>,
    was_late: &[bool],
) -> Vec<SurveyedInstance> {
    let late = surveyed
        .iter()
        .zip(was_late)
        .enumerate()
        .filter(|(_, (_, was_late))| **was_late)
        .filter_map(|(index, (result, _))| Some((index, result.as_ref().ok()?)));
    let waits = late.map(|(index, planned)| async move {
        let pid = planned.instance.pid;
        let result = check_takes_signal(&planned.group, pid, planned.timeout).await;
        (index, result)
    });
    for (index, result) in futures_util::future::join_all(waits).await {
        if let (Err(why), Ok(planned)) = (result, &surveyed[index]) {
            surveyed[index] = Err(refuse(planned, why));
        }
    }
    surveyed
}

/// Takes the baseline of an instance. One that does not answer becomes unresponsive.
pub(super) async fn probe(
    surveyed: SurveyedInstance,
    listeners: &Listeners,
    limits: &ProbeLimits,
) -> SurveyedInstance {
    let mut planned = surveyed?;
    let group = planned.group.clone();
    let is_probed =
        group.speaks == Speaks::Hello || !group.confirm.is_empty() || !group.reject.is_empty();
    if !planned.unresponsive && is_probed {
        match take_baseline(&mut planned, listeners, limits).await {
            Ok(()) => {}
            Err(error) if error.reached => {
                planned.mark_unresponsive(error.refusal.to_string());
            }
            Err(error) => return Err(refuse(&planned, error.refusal)),
        }
    }
    if planned.unresponsive {
        // A process that ended or was stopped meanwhile does not answer for that reason.
        let instance = &planned.instance;
        if guard::is_over(instance.pid, instance.started, &instance.exe) {
            return Err(refuse(&planned, "ended during the survey"));
        }
        check_not_stopped(instance.pid).map_err(|why| refuse(&planned, why))?;
    }
    Ok(planned)
}

/// Shares with `other` the values that are equal in both, to keep them in memory once.
pub(super) fn intern(planned: &mut PlannedInstance, other: Option<&PlannedInstance>) {
    let Some(other) = other else { return };
    if planned.args == other.args {
        planned.args = other.args.clone();
    }
    if planned.identity.person == other.identity.person {
        planned.identity.person = other.identity.person.clone();
    }
    if planned.restart_only == other.restart_only {
        planned.restart_only = other.restart_only.clone();
    }
}
