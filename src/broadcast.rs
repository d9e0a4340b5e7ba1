//! `hello broadcast`: the recipe of a run.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use crate::{
    change::{Change, edit},
    check,
    config::{self, MAX_TARGET, ReadError},
    engine::{self, Halts, Ready},
    event::{Event, Instance, State, TargetReport, Trouble, Verdict},
    fact::Fact,
    fleet::{Count, Fleet, Group, Speaks},
    host::{
        confirm::{Lanes, readings, told},
        discover::{self, Found, Listeners},
        hangup,
        install::{InstallError, Target},
        validate::{self, NotPassed},
    },
    plan::{Blob, Member, Step},
    report::{Output, Reporter, Summary},
    runs::{self, Run},
    told::Told,
};

/// Checked options of the command.
#[derive(Debug, Clone)]
pub struct Options {
    /// The fleet, read and selected.
    pub fleet: Fleet,
    /// The change.
    pub change: Change,
    /// Every instance must have a validator and pass it.
    pub strict: bool,
    /// Prepare, show, and drop what was staged.
    pub dry_run: bool,
    /// Instead of each group's own count.
    pub count: Option<Count>,
    /// Instead of each group's own timeout.
    pub timeout: Option<Duration>,
    /// How long another run's lock is waited for.
    pub lock_timeout: Duration,
    /// Why; kept in the journal.
    pub reason: Option<String>,
    /// Where runs are kept.
    pub state: PathBuf,
    /// What stdout carries.
    pub output: Output,
    /// No progress lines.
    pub quiet: bool,
    /// Every instance a line.
    pub verbose: bool,
}

/// An end before anything was touched.
struct Stop {
    verdict: Verdict,
    reason: String,
    instances: Vec<Instance>,
}

impl Stop {
    fn new(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self { verdict, reason: reason.into(), instances: Vec::new() }
    }
}

struct Ended {
    run: String,
    verdict: Verdict,
    reason: String,
    /// Text that the command answers, of a dry run.
    answer: Option<String>,
    ready: Vec<Ready>,
}

/// Runs the command to its verdict; every end is reported.
pub async fn run(options: Options, halts: Halts) -> Verdict {
    let mut reporter = Reporter::new(options.output, options.quiet, options.verbose);
    let ended = attempt(&options, halts, &mut |event| reporter.event(event)).await;
    let (summary, hint) = match ended {
        Ok(ended) => {
            if let Some(answer) = &ended.answer {
                reporter.answer(answer);
            }
            let targets = ended.ready.iter().map(target_report).collect();
            let instances = ended.ready.into_iter().flat_map(|r| r.step.members).map(|m| m.instance).collect();
            let hint = match ended.verdict {
                Verdict::Mixed => Some("look at the instances above; `hello broadcast --dry-run` shows what each runs now".to_owned()),
                Verdict::Reverted => Some("every instance is proven on the old config; mend the cause, then run the same command again".to_owned()),
                _ => None,
            };
            (summary(ended.run, ended.verdict, ended.reason, targets, instances), hint)
        }
        Err(stop) => (summary(String::new(), stop.verdict, stop.reason, Vec::new(), stop.instances), Some("nothing was touched".to_owned())),
    };
    reporter.finish(&summary, hint.as_deref());
    summary.verdict
}

fn summary(run: String, verdict: Verdict, reason: String, targets: Vec<TargetReport>, instances: Vec<Instance>) -> Summary {
    let mut counts = BTreeMap::new();
    for instance in &instances {
        *counts.entry(instance.state).or_insert(0) += 1;
    }
    Summary { v: 1, run, verdict, exit: verdict.exit(), reason, targets, instances, counts }
}

fn target_report(ready: &Ready) -> TargetReport {
    TargetReport {
        host: "local",
        path: ready.step.path.clone(),
        from: ready.step.from.as_ref().map(|b| b.sha256.clone()),
        to: ready.step.to.sha256.clone(),
        disk: ready.target.digest(),
    }
}

/// What is kept of a plan in the journal.
#[derive(Serialize)]
struct PlanRecord<'a> {
    v: u32,
    boot_id: String,
    uid: u32,
    reason: Option<&'a str>,
    command: Vec<String>,
    targets: Vec<TargetReport>,
    instances: Vec<&'a Instance>,
}

async fn attempt(options: &Options, halts: Halts, on_event: &mut impl FnMut(&Event)) -> Result<Ended, Stop> {
    let candidate = read_change(&options.change)?;
    let found = find(options, on_event)?;
    let surveyed = survey(options, found).await?;
    let id = runs::new_id();
    let mut ready = plan(options, surveyed, candidate)?;
    prepare(options, &mut ready, &id, on_event)?;
    let work = ready.iter().any(|r| r.step.is_work() || r.step.disk.sha256 != r.step.to.sha256);
    if options.dry_run || !work {
        let reason = if options.dry_run { "dry run: nothing was touched" } else { "every instance runs it already" };
        let answer = options.dry_run.then(|| rehearsal(&ready));
        return Ok(Ended { run: String::new(), verdict: Verdict::Converged, reason: reason.into(), answer, ready });
    }
    if *halts.borrow() > 0 {
        return Err(Stop::new(Verdict::Failed, "halted before anything was touched"));
    }
    let mut journal = begin(options, &id, &ready)?;
    let mut last = String::new();
    let verdict = engine::run(&mut ready, &id, halts, &mut |event| {
        if let Event::UndoBegan { why } = &event {
            last.clone_from(why);
        }
        on_event(&event);
        journal.record(&event).is_ok()
    })
    .await;
    // The verdict stands, whether or not the last line of the journal could be written.
    let _ = journal.record(&Event::Finished { verdict });
    let reason = match verdict {
        Verdict::Converged => "every instance proved the new config".to_owned(),
        _ if last.is_empty() => "the run did not converge".to_owned(),
        _ => last,
    };
    Ok(Ended { run: id, verdict, reason, answer: None, ready })
}

/// The bytes of `--config`; what was read and is no config is judged later, in the order of the exit codes.
fn read_change(change: &Change) -> Result<Option<Result<Vec<u8>, String>>, Stop> {
    let Change::File(path) = change else { return Ok(None) };
    match config::read(path, MAX_TARGET) {
        Ok(bytes) => Ok(Some(Ok(bytes))),
        Err(ReadError::Unacceptable(why)) => Ok(Some(Err(format!("`{}`: {why}", path.display())))),
        Err(ReadError::Io(e)) => Err(Stop::new(Verdict::Failed, format!("cannot read `{}`: {e}", path.display()))),
    }
}

/// Finds the instances of every group, and holds them against its count.
fn find<'a>(options: &'a Options, on_event: &mut impl FnMut(&Event)) -> Result<Vec<(&'a Group, Found)>, Stop> {
    let mut all: Vec<(&Group, Found)> = Vec::new();
    for group in &options.fleet.groups {
        let seen = discover::find(group);
        for out in &seen.left_out {
            on_event(&Event::LeftOut { pid: out.pid, why: out.why.clone() });
        }
        if let Some(out) = seen.not_there.first() {
            return Err(Stop::new(Verdict::NoMatch, format!("pid {} {}", out.pid, out.why)));
        }
        let mine: Vec<Found> = seen.found.into_iter().filter(|f| !all.iter().any(|(_, g)| g.pid == f.pid)).collect();
        let count = options.count.unwrap_or(group.count);
        if mine.len() < count.min || mine.len() > count.max {
            let left: Vec<String> = seen.left_out.iter().map(|o| format!("; left out: pid {} {}", o.pid, o.why)).collect();
            let wants = if count.max == usize::MAX { format!("{} or more", count.min) } else { format!("{} to {}", count.min, count.max) };
            return Err(Stop::new(Verdict::NoMatch, format!("group `{}` has {} instances, not {wants}{}", group.name, mine.len(), left.concat())));
        }
        all.extend(mine.into_iter().map(|f| (group, f)));
    }
    on_event(&Event::Survey { instances: all.len(), fleet: options.fleet.path.clone() });
    Ok(all)
}

/// A process and the group that found it.
type Match<'a> = (&'a Group, Found);

/// A target under its lock, its bytes, and the groups and members that read it.
struct Surveyed<'a> {
    target: Target,
    disk: Vec<u8>,
    members: Vec<(&'a Group, Member, Option<Told>)>,
}

/// Locks each target, then reads it; asks each instance what it runs; the guards.
async fn survey<'a>(options: &Options, found: Vec<(&'a Group, Found)>) -> Result<BTreeMap<PathBuf, Surveyed<'a>>, Stop> {
    let mut refused: Vec<Instance> = Vec::new();
    let mut targets: BTreeMap<PathBuf, (Target, Vec<Match>)> = BTreeMap::new();
    let refuse = |group: &Group, f: &Found, endpoint: &str, text: String| Instance {
        state: State::Refused,
        trouble: Some(Trouble { kind: State::Refused, text }),
        ..instance(group, f, endpoint, Path::new(""), None)
    };
    for (group, f) in found {
        let path = match discover::config_of(&f, &group.config) {
            Ok(path) => path,
            Err(why) => {
                refused.push(refuse(group, &f, "", why));
                continue;
            }
        };
        if !targets.contains_key(&path) {
            // Two targets of one directory share its lock: only the first of them takes it.
            let locked = !options.dry_run && !targets.keys().any(|p| p.parent() == path.parent());
            let target = Target::open(&path, locked, options.lock_timeout).map_err(from_install)?;
            targets.insert(path.clone(), (target, Vec::new()));
        }
        if let Some((_, members)) = targets.get_mut(&path) {
            members.push((group, f));
        }
    }
    let listeners = Listeners::read();
    let lanes = Lanes::default();
    let mut surveyed = BTreeMap::new();
    for (path, (target, found)) in targets {
        let looks = found.into_iter().map(|(group, f)| {
            let (listeners, lanes, path) = (&listeners, &lanes, &path);
            async move {
                let endpoint = f.endpoint.clone().map_or_else(|| listeners.of(f.pid), Ok);
                let said = match &endpoint {
                    Ok(endpoint) => look(group, &f, endpoint, lanes).await,
                    Err(why) => Err(why.clone()),
                };
                let endpoint = endpoint.unwrap_or_default();
                match said {
                    Ok((told, baseline)) => {
                        let before = told.as_ref().map(|t| t.effective.sha256.clone());
                        let member = Member {
                            instance: instance(group, &f, &endpoint, path, before),
                            seq: told.as_ref().map_or(0, |t| t.last_attempt.seq),
                            timeout: options.timeout.unwrap_or(group.timeout),
                            speaks: group.speaks,
                            facts: group.confirm.clone(),
                            baseline,
                            samples: group.samples,
                        };
                        Ok((group, member, told))
                    }
                    Err(why) => Err(refuse(group, &f, &endpoint, why)),
                }
            }
        });
        let mut members = Vec::new();
        for said in futures_util::future::join_all(looks).await {
            match said {
                Ok(member) => members.push(member),
                Err(instance) => refused.push(instance),
            }
        }
        let disk = target.read().map_err(from_install)?;
        surveyed.insert(path, Surveyed { target, disk, members });
    }
    if !refused.is_empty() {
        return Err(refusal(refused));
    }
    // Nobody knows what a program without a kind does on the signal: the first of its group goes alone.
    for group in options.fleet.groups.iter().filter(|g| g.kind.is_none()) {
        let mine = surveyed.values_mut().flat_map(|s| &mut s.members).filter(|(g, ..)| g.name == group.name);
        mine.skip(1).for_each(|(_, m, _)| m.instance.wave = 2);
    }
    Ok(surveyed)
}

fn refusal(instances: Vec<Instance>) -> Stop {
    let text = |i: &Instance| format!("pid {} {}", i.pid, i.trouble.as_ref().map_or("", |t| &t.text));
    let reason = instances.iter().take(10).map(text).collect::<Vec<_>>().join("; ");
    Stop { verdict: Verdict::Refused, reason, instances }
}

fn from_install(e: InstallError) -> Stop {
    let verdict = match e {
        InstallError::Busy(..) => Verdict::Busy,
        InstallError::Refused(..) | InstallError::Drifted(..) => Verdict::Refused,
        InstallError::Io(..) => Verdict::Failed,
    };
    Stop::new(verdict, e.to_string())
}

/// The guards of one instance, then what it says it runs and what its facts read now.
async fn look(group: &Group, f: &Found, endpoint: &str, lanes: &Lanes) -> Result<(Option<Told>, Vec<Option<String>>), String> {
    if !group.reloads {
        return Err(format!(
            "has nobody who says that it reloads on SIGHUP (many programs die of it); if it does, say `reloads = true` in group `{}`",
            group.name
        ));
    }
    if !hangup::permitted(f.pid) {
        return Err("may not be signalled by this user".into());
    }
    if discover::is_stopped(f.pid) {
        return Err("is stopped; continue it with `kill -CONT`".into());
    }
    // A process that has just started may not have its handler yet: it is waited for, never signalled blindly.
    let deadline = tokio::time::Instant::now() + group.timeout;
    while let Some(why) = discover::not_taking_the_signal(f.pid) {
        if tokio::time::Instant::now() >= deadline || why.starts_with("ignores") {
            return Err(why);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let told = match group.speaks {
        Speaks::None => None,
        Speaks::Hello => Some(told(endpoint, lanes).await?),
    };
    if let Some(told) = told.as_ref().filter(|t| (t.instance.pid, t.instance.started) != (f.pid, f.started)) {
        return Err(format!("{endpoint} is answered by pid {}, not by it", told.instance.pid));
    }
    // One that told what it runs has answered already; its facts are read only where they compare.
    if told.is_some() && !group.confirm.iter().any(Fact::compares) {
        return Ok((told, Vec::new()));
    }
    Ok((told, readings(endpoint, &group.confirm, lanes).await?))
}

fn instance(group: &Group, f: &Found, endpoint: &str, target: &Path, before: Option<String>) -> Instance {
    Instance {
        host: "local",
        group: group.name.clone(),
        pid: f.pid,
        started: f.started,
        exe: f.exe.clone(),
        endpoint: endpoint.into(),
        target: target.into(),
        wave: 1,
        state: State::Untouched,
        trouble: None,
        validated: false,
        after: before.clone(),
        before,
        took_us: None,
    }
}

/// Applies the change to the bytes seen, judges it, and decides every way back.
fn plan(options: &Options, surveyed: BTreeMap<PathBuf, Surveyed<'_>>, candidate: Option<Result<Vec<u8>, String>>) -> Result<Vec<Ready>, Stop> {
    let candidate = candidate.transpose().map_err(|why| Stop::new(Verdict::Invalid, why))?;
    let mut digests = surveyed.iter().map(|(path, s)| (path, config::digest(&s.disk)));
    if let (Some(_), Some((path, sha256))) = (&candidate, digests.next())
        && let Some((other, _)) = digests.find(|(_, d)| *d != sha256)
    {
        let why = format!("one --config for several targets, but `{}` and `{}` differ now; name the groups one by one", path.display(), other.display());
        return Err(Stop::new(Verdict::Refused, why));
    }
    let (mut ready, mut drifted) = (Vec::new(), Vec::new());
    for (path, s) in surveyed {
        let to = match (&candidate, &options.change) {
            (Some(bytes), _) => bytes.clone(),
            (None, Change::Set(edits)) => edit(&s.disk, edits).map_err(|why| Stop::new(Verdict::Invalid, format!("`{}`: {why}", path.display())))?,
            (None, _) => s.disk.clone(),
        };
        let to = Blob::new(to);
        let named = match &options.change {
            Change::File(named) => named.as_path(),
            _ => &path,
        };
        judge(named, &to, &s)?;
        let members = s.members.iter().map(|(_, m, _)| m.clone()).collect();
        match Step::new(path, Blob::new(s.disk), to, members, |sha256| runs::stored(&options.state, sha256)) {
            Ok(step) => ready.push((Ready { step, target: s.target, installed: false }, s.members)),
            Err(pids) => drifted.extend(s.members.into_iter().filter_map(|(_, m, _)| {
                let (_, text) = pids.iter().find(|(pid, _)| *pid == m.instance.pid)?;
                let trouble = Some(Trouble { kind: State::Refused, text: text.clone() });
                Some(Instance { state: State::Refused, trouble, ..m.instance })
            })),
        }
    }
    if drifted.is_empty() { Ok(ready.into_iter().map(|(r, _)| r).collect()) } else { Err(refusal(drifted)) }
}

/// Whether the candidate can be proven at all; for `hello serve`, whether it is a config that needs no restart.
fn judge(named: &Path, to: &Blob, s: &Surveyed<'_>) -> Result<(), Stop> {
    let invalid = |why: String| Stop::new(Verdict::Invalid, format!("the new config is not valid: `{}`\n{why}", named.display()));
    for (group, member, told) in &s.members {
        if group.kind.as_deref() == Some("hello") {
            let parsed = config::parse(&to.bytes).map_err(|e| {
                let place = || format!("line {}, column {} (not shown: the config is not world-readable)", e.line.unwrap_or(1), e.column.unwrap_or(1));
                invalid(if s.target.is_public() { e.render(named, &to.bytes) } else { place() })
            })?;
            let listen = parsed.listen.as_deref().unwrap_or(config::DEFAULT_LISTEN);
            if let Some(now) = told.as_ref().and_then(|t| t.restart_only.get("listen")).filter(|now| *now != listen) {
                let why = format!("pid {}: `listen` is {now} and becomes {listen}, which needs a restart", member.instance.pid);
                return Err(Stop::new(Verdict::RestartRequired, why));
            }
        }
        for fact in &group.confirm {
            fact.filled(&to.bytes).map_err(|why| invalid(format!("group `{}` confirms by {}: {why}", group.name, fact.http)))?;
        }
    }
    Ok(())
}

/// Stages and validates everything: proves that install can succeed, and touches nothing live.
fn prepare(options: &Options, ready: &mut [Ready], id: &str, on_event: &mut impl FnMut(&Event)) -> Result<(), Stop> {
    for r in ready {
        let same = r.step.disk.sha256 == r.step.to.sha256;
        let staged = if same { r.step.path.clone() } else { r.target.stage(&r.step.to.bytes, id).map_err(from_install)? };
        let mut judged: BTreeMap<(u64, u64), bool> = BTreeMap::new();
        for member in &mut r.step.members {
            let Some(group) = options.fleet.groups.iter().find(|g| g.name == member.instance.group) else { continue };
            if group.validate.is_empty() {
                if options.strict {
                    let why = format!("pid {} has no validator, and --validate wants one for every instance", member.instance.pid);
                    return Err(Stop::new(Verdict::Invalid, why));
                }
                continue;
            }
            let exe = PathBuf::from(format!("/proc/{}/exe", member.instance.pid));
            let inode = exe.metadata().map(|m| (m.dev(), m.ino())).unwrap_or_default();
            // Once per executable and candidate, not once per instance.
            if let Some(passed) = judged.get(&inode) {
                member.instance.validated = *passed;
                continue;
            }
            let said = validate(group, &exe, inode, &staged, r.target.is_public());
            judged.insert(inode, said.is_ok());
            member.instance.validated = said.is_ok();
            let by = match said {
                Ok(by) => by,
                Err(NotPassed::Refused(why)) => return Err(Stop::new(Verdict::Invalid, why)),
                Err(NotPassed::NotRun(why)) if options.strict => return Err(Stop::new(Verdict::Refused, why)),
                Err(NotPassed::NotRun(why)) => {
                    on_event(&Event::Unvalidated { pid: member.instance.pid, why });
                    continue;
                }
            };
            on_event(&Event::Valid { path: r.step.path.clone(), sha256: r.step.to.sha256.clone(), by });
        }
    }
    Ok(())
}

/// Runs a group's validator on a staged file; answers who judged it.
fn validate(group: &Group, exe: &Path, inode: (u64, u64), staged: &Path, public: bool) -> Result<String, NotPassed> {
    let own = Path::new("/proc/self/exe").metadata().map(|m| (m.dev(), m.ino())).ok();
    if own == Some(inode) && group.validate == ["{exe}", "check", "{candidate}"] {
        return check::check(staged).map(|_| "hello check".into()).map_err(|e| NotPassed::Refused(e.to_string()));
    }
    let argv: Vec<String> =
        group.validate.iter().map(|a| a.replace("{exe}", &exe.to_string_lossy()).replace("{candidate}", &staged.to_string_lossy())).collect();
    validate::run(&argv, public).map(|()| group.validate.join(" "))
}

fn begin(options: &Options, id: &str, ready: &[Ready]) -> Result<Run, Stop> {
    let record = PlanRecord {
        v: 1,
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into(),
        uid: nix::unistd::getuid().as_raw(),
        reason: options.reason.as_deref(),
        command: secretless(std::env::args()),
        targets: ready.iter().map(target_report).collect(),
        instances: ready.iter().flat_map(|r| &r.step.members).map(|m| &m.instance).collect(),
    };
    let blobs = ready.iter().flat_map(|r| [Some(&r.step.disk), r.step.from.as_ref(), Some(&r.step.to)]).flatten();
    Run::begin(&options.state, id.into(), &record, blobs.map(|b| (b.sha256.as_str(), b.bytes.as_slice())))
        .map_err(|e| Stop::new(Verdict::Failed, format!("the state directory `{}` cannot be written: {e}", options.state.display())))
}

/// The command line less the values of `--set`.
fn secretless(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut set = false;
    args.map(|arg| {
        let value = std::mem::replace(&mut set, arg == "--set") || arg.starts_with("--set=");
        match arg.rsplit_once('=') {
            Some((key, _)) if value => format!("{key}=.."),
            _ => arg,
        }
    })
    .collect()
}

/// What `--dry-run` answers on stdout when people read it.
fn rehearsal(ready: &[Ready]) -> String {
    let mut text = String::new();
    for r in ready {
        let back = if r.step.from.is_some() { "put back on a failure" } else { "no way back" };
        text += &format!("{}: {} instances, {back}\n", r.step.path.display(), r.step.members.len());
        for m in &r.step.members {
            text += &format!("  pid {} {} {}\n", m.instance.pid, m.instance.endpoint, if m.instance.validated { "validated" } else { "not validated" });
        }
        if let (true, Ok(old), Ok(new)) = (r.target.is_public(), std::str::from_utf8(&r.step.disk.bytes), std::str::from_utf8(&r.step.to.bytes)) {
            text += &similar::TextDiff::from_lines(old, new).unified_diff().header("now", "new").to_string();
        }
    }
    text
}
