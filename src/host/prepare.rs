//! The second verb: everything that can be known before anything live is touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    check,
    event::{Event, Halts, Instance, Stop, Verdict},
    fleet::Group,
    host::{
        LocalHost, guard,
        survey::{from_install, refused},
        user::Person,
        validate::{self, Job, NotPassed},
    },
    step::{Member, Shift, Step},
};

impl LocalHost {
    pub(super) async fn prepare(&mut self, steps: &mut [&mut Step], strict: bool, halts: &mut Halts, tell: &mut impl FnMut(Event)) -> Result<(), Stop> {
        let mut staged: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        for step in steps.iter() {
            for shift in &step.shifts {
                self.clinging(step, shift)?;
                if !staged.contains_key(&shift.path) {
                    staged.insert(shift.path.clone(), self.stage(shift, tell)?);
                }
            }
        }
        let mut judged: BTreeMap<Judged, bool> = BTreeMap::new();
        for step in steps {
            let Some(shift) = step.shifts.first().cloned() else {
                if let Some(member) = step.members.iter().find(|_| strict) {
                    return Err(unjudged(member));
                }
                continue;
            };
            let candidate = staged.get(&shift.path).unwrap_or(&shift.path);
            for member in &mut step.members {
                if member.group.validate.is_empty() {
                    if strict {
                        return Err(unjudged(member));
                    }
                    continue;
                }
                let key = Judged::new(member, &shift);
                if let Some(passed) = judged.get(&key) {
                    member.instance.validated = *passed;
                    continue;
                }
                let passed = judge(member, &shift, candidate, strict, halts, tell).await?;
                judged.insert(key, passed);
                member.instance.validated = passed;
            }
        }
        Ok(())
    }

    /// Stages what becomes of a target, and takes the place on the disk for its way back.
    fn stage(&mut self, shift: &Shift, tell: &mut impl FnMut(Event)) -> Result<PathBuf, Stop> {
        let run = self.run.clone();
        let Some(target) = self.targets.get_mut(&shift.path) else { return Ok(shift.path.clone()) };
        let adopted = target.digest().as_ref() == Some(&shift.to.sha256);
        let staged = if adopted { Ok(shift.path.clone()) } else { target.stage(&shift.to, &run) };
        let staged = staged.map_err(from_install)?;
        match &shift.from {
            // Nothing is to be put back where nothing changes.
            Some(from) if from.sha256 == shift.to.sha256 => {}
            Some(from) => target.reserve(from).map_err(from_install)?,
            None => tell(Event::NoWayBack { path: shift.path.clone() }),
        }
        Ok(staged)
    }

    /// Refuses the instances that would go on seeing the old directory after it was exchanged.
    fn clinging(&self, step: &Step, shift: &Shift) -> Result<(), Stop> {
        let changes = self.targets.get(&shift.path).is_some_and(|t| t.is_directory() && t.digest().as_ref() != Some(&shift.to.sha256));
        let why = |m: &Member| guard::clings_to(m.instance.pid, &shift.path).map(|why| refused(m.instance.clone(), why));
        let all: Vec<Instance> = if changes { step.members.iter().filter_map(why).collect() } else { Vec::new() };
        if all.is_empty() { Ok(()) } else { Err(Stop::refused(all)) }
    }
}

fn unjudged(member: &Member) -> Stop {
    let i = &member.instance;
    Stop::new(Verdict::Refused, format!("group `{}` (pid {} and others) has no validator, and --validate wants one for every instance", i.group, i.pid))
}

/// A candidate is judged once per distinct executable and user, not once per instance.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Judged {
    exe: (u64, u64),
    person: Option<Person>,
    group: String,
    path: PathBuf,
    candidate: String,
    cwd: BTreeSet<PathBuf>,
}

impl Judged {
    fn new(member: &Member, shift: &Shift) -> Self {
        let i = &member.instance;
        let built_in = is_built_in(i.pid, &member.group);
        Self {
            exe: inode(&exe(i.pid)),
            person: (!built_in).then(|| Person::of(i.pid).ok()).flatten(),
            group: i.group.clone(),
            // The parser of this binary looks at bytes alone: neither path nor directory matter to it.
            path: if built_in { PathBuf::new() } else { shift.path.clone() },
            candidate: shift.to.sha256.clone(),
            cwd: (!built_in).then(|| cwd(i.pid)).into_iter().collect(),
        }
    }
}

/// The instance's own executable, whatever stands at its path by now.
pub(crate) fn exe(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

fn cwd(pid: i32) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default()
}

pub(crate) fn inode(path: &Path) -> (u64, u64) {
    path.metadata().map(|m| (m.dev(), m.ino())).unwrap_or_default()
}

/// Whether the validator is the `check` of this very binary.
fn is_built_in(pid: i32, group: &Group) -> bool {
    let own = inode(Path::new("/proc/self/exe"));
    own != (0, 0) && inode(&exe(pid)) == own && group.validate == ["{exe}", "check", "{candidate}"]
}

/// Runs the validator of an instance on a candidate; answers what it said, and who it was.
pub(crate) async fn passes(i: &Instance, group: &Group, path: &Path, candidate: &Path, secret: bool) -> (Result<(), NotPassed>, String) {
    if is_built_in(i.pid, group) {
        let said = check::check(candidate).map(drop).map_err(|e| NotPassed::Refused(if secret { "its content is a secret".into() } else { e.to_string() }));
        return (said, "hello check".to_owned());
    }
    let exe = exe(i.pid);
    let fill = |arg: &String| {
        let arg = arg.replace("{exe}", &exe.to_string_lossy()).replace("{config}", &path.to_string_lossy());
        arg.replace("{candidate}", &candidate.to_string_lossy())
    };
    let job = Job { argv: group.validate.iter().map(fill).collect(), pid: i.pid, secret };
    let said = validate::run(&job).await;
    (said, group.validate.iter().map(|a| a.replace("{exe}", &i.exe.to_string_lossy())).collect::<Vec<_>>().join(" "))
}

/// Whether the candidate passed; a validator that could not be run has refused nothing, which only `strict` refuses.
async fn judge(member: &Member, shift: &Shift, candidate: &Path, strict: bool, halts: &mut Halts, tell: &mut impl FnMut(Event)) -> Result<bool, Stop> {
    let i = &member.instance;
    let (said, by) = tokio::select! {
        said = passes(i, &member.group, &shift.path, candidate, shift.secret) => said,
        Ok(_) = halts.wait_for(|n| *n > 0) => return Err(Stop::new(Verdict::Failed, "halted by the operator")),
    };
    // What ran was the executable of the instance only if the pid is still the instance.
    if said.is_err() && !guard::is_same(i.pid, i.started, &i.exe) {
        return Err(Stop::new(Verdict::Refused, format!("pid {} ended while its config was validated", i.pid)));
    }
    match said {
        Ok(()) => {
            tell(Event::Valid { path: shift.path.clone(), sha256: shift.to.sha256.clone(), by });
            Ok(true)
        }
        Err(NotPassed::Refused(why)) => Err(Stop::new(Verdict::Invalid, format!("the new config is not valid: `{}`\n{why}", shift.path.display()))),
        Err(NotPassed::NotRun(why)) if strict => Err(Stop::new(Verdict::Refused, why)),
        Err(NotPassed::NotRun(why)) => {
            tell(Event::Unvalidated { pid: i.pid, why });
            Ok(false)
        }
    }
}
