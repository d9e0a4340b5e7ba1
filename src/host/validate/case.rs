//! Judges candidates by the validators of the instances that read them, each at its live path.

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
            run::{self, ValidationError},
            title::{self, Arguments},
        },
    },
    identity::{Credentials, Renewal},
    step::PlannedInstance,
};

/// Said of a validator whose instance has no environment that can be read.
const CLEAN: &str = "(in a clean environment: that of the instance cannot be read)";

/// The message of the C library for a full disk.
const FULL: &str = "No space left on device";

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
pub(crate) struct ValidationCase<'a> {
    member: &'a PlannedInstance,
    /// In the order of the group's `config`; none for a group that is only signalled.
    candidates: &'a [Candidate],
}

/// What a verdict depends on: cases that are equal in it are judged once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    exe: (u64, u64),
    person: Option<Arc<Credentials>>,
    surroundings: Vec<(u64, u64)>,
    /// A config may read it.
    environment: String,
    group: String,
    cwd: PathBuf,
    argv: Vec<String>,
    candidates: Vec<(PathBuf, String)>,
}

/// Whether a file, or one in a directory, has this text in it; also where it cannot be read. Links
/// in a directory are not followed.
fn holds(path: &Path, text: &str) -> bool {
    if path.is_dir() {
        let Ok(entries) = std::fs::read_dir(path) else {
            return true;
        };
        return entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()))
            .any(|entry| holds(&entry.path(), text));
    }
    std::fs::read(path).map_or(true, |bytes| {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    })
}

impl Candidate {
    /// What stands at `from` takes the place of what is live.
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
    pub(crate) fn of(member: &'a PlannedInstance, candidates: &'a [Candidate]) -> Self {
        Self { member, candidates }
    }

    pub(crate) fn group(&self) -> &'a Group {
        &self.member.group
    }

    pub(crate) fn member(&self) -> &'a PlannedInstance {
        self.member
    }

    pub(crate) fn candidates(&self) -> &'a [Candidate] {
        self.candidates
    }

    /// What is live now, as if it were the candidate.
    pub(crate) fn live(&self) -> Vec<Candidate> {
        let live = |c: &Candidate| Candidate {
            staged: c.live.clone(),
            inodes: [c.inodes[1]; 2],
            ..c.clone()
        };
        self.candidates.iter().map(live).collect()
    }

    /// See [`Key`].
    pub(crate) fn key(&self) -> Key {
        let member = self.member;
        let exe = match &member.identity.renewal {
            Renewal::Another(_, inode) => *inode,
            _ => member.identity.exe,
        };
        let built_in = self.is_built_in();
        // Two pids of one executable are no two validators.
        let argv = || self.filled(Path::new("{exe}")).unwrap_or_default();
        Key {
            exe,
            group: member.instance.group.clone(),
            // The parser of this binary looks at bytes alone: neither user, path nor directory
            // matter to it.
            person: (!built_in).then(|| member.identity.person.clone()),
            // One that sees other files may be told otherwise by the same validator.
            surroundings: if built_in {
                Vec::new()
            } else {
                surroundings(member.identity.pid)
            },
            environment: if built_in {
                String::new()
            } else {
                exec::environment_identity(member.identity.pid)
            },
            cwd: if built_in {
                PathBuf::new()
            } else {
                member.cwd.clone()
            },
            argv: if built_in { Vec::new() } else { argv() },
            candidates: self
                .candidates
                .iter()
                .map(|c| {
                    (
                        if built_in {
                            PathBuf::new()
                        } else {
                            c.live.clone()
                        },
                        c.sha256.clone(),
                    )
                })
                .collect(),
        }
    }

    /// Runs the validator; returns the errors that it names in what it passes, or why it does not
    /// pass it, and the command.
    pub(crate) async fn validate_case(&self) -> (Result<Complaints, ValidationError>, String) {
        let secret = self.candidates.iter().any(|c| c.secret);
        if let (true, Some(candidate)) = (self.is_built_in(), self.candidates.first()) {
            let said = check::check(&candidate.staged).map(|_| Complaints::default());
            let said = said.map_err(|e| {
                ValidationError::Refused(if secret {
                    "its content is a secret".into()
                } else {
                    e.to_string()
                })
            });
            return (said, "hello check".to_owned());
        }
        let named = match &self.member.identity.renewal {
            Renewal::Another(path, _) => path,
            _ => &self.member.instance.exe,
        };
        let (held, exe) = (
            held(&self.member.identity).display().to_string(),
            named.display().to_string(),
        );
        let said = match self.asked() {
            Ok((argv, binds)) => run::run(&argv, self.subject(), &binds, secret).await,
            Err(why) => Err(ValidationError::NotRun(format!(
                "the validator could not be run: {why}"
            ))),
        };
        // What is discarded has its limit: that is no fault of the content, unless the content
        // itself says so.
        let said = said.map_err(|e| match e {
            ValidationError::Refused(why)
                if why.contains(FULL)
                    && !self.candidates.iter().any(|c| holds(&c.staged, FULL)) =>
            {
                ValidationError::NotRun(format!(
                    "a write of the validator, which would be discarded, was refused ({why})"
                ))
            }
            said => said,
        });
        let is_content = |text: &str| self.candidates.iter().any(|c| holds(&c.staged, text));
        let paths: Vec<&Path> = self.candidates.iter().map(|c| c.live.as_path()).collect();
        let said =
            said.map(|words| Complaints::of(&words.replace(&held, &exe), &paths, is_content));
        let clean = if exec::environment(self.member.identity.pid).is_some() {
            ""
        } else {
            CLEAN
        };
        // People know the executable by its path.
        let said = said.map_err(|e| match e {
            ValidationError::Refused(why) => ValidationError::Refused(format!(
                "{}{}{clean}",
                why.replace(&held, &exe),
                if clean.is_empty() { "" } else { "\n" }
            )),
            ValidationError::NotRun(why) => ValidationError::NotRun(why.replace(&held, &exe)),
        });
        (
            said,
            format!(
                "{}{}{clean}",
                self.described(&exe),
                if clean.is_empty() { "" } else { " " }
            ),
        )
    }

    /// The command as people know it: the executable by its path, what changes by its placeholder,
    /// the rest filled in.
    fn described(&self, exe: &str) -> String {
        let args = title::arguments(self.member);
        let config = self.candidates.first().map(|c| c.live.as_path());
        let known = Values {
            pid: self.member.identity.inside,
            exe: Path::new(exe),
            args: args.known(&self.member.args),
            endpoint: &self.member.instance.endpoint,
            config,
            candidate: Some(Path::new("{candidate}")),
        };
        let written = || {
            self.template()
                .iter()
                .map(|arg| arg.replace("{exe}", exe))
                .collect()
        };
        known
            .fill(self.template())
            .unwrap_or_else(|_| written())
            .join(" ")
    }

    /// The instance, which must still run what it ran at the survey.
    fn subject(&self) -> Subject<'a> {
        Subject {
            identity: &self.member.identity,
            renewed: None,
        }
    }

    /// Whether the validator is the `check` of this very binary.
    fn is_built_in(&self) -> bool {
        // It is held open as long as this process runs.
        static OWN: LazyLock<(u64, u64)> = LazyLock::new(|| inode(Path::new("/proc/self/exe")));
        let one = self.candidates.len() == 1
            && self.group().validate == ["{exe}", "check", "{candidate}"];
        let runs_on = !matches!(self.member.identity.renewal, Renewal::Another(..));
        one && runs_on && *OWN != (0, 0) && self.member.identity.exe == *OWN
    }

    /// Whether a new content could stand at its live path while the validator runs.
    ///
    /// # Errors
    /// Why it could not.
    pub(crate) async fn has_place(&self) -> Result<(), String> {
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
            .map_err(|e| e.to_string())
    }

    /// The validator's argv, and what must stand at its live path while it runs.
    fn asked(&self) -> Result<(Vec<String>, Vec<Bind>), String> {
        let identity = &self.member.identity;
        let moved = self.candidates.iter().filter(|c| c.staged != c.live);
        let binds: Vec<Bind> = moved.map(|c| c.bind(&c.staged, c.inodes[0])).collect();
        // From a namespace of its own, an ordinary user may not look at `/proc/PID/exe` any more.
        let by_path = !matches!(identity.renewal, Renewal::Another(..))
            && !nix::unistd::geteuid().is_root()
            && inode(&self.member.instance.exe) == identity.exe;
        let exe = if by_path {
            self.member.instance.exe.clone()
        } else {
            placeholders::exe(identity)
        };
        Ok((self.filled(&exe)?, binds))
    }

    /// The validator, before anything is filled in.
    fn template(&self) -> &'a [String] {
        let group = self.group();
        let hidden =
            || title::asks(&group.validate) && title::arguments(self.member) == Arguments::Hidden;
        if !group.validate_titled.is_empty() && hidden() {
            &group.validate_titled
        } else {
            &group.validate
        }
    }

    /// The validator's argv; a candidate is named by its live path, at which it stands.
    fn filled(&self, exe: &Path) -> Result<Vec<String>, String> {
        let (member, live) = (
            self.member,
            self.candidates.first().map(|c| c.live.as_path()),
        );
        let (argv, args) = (self.template(), title::arguments(member));
        if title::asks(argv) && args == Arguments::Hidden {
            return Err(title::HIDDEN.into());
        }
        let args = args.known(&member.args);
        Values {
            pid: member.identity.inside,
            exe,
            args,
            endpoint: &member.instance.endpoint,
            config: live,
            candidate: live,
        }
        .fill(argv)
    }
}
