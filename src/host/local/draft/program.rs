//! The program of a process, as the kernel shows it.

use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User, geteuid};

use super::{
    error::NoDraft,
    fact::{About, Fact},
};
use crate::{
    host::{
        discover::found::Found,
        proc::{
            cmdline::CommandLine,
            guard::{self, Namespace},
        },
    },
    kernel::{Proc, strip_deleted},
};

/// A process, and the program that it runs.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) found: &'a Found,
    /// The executable, without the kernel's mark of a deleted file.
    pub(super) exe: PathBuf,
    pub(super) line: CommandLine,
    /// True if `exe` runs scripts.
    pub(super) is_interpreter: bool,
    /// The script that an interpreter runs: absolute where it is a file, or a module.
    pub(super) script: Option<String>,
    /// Its working directory; none if this user may not see it.
    pub(super) cwd: Option<PathBuf>,
    /// True if this host sees the same files.
    pub(super) shares_mounts: bool,
}

impl<'a> Program<'a> {
    /// Reads the program of a process.
    ///
    /// # Errors
    /// Fails if it is hidden, this very program, or has a name that is no text.
    pub(super) fn of(found: &'a Found) -> Result<Self, NoDraft> {
        if u32::try_from(found.pid) == Ok(std::process::id()) {
            return Err(NoDraft::Own);
        }
        if found.exe.as_os_str().is_empty() {
            return Err(NoDraft::Hidden);
        }
        let exe = strip_deleted(&found.exe).to_owned();
        if exe.to_str().is_none() {
            return Err(NoDraft::NotText("executable"));
        }
        let process = Proc::open(found.pid)?;
        let line = CommandLine::parse(&process.read("cmdline")?);
        let cwd = process.link("cwd").ok();
        let script = line.script(&exe, false).map(|script| {
            let whole = cwd.as_ref().map(|cwd| cwd.join(script));
            match whole.as_ref().and_then(|whole| whole.to_str()) {
                Some(path) if Path::new(path).is_file() => path.to_owned(),
                _ => script.to_owned(),
            }
        });
        if script
            .as_ref()
            .is_some_and(|script| script.contains(char::REPLACEMENT_CHARACTER))
        {
            return Err(NoDraft::NotText("script"));
        }
        Ok(Self {
            found,
            is_interpreter: line.is_interpreter(&exe),
            exe,
            line,
            script,
            cwd,
            shares_mounts: guard::shares(found.pid, Namespace::Mount) == Some(true),
        })
    }

    /// Returns the file that has the name of the program: its script, or its executable.
    pub(super) fn file(&self) -> &Path {
        self.script.as_deref().map_or(&self.exe, Path::new)
    }

    /// Returns the file name of the program.
    pub(super) fn name(&self) -> String {
        let name = self.file().file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Returns the names that its manual may have: as it is called, and without a version.
    pub(super) fn names(&self) -> Vec<String> {
        let name = self.name();
        let script = [".py", ".pl", ".rb", ".sh", ".js", ".php", ".jar"];
        let bare = script.iter().find_map(|end| name.strip_suffix(end));
        let bare = bare.unwrap_or(&name).to_owned();
        let plain = bare
            .trim_end_matches(|c: char| c.is_ascii_digit() || c == '.')
            .to_owned();
        let mut names = vec![bare, plain];
        names.dedup();
        names.retain(|name| name.len() > 1);
        names
    }

    /// Returns the names that its files may have: these, and without the letter of a daemon.
    pub(super) fn file_names(&self) -> Vec<String> {
        let mut names = self.names();
        let short = names.last().and_then(|name| name.strip_suffix('d'));
        let short = short.filter(|name| name.len() > 1).map(str::to_owned);
        names.extend(short);
        names
    }

    /// Tells whether `path` leads to the program.
    pub(super) fn is_at(&self, path: &str) -> bool {
        let path = Path::new(path);
        path.is_absolute()
            && (path == self.file()
                || path
                    .canonicalize()
                    .is_ok_and(|path| self.file().canonicalize().is_ok_and(|own| own == path)))
    }

    /// Returns its users, each once; none if all are the caller.
    pub(super) fn users(&self) -> Vec<String> {
        let uids = self.found.seen.person.uids;
        if uids.iter().all(|uid| *uid == geteuid().as_raw()) {
            return Vec::new();
        }
        let mut users = Vec::new();
        for uid in uids {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            let user = user.map_or_else(|| uid.to_string(), |user| user.name);
            if !users.contains(&user) {
                users.push(user);
            }
        }
        users
    }

    /// Returns what is seen of the program itself.
    pub(super) fn facts(&self) -> Vec<Fact> {
        let mut facts = vec![Fact::seen(
            About::Program,
            match &self.script {
                Some(script) => format!("{} runs {script}", self.exe.display()),
                None => format!("executes {}", self.exe.display()),
            },
        )];
        if self.exe != self.found.exe {
            facts.push(Fact::seen(
                About::Program,
                "its executable was replaced or removed since it started",
            ));
        }
        if self.line.rewritten {
            let title = format!("its command line is a title: {}", self.line.name.trim());
            facts.push(Fact::seen(About::Program, title));
        }
        let users = self.users();
        if !users.is_empty() {
            let users = format!("runs as {}", users.join(" and "));
            facts.push(Fact::seen(About::Program, users));
        }
        if !self.shares_mounts {
            facts.push(Fact::seen(
                About::Program,
                "has a mount namespace of its own: no file of it is looked for on this host",
            ));
        }
        facts
    }
}
