//! The command line of a process from `/proc/PID/cmdline`: its arguments, or a title that the
//! process wrote over them.

mod interpreters;

use std::path::Path;

use self::interpreters::{ANY, known};
use crate::kernel::strip_deleted;

/// The command line of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// The name that the process was called by (`argv[0]`), or the whole title.
    pub(crate) name: String,
    /// True if `name` is a title: one string, and nothing after it.
    pub(crate) rewritten: bool,
    /// The arguments without `argv[0]`; the words of a title without the first.
    pub(crate) args: Vec<String>,
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl CommandLine {
    /// Reads the bytes of `/proc/PID/cmdline`.
    pub(crate) fn parse(raw: &[u8]) -> Self {
        let args: Vec<String> = raw
            .split(|b| *b == 0)
            .map(|arg| String::from_utf8_lossy(arg).into_owned())
            .collect();
        let Some((name, rest)) = args.split_first() else {
            return Self::default();
        };
        // A daemon that writes its state into its title leaves one string: only the words of the
        // title remain of the arguments. The process pads the title with zeros, or ends it without
        // the one zero that the kernel writes after an argument.
        let is_padded = rest.len() != 1;
        let rewritten = (name.contains(' ') || is_padded)
            && !name.is_empty()
            && rest.iter().all(String::is_empty);
        let args = if rewritten {
            name.split_whitespace().skip(1).map(str::to_owned).collect()
        } else {
            rest.strip_suffix(&[String::new()]).unwrap_or(rest).to_vec()
        };
        Self {
            name: name.clone(),
            rewritten,
            args,
        }
    }

    /// Tells whether `exe` runs scripts, by its name or by the name that it was called by.
    pub(crate) fn is_interpreter(&self, exe: &Path) -> bool {
        let exe = strip_deleted(exe).to_string_lossy();
        known(file_name(&exe)).is_some() || known(file_name(&self.name)).is_some()
    }

    /// Returns the script that the interpreter `exe` runs, as the command line names it; none if
    /// `exe` is no interpreter. `is_interpreter`: the group declares that `exe` is one.
    pub(crate) fn script(&self, exe: &Path, is_interpreter: bool) -> Option<&str> {
        let exe = strip_deleted(exe).to_string_lossy();
        let by_exe = known(file_name(&exe));
        // A shell that is a part of another executable (busybox) is known by its `argv[0]`.
        let interpreter = by_exe
            .or_else(|| known(file_name(&self.name)))
            .or(is_interpreter.then_some(&ANY))?;
        if self.rewritten
            && let Some((name, _)) = self.name.split_once(": ")
            && !name.contains(char::is_whitespace)
        {
            return Some(name);
        }
        interpreter.script_of(&self.args)
    }
}

/// Returns the value of an option, as `--option VALUE`, `--option=VALUE`, or `-o/VALUE` for a path
/// after a short option. The last one of several counts.
pub(crate) fn option_value<'a>(args: &'a [String], option: &str) -> Option<&'a str> {
    args.iter()
        .enumerate()
        .rev()
        .find_map(|(index, arg)| match arg.strip_prefix(option)? {
            "" => args.get(index + 1).map(String::as_str),
            rest if rest.starts_with('/') && option.len() == 2 => Some(rest),
            rest => rest.strip_prefix('='),
        })
}

#[cfg(test)]
mod tests;
