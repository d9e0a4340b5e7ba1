//! Judges candidates by the validators of those who read them: directly where the argv can name what is staged, else in place.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use crate::{
    check,
    event::{Event, Halts, Stop, Verdict},
    fleet::{Group, OnBad, uses},
    host::{
        at_once::at_once,
        exec::{Bind, Subject, surroundings},
        guard,
        placeholders::{self, Known, held, inode},
        validate::{self, NotPassed},
    },
    identity::Person,
    step::Member,
};

/// The keys of so many cases are there at once.
const KEYS: usize = 1024;

/// What a target may become.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    /// Its path, resolved.
    pub(crate) live: PathBuf,
    /// Where the new content stands now: the live path itself, when that is to be judged.
    pub(crate) staged: PathBuf,
    /// Device and inode of what stands there, and of what is live.
    pub(crate) inodes: [(u64, u64); 2],
    /// Digest of the new content.
    pub(crate) sha256: String,
    /// Whether the content must not be shown.
    pub(crate) secret: bool,
}

/// An instance, and everything that it is about to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case<'a> {
    member: &'a Member,
    /// In the order of the group's `config`; none for a group that is only signalled.
    candidates: &'a [Candidate],
}

/// What a verdict depends on: cases that are equal in it are judged once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    exe: (u64, u64),
    person: Option<Arc<Person>>,
    surroundings: Vec<(u64, u64)>,
    group: String,
    cwd: PathBuf,
    argv: Vec<String>,
    candidates: Vec<(PathBuf, String)>,
}

impl Candidate {
    /// What stands at `from` takes the place of what is live.
    fn bind(&self, from: &Path, inode: (u64, u64)) -> Bind {
        Bind { from: from.into(), staged: inode, to: self.live.clone(), live: self.inodes[1] }
    }
}

impl<'a> Case<'a> {
    pub(crate) fn of(member: &'a Member, candidates: &'a [Candidate]) -> Self {
        Self { member, candidates }
    }

    fn group(&self) -> &'a Group {
        &self.member.group
    }

    /// See [`Key`].
    pub(crate) fn key(&self) -> Key {
        let (member, exe) = (self.member, self.member.identity.exe);
        let built_in = self.is_built_in();
        let first = self.candidates.first().map(|c| c.live.as_path());
        // Two pids of one executable are no two validators.
        let argv = || self.known(Path::new("{exe}"), first).fill(&self.group().validate).unwrap_or_default();
        Key {
            exe,
            group: member.instance.group.clone(),
            // The parser of this binary looks at bytes alone: neither user, path nor directory matter to it.
            person: (!built_in).then(|| member.identity.person.clone()),
            // One that sees other files may be told otherwise by the same validator.
            surroundings: if built_in { Vec::new() } else { surroundings(member.identity.pid) },
            cwd: if built_in { PathBuf::new() } else { member.cwd.clone() },
            argv: if built_in { Vec::new() } else { argv() },
            candidates: self.candidates.iter().map(|c| (if built_in { PathBuf::new() } else { c.live.clone() }, c.sha256.clone())).collect(),
        }
    }

    /// Runs the validator; answers what it said, and who it was.
    pub(crate) async fn passes(&self) -> (Result<(), NotPassed>, String) {
        let secret = self.candidates.iter().any(|c| c.secret);
        if let (true, Some(candidate)) = (self.is_built_in(), self.candidates.first()) {
            let said = check::check(&candidate.staged).map(drop);
            let said = said.map_err(|e| NotPassed::Refused(if secret { "its content is a secret".into() } else { e.to_string() }));
            return (said, "hello check".to_owned());
        }
        let (held, exe) = (held(&self.member.identity).display().to_string(), self.member.instance.exe.display().to_string());
        let said = match self.asked() {
            Ok((argv, binds)) => validate::run(&argv, self.subject(), &binds, secret).await,
            Err(why) => Err(NotPassed::NotRun(format!("the validator could not be run: {why}"))),
        };
        // People know the executable by its path.
        let said = said.map_err(|e| match e {
            NotPassed::Refused(why) => NotPassed::Refused(why.replace(&held, &exe)),
            NotPassed::NotRun(why) => NotPassed::NotRun(why.replace(&held, &exe)),
        });
        (said, self.group().validate.iter().map(|a| a.replace("{exe}", &exe)).collect::<Vec<_>>().join(" "))
    }

    /// The instance, which must still run what it ran at the survey.
    fn subject(&self) -> Subject<'a> {
        Subject { identity: &self.member.identity, renewed: None }
    }

    /// Whether the validator is the `check` of this very binary.
    fn is_built_in(&self) -> bool {
        // It is held open as long as this process runs.
        static OWN: LazyLock<(u64, u64)> = LazyLock::new(|| inode(Path::new("/proc/self/exe")));
        let one = self.candidates.len() == 1 && self.group().validate == ["{exe}", "check", "{candidate}"];
        one && *OWN != (0, 0) && self.member.identity.exe == *OWN
    }

    fn known<'b>(&'b self, exe: &'b Path, candidate: Option<&'b Path>) -> Known<'b> {
        let config = self.candidates.first().map(|c| c.live.as_path());
        Known { pid: self.member.identity.inside, exe, args: &self.member.args, endpoint: &self.member.instance.endpoint, config, candidate }
    }

    /// The argv with the staged path wherever it names the one file that changes; none where it does not, or where that is no file.
    fn naming(&self, exe: &Path, one: &Candidate) -> Result<Option<Vec<String>>, String> {
        if !one.staged.is_file() {
            return Ok(None);
        }
        let mut named = uses(&self.group().validate, "candidate");
        let argv = self.known(exe, Some(&one.staged)).fill_with(&self.group().validate, |own| match staged_for(own, &self.member.cwd, one) {
            Some(staged) => {
                named = true;
                staged
            }
            None => own.to_owned(),
        })?;
        Ok(named.then_some(argv))
    }

    /// Whether a new content could stand at its live path while the validator runs, where the argv cannot name what is staged.
    ///
    /// # Errors
    /// Why it could not.
    pub(crate) async fn has_place(&self) -> Result<(), String> {
        let named = match self.candidates {
            [one] => self.naming(&placeholders::exe(&self.member.identity), one)?.is_some(),
            _ => false,
        };
        if self.is_built_in() || named {
            return Ok(());
        }
        let binds: Vec<Bind> = self.candidates.iter().map(|c| c.bind(&c.live, c.inodes[1])).collect();
        validate::run(&["true".into()], self.subject(), &binds, false).await.map_err(|e| e.to_string())
    }

    /// The validator's argv, and what must stand at its live path while it runs.
    fn asked(&self) -> Result<(Vec<String>, Vec<Bind>), String> {
        let exe = placeholders::exe(&self.member.identity);
        // One file that the argv names needs no place of its own.
        if let [one] = self.candidates
            && one.staged != one.live
            && let Some(argv) = self.naming(&exe, one)?
        {
            return Ok((argv, Vec::new()));
        }
        let moved = self.candidates.iter().filter(|c| c.staged != c.live);
        let binds: Vec<Bind> = moved.map(|c| c.bind(&c.staged, c.inodes[0])).collect();
        // From a namespace of its own, an ordinary user may not look at `/proc/PID/exe` any more.
        let by_path = !binds.is_empty() && !nix::unistd::geteuid().is_root() && inode(&self.member.instance.exe) == self.member.identity.exe;
        let exe = if by_path { &self.member.instance.exe } else { &exe };
        Ok((self.known(exe, self.candidates.first().map(|c| c.live.as_path())).fill(&self.group().validate)?, binds))
    }
}

/// The instance's own argument with the staged path for the live one, where it names that: `PATH`, `--option=PATH` or `-o/PATH`.
/// A link to the file from another directory does not count: what the config names relatively would be looked for beside the file.
fn staged_for(own: &str, cwd: &Path, one: &Candidate) -> Option<String> {
    let beside = |path: &Path| Some(path.parent()?.canonicalize().ok()? == one.live.parent()?);
    let is_live = |path: &Path| path.canonicalize().is_ok_and(|path| path == one.live) && beside(path) == Some(true);
    let behind = |at: usize| own.get(at..).filter(|path| !path.is_empty() && is_live(&cwd.join(path))).map(|_| at);
    let short = (own.starts_with('-') && own.get(2..).is_some_and(|rest| rest.starts_with('/'))).then_some(2);
    let at = [Some(0), own.find('=').map(|at| at + 1), short].into_iter().flatten().find_map(behind)?;
    Some(format!("{}{}", &own[..at], one.staged.display()))
}

/// Everything that was judged in one run.
#[derive(Debug)]
pub(super) struct Judge {
    strict: bool,
    judged: BTreeMap<Key, bool>,
}

impl Judge {
    /// With `strict`, every instance must have a validator and pass it.
    pub(super) fn new(strict: bool) -> Self {
        Self { strict, judged: BTreeMap::new() }
    }

    /// Whether the validator of each of `members` passed its candidates, in their order; one that could not be run has refused nothing, which only
    /// `strict` refuses.
    ///
    /// # Errors
    /// `Invalid` when one says no; `Refused` when one must be asked and cannot; `Failed` when the operator halts.
    pub(super) async fn pass(
        &mut self,
        members: &[Member],
        candidates: &[Candidate],
        halts: &mut Halts,
        tell: &mut impl FnMut(Event),
    ) -> Result<Vec<bool>, Stop> {
        let mut passed = Vec::with_capacity(members.len());
        for some in members.chunks(KEYS) {
            let keys = at_once(some, |member| (!member.group.validate.is_empty()).then(|| Case::of(member, candidates).key()));
            for (member, key) in some.iter().zip(keys) {
                passed.push(self.passes(&Case::of(member, candidates), key, halts, tell).await?);
            }
        }
        Ok(passed)
    }

    /// The same of one; without a key it has no validator.
    async fn passes(&mut self, case: &Case<'_>, key: Option<Key>, halts: &mut Halts, tell: &mut impl FnMut(Event)) -> Result<bool, Stop> {
        let Case { member: Member { instance: i, group, .. }, candidates } = case;
        // A config that cannot be loaded would end it: nobody is signalled on a guess.
        let must =
            if group.on_bad_config == OnBad::Dies { Some("a bad config ends it") } else { self.strict.then_some("--validate wants one for every instance") };
        let Some(key) = key else {
            let refused = |why| Stop::new(Verdict::Refused, format!("group `{}` (pid {} and others) has no validator, and {why}", i.group, i.pid));
            return must.map_or(Ok(false), |why| Err(refused(why)));
        };
        if let Some(passed) = self.judged.get(&key) {
            return Ok(*passed);
        }
        let (said, by) = tokio::select! {
            said = case.passes() => said,
            Ok(_) = halts.wait_for(|n| *n > 0) => return Err(Stop::halted()),
        };
        // What ran was the executable of the instance only if the pid is still the instance.
        if said.is_err() && guard::is_over(i.pid, i.started, &i.exe) {
            return Err(Stop::new(Verdict::Refused, format!("pid {} ended while its config was validated", i.pid)));
        }
        let passed = match said {
            Ok(()) => {
                candidates.iter().for_each(|c| tell(Event::Valid { path: c.live.clone(), sha256: c.sha256.clone(), by: by.clone() }));
                true
            }
            Err(NotPassed::Refused(why)) => {
                let paths = candidates.iter().map(|c| format!("`{}`", c.live.display())).collect::<Vec<_>>().join(", ");
                return Err(Stop::new(Verdict::Invalid, format!("the new config is not valid: {paths}\n{why}")));
            }
            Err(NotPassed::NotRun(why)) => match must {
                Some(reason) => return Err(Stop::new(Verdict::Refused, format!("pid {} is not validated, and {reason}: {why}", i.pid))),
                None => {
                    tell(Event::Unvalidated { pid: i.pid, why });
                    false
                }
            },
        };
        self.judged.insert(key, passed);
        Ok(passed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn an_argument_that_names_the_live_file_names_the_staged_one() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::write(root.join("a=b.conf"), "").unwrap();
        std::os::unix::fs::symlink("a=b.conf", root.join("link")).unwrap();
        std::fs::create_dir(root.join("sub")).unwrap();
        std::os::unix::fs::symlink("../a=b.conf", root.join("sub/link")).unwrap();
        let one = Candidate { live: root.join("a=b.conf"), staged: "/staged".into(), inodes: Default::default(), sha256: String::new(), secret: false };
        let swap = |own: &str| staged_for(own, &root, &one);
        let live = one.live.display();
        for (own, wanted) in [
            ("a=b.conf".to_owned(), "/staged"),
            ("./link".into(), "/staged"),
            (format!("{live}"), "/staged"),
            ("--config=link".into(), "--config=/staged"),
            (format!("--config={live}"), "--config=/staged"),
            (format!("-c{live}"), "-c/staged"),
            ("config_file=./link".into(), "config_file=/staged"),
        ] {
            assert_eq!(swap(&own).as_deref(), Some(wanted), "{own}");
        }
        for own in ["", "=", "-c", "other", "--config=", "--config=/etc/passwd", "-clink", "sub/link"] {
            assert_eq!(swap(own), None, "{own}");
        }
    }
}
