//! Where the places of a group are for one process: by its command line, by where it was started,
//! by what is compiled into it.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use crate::{
    fleet::{Group, PathBase, fits},
    host::{
        discover::{
            found::Found,
            options::{GivenOptions, Options},
            title::{self, Telling},
        },
        exec::{self, placeholders::inode},
        proc::{argument, cmdline::CommandLine},
    },
};

/// Parts of the names of options whose value is no config.
const OTHER_OPTIONS: &[&str] = &["pid", "log", "sock", "lock", "cert", "key", "-jar"];

/// Where no config lies.
const OTHER_PLACES: &[&str] = &["/run", "/var/run", "/var/log", "/dev", "/proc", "/sys"];

/// Largest file of arguments that is read, in bytes.
const MAX_ARGUMENTS: u64 = 64 << 10;

/// Why it is not known what a process reads.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    /// A sentence without its subject; behind its last `; ` stands what to do about it.
    #[error("{0}")]
    Because(String),
    /// Its program must be asked first for what is compiled into it.
    #[error("its program was not asked what is compiled into it")]
    Ask,
}

/// One process, and what is known of how it names its config.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lookup<'a> {
    pub(super) found: &'a Found,
    pub(super) group: &'a Group,
    /// What its program prints of its compiled-in paths, where it was asked.
    pub(super) built: Option<&'a Result<String, String>>,
}

impl<'a> Lookup<'a> {
    /// `why`, and the line of `fleet.toml` that says which file it is.
    pub(super) fn refuse(&self, why: &str, path: Option<&Path>) -> LookupError {
        let path = path.map_or_else(
            || "/PATH/OF/ITS/CONFIG".into(),
            |path| path.display().to_string(),
        );
        LookupError::Because(format!(
            "{why}; write `config = \"{path}\"` into group `{}`, if that is the file which it \
             reads",
            self.group.name
        ))
    }

    /// The same, where it is also enough to say how the program reads its options.
    pub(super) fn refuse_options(&self, why: &str) -> LookupError {
        let mend = "or say how it reads its options: `getopt = \"..\"`, as getopt(3) has them, \
                    `getopt = \"\"` where every option is a word";
        match self.refuse(why, None) {
            LookupError::Because(why) => LookupError::Because(format!("{why}, {mend}")),
            other => other,
        }
    }

    /// The arguments of its program: those of its interpreter stand before the script.
    fn options(&self, args: &'a [String]) -> Options<'a> {
        let script = &self.group.matching.script;
        let start = args
            .iter()
            .position(|arg| script.iter().any(|pattern| fits(pattern, arg)))
            .map_or(0, |at| at + 1);
        let reading = &self.group.reading;
        Options {
            args: &args[start..],
            getopt: reading.getopt.as_deref(),
            repeated: reading.repeated,
        }
    }

    /// The values of an option that has all these spellings; more than one only where the program
    /// reads all of them.
    pub(super) fn values(&self, spellings: &[&str]) -> Result<Vec<OsString>, LookupError> {
        // A place is no option: what stands there is its value.
        if let ([name], Telling::Arguments) = (spellings, &self.found.telling)
            && let Some(place) = argument::place(name)
        {
            let of_interpreter = self.found.args.len() - self.options(&self.found.args).args.len();
            if let Some(word) = self
                .found
                .args
                .get(place)
                .filter(|_| place < of_interpreter)
            {
                let why = format!(
                    "has `{word}` as its argument {}, which belongs to its interpreter or names \
                     its script: count on from there",
                    place + 1
                );
                return Err(self.refuse(&why, None));
            }
            return argument::argument(&self.found.args, name)
                .map(|value| self.exact(value.to_owned()))
                .into_iter()
                .collect();
        }
        if let Telling::Title(title) = &self.found.telling {
            return self
                .in_title(title, spellings)
                .map(|value| vec![value.into()]);
        }
        let said = self.options(&self.found.args).said(spellings);
        if let Telling::Joined(certain) = &self.found.telling
            && self.options(certain).said(spellings) != said
        {
            let option = spellings.join(" or ");
            return Err(self.refuse(
                &format!(
                    "has {option} in its title behind a value with \
                blanks, of which it may be a part"
                ),
                None,
            ));
        }
        if let GivenOptions::Value(value) = &said
            && let Some(word) = self
                .options(&self.found.args)
                .file_behind(value)
                .filter(|word| self.may_hold(word, spellings))
        {
            let option = spellings.join(" or ");
            return Err(self.refuse(
                &format!(
                    "may have {option} once more in the file that \
                `{word}` of its command line names"
                ),
                None,
            ));
        }
        let values = match said {
            GivenOptions::Absent => Vec::new(),
            GivenOptions::Value(value) => vec![value],
            GivenOptions::Several(values) => values,
            GivenOptions::Unclear(word) => {
                let option = spellings.join(" or ");
                return Err(self.refuse_options(&format!(
                    "may have {option} in `{word}` of its command line, or not"
                )));
            }
        };
        values.into_iter().map(|value| self.exact(value)).collect()
    }

    /// Whether a word `@FILE` names a file with one of these options in it, below any directory
    /// that the process may have been started in.
    fn may_hold(&self, word: &str, spellings: &[&str]) -> bool {
        let name = word.trim_start_matches('@');
        let files = self
            .pwd()
            .into_iter()
            .chain(self.cwd())
            .map(|dir| dir.join(name));
        files.filter(|file| file.is_file()).any(|file| {
            // One that is too large, or may not be read, may hold anything.
            let text = crate::config::read(&file, MAX_ARGUMENTS).ok();
            let text = text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            text.is_none_or(|text| spellings.iter().any(|option| text.contains(option)))
        })
    }

    /// The bytes of a value as the kernel tells them.
    fn exact(&self, value: String) -> Result<OsString, LookupError> {
        // The mark that stands for what is no UTF-8.
        if !value.contains(char::REPLACEMENT_CHARACTER) {
            return Ok(value.into());
        }
        let line = std::fs::read(format!("/proc/{}/cmdline", self.found.pid)).unwrap_or_default();
        let tail = |raw: &[u8]| {
            let text = String::from_utf8_lossy(raw).into_owned();
            let before = text
                .strip_suffix(&value)
                .filter(|before| !before.contains(char::REPLACEMENT_CHARACTER))?;
            raw.get(before.len()..).map(<[u8]>::to_vec)
        };
        let mut all: Vec<Vec<u8>> = line.split(|b| *b == 0).filter_map(tail).collect();
        all.dedup();
        match all.as_slice() {
            [one] => Ok(OsString::from_vec(one.clone())),
            _ => Err(self.refuse(
                &format!("names a config that cannot be told from `{value}`"),
                None,
            )),
        }
    }

    /// The value that a title has of an option, where the file that is there leaves only one
    /// reading of it.
    fn in_title(&self, title: &str, spellings: &[&str]) -> Result<String, LookupError> {
        let all: Vec<String> = spellings
            .iter()
            .flat_map(|option| title::values(title, option))
            .collect();
        let hides = || {
            self.refuse(
                &format!(
                    "has written a title over its command line (`{title}`), which \
                                  does not tell its arguments"
                ),
                None,
            )
        };
        if title::is_cut(self.found.pid, title.len()) {
            return Err(self.refuse(
                "has written a title over its command line, and the end of it may be cut off",
                None,
            ));
        }
        let mut there = Vec::new();
        for value in &all {
            if self
                .absolute(OsStr::new(value))
                .is_ok_and(|path| path.exists())
                && !there.contains(value)
            {
                there.push(value.clone());
            }
        }
        match (there.as_slice(), all.first()) {
            ([one], _) => Ok(one.clone()),
            ([], Some(first)) => Ok(first.clone()),
            ([], None) => Err(hides()),
            _ => Err(self.refuse(
                &format!(
                    "has blanks in its title (`{title}`), which may name {}",
                    list(&there)
                ),
                None,
            )),
        }
    }

    /// What is compiled into its program behind `text`.
    pub(super) fn built(&self, text: &str) -> Result<Option<String>, LookupError> {
        match self.built {
            None => Err(LookupError::Ask),
            Some(Err(why)) => Err(self.refuse(
                &format!("does not tell which config is compiled into it: {why}"),
                None,
            )),
            Some(Ok(output)) => Ok(behind(output, text)),
        }
    }

    /// The value of a variable of the environment that it was started with; none where it is empty
    /// or not there.
    pub(super) fn variable(&self, name: &str) -> Result<Option<OsString>, LookupError> {
        let value = exec::variable(self.found.pid, name).ok_or_else(|| {
            self.refuse(
                &format!("does not tell its environment, which may have {name}"),
                None,
            )
        })?;
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// A path of its command line, which begins at the directory that its group says, or that it
    /// was started in.
    pub(super) fn absolute(&self, value: &OsStr) -> Result<PathBuf, LookupError> {
        let value = Path::new(value);
        if value.is_absolute() {
            return Ok(value.to_owned());
        }
        let base = if self.group.reading.base.is_empty() {
            self.started_in(value)?
        } else {
            self.base()?
        };
        let path = base.join(value);
        match self.elsewhere(&base, value) {
            Some(other) if inode(&other) != inode(&path) => {
                let why = format!(
                    "was given `{}`, which is there below the directory that it was started in \
                     and below `{}`, in which it stands now",
                    value.display(),
                    base.display()
                );
                Err(self.refuse(
                    &format!("{why} (`{}` and `{}`)", other.display(), path.display()),
                    None,
                ))
            }
            _ => Ok(path),
        }
    }

    /// The first directory of the group's `base` that there is.
    pub(super) fn base(&self) -> Result<PathBuf, LookupError> {
        for place in &self.group.reading.base {
            let (dir, below) = match place {
                PathBase::Path(path) => return Ok(path.clone()),
                PathBase::Cwd(below) => return Ok(joined(self.cwd()?, below)),
                PathBase::Base(_) => continue,
                PathBase::Env(name, below) => match self.variable(name)? {
                    Some(dir) => (self.cwd()?.join(dir), below),
                    None => continue,
                },
                // A program with a base stays where it was started.
                PathBase::Arg(option, below) => match self.values(&[option])?.pop() {
                    Some(dir) => (self.cwd()?.join(dir), below),
                    None => continue,
                },
                PathBase::Built(text, below) => {
                    match self.built(text)?.filter(|dir| dir.starts_with('/')) {
                        Some(dir) => (dir.into(), below),
                        None => continue,
                    }
                }
            };
            return Ok(joined(dir, below));
        }
        Err(self.refuse(
            "names its config by a path below a directory that nothing tells",
            None,
        ))
    }

    /// Whether nothing but its working directory says where a relative path begins: the program may
    /// take it below another one.
    pub(super) fn is_guess(&self, value: &OsStr) -> bool {
        let stays = || self.group.reading.base.is_empty() || self.base().ok() == self.cwd().ok();
        !Path::new(value).is_absolute() && stays()
    }

    /// The same path below the directory that its environment says it was started in, where it has
    /// left that for `base`, and a file is there as well.
    fn elsewhere(&self, base: &Path, value: &Path) -> Option<PathBuf> {
        let left = || {
            self.group
                .reading
                .base
                .iter()
                .any(|place| matches!(place, PathBase::Cwd(_)))
                && self.cwd().is_ok_and(|cwd| cwd == base)
        };
        let other = self.pwd().filter(|pwd| pwd != base && left())?.join(value);
        other.is_file().then_some(other)
    }

    pub(super) fn cwd(&self) -> Result<PathBuf, LookupError> {
        let of = format!("/proc/{}/cwd", self.found.pid);
        std::fs::read_link(of).map_err(|e: io::Error| {
            self.refuse(&format!("does not tell its working directory: {e}"), None)
        })
    }

    /// The directory that it was started in. Its environment names it, and its working directory
    /// must agree: it is still that one, or the one that `value` names.
    fn started_in(&self, value: &Path) -> Result<PathBuf, LookupError> {
        let (cwd, root) = (
            self.cwd()?,
            PathBuf::from(format!("/proc/{}/root", self.found.pid)),
        );
        let same = |path: &Path| {
            let inside = root.join(path.strip_prefix("/").unwrap_or(path));
            inode(&inside) != (0, 0)
                && inode(&inside) == inode(Path::new(&format!("/proc/{}/cwd", self.found.pid)))
        };
        let named = self.pwd();
        match &named {
            // A daemon that went to the root directory may have started anywhere: not every
            // supervisor sets PWD.
            Some(pwd) if same(pwd) && pwd != Path::new("/") => return Ok(cwd),
            Some(pwd) if same(&pwd.join(value)) => return Ok(pwd.clone()),
            _ => {}
        }
        let likely = named
            .iter()
            .chain([&cwd])
            .map(|dir| dir.join(value))
            .find(|path| path.exists());
        let why = format!(
            "was given `{}`, a path relative to the directory that it was started in, and nothing \
             tells that one (it stands in `{}` now)",
            value.display(),
            cwd.display()
        );
        let LookupError::Because(why) = self.refuse(&why, likely.as_deref()) else {
            return Err(LookupError::Ask);
        };
        Err(LookupError::Because(format!(
            "{why}, or `base = \"{{cwd}}\"` if it never leaves that directory"
        )))
    }

    /// A word of its command line that may name its config in place of `default`: a file that is
    /// there, where nothing says how the program reads its options.
    pub(super) fn unexplained(&self, default: &Path) -> Option<String> {
        if self.group.reading.getopt.is_some() {
            return None;
        }
        let line = CommandLine {
            name: String::new(),
            rewritten: false,
            args: self.found.args.clone(),
        };
        let script = line.script(&self.found.exe, false);
        let args = self.options(&self.found.args).args;
        let may_be = |(at, word): (usize, &String)| {
            let (option, value) = match word.split_once('=') {
                Some((option, value)) if word.starts_with('-') => (option, value),
                _ if word.starts_with('-') => return None,
                _ => (
                    args.get(at.wrapping_sub(1))
                        .filter(|before| before.starts_with('-'))
                        .map_or("", String::as_str),
                    word.as_str(),
                ),
            };
            let option = option.to_ascii_lowercase();
            let is_other = OTHER_OPTIONS.iter().any(|name| option.contains(name))
                || script == Some(value)
                || value.ends_with(".jar");
            let path = self
                .cwd()
                .ok()?
                .join(value)
                .canonicalize()
                .ok()
                .filter(|path| path.is_file() && !is_other)?;
            let is_config = !OTHER_PLACES.iter().any(|dir| path.starts_with(dir))
                && inode(&path) != inode(default);
            is_config.then(|| word.clone())
        };
        args.iter().enumerate().find_map(may_be)
    }

    /// The working directory of the shell that started it, as its environment says.
    fn pwd(&self) -> Option<PathBuf> {
        let environment = std::fs::read(format!("/proc/{}/environ", self.found.pid)).ok()?;
        let mut all = environment
            .split(|b| *b == 0)
            .filter_map(|one| one.strip_prefix(b"PWD="));
        match (all.next(), all.next()) {
            (Some(one), None) => {
                Some(PathBuf::from(OsStr::from_bytes(one))).filter(|path| path.is_absolute())
            }
            _ => None,
        }
    }
}

/// Each option that names a config by a path below another directory than its working directory is
/// now: its name, its value, and the whole path. A command about the process stands in its working
/// directory.
pub(super) fn moved(found: &Found, group: &Group) -> Vec<(String, String, String)> {
    let lookup = Lookup {
        found,
        group,
        built: None,
    };
    let one = |place: &PathBase| {
        let PathBase::Arg(option, _) = place else {
            return None;
        };
        let value = lookup
            .values(&[option])
            .ok()?
            .pop()?
            .into_string()
            .ok()
            .filter(|value| !value.starts_with('/'))?;
        let path = lookup.absolute(OsStr::new(&value)).ok()?;
        let is_there = path.exists() && path != lookup.cwd().ok()?.join(&value);
        Some((option.clone(), value, path.to_str()?.to_owned())).filter(|_| is_there)
    };
    group.config.iter().flatten().filter_map(one).collect()
}

/// Writes `path` for the `value` of an option wherever the arguments give it that.
pub(super) fn replace(args: &mut [String], option: &str, value: &str, path: &str) {
    for at in 0..args.len() {
        if args[at] == option && args.get(at + 1).is_some_and(|next| next == value) {
            path.clone_into(&mut args[at + 1]);
        } else if args[at]
            .strip_prefix(option)
            .and_then(|rest| rest.strip_prefix('='))
            == Some(value)
        {
            args[at] = format!("{option}={path}");
        }
    }
}

/// An empty part would leave a slash at the end, which only a directory has.
pub(super) fn joined(dir: PathBuf, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() {
        dir
    } else {
        dir.join(below)
    }
}

pub(super) fn list(values: &[String]) -> String {
    values
        .iter()
        .map(|value| format!("`{value}`"))
        .collect::<Vec<_>>()
        .join(" and ")
}

/// The word behind `text` in what a program prints, or what its quotes hold.
fn behind(output: &str, text: &str) -> Option<String> {
    let starts_word = |at: usize| {
        text.starts_with(char::is_whitespace)
            || !output[..at].ends_with(|c: char| !c.is_whitespace() && !"'\"(".contains(c))
    };
    let (at, _) = output
        .match_indices(text)
        .find(|(at, _)| starts_word(*at))?;
    let rest = output[at + text.len()..].trim_start_matches([' ', '\t']);
    let value = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest
            .split(|c: char| c.is_whitespace() || "'\"(),;".contains(c))
            .next(),
    };
    value.filter(|value| !value.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests;
