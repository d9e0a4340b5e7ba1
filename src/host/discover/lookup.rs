//! Locates the config paths of a group for one process: by its command line, by the directory that
//! it was started in, by the paths that are compiled into it.

mod directory;
mod unexplained;

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use crate::{
    fleet::{Group, PathBase, fits, title_parts},
    host::{
        discover::{
            built::Built,
            found::Found,
            options::{GivenOptions, Options},
            reason::{ConfigReason, ConfigRefusal},
            title::{self, Telling},
        },
        exec,
        proc::{
            argument,
            title::{self as proc_title, is_cut, values},
        },
    },
};

/// Largest file of arguments (`@FILE`) that is read, in bytes: far more than a command line has.
const MAX_ARGUMENTS: u64 = 64 << 10;

/// Why the config of a process is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    /// It cannot be known, or must not be replaced.
    #[error(transparent)]
    Refused(#[from] Box<ConfigRefusal>),
    /// Its program must be run first to print the paths that are compiled into it.
    #[error("{}", ConfigReason::NotAsked)]
    Ask,
}

impl LookupError {
    /// Returns the refusal of a process whose program is not run, or no longer.
    pub(super) fn refusal(self) -> Box<ConfigRefusal> {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Ask => refusal(ConfigReason::NotAsked),
        }
    }
}

/// One process, and everything that tells how it names its config.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lookup<'a> {
    pub(super) found: &'a Found,
    pub(super) group: &'a Group,
    /// The output of its program about compiled-in paths, if it was run.
    pub(super) built: Option<&'a Built>,
}

impl<'a> Lookup<'a> {
    /// Returns `why`, with the line of `fleet.toml` that names the file as its hint.
    pub(super) fn refuse(&self, why: ConfigReason, path: Option<&Path>) -> LookupError {
        self.refuse_with(why, path, "")
    }

    /// As [`Lookup::refuse`], if it is also enough to declare how the program reads its options.
    pub(super) fn refuse_options(&self, why: ConfigReason) -> LookupError {
        let other = ", or say how it reads its options: `getopt = \"..\"`, as getopt(3) has them, \
                     `getopt = \"\"` where every option is a word";
        self.refuse_with(why, None, other)
    }

    /// As [`Lookup::refuse`], with another line of `fleet.toml` that helps.
    fn refuse_with(&self, why: ConfigReason, path: Option<&Path>, other: &str) -> LookupError {
        let path = path.unwrap_or(Path::new("/PATH/OF/ITS/CONFIG"));
        let hint = format!(
            "write `config = \"{}\"` into group `{}`, if that is the file which it reads{other}",
            path.display(),
            self.group.name
        );
        Box::new(ConfigRefusal::from(why).with_hint(hint)).into()
    }

    /// Returns the arguments of its program, without those of its interpreter before the script.
    fn options(&self, args: &'a [String]) -> Options<'a> {
        let script = &self.group.matching.script;
        let start = args
            .iter()
            .position(|arg| script.iter().any(|pattern| fits(pattern, arg)))
            .map_or(0, |index| index + 1);
        let reading = &self.group.reading;
        Options {
            args: &args[start..],
            getopt: reading.getopt.as_deref(),
            repeated: reading.repeated,
        }
    }

    /// Returns the values of an option that has all these spellings; more than one only if the
    /// program reads all of them.
    pub(super) fn values(&self, spellings: &[&str]) -> Result<Vec<OsString>, LookupError> {
        if let ([name], Telling::Arguments) = (spellings, &self.found.telling)
            && let Some(index) = argument::place(name)
        {
            return self.positional(name, index);
        }
        if let Telling::Title(title) = &self.found.telling {
            return self
                .in_title(title, spellings)
                .map(|value| vec![value.into()]);
        }
        let given = self.options(&self.found.args).given_values(spellings);
        self.check_certain(&given, spellings)?;
        let values = match given {
            GivenOptions::Absent => Vec::new(),
            GivenOptions::Value(value) => vec![value],
            GivenOptions::Several(values) => values,
            GivenOptions::Unclear(word) => {
                let option = spellings.join(" or ");
                return Err(self.refuse_options(ConfigReason::Unclear { option, word }));
            }
        };
        values.into_iter().map(|value| self.exact(value)).collect()
    }

    /// Returns the argument at a position: it is no option, so that the argument is the value.
    fn positional(&self, name: &str, index: usize) -> Result<Vec<OsString>, LookupError> {
        let args = &self.found.args;
        let of_interpreter = args.len() - self.options(args).args.len();
        if let Some(word) = args.get(index).filter(|_| index < of_interpreter) {
            let why = ConfigReason::OfInterpreter {
                word: word.clone(),
                position: index + 1,
            };
            return Err(self.refuse(why, None));
        }
        argument::argument(args, name)
            .map(|value| self.exact(value.to_owned()))
            .into_iter()
            .collect()
    }

    /// Refuses an option that a title or a file of arguments may give another value.
    fn check_certain(&self, given: &GivenOptions, spellings: &[&str]) -> Result<(), LookupError> {
        let option = spellings.join(" or ");
        if let Telling::Joined(certain) = &self.found.telling
            && self.options(certain).given_values(spellings) != *given
        {
            return Err(self.refuse(ConfigReason::AfterBlanks(option), None));
        }
        if let GivenOptions::Value(value) = given
            && let Some(word) = self
                .options(&self.found.args)
                .file_behind(value)
                .filter(|word| self.may_hold(word, spellings))
        {
            let word = word.to_owned();
            return Err(self.refuse(ConfigReason::Repeated { option, word }, None));
        }
        Ok(())
    }

    /// Tells whether a word `@FILE` names a file with one of these options in it, below any
    /// directory that the process may have been started in.
    fn may_hold(&self, word: &str, spellings: &[&str]) -> bool {
        let name = word.trim_start_matches('@');
        let files = self
            .pwd()
            .into_iter()
            .chain(self.cwd())
            .map(|dir| dir.join(name));
        files.filter(|file| file.is_file()).any(|file| {
            // A file that is too large, or may not be read, may hold anything.
            let text = crate::config::read(&file, MAX_ARGUMENTS).ok();
            let text = text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            text.is_none_or(|text| spellings.iter().any(|option| text.contains(option)))
        })
    }

    /// Returns the bytes of a value as the kernel has them.
    fn exact(&self, value: String) -> Result<OsString, LookupError> {
        // Without this character every byte was UTF-8.
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
        let mut values: Vec<Vec<u8>> = line.split(|b| *b == 0).filter_map(tail).collect();
        values.dedup();
        match values.as_slice() {
            [value] => Ok(OsString::from_vec(value.clone())),
            _ => Err(self.refuse(ConfigReason::NotText(value), None)),
        }
    }

    /// Returns the value of an option in a title, if only one reading of it names a file.
    fn in_title(&self, title: &str, spellings: &[&str]) -> Result<String, LookupError> {
        let readings: Vec<String> = spellings
            .iter()
            .flat_map(|option| title::values(title, option))
            .collect();
        if is_cut(self.found.pid, title.len()) {
            return Err(self.refuse(ConfigReason::CutTitle, None));
        }
        let mut existing = Vec::new();
        for value in &readings {
            if self
                .absolute(OsStr::new(value))
                .is_ok_and(|path| path.exists())
                && !existing.contains(value)
            {
                existing.push(value.clone());
            }
        }
        match (existing.as_slice(), readings.first()) {
            ([value], _) => Ok(value.clone()),
            ([], Some(first)) => Ok(first.clone()),
            ([], None) => Err(self.refuse(ConfigReason::Title(title.into()), None)),
            _ => {
                let title = title.to_owned();
                let values = existing;
                Err(self.refuse(ConfigReason::AmbiguousTitle { title, values }, None))
            }
        }
    }

    /// Returns the path that its program prints after `text`, which is compiled into it.
    pub(super) fn built(&self, text: &str) -> Result<Option<String>, LookupError> {
        match self.built {
            None => Err(LookupError::Ask),
            Some(Err(why)) => Err(self.refuse(ConfigReason::NotPrinted(why.clone()), None)),
            Some(Ok(output)) => Ok(behind(output, text)),
        }
    }

    /// Returns the value of a pattern in its title; none if its command line has its arguments. A
    /// title that does not fit is no reason to read another file.
    pub(super) fn titled(&self, pattern: &str) -> Result<Option<OsString>, LookupError> {
        let Some(title) = proc_title::of(self.found.pid) else {
            return Ok(None);
        };
        if is_cut(self.found.pid, title.len()) {
            return Err(self.refuse(ConfigReason::CutTitle, None));
        }
        let parts = title_parts(pattern).unwrap_or((pattern, ""));
        match values(&title, parts).as_slice() {
            [value] => Ok(Some(value.into())),
            [] => {
                let pattern = pattern.to_owned();
                Err(self.refuse(ConfigReason::OtherTitle { title, pattern }, None))
            }
            several => {
                let values = several.iter().map(|value| (*value).to_owned()).collect();
                Err(self.refuse(ConfigReason::AmbiguousTitle { title, values }, None))
            }
        }
    }

    /// Returns a variable of the environment that it was started with; none if it is empty or not
    /// set.
    pub(super) fn variable(&self, name: &str) -> Result<Option<OsString>, LookupError> {
        let value = exec::variable(self.found.pid, name)
            .ok_or_else(|| self.refuse(ConfigReason::NoEnvironment(name.into()), None))?;
        Ok(value.filter(|value| !value.is_empty()))
    }
}

/// Returns a refusal without a hint.
pub(super) fn refusal(why: ConfigReason) -> Box<ConfigRefusal> {
    Box::new(why.into())
}

/// Lists the options whose relative path does not begin at the present working directory: name,
/// value, and whole path. A command about the process runs in its working directory.
pub(super) fn moved(found: &Found, group: &Group) -> Vec<(String, String, String)> {
    let lookup = Lookup {
        found,
        group,
        built: None,
    };
    let moved = |place: &PathBase| {
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
    group.config.iter().flatten().filter_map(moved).collect()
}

/// Replaces the `value` of an option in the arguments by `path`.
pub(super) fn replace(args: &mut [String], option: &str, value: &str, path: &str) {
    for index in 0..args.len() {
        if args[index] == option && args.get(index + 1).is_some_and(|next| next == value) {
            path.clone_into(&mut args[index + 1]);
        } else if args[index]
            .strip_prefix(option)
            .and_then(|rest| rest.strip_prefix('='))
            == Some(value)
        {
            args[index] = format!("{option}={path}");
        }
    }
}

/// Joins two paths. An empty part would leave a slash at the end, which only a directory has.
pub(super) fn joined(dir: PathBuf, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() {
        dir
    } else {
        dir.join(below)
    }
}

/// Returns the word after `text` in the output of a program, or the content of its quotes.
fn behind(output: &str, text: &str) -> Option<String> {
    let starts_word = |start: usize| {
        text.starts_with(char::is_whitespace)
            || !output[..start].ends_with(|c: char| !c.is_whitespace() && !"'\"(".contains(c))
    };
    let (start, _) = output
        .match_indices(text)
        .find(|(start, _)| starts_word(*start))?;
    let rest = output[start + text.len()..].trim_start_matches([' ', '\t']);
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
