//! The first verb: finds the instances, what each runs, and whether each can be reloaded. It takes
//! locks, and changes nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use self::{
    inspect::{SurveyedInstance, inspect, intern, probe, wait_until_ready},
    shared_logs::refuse_shared_logs,
};
use crate::{
    event::{Abort, Verdict},
    fleet::{Group, Speaks, Trigger, url_of},
    host::{
        discover::{MatchRefusal, Scan, found::Found},
        local::{
            host::{LocalHost, SurveyRequest},
            refusals::{install_abort, refused},
            reload_command,
            sources::Sources,
        },
        net::sockets::Listeners,
        parallel::{fan_out::fan_out, par_map::par_map},
        probe::limits::{MAX_CONCURRENT_PROBES, ProbeLimits},
        proc::{snapshot::ProcessSnapshot, tree::ProcessTree},
        target::{
            behind::Follow,
            install::{InstallError, Target},
        },
    },
    runtime::off_thread,
    step::{Survey, SurveyedTarget},
};

mod inspect;
mod open;
mod shared_logs;

/// An instance that reads a target: its group, and its pid.
type Reader = (Arc<Group>, i32);

impl LocalHost {
    /// Surveys the matches of `groups`; the first problem of the whole host is its `abort`.
    pub(crate) async fn survey(
        &mut self,
        groups: &[Arc<Group>],
        request: SurveyRequest<'_>,
    ) -> Survey {
        let mut survey = Survey::default();
        // A process that comes during the run has the same time as the surveyed ones.
        self.groups = with_timeout(groups, request.timeout);
        self.surveyed = match ProcessSnapshot::now() {
            Ok(now) => now,
            Err(e) => {
                survey.abort = Some(Abort::new(
                    Verdict::Failed,
                    format!("cannot list the processes of this host: {e}"),
                ));
                return survey;
            }
        };
        self.locked = request.lock.is_some();
        let found = find(groups, &self.surveyed, &mut survey).await;
        let mut found = self.open_targets(found, request, &mut survey).await;
        if survey.abort.is_some() {
            // Another run holds a lock, and may be changing everything that would be read here.
            survey
                .refused
                .extend(found.drain(..).map(|(group, f)| f.instance(&group)));
            return survey;
        }
        match self.probe_all(found, request).await {
            Ok(results) => {
                let results = refuse_shared_logs(results, &self.limits);
                sort_results(results, &mut survey);
                let members = survey.instances.iter().chain(&survey.unresponsive);
                survey.abort = reload_command::indistinct(members);
            }
            Err(abort) => {
                survey.abort = Some(abort);
                return survey;
            }
        }
        let matched: BTreeSet<&str> = survey
            .instances
            .iter()
            .chain(&survey.unresponsive)
            .map(|planned| planned.instance.group.as_str())
            .filter(|group| request.sources.contains(group))
            .collect();
        let groups = groups.iter().map(|group| &**group);
        let sources = Sources::read(groups.filter(|g| matched.contains(&*g.name))).await;
        survey.notes.extend(sources.events());
        self.survey_targets(&mut survey, sources).await;
        survey
    }

    /// Applies the guards to every process, then takes its baseline.
    async fn probe_all(
        &self,
        found: Vec<(Arc<Group>, Found)>,
        request: SurveyRequest<'_>,
    ) -> Result<Vec<SurveyedInstance>, Abort> {
        let tree = ProcessTree::of(&found.iter().map(|(_, f)| (f.pid, f.parent)).collect());
        let listeners = Listeners::read().map_err(|e| {
            Abort::new(
                Verdict::Failed,
                format!("cannot read the listening sockets: {e}"),
            )
        })?;
        let listeners = Arc::new(listeners.with(tree));
        self.limits
            .add_known(found.iter().map(|(_, f)| (f.pid, f.started)));
        let inspected = par_map(&found, |(group, f)| {
            inspect(group, f, request, &listeners, &self.limits)
        });
        let was_late: Vec<bool> = found
            .iter()
            .map(|(group, f)| match group.trigger() {
                Trigger::Signal(signal) => !f.status.is_ready(signal),
                Trigger::Command(_) => f.status.is_stopped(),
            })
            .collect();
        drop(found);
        let inspected = wait_until_ready(inspected, &was_late).await;
        Ok(probe_in_parallel(inspected, listeners, self.limits.clone()).await)
    }

    /// Reads every target. A filesystem of the network may answer late or never, so this thread
    /// only waits.
    async fn survey_targets(&mut self, survey: &mut Survey, sources: Sources) {
        let mut readers: BTreeMap<PathBuf, Vec<Reader>> = BTreeMap::new();
        for planned in survey.instances.iter().chain(&survey.unresponsive) {
            for path in &planned.instance.targets {
                let reader = (planned.group.clone(), planned.instance.pid);
                readers.entry(path.clone()).or_default().push(reader);
            }
        }
        let mut targets = std::mem::take(&mut self.targets);
        let (targets, surveyed) = off_thread(move || {
            let survey = |(path, target): (&PathBuf, &mut Target)| {
                let readers = readers.get(path).map_or(&[][..], Vec::as_slice);
                (path.clone(), survey_target(path, target, readers, &sources))
            };
            let surveyed: Vec<_> = targets.iter_mut().map(survey).collect();
            (targets, surveyed)
        })
        .await;
        self.targets = targets;
        for (path, surveyed) in surveyed {
            self.since.insert(path.clone(), self.surveyed.clone());
            match surveyed {
                Ok((surveyed, follow)) => {
                    self.follows.insert(path.clone(), follow);
                    survey.targets.insert(path, surveyed);
                }
                Err(e) => drop(survey.abort.get_or_insert_with(|| install_abort(e))),
            }
        }
    }
}

/// Returns the groups with `timeout` instead of their own, where it is set.
fn with_timeout(groups: &[Arc<Group>], timeout: Option<Duration>) -> Vec<Arc<Group>> {
    let Some(timeout) = timeout else {
        return groups.to_vec();
    };
    let with_timeout = |group: &Arc<Group>| {
        Arc::new(Group {
            timeout,
            ..(**group).clone()
        })
    };
    groups.iter().map(with_timeout).collect()
}

/// Finds the matches of all groups in one scan.
async fn find(
    groups: &[Arc<Group>],
    processes: &ProcessSnapshot,
    survey: &mut Survey,
) -> Vec<(Arc<Group>, Found)> {
    let finds = Scan::of(processes.pids())
        .find_all(groups.iter().map(|group| &**group))
        .await;
    let mut found = Vec::new();
    for (group, finds) in groups.iter().zip(finds) {
        if let Some(why) = finds.blind {
            survey.abort.get_or_insert_with(|| {
                Abort::new(
                    Verdict::Failed,
                    format!("cannot read the processes of this host: {why}"),
                )
            });
        }
        let texts = |all: Vec<(i32, MatchRefusal)>| {
            all.into_iter().map(|(pid, why)| (pid, why.to_string()))
        };
        survey.skipped.extend(texts(finds.skipped));
        survey.missing.extend(texts(finds.missing));
        survey.refused.extend(
            finds
                .refused
                .into_iter()
                .map(|(f, why)| refused(f.instance(group), why)),
        );
        found.extend(finds.found.into_iter().map(|f| (group.clone(), f)));
    }
    found
}

/// Takes the baseline of every instance, at most [`AT_ONCE`] at a time. Returns them in the same
/// order.
async fn probe_in_parallel(
    inspected: Vec<SurveyedInstance>,
    listeners: Arc<Listeners>,
    limits: Arc<ProbeLimits>,
) -> Vec<SurveyedInstance> {
    let mut results: Vec<Option<SurveyedInstance>> = std::iter::repeat_with(|| None)
        .take(inspected.len())
        .collect();
    let probes = fan_out(
        inspected.into_iter().enumerate().collect(),
        MAX_CONCURRENT_PROBES,
        move |(index, surveyed)| {
            let listeners = listeners.clone();
            let limits = limits.clone();
            async move { (index, probe(surveyed, &listeners, &limits).await) }
        },
    );
    for (index, result) in probes.await {
        results[index] = Some(result);
    }
    results.into_iter().flatten().collect()
}

/// Adds each instance to the survey as planned, unresponsive or refused.
fn sort_results(results: Vec<SurveyedInstance>, survey: &mut Survey) {
    survey.instances.reserve_exact(results.len());
    for result in results {
        match result {
            Ok(planned) if planned.unresponsive => survey.unresponsive.push(*planned),
            Ok(mut planned) => {
                intern(&mut planned, survey.instances.last());
                survey.instances.push(*planned);
            }
            Err(instance) => survey.refused.push(*instance),
        }
    }
}

/// Reads one target, the sources that its readers' groups have for it, and the digest of what is
/// read through it.
fn survey_target(
    path: &Path,
    target: &mut Target,
    readers: &[Reader],
    sources: &Sources,
) -> Result<(SurveyedTarget, Follow), InstallError> {
    let content = target.survey()?;
    let groups: BTreeMap<&str, &Group> = readers
        .iter()
        .map(|(group, _)| (group.name.as_str(), &**group))
        .collect();
    let staged = sources.staged(groups.into_values(), path);
    let includes = readers
        .iter()
        .flat_map(|(group, _)| &group.reading.includes);
    // A process that speaks the protocol reports what it has read.
    let silent = readers
        .iter()
        .filter(|(group, _)| group.speaks == Speaks::None)
        .map(|(_, pid)| *pid);
    let follow = match url_of(path) {
        Some(_) => Follow::default(),
        None => Follow::of(path, includes, silent.collect()),
    };
    let secret = readers
        .first()
        .and_then(|(group, _)| group.secret)
        .unwrap_or(!target.is_public(&content));
    let surveyed = SurveyedTarget {
        content,
        rev: target.revision().map(str::to_owned),
        ctime: target.ctime().unwrap_or(i128::MAX),
        behind: follow.behind.clone(),
        secret,
        staged,
    };
    Ok((surveyed, follow))
}
