//! Validates candidates by the validators of the instances that read them, each at its live path.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use crate::{
    check,
    fleet::Group,
    host::{
        exec::{
            self, Bind, Subject,
            placeholders::{self, Values, held, inode},
            surroundings,
        },
        validate::{
            complaints::Complaints,
            run::{self, NotRun, Objection, ValidationError},
            title::{self, Arguments},
        },
    },
    identity::{Credentials, Renewal},
    step::PlannedInstance,
};

/// The note behind the command of a validator whose instance has no readable environment.
const CLEAN_ENVIRONMENT: &str = " (in a clean environment: that of the instance cannot be read)";

/// The note behind the command of a validator whose instance executes another program than it runs.
const ANOTHER_PROGRAM: &str = " (the program at its path, which its reload executes; it runs \
                               another one)";

/// The message of the C library for a full disk (`ENOSPC`).
const DISK_FULL: &str = "No space left on device";

/// The new content of a target, as a validator gets it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    /// The path of the target, resolved, or the URL of a key.
    pub(crate) target: PathBuf,
    /// The same path; for a key, that of a copy of its present value.
    pub(crate) live: PathBuf,
    /// The path of the new content: the live path itself, if the present content is validated.
    pub(crate) staged: PathBuf,
    /// Device and inode of the new content, and of the target.
    pub(crate) inodes: [(u64, u64); 2],
    /// The digest of the new content.
    pub(crate) sha256: String,
    /// The key and its revision that the new content was read from; none of any other.
    pub(crate) source: Option<String>,
    /// True if the content must not be shown.
    pub(crate) secret: bool,
}

/// An instance, and everything that it is about to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ValidationCase<'a> {
    planned: &'a PlannedInstance,
    /// In the order of the group's `config`; empty for a group that is only signalled.
    candidates: &'a [Candidate],
}

/// Everything that a validation depends on: cases with equal keys are validated once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CacheKey {
    exe: (u64, u64),
    person: Option<Arc<Credentials>>,
    surroundings: Vec<(u64, u64)>,
    /// The identity of the environment, which a config may read.
    environment: String,
    group: String,
    cwd: PathBuf,
    argv: Vec<String>,
    /// The live path and the digest of each.
    candidates: Vec<(PathBuf, String)>,
}

/// Tells whether a file, or one in a directory, contains `text`; also true if it cannot be read.
/// Links in a directory are not followed.
fn contains(path: &Path, text: &str) -> bool {
    if path.is_dir() {
        let Ok(entries) = std::fs::read_dir(path) else {
            return true;
        };
        let mut entries = entries.map(|entry| entry.and_then(|e| Ok((e.file_type()?, e.path()))));
        return entries.any(|entry| {
            entry.map_or(true, |(kind, path)| {
                !kind.is_symlink() && contains(&path, text)
            })
        });
    }
    std::fs::read(path).map_or(true, |bytes| {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    })
}

impl Candidate {
    /// Returns the bind mount that puts `from` over the target.
    fn bind(&self, from: &Path, inode: (u64, u64)) -> Bind {
        Bind {
            from: from.into(),
            staged: inode,
            to: self.live.clone(),
            live: self.inodes[1],
        }
    }
}

impl<'a> ValidationCase<'a> {
    pub(crate) fn of(planned: &'a PlannedInstance, candidates: &'a [Candidate]) -> Self {
        Self {
            planned,
            candidates,
        }
    }

    pub(crate) fn group(&self) -> &'a Group {
        &self.planned.group
    }

    pub(crate) fn planned(&self) -> &'a PlannedInstance {
        self.planned
    }

    pub(crate) fn candidates(&self) -> &'a [Candidate] {
        self.candidates
    }

    /// Returns the present content of each target as its candidate.
    pub(crate) fn live(&self) -> Vec<Candidate> {
        let live = |candidate: &Candidate| Candidate {
            staged: candidate.live.clone(),
            inodes: [candidate.inodes[1]; 2],
            ..candidate.clone()
        };
        self.candidates.iter().map(live).collect()
    }

    /// Returns the key under which the result can be cached.
    pub(crate) fn key(&self) -> CacheKey {
        let planned = self.planned;
        let exe = match &planned.identity.renewal {
            Renewal::Another(_, inode) => *inode,
            _ => planned.identity.exe,
        };
        let group = planned.instance.group.clone();
        if self.is_built_in() {
            // The parser of this binary reads the bytes alone: the user, paths and the working
            // directory do not matter.
            let digests = self.candidates.iter().map(|c| c.sha256.clone());
            return CacheKey {
                exe,
                person: None,
                surroundings: Vec::new(),
                environment: String::new(),
                group,
                cwd: PathBuf::new(),
                argv: Vec::new(),
                candidates: digests.map(|sha256| (PathBuf::new(), sha256)).collect(),
            };
        }
        let pid = planned.identity.pid;
        CacheKey {
            exe,
            person: Some(planned.identity.person.clone()),
            // The same validator may have another result where it sees other files.
            surroundings: surroundings(pid),
            environment: exec::environment_identity(pid),
            group,
            cwd: planned.cwd.clone(),
            // The path of the executable contains the pid, and that of a copy is another one each
            // time: neither is part of the key.
            argv: self
                .command(Path::new("{exe}"))
                .unwrap_or_default()
                .iter()
                .map(|arg| self.with_targets(arg))
                .collect(),
            candidates: self
                .candidates
                .iter()
                .map(|c| (c.target.clone(), c.sha256.clone()))
                .collect(),
        }
    }

    /// Runs the validator. Returns the errors that it names in content that it passes, or why it
    /// does not pass it; and its command.
    pub(crate) async fn validate_case(&self) -> (Result<Complaints, ValidationError>, String) {
        if let (true, Some(candidate)) = (self.is_built_in(), self.candidates.first()) {
            return (self.validate_built_in(candidate), "hello check".to_owned());
        }
        let exe = match &self.planned.identity.renewal {
            Renewal::Another(path, _) => path,
            _ => &self.planned.instance.exe,
        };
        let exe = exe.display().to_string();
        let result = self.run_validator().await;
        let is_clean = exec::environment(self.planned.identity.pid).is_none();
        let clean = if is_clean { CLEAN_ENVIRONMENT } else { "" };
        let renewed = match &self.planned.identity.renewal {
            Renewal::Another(..) => ANOTHER_PROGRAM,
            _ => "",
        };
        (
            self.named(result, &exe, is_clean),
            format!("{}{renewed}{clean}", self.description(&exe)),
        )
    }

    /// Checks a candidate with the parser of this binary.
    fn validate_built_in(&self, candidate: &Candidate) -> Result<Complaints, ValidationError> {
        let is_secret = self.candidates.iter().any(|c| c.secret);
        match check::check(&candidate.staged) {
            Ok(_) => Ok(Complaints::default()),
            Err(_) if is_secret => Err(Objection::Secret.into()),
            Err(e) => Err(Objection::from(e).into()),
        }
    }

    /// Runs the validator. Returns its output, or why it does not pass.
    async fn run_validator(&self) -> Result<String, ValidationError> {
        let is_secret = self.candidates.iter().any(|c| c.secret);
        let (argv, binds) = self.command_and_binds()?;
        let result = run::run(&argv, self.subject(), &binds, is_secret).await;
        // Writes of the validator are discarded, and limited. A full disk is then no fault of the
        // content, unless the content itself has that text.
        match result {
            Err(ValidationError::Refused(why))
                if names_full_disk(&why) && !self.contain(DISK_FULL) =>
            {
                Err(NotRun::DiskFull(Box::new(why)).into())
            }
            result => result,
        }
    }

    /// Returns a text in which each copy of a value is named by the URL of its key.
    fn with_targets(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for candidate in self.candidates.iter().filter(|c| c.live != c.target) {
            for copy in [&candidate.live, &candidate.staged] {
                let name = candidate.target.to_string_lossy();
                text = text.replace(&*copy.to_string_lossy(), &name);
            }
        }
        text
    }

    /// Tells whether a candidate contains `text`.
    fn contain(&self, text: &str) -> bool {
        self.candidates.iter().any(|c| contains(&c.staged, text))
    }

    /// Returns the result in terms that the operator knows: the executable by its own path instead
    /// of its path in `/proc`.
    fn named(
        &self,
        result: Result<String, ValidationError>,
        exe: &str,
        is_clean: bool,
    ) -> Result<Complaints, ValidationError> {
        let held = held(&self.planned.identity).display().to_string();
        match result {
            Ok(output) => {
                let paths: Vec<&Path> = self.candidates.iter().map(|c| c.live.as_path()).collect();
                let output = output.replace(&held, exe);
                Ok(Complaints::of(&output, &paths, |text| self.contain(text)))
            }
            Err(ValidationError::Refused(why)) => {
                let renamed = |text: String| self.with_targets(&text.replace(&held, exe));
                Err(renamed_objection(why, renamed, is_clean).into())
            }
            Err(ValidationError::NotRun(mut why)) => {
                match &mut why {
                    NotRun::NoResult(e) => {
                        if let Some(program) = e.program_mut().filter(|program| **program == held) {
                            exe.clone_into(program);
                        }
                    }
                    NotRun::DiskFull(objection) => {
                        let renamed = |text: String| self.with_targets(&text.replace(&held, exe));
                        **objection = renamed_objection((**objection).clone(), renamed, false);
                    }
                    NotRun::HiddenArguments | NotRun::NoValue(_) => {}
                }
                Err(why.into())
            }
        }
    }

    /// Returns the command in terms that the operator knows: the executable by its path, the
    /// candidate by its placeholder, and everything else filled in.
    fn description(&self, exe: &str) -> String {
        let arguments = title::arguments(self.planned);
        let values = Values {
            pid: self.planned.identity.inside,
            process: self.planned.identity.pid,
            exe: Path::new(exe),
            args: arguments.known(&self.planned.args),
            endpoint: &self.planned.instance.endpoint,
            config: self.candidates.first().map(|c| c.live.as_path()),
            candidate: Some(Path::new("{candidate}")),
        };
        let unfilled = || {
            self.template()
                .iter()
                .map(|arg| arg.replace("{exe}", exe))
                .collect()
        };
        values
            .fill(self.template())
            .unwrap_or_else(|_| unfilled())
            .join(" ")
    }

    /// Returns the instance, which must still run the program of the survey.
    fn subject(&self) -> Subject<'a> {
        Subject {
            identity: &self.planned.identity,
            renewed: None,
        }
    }

    /// Tells whether the validator is the `check` of this very binary.
    fn is_built_in(&self) -> bool {
        // This process holds its executable open, so that the inode stays the same.
        static OWN: LazyLock<(u64, u64)> = LazyLock::new(|| inode(Path::new("/proc/self/exe")));
        let is_check = self.candidates.len() == 1
            && self.group().validate == ["{exe}", "check", "{candidate}"];
        let keeps_program = !matches!(self.planned.identity.renewal, Renewal::Another(..));
        is_check && keeps_program && *OWN != (0, 0) && self.planned.identity.exe == *OWN
    }

    /// Checks that new content could be mounted at the live paths while the validator runs.
    ///
    /// # Errors
    /// Fails if it could not.
    pub(crate) async fn can_bind(&self) -> Result<(), ValidationError> {
        if self.is_built_in() {
            return Ok(());
        }
        let binds: Vec<Bind> = self
            .candidates
            .iter()
            .map(|c| c.bind(&c.live, c.inodes[1]))
            .collect();
        run::run(&["true".into()], self.subject(), &binds, false)
            .await
            .map(drop)
    }

    /// Returns the command of the validator, and the bind mounts for it.
    fn command_and_binds(&self) -> Result<(Vec<String>, Vec<Bind>), NotRun> {
        let identity = &self.planned.identity;
        let staged = self.candidates.iter().filter(|c| c.staged != c.live);
        let binds: Vec<Bind> = staged.map(|c| c.bind(&c.staged, c.inodes[0])).collect();
        // From a user namespace of its own, an ordinary user may not follow `/proc/PID/exe`.
        let by_path = !matches!(identity.renewal, Renewal::Another(..))
            && !nix::unistd::geteuid().is_root()
            && inode(&self.planned.instance.exe) == identity.exe;
        let exe = if by_path {
            self.planned.instance.exe.clone()
        } else {
            placeholders::exe(identity)
        };
        Ok((self.command(&exe)?, binds))
    }

    /// Returns the argv of the validator with its placeholders.
    fn template(&self) -> &'a [String] {
        let group = self.group();
        let is_hidden = || {
            title::uses_arguments(&group.validate)
                && title::arguments(self.planned) == Arguments::Hidden
        };
        if !group.validate_titled.is_empty() && is_hidden() {
            &group.validate_titled
        } else {
            &group.validate
        }
    }

    /// Returns the argv of the validator, filled in. A candidate is named by its live path, where
    /// it is mounted.
    fn command(&self, exe: &Path) -> Result<Vec<String>, NotRun> {
        let argv = self.template();
        let arguments = title::arguments(self.planned);
        if title::uses_arguments(argv) && arguments == Arguments::Hidden {
            return Err(NotRun::HiddenArguments);
        }
        let live = self.candidates.first().map(|c| c.live.as_path());
        let values = Values {
            pid: self.planned.identity.inside,
            process: self.planned.identity.pid,
            exe,
            args: arguments.known(&self.planned.args),
            endpoint: &self.planned.instance.endpoint,
            config: live,
            candidate: live,
        };
        Ok(values.fill(argv)?)
    }
}

/// Tells whether the output of a validator names a full disk.
fn names_full_disk(objection: &Objection) -> bool {
    let Objection::Status { output, .. } = objection else {
        return false;
    };
    output
        .as_ref()
        .is_some_and(|output| output.contains(DISK_FULL))
}

/// Returns an objection with `renamed` applied to the name of the program and to its output.
fn renamed_objection(
    objection: Objection,
    renamed: impl Fn(String) -> String,
    is_clean: bool,
) -> Objection {
    match objection {
        Objection::Status {
            program,
            code,
            output,
            ..
        } => Objection::Status {
            program: renamed(program),
            code,
            output: output.map(renamed),
            clean: is_clean,
        },
        other => other,
    }
}
