//! The first verb: who is there, what each runs, and whether each can be reloaded at all. Touches
//! nothing but locks.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Instant,
};

use crate::{
    event::{Abort, Event, Failure, Instance, Outcome, Verdict},
    fact::{Assertion, Expectation},
    fleet::{Fleet, Group, Reloads, Speaks},
    host::{
        discover::{self, Scan, found::Found, renewal},
        local::host::{LocalHost, SurveyRequest},
        net::sockets::Listeners,
        parallel::{fan_out::fan_out, par_map::par_map},
        probe::{
            limits::{AT_ONCE, ProbeLimits, self_report},
            port_sharing,
            results::{ProbeError, ProbeResults, Role},
        },
        proc::{
            guard, inside::is_its_name, pidfd::permitted, snapshot::ProcessSnapshot,
            tree::ProcessTree,
        },
        target::{
            behind::Follow,
            install::{InstallError, Target},
            lock::{self, LockError, holders::Holders},
            source,
        },
    },
    self_report::{SelfReport, X_INSTANCE},
    step::{PlannedInstance, Survey, SurveyedTarget},
};

/// What the kind `hello` asserts.
static OF_ITS_KIND: LazyLock<Vec<Assertion>> = LazyLock::new(|| {
    Fleet::of_kind("hello")
        .ok()
        .and_then(|mut fleet| fleet.groups.pop())
        .map(|group| group.confirm)
        .unwrap_or_default()
});

impl LocalHost {
    pub(crate) async fn survey(
        &mut self,
        groups: &[Arc<Group>],
        look: SurveyRequest<'_>,
    ) -> Survey {
        let mut seen = Survey::default();
        // Who comes later has as long as everybody.
        let timed = |g: &Arc<Group>| {
            look.timeout.map_or_else(
                || g.clone(),
                |timeout| {
                    Arc::new(Group {
                        timeout,
                        ..(**g).clone()
                    })
                },
            )
        };
        self.groups = groups.iter().map(timed).collect();
        self.surveyed = match ProcessSnapshot::now() {
            Ok(now) => now,
            Err(e) => {
                seen.abort = Some(Abort::new(
                    Verdict::Failed,
                    format!("the kernel does not tell which processes there are: {e}"),
                ));
                return seen;
            }
        };
        self.locked = look.lock.is_some();
        let found = find(groups, &self.surveyed, &mut seen).await;
        let mut found = self.open_targets(found, look, &mut seen).await;
        if seen.abort.is_some() {
            // Whoever holds the lock is changing what would be looked at.
            seen.refused
                .extend(found.drain(..).map(|(group, f)| f.instance(&group.name)));
            return seen;
        }
        let tree = ProcessTree::of(&found.iter().map(|(_, f)| (f.pid, f.parent)).collect());
        let listeners = match Listeners::read() {
            Ok(listeners) => listeners.with(tree),
            Err(e) => {
                seen.abort = Some(Abort::new(
                    Verdict::Failed,
                    format!("the kernel does not tell who listens where: {e}"),
                ));
                return seen;
            }
        };
        self.limits
            .add_known(found.iter().map(|(_, f)| (f.pid, f.started)));
        let looked = par_map(&found, |(group, f)| {
            member(group, f, look, &listeners, &self.limits)
        });
        let late: Vec<bool> = found
            .iter()
            .map(|(group, f)| !f.status.is_ready(group.signal))
            .collect();
        drop(found);
        let looked = wait_until_ready(looked, &late).await;
        let (listeners, lanes) = (Arc::new(listeners), self.limits.clone());
        let mut answers: Vec<Option<SurveyedInstance>> =
            std::iter::repeat_with(|| None).take(looked.len()).collect();
        let probed = fan_out(
            looked.into_iter().enumerate().collect(),
            AT_ONCE,
            move |(at, one)| {
                let (listeners, lanes) = (listeners.clone(), lanes.clone());
                async move { (at, probe_instance(one, &listeners, &lanes).await) }
            },
        );
        for (number, result) in probed.await {
            answers[number] = Some(result);
        }
        seen.instances.reserve_exact(answers.len());
        for said in answers.into_iter().flatten() {
            match said {
                Ok(member) if member.unresponsive => seen.unresponsive.push(*member),
                Ok(mut member) => {
                    intern(&mut member, seen.instances.last());
                    seen.instances.push(*member);
                }
                Err(instance) => seen.refused.push(*instance),
            }
        }
        let mut readers: BTreeMap<&Path, Vec<&PlannedInstance>> = BTreeMap::new();
        for (member, path) in seen
            .instances
            .iter()
            .chain(&seen.unresponsive)
            .flat_map(|m| m.instance.targets.iter().map(move |path| (m, path)))
        {
            readers.entry(path).or_default().push(member);
        }
        for (path, target) in &mut self.targets {
            self.since.insert(path.clone(), self.surveyed.clone());
            match target.survey() {
                Ok(disk) => {
                    let mut readers = readers.get(path.as_path()).into_iter().flatten();
                    let offered = readers
                        .clone()
                        .filter_map(|m| Some((m.group.name.clone(), m.group.source.as_deref()?)));
                    let offered: BTreeMap<_, _> = offered
                        .collect::<BTreeMap<_, _>>()
                        .into_iter()
                        .map(|(g, s)| (g, source::read_source(s, path)))
                        .collect();
                    let includes = readers.clone().flat_map(|m| &m.group.reading.includes);
                    let untold = readers
                        .clone()
                        .filter(|m| m.group.speaks == Speaks::None)
                        .map(|m| m.instance.pid);
                    let follow = Follow::of(path, includes, untold.collect());
                    let behind = follow.behind.clone();
                    self.follows.insert(path.clone(), follow);
                    let secret = readers
                        .next()
                        .and_then(|m| m.group.secret)
                        .unwrap_or(!target.is_public(&disk));
                    seen.targets.insert(
                        path.clone(),
                        SurveyedTarget {
                            content: disk,
                            ctime: target.ctime().unwrap_or(i128::MAX),
                            behind,
                            secret,
                            staged: offered,
                        },
                    );
                }
                Err(e) => seen.abort = seen.abort.or_else(|| Some(install_abort(e))),
            }
        }
        seen
    }

    /// Opens, and with `look.lock` locks, the directory of every target.
    async fn open_targets(
        &mut self,
        found: Vec<(Arc<Group>, Found)>,
        look: SurveyRequest<'_>,
        seen: &mut Survey,
    ) -> Vec<(Arc<Group>, Found)> {
        let mut kept = Vec::new();
        let ways = discover::ConfigPaths::default();
        let read = discover::all_configs(&found, &ways).await;
        for ((group, mut f), read) in found.into_iter().zip(read) {
            match read {
                Ok(paths) => f.configs = paths,
                Err(why) => {
                    seen.refused.push(refused(f.instance(&group.name), why));
                    continue;
                }
            }
            kept.push((group, f));
        }
        let read = kept
            .iter()
            .flat_map(|(_, f)| f.configs.iter().map(|config| (&config.path, Some(f.uid))));
        let mut wanted: BTreeMap<PathBuf, Vec<(&PathBuf, Option<u32>)>> = BTreeMap::new();
        for (path, uid) in read.chain(look.also.iter().map(|path| (path, None))) {
            let all = wanted
                .entry(path.parent().unwrap_or(Path::new("/")).to_owned())
                .or_default();
            // Many instances of one user read the same.
            if all.last() != Some(&(path, uid)) {
                all.push((path, uid));
            }
        }
        let mut holders = Holders::default();
        let until = tokio::time::Instant::now() + look.lock.unwrap_or_default();
        for (dir, all) in wanted {
            match self
                .open_directory(&dir, &all, (look, until), &mut holders, seen)
                .await
            {
                Ok(fd) => {
                    for (path, _) in all {
                        self.targets
                            .entry(path.clone())
                            .or_insert_with(|| Target::new(path, fd.clone()));
                    }
                    self.dirs.insert(dir, fd);
                }
                Err(stop) => drop(seen.abort.get_or_insert(stop)),
            }
        }
        kept
    }

    /// Opens, and with `look.lock` locks, a directory of targets, each with the user of its reader.
    async fn open_directory(
        &mut self,
        dir: &Path,
        targets: &[(&PathBuf, Option<u32>)],
        (look, until): (SurveyRequest<'_>, tokio::time::Instant),
        holders: &mut Holders,
        seen: &mut Survey,
    ) -> Result<Arc<OwnedFd>, Abort> {
        let no = |e: LockError| {
            let verdict = match e {
                LockError::Busy(..) => Verdict::Busy,
                LockError::Swapped(..) => Verdict::Refused,
                LockError::Io(..) => Verdict::Failed,
            };
            Abort::new(verdict, e.to_string())
        };
        let (way, fd) = lock::open(dir).map_err(no)?;
        // Another directory may have its name by now than when the path was judged.
        let users: BTreeSet<u32> = targets
            .iter()
            .filter_map(|(_, uid)| *uid)
            .filter(|uid| *uid != rustix::process::geteuid().as_raw())
            .collect();
        for uid in users {
            let refused = |why| {
                Abort::new(
                    Verdict::Refused,
                    format!("`{}` became another directory: {why}", dir.display()),
                )
            };
            way.guards(uid).map_err(refused)?;
        }
        if look.lock.is_some() {
            let names: BTreeSet<&std::ffi::OsStr> = targets
                .iter()
                .filter_map(|(path, _)| path.file_name())
                .collect();
            let names: Vec<&std::ffi::OsStr> = names.into_iter().collect();
            let wanted = lock::LockRequest {
                until,
                intent: look.intent,
                names: &names,
            };
            let locked = lock::lock(&fd, dir, wanted, holders).await.map_err(no)?;
            if let Some(holder) = locked.foreign.clone() {
                let event = Event::ForeignLock {
                    path: dir.into(),
                    holder,
                };
                self.notes.push(event.clone());
                seen.notes.push(event);
            }
            self.locks.push(locked);
        }
        Ok(fd)
    }
}

/// One scan for all groups.
async fn find(
    groups: &[Arc<Group>],
    there: &ProcessSnapshot,
    seen: &mut Survey,
) -> Vec<(Arc<Group>, Found)> {
    let all = Scan::of(there.pids())
        .find_all(groups.iter().map(|group| &**group))
        .await;
    let mut found = Vec::new();
    for (group, said) in groups.iter().zip(all) {
        if let Some(why) = said.blind {
            seen.abort.get_or_insert_with(|| {
                Abort::new(Verdict::Failed, format!("cannot look at processes: {why}"))
            });
        }
        seen.skipped.extend(said.left_out);
        seen.missing.extend(said.missing);
        seen.refused.extend(
            said.refused
                .into_iter()
                .map(|(f, why)| refused(f.instance(&group.name), why)),
        );
        found.extend(said.found.into_iter().map(|f| (group.clone(), f)));
    }
    found
}

pub(crate) fn refused(instance: Instance, text: String) -> Instance {
    Instance {
        outcome: Outcome::Refused,
        failure: Some(Failure {
            kind: Outcome::Refused.into(),
            text,
        }),
        ..instance
    }
}

pub(crate) fn install_abort(e: InstallError) -> Abort {
    let verdict = if matches!(e, InstallError::Io(..) | InstallError::Record(_)) {
        Verdict::Failed
    } else {
        Verdict::Refused
    };
    Abort::new(verdict, e.to_string())
}

/// One that every guard has let through so far, or as it is reported; it goes from hand to hand,
/// and is large.
type SurveyedInstance = Result<Box<PlannedInstance>, Box<Instance>>;

/// What the kernel tells of one; nobody is waited for.
fn member(
    group: &Arc<Group>,
    f: &Found,
    look: SurveyRequest<'_>,
    listeners: &Listeners,
    lanes: &ProbeLimits,
) -> SurveyedInstance {
    let mut instance = f.instance(&group.name);
    let no = |instance: &Instance, why: String| Box::new(refused(instance.clone(), why));
    let mut silent = None;
    match f
        .endpoint
        .clone()
        .map_or_else(|| listeners.endpoint(f.pid, &f.args, group), Ok)
    {
        Ok(endpoint) => instance.endpoint = endpoint,
        Err(why) if group.needs_endpoint() && listeners.is_deaf(f.pid, &f.args, group) => {
            silent = Some(why)
        }
        Err(why) if group.needs_endpoint() => return Err(no(&instance, why)),
        // Nobody asks it there.
        Err(_) => {}
    }
    check_exclusive_address(f, &instance.endpoint, listeners, lanes)
        .map_err(|why| no(&instance, why))?;
    check_declared(group)
        .and_then(|()| may_signal(f.pid))
        .map_err(|why| no(&instance, why))?;
    let mut member = Box::new(PlannedInstance::new(
        instance,
        group.clone(),
        f.args.clone(),
    ));
    member.identity = f.identity(group);
    member.assumed = f
        .configs
        .iter()
        .filter(|config| config.assumed)
        .map(|config| config.path.clone())
        .collect();
    if let Some(why) = renewal::refuses(&member.identity.renewal, group) {
        return Err(no(&member.instance, why));
    }
    member.timeout = look.timeout.unwrap_or(group.timeout);
    member.cwd = std::fs::read_link(format!("/proc/{}/cwd", f.pid)).unwrap_or_default();
    member.restart_only_paths = discover::fixed_of(f, group);
    member.started_ns = guard::started_at(f.started);
    if let Some(why) = silent {
        member.mark_unresponsive(why);
    }
    Ok(member)
}

/// Those that take the signal. Whoever did not when it was found (`late`) is waited for, all of
/// them at the same time.
async fn wait_until_ready(
    mut looked: Vec<SurveyedInstance>,
    late: &[bool],
) -> Vec<SurveyedInstance> {
    let late = looked
        .iter()
        .zip(late)
        .enumerate()
        .filter_map(|(at, (one, late))| Some((at, one.as_ref().ok().filter(|_| *late)?)));
    let waits =
        late.map(|(at, m)| async move { (at, guards(&m.group, m.instance.pid, m.timeout).await) });
    for (at, said) in futures_util::future::join_all(waits).await {
        if let (Err(why), Ok(member)) = (said, &looked[at]) {
            looked[at] = Err(Box::new(refused(member.instance.clone(), why)));
        }
    }
    looked
}

/// What the instances of a fleet have in common is kept once.
fn intern(member: &mut PlannedInstance, other: Option<&PlannedInstance>) {
    let Some(other) = other else { return };
    if member.args == other.args {
        member.args = other.args.clone();
    }
    if member.identity.person == other.identity.person {
        member.identity.person = other.identity.person.clone();
    }
    if member.restart_only == other.restart_only {
        member.restart_only = other.restart_only.clone();
    }
}

/// The same one once it has answered.
async fn probe_instance(
    looked: SurveyedInstance,
    listeners: &Listeners,
    lanes: &ProbeLimits,
) -> SurveyedInstance {
    let mut member = looked?;
    let group = member.group.clone();
    let no =
        |member: &PlannedInstance, why: String| Box::new(refused(member.instance.clone(), why));
    if !member.unresponsive
        && (group.speaks == Speaks::Hello || !group.confirm.is_empty() || !group.reject.is_empty())
    {
        match take_baseline(&mut member, listeners, lanes).await {
            Ok(()) => {}
            Err(silence) if silence.reached => member.mark_unresponsive(silence.message),
            Err(silence) => return Err(no(&member, silence.message)),
        }
    }
    if member.unresponsive {
        // One that ended or was stopped meanwhile is silent for that.
        if guard::is_over(
            member.instance.pid,
            member.instance.started,
            &member.instance.exe,
        ) {
            return Err(no(&member, "ended while it was looked at".into()));
        }
        check_not_stopped(member.instance.pid).map_err(|why| no(&member, why))?;
    }
    Ok(member)
}

/// Whether nobody listens at its endpoint but who is in the run.
pub(crate) fn check_exclusive_address(
    found: &Found,
    endpoint: &str,
    listeners: &Listeners,
    lanes: &ProbeLimits,
) -> Result<(), String> {
    let others = match endpoint.starts_with("unix:") || found.endpoint.is_some() {
        true => Vec::new(),
        false => port_sharing::foreign_listeners(found.pid, endpoint, listeners, lanes),
    };
    if others.is_empty() {
        return Ok(());
    }
    Err(format!(
        "shares its address with {}, which is not in the run: whom it answers is chance",
        others.join(", ")
    ))
}

/// Whether it takes the signal, now or in a moment.
async fn guards(group: &Group, pid: i32, timeout: std::time::Duration) -> Result<(), String> {
    check_not_stopped(pid)?;
    guard::wait_for_handler(pid, group, guard::handler_grace_period(pid, timeout)).await
}

/// Whether somebody says what the program does on the signal.
pub(crate) fn check_declared(group: &Group) -> Result<(), String> {
    if group.reloads != Reloads::No {
        return Ok(());
    }
    let (signal, name) = (group.signal.name(), &group.name);
    Err(format!(
        "has nobody who says that it reloads on {signal} (many programs die of it); if it does, \
         say `reloads = true` in group `{name}`"
    ))
}

/// Whether this user may signal it.
pub(crate) fn may_signal(pid: i32) -> Result<(), String> {
    if permitted(pid) {
        Ok(())
    } else {
        Err("may not be signalled by this user".into())
    }
}

/// Whether it would take a signal before it goes on.
pub(crate) fn check_not_stopped(pid: i32) -> Result<(), String> {
    if guard::is_stopped(pid) {
        Err(format!("is stopped; continue it with `kill -CONT {pid}`"))
    } else {
        Ok(())
    }
}

/// What it says it runs, and what its facts read now.
///
/// # Errors
/// What is silent, or speaks something else.
pub(crate) async fn take_baseline(
    member: &mut PlannedInstance,
    listeners: &Listeners,
    lanes: &ProbeLimits,
) -> Result<(), ProbeError> {
    let Err(silence) = probe_once(member, lanes).await else {
        return Ok(());
    };
    // It was asked at its only socket, which may speak something else.
    let group = &member.group;
    let missing = listeners
        .missing(member.instance.pid, &member.args, group)
        .filter(|_| group.needs_endpoint());
    let see = group.kind.as_ref().map_or(String::new(), |kind| {
        format!(" (what it needs: `hello kinds {kind}`)")
    });
    let more = missing.map_or(String::new(), |all| {
        format!("; it listens nowhere that its group's `listen` names: {all}{see}")
    });
    Err(ProbeError {
        message: silence.message + &more,
        ..silence
    })
}

async fn probe_once(member: &mut PlannedInstance, lanes: &ProbeLimits) -> Result<(), ProbeError> {
    let group = member.group.clone();
    if group.speaks == Speaks::Hello {
        let i = &mut member.instance;
        let SelfReport {
            instance,
            effective,
            last_attempt,
            restart_only,
            ..
        } = self_report(&i.endpoint, lanes)
            .await
            .map_err(ProbeError::of)?;
        if !is_its_name(i.pid, i.started, (instance.pid, instance.started)) {
            return Err(ProbeError::of(format!(
                "{} is answered by pid {}, not by it",
                i.endpoint, instance.pid
            )));
        }
        i.after = Some(effective.sha256.clone());
        i.before = Some(effective.sha256);
        (member.attempt_seq, member.restart_only) = (last_attempt.seq, restart_only.into());
        // What its kind asks besides is what the config says that it has told: only what a
        // fleet.toml says is read.
        if group.reject.is_empty() && (group.confirm.is_empty() || group.confirm == *OF_ITS_KIND) {
            return Ok(());
        }
    }
    let _permit = lanes.responsive.acquire().await;
    let answers = ProbeResults::of(
        group
            .confirm
            .iter()
            .chain(&group.reject)
            .map(|fact| &fact.source),
        member,
        lanes,
    )
    .await;
    if let Some((
        source,
        ProbeError {
            message: why,
            reached: asked,
        },
    )) = answers.first_error()
    {
        return Err(ProbeError {
            message: format!("{}: {why}", source.describe(&member.instance.endpoint)),
            reached: *asked,
        });
    }
    if group.speaks == Speaks::Hello
        && answers
            .own_answers()
            .any(|answer| answer.header(X_INSTANCE).is_none())
    {
        let why = "its answers do not say which process gives them, so they would prove nothing \
                   (asked by a `host` of another name? start it with `--proof any`)";
        return Err(ProbeError::of(format!(
            "{}: {why}",
            member.instance.endpoint
        )));
    }
    let all = group
        .confirm
        .iter()
        .map(|fact| (fact, Role::Confirm))
        .chain(group.reject.iter().map(|fact| (fact, Role::Reject)));
    if let Some((fact, why)) = all
        .into_iter()
        .find_map(|(fact, role)| Some((fact, answers.unreadable(fact, role)?)))
    {
        return Err(ProbeError::of(format!(
            "{} {why}",
            fact.source.describe(&member.instance.endpoint)
        )));
    }
    let (baseline, rejected) = (
        answers.readings(&group.confirm),
        answers.readings(&group.reject),
    );
    let needed = |(fact, reading): &(&Assertion, &Option<String>)| {
        fact.needs_baseline() && fact.expectation != Expectation::AfterSignal && reading.is_none()
    };
    if let Some((fact, _)) = group.confirm.iter().zip(&baseline).find(needed) {
        // The kernel has told all that there is.
        let asked = !fact.source.is_kernel();
        return Err(ProbeError {
            message: answers.no_baseline(fact, &member.instance.endpoint),
            reached: asked,
        });
    }
    member.baseline_read_at = Some(Instant::now());
    (member.baseline, member.rejected) = (baseline, rejected);
    Ok(())
}
