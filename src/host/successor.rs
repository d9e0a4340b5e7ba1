//! New processes: one that takes an instance's place during a reload, one that was started again, and any that came meanwhile.
//! What each reads it has read after it was installed, so it must say what everybody must say, but nothing that compares with before.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    event::{Event, HALTED, Halts, Proof, State, Trouble},
    fact::{Fact, Source, Wants},
    fleet::{Group, Speaks},
    host::{
        LocalHost,
        answers::Answers,
        confirm::{has_ended, shares, strangers},
        discover::{self, Found, Scan},
        guard,
        hangup::hold,
        http::{Lanes, own, told},
        inside::is_its_name,
        install::Target,
        kernel::{Stat, pids},
        opened::Openings,
        prove::other,
        samples::Steadiness,
        sockets::sockets_of,
        survey::needs_endpoint,
        turns::Turn,
        workers::children,
    },
    step::{Blob, Member, Shift, Step},
};

/// A successor is there before the one whose place it takes ends; what is told by a unit or a pid file may come later.
const AT_ONCE: Duration = Duration::from_millis(500);
/// So long a manager takes to start one again; how long that then needs for its proof is another matter.
const NAMED: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// When a target became what it is: whoever was not there yet has read it.
#[derive(Debug, Clone, Default)]
pub(super) struct Since {
    /// Sorted; none where the kernel did not tell, and then every process may have been there.
    pids: Option<Arc<[i32]>>,
    /// By the clock that start times are counted by, in its ticks.
    ticks: u64,
    when: jiff::Timestamp,
}

impl Since {
    /// Of this moment.
    ///
    /// # Errors
    /// The system's: the kernel does not tell which processes there are.
    pub(super) fn now() -> io::Result<Self> {
        Ok(Self { pids: Some(pids()?.into()), ..Self::unseen() })
    }

    /// Of this moment, at which no process was looked at.
    pub(super) fn unseen() -> Self {
        Self { pids: None, ticks: guard::ticks(), when: jiff::Timestamp::now() }
    }

    /// The processes that were there, sorted.
    pub(super) fn pids(&self) -> &[i32] {
        self.pids.as_deref().unwrap_or_default()
    }

    /// Whether a process of this pid and start time came later.
    fn is_before(&self, pid: i32, started: u64) -> bool {
        !self.was_there(pid) || started > self.ticks
    }

    fn was_there(&self, pid: i32) -> bool {
        self.pids.as_ref().is_none_or(|pids| pids.binary_search(&pid).is_ok())
    }

    /// Whether the process that has this number now came later.
    fn is_new(&self, pid: i32) -> bool {
        !self.was_there(pid) || Stat::of(pid).is_ok_and(|stat| stat.started > self.ticks)
    }
}

/// A look at everybody, and who of them came after the survey: one serves all who wait for a successor.
#[derive(Debug)]
pub(super) struct Newest {
    began: Instant,
    took: Duration,
    scan: Scan,
    new: Vec<i32>,
}

impl Newest {
    pub(super) fn look(surveyed: &Since) -> Self {
        // Where the kernel tells of no process, none is new.
        let (began, scan) = (Instant::now(), Scan::take().unwrap_or_default());
        let new = scan.pids().filter(|pid| surveyed.is_new(*pid)).collect();
        Self { began, took: began.elapsed(), scan, new }
    }

    /// Whether it began at most `old` ago, or so lately that another one would leave no time for anything else.
    pub(super) fn serves(&self, old: Duration) -> bool {
        self.began.elapsed() < old + 4 * self.took
    }

    /// On a busy machine somebody is always new, and hardly ever one who may be meant.
    fn may_have(&self, group: &Group) -> bool {
        self.new.iter().any(|pid| self.scan.may_be(group, *pid))
    }
}

/// What a new process must prove.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fresh<'a> {
    pub(super) shifts: &'a [Shift],
    /// Since when each target is what it is.
    pub(super) since: &'a BTreeMap<PathBuf, Since>,
    /// Who was there by then, as an orphaned worker, takes nobody's place.
    pub(super) surveyed: &'a Since,
    pub(super) undo: bool,
    /// Of the one that is waited for.
    pub(super) turn: &'a Turn,
    /// The instances that were about to be signalled, by pid and start time.
    pub(super) begun: &'a RefCell<BTreeSet<(i32, u64)>>,
    /// The targets of the run, by path.
    pub(super) targets: &'a BTreeMap<PathBuf, Target>,
    /// Who opens them.
    pub(super) openings: &'a Openings,
}

impl Fresh<'_> {
    /// From now on, `member` may have been signalled.
    pub(super) fn begun(&self, member: &Member) {
        self.begun.borrow_mut().insert(member.id);
        self.openings.begin(member);
    }

    fn to(&self) -> Option<&Blob> {
        self.shifts.first().map(|s| &s.to)
    }

    /// When the last of the targets became what it is.
    fn since_when(&self) -> jiff::Timestamp {
        self.shifts.iter().filter_map(|s| self.since.get(&s.path)).map(|since| since.when).max().unwrap_or(jiff::Timestamp::MIN)
    }

    fn came_later(&self, pid: i32, started: u64) -> bool {
        self.shifts.iter().all(|s| self.since.get(&s.path).is_some_and(|since| since.is_before(pid, started)))
    }

    /// The target that holds other bytes by now than this run has placed there. A process that started
    /// meanwhile may have read these.
    fn replaced(&self) -> Option<&Path> {
        let holds = |s: &Shift| self.targets.get(&s.path).is_some_and(|target| target.holds(&s.to));
        self.shifts.iter().find(|s| !holds(s)).map(|s| s.path.as_path())
    }
}

/// The process that has taken the place of `member`, which ended: it descends from it, holds its listening socket, or is what the unit or the pid file
/// of its group names by now. None when there is none in time.
pub(super) async fn heir(member: &Member, surveyed: &Since, lanes: &Lanes) -> Option<Found> {
    let group = &member.group;
    let named = group.matching.unit.is_some() || group.matching.pid_file.is_some() || !group.pid_file.is_empty();
    let patience = match member.instance.state {
        _ if named => member.timeout.clamp(AT_ONCE, NAMED),
        // On the way forth it was waited for already.
        State::Died => Duration::ZERO,
        _ => AT_ONCE,
    };
    let deadline = Instant::now() + patience;
    let has_workers = group.confirm.iter().any(|fact| fact.source == Source::Workers);
    loop {
        let late = Instant::now() >= deadline;
        let newest = lanes.newest(surveyed, PAUSE);
        for found in if newest.may_have(group) { unknown(member, &newest, lanes).await } else { Vec::new() } {
            let id = (found.pid, found.started);
            // A worker that was left behind is no leader, whatever it looks like: it has none of its own.
            if !surveyed.is_before(found.pid, found.started) || (has_workers && children(found.pid).is_ok_and(|children| children.is_empty())) {
                continue;
            }
            // Where somebody says who leads, a child that only helps with the start is nobody.
            let takes_over = match discover::is_named(&found, group).await {
                Some(is_named) => is_named,
                None => (late || !named) && (member.heirs.contains(&id) || inherits(&found, member, lanes)),
            };
            if takes_over {
                lanes.know([id]);
                return Some(found);
            }
        }
        if late {
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Matches of its group that are not in the run and read what `member` did.
pub(super) async fn unknown(member: &Member, newest: &Newest, lanes: &Lanes) -> Vec<Found> {
    let group = Group { instances: Vec::new(), ..(*member.group).clone() };
    let ways = discover::Ways::default();
    let mut same = Vec::new();
    for found in newest.scan.find(&group).await.found {
        let Ok(configs) = discover::configs_of(&found, &group, &ways).await else { continue };
        if configs.iter().map(|config| &config.path).eq(&member.instance.targets) && !lanes.is_known((found.pid, found.started)) {
            same.push(Found { configs, ..found });
        }
    }
    same
}

/// Whether it holds a listening socket that `member` held.
fn inherits(found: &Found, member: &Member, lanes: &Lanes) -> bool {
    let (Ok(held), Ok(listeners)) = (sockets_of(found.pid), lanes.listeners(PAUSE)) else { return false };
    held.iter().any(|socket| member.sockets.contains(socket) && listeners.listens(*socket))
}

/// `found` in the place of `member`, proven, or why it is not.
///
/// # Errors
/// The trouble of the new process, after `limit`.
pub(super) async fn prove(found: &Found, member: &Member, fresh: Fresh<'_>, limit: Duration, lanes: &Lanes) -> Result<Member, Trouble> {
    let i = &member.instance;
    let mut new = member.clone();
    new.args = found.args.clone().into();
    new.identity = found.identity(&member.group);
    new.instance = crate::event::Instance { wave: i.wave, validated: i.validated, before: i.before.clone(), ..found.instance(&i.group) };
    let began = Instant::now();
    let proof = proven(&mut new, fresh, limit, lanes).await?;
    (new.instance.proof, new.instance.state) = (Some(proof), if fresh.undo { State::Reverted } else { State::Confirmed });
    new.instance.after = fresh.to().map(|to| to.sha256.clone());
    new.instance.took_us = u64::try_from(began.elapsed().as_micros()).ok();
    new.signalled = Some(fresh.since_when());
    new.proven_at = Some(Instant::now());
    // It has answered, whatever the one did whose place it took.
    new.sick = false;
    Ok(new)
}

/// Waits until `new`, which compares with nothing before itself, proves what `fresh` wants; one that has proven it is asked whether it does so still.
///
/// # Errors
/// As [`prove`].
pub(super) async fn proven(new: &mut Member, fresh: Fresh<'_>, limit: Duration, lanes: &Lanes) -> Result<Proof, Trouble> {
    let pid = new.instance.pid;
    let trouble = |kind: State, text: String| Trouble { kind: kind.into(), text };
    let Ok(pidfd) = hold(&new.instance) else { return Err(trouble(State::Died, format!("pid {pid} ended too"))) };
    let began = Instant::now();
    let mut steady = Steadiness::of(new.group.samples);
    loop {
        let late = began.elapsed() >= limit;
        let said = steadily(new, fresh, &mut steady, lanes).await;
        if has_ended(&pidfd) {
            return Err(trouble(State::Died, format!("pid {pid} ended too")));
        }
        let said = said.and_then(|proof| match strangers(new, lanes).as_slice() {
            [] => Ok(proof),
            others => Err(shares(others)),
        });
        match said {
            Ok(proof) => return Ok(proof),
            Err(why) if late => return Err(trouble(State::TimedOut, format!("pid {pid}: {why}"))),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// What a new process proves now, in every sample.
async fn steadily(new: &mut Member, fresh: Fresh<'_>, steady: &mut Steadiness, lanes: &Lanes) -> Result<Proof, String> {
    let proof = says(new, fresh, None, lanes).await.inspect_err(|_| steady.does_not_hold())?;
    steady.holds();
    let (group, serving) = (new.group.clone(), Source::Http(own("/")));
    let status = group.confirm.is_empty().then_some(&serving);
    for source in steady.questions(group.confirm.iter().map(|fact| &fact.source).chain(status)) {
        says(new, fresh, Some(source), lanes).await.inspect_err(|_| steady.does_not_hold())?;
    }
    Ok(proof)
}

/// What a new process proves now, by the answers of all sources or of `only` one.
async fn says(new: &mut Member, fresh: Fresh<'_>, only: Option<&Source>, lanes: &Lanes) -> Result<Proof, String> {
    let group = new.group.clone();
    // That it has read its config is known then, and another install of the same bytes changes nothing of that.
    let before = (new.instance.state == State::Confirmed).then_some(new.signalled).flatten();
    if needs_endpoint(&group) {
        new.instance.endpoint = lanes.listeners(PAUSE)?.endpoint(new.instance.pid, &new.args, &group)?;
    }
    let i = &new.instance;
    let facts: Vec<Fact> = group.confirm.iter().map(|f| f.filled(fresh.to().and_then(Blob::file))).collect::<Result<_, _>>()?;
    let asked = || facts.iter().filter(|fact| only.is_none_or(|only| *only == fact.source));
    let answers = Answers::within(new.timeout, asked().map(|f| &f.source), new, lanes).await;
    if let Some((_, silence)) = answers.silent() {
        return Err(silence.why.clone());
    }
    let since = before.unwrap_or_else(|| fresh.since_when());
    let holds = |fact: &Fact| match &fact.wants {
        // There is no before: that it is new shows in its start.
        Wants::Changed | Wants::Increased => true,
        Wants::Replaced => answers.read(fact).is_some_and(|now| now.lines().any(|line| line.ends_with(" listens"))),
        Wants::Equals(_) | Wants::Contains(_) | Wants::AfterSignal => answers.read(fact).is_some_and(|now| fact.holds(&now, None, since)),
    };
    if let Some(fact) = asked().find(|f| !holds(f)) {
        return Err(answers.why_not(fact, &i.endpoint));
    }
    if group.speaks == Speaks::Hello {
        let told = told(&i.endpoint, lanes).await?;
        if !is_its_name(i.pid, i.started, (told.instance.pid, told.instance.started)) {
            return Err(format!("it is answered by pid {}", told.instance.pid));
        }
        // It counts its attempts from its own start.
        new.seq = told.last_attempt.seq;
        return match fresh.to() {
            Some(to) if told.effective.sha256 != to.sha256 => Err("serves another config".into()),
            _ => Ok(Proof::Exact),
        };
    }
    let content = group.confirm.iter().zip(&facts).any(|(written, new)| other(written, new, fresh.shifts).is_some());
    if !content && before.is_none() {
        if !fresh.came_later(i.pid, i.started) {
            return Err("was there before its config was, and nothing proves that it has read it".into());
        }
        if let Some(path) = fresh.replaced() {
            return Err(format!("`{}` holds other bytes by now, and it may have read these", path.display()));
        }
    }
    guard::takes(i.pid, &group, Duration::ZERO).await?;
    Ok(if content { Proof::Content } else { Proof::Reloaded })
}

impl LocalHost {
    /// Matches that were not there at the survey and read a target of `steps`, each proven on what that step installs, or not.
    ///
    /// # Errors
    /// A sentence: the kernel does not tell which processes came.
    pub(super) async fn newcomers(&self, steps: &[&Step], undo: bool, halts: &mut Halts, tell: &mut impl FnMut(Event)) -> Result<Vec<Member>, String> {
        let surveyed = &self.surveyed;
        // Nobody is signalled: a run that was halted already looks to its end.
        let patience = u8::from(undo).max((*halts.borrow()).min(1));
        let now = pids().map_err(|e| format!("which processes came during the run is not known: {e}"))?;
        if now.into_iter().all(|pid| surveyed.was_there(pid)) {
            return Ok(Vec::new());
        }
        let (newest, mut new, mut known) = (Newest::look(surveyed), Vec::new(), BTreeSet::new());
        for group in self.groups.iter().filter(|g| g.instances.is_empty() && newest.may_have(g)) {
            // A worker that has lost its leader meanwhile looks like one, and was there.
            let came = |f: &Found| !self.lanes.is_known((f.pid, f.started)) && surveyed.is_before(f.pid, f.started);
            let found = newest.scan.find(group).await.found.into_iter().filter(came);
            // One that two groups match belongs to the first.
            new.extend(found.filter(|f| known.insert(f.pid)).map(|f| (group, f)));
        }
        // They may share an address, and are no strangers to each other.
        self.lanes.know(new.iter().map(|(_, f)| (f.pid, f.started)));
        let mut all = Vec::new();
        for (group, found) in new {
            let targets = discover::configs_of(&found, group, &discover::Ways::default()).await;
            let reads =
                |step: &&&Step| targets.as_ref().is_ok_and(|t| t.is_empty() || step.shifts.iter().any(|s| t.iter().any(|config| config.path == s.path)));
            let found = Found { configs: targets.clone().unwrap_or_default(), ..found };
            let mut member = Member::new(found.instance(&group.name), group.clone(), found.args.clone());
            member.identity = found.identity(group);
            let state = if undo { State::RevertFailed } else { State::TimedOut };
            match steps.iter().find(reads) {
                Some(step) => {
                    let fresh = Fresh {
                        shifts: &step.shifts,
                        since: &self.since,
                        surveyed,
                        undo: step.undo,
                        turn: &Turn::default(),
                        begun: &RefCell::default(),
                        targets: &self.targets,
                        openings: &self.openings,
                    };
                    let proof = prove(&found, &member, fresh, member.timeout, &self.lanes);
                    let said = tokio::select! {
                        said = proof => said,
                        Ok(_) = halts.wait_for(|n| *n > patience) => Err(Trouble { kind: state.into(), text: HALTED.into() }),
                    };
                    match said {
                        Ok(proven) => member = proven,
                        // Somebody's validator, or another command of the same program: it runs no config any more.
                        Err(trouble) if trouble.kind.state() == State::Died => continue,
                        Err(trouble) => member.fail(state, trouble),
                    }
                }
                // Another config than that of the run is no business of it.
                None if targets.is_ok() => continue,
                None => member.fail(state, Trouble { kind: state.into(), text: targets.err().unwrap_or_default() }),
            }
            tell(Event::of(&member.instance));
            all.push(member);
        }
        Ok(all)
    }
}
