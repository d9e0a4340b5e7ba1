//! The command line of a process, as `/proc/PID/cmdline` tells it: arguments, or a title that the
//! process wrote over them.

use std::path::Path;

/// What a process was started with, or calls itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// What it was called by, or the whole title.
    pub(crate) name: String,
    /// Whether `name` is a title: one string, and nothing after it.
    pub(crate) rewritten: bool,
    /// Arguments without its own name; of a title its words without the first.
    pub(crate) args: Vec<String>,
}

/// How an interpreter reads its command line; options as in `getopt(3)`, by their letters.
struct Interpreter {
    /// Of its executable, without a version.
    names: &'static [&'static str],
    /// Options whose value is the rest of the argument, or the next one.
    valued: &'static str,
    /// Long options whose value is the next argument.
    long: &'static [&'static str],
    /// Options that only the rest of the argument belongs to.
    rest: &'static str,
    /// Options whose value is code: there is no script.
    code: &'static str,
    /// Options whose value is the script, or a module that is run as one.
    script: &'static str,
}

const ANY: Interpreter = Interpreter {
    names: &[],
    valued: "",
    long: &[],
    rest: "",
    code: "",
    script: "",
};

const KNOWN: &[Interpreter] = &[
    Interpreter {
        names: &["python", "pypy"],
        valued: "WX",
        long: &["--check-hash-based-pycs"],
        code: "c",
        script: "m",
        ..ANY
    },
    Interpreter {
        names: &["bash", "dash", "ash", "sh", "ksh", "mksh", "zsh", "busybox"],
        valued: "oO",
        long: &["--rcfile", "--init-file"],
        code: "c",
        ..ANY
    },
    Interpreter {
        names: &["perl"],
        valued: "I",
        rest: "mMxiCDFVdl0",
        code: "eE",
        ..ANY
    },
    Interpreter {
        names: &["ruby"],
        valued: "ICEr",
        rest: "WKxFi0T",
        code: "e",
        ..ANY
    },
    Interpreter {
        names: &["node", "nodejs"],
        valued: "rC",
        long: &[
            "--require",
            "--import",
            "--loader",
            "--experimental-loader",
            "--conditions",
        ],
        code: "ep",
        ..ANY
    },
    Interpreter {
        names: &["php"],
        valued: "cdtz",
        code: "rBRES",
        script: "f",
        ..ANY
    },
    Interpreter {
        names: &["lua", "luajit"],
        valued: "l",
        code: "e",
        ..ANY
    },
    // Its options are words behind one dash: no letter of them stands alone.
    Interpreter {
        names: &["java"],
        long: &[
            "-cp",
            "-classpath",
            "--class-path",
            "-p",
            "--module-path",
            "--add-modules",
            "--add-opens",
            "--add-exports",
            "--add-reads",
        ],
        rest: "abcdefghijklmnopqrstuvwxyzADEHIPRVX",
        ..ANY
    },
    Interpreter {
        names: &[
            "deno", "bun", "dotnet", "mono", "tclsh", "guile", "Rscript", "beam.smp",
        ],
        ..ANY
    },
];

/// The interpreter of this file name, whatever its version.
fn known(name: &str) -> Option<&'static Interpreter> {
    KNOWN.iter().find(|i| {
        i.names.iter().any(|known| {
            name.strip_prefix(known)
                .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
        })
    })
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl CommandLine {
    /// Of the bytes of `/proc/PID/cmdline`.
    pub(crate) fn parse(raw: &[u8]) -> Self {
        let args: Vec<String> = raw
            .split(|b| *b == 0)
            .map(|arg| String::from_utf8_lossy(arg).into_owned())
            .collect();
        let Some((name, rest)) = args.split_first() else {
            return Self::default();
        };
        // A daemon that tells its state in its title has one string there: its words are all that
        // is left of the arguments. A process pads a title with zeros, or ends it where the kernel
        // would not end an argument.
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

    /// The script that the interpreter `exe` runs, as it was named; `trusted`: somebody says that
    /// `exe` is one. None of a program that is none.
    pub(crate) fn script(&self, exe: &Path, trusted: bool) -> Option<&str> {
        let exe = exe.to_string_lossy();
        let by_exe = known(file_name(exe.strip_suffix(" (deleted)").unwrap_or(&exe)));
        // A shell that is a part of another executable (busybox) is known by what it was called.
        let interpreter = by_exe
            .or_else(|| known(file_name(&self.name)))
            .or(trusted.then_some(&ANY))?;
        if self.rewritten
            && let Some((name, _)) = self.name.split_once(": ")
            && !name.contains(char::is_whitespace)
        {
            return Some(name);
        }
        first_of(interpreter, &self.args)
    }
}

/// The first argument that is neither an option nor the value of one, or the value of the option
/// that names the script.
fn first_of<'a>(interpreter: &Interpreter, args: &'a [String]) -> Option<&'a str> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            return args.next().map(String::as_str);
        }
        if interpreter.long.contains(&arg.as_str()) {
            args.next();
            continue;
        }
        let Some(letters) = arg.strip_prefix('-').filter(|l| !l.starts_with('-')) else {
            if arg.starts_with("--") {
                continue;
            }
            return Some(arg);
        };
        if letters.is_empty() {
            // A lone dash: the script comes from standard input.
            return None;
        }
        for (at, letter) in letters.char_indices() {
            let value = &letters[at + letter.len_utf8()..];
            if interpreter.code.contains(letter) {
                return None;
            }
            if interpreter.script.contains(letter) {
                return if value.is_empty() {
                    args.next().map(String::as_str)
                } else {
                    Some(value)
                };
            }
            if interpreter.valued.contains(letter) && value.is_empty() {
                args.next();
            }
            if interpreter.valued.contains(letter) || interpreter.rest.contains(letter) {
                break;
            }
        }
    }
    None
}

/// `--option VALUE`, `--option=VALUE`, or `-o/VALUE` for a path behind a short option; of several
/// the last one.
pub(crate) fn option_value<'a>(args: &'a [String], option: &str) -> Option<&'a str> {
    let (at, from) = option_place(args, option)?;
    args[at].get(from..)
}

/// Which argument has the value of `option`, and from which byte on.
fn option_place(args: &[String], option: &str) -> Option<(usize, usize)> {
    args.iter()
        .enumerate()
        .rev()
        .find_map(|(at, arg)| match arg.strip_prefix(option)? {
            "" => (at + 1 < args.len()).then_some((at + 1, 0)),
            rest if rest.starts_with('/') && option.len() == 2 => Some((at, option.len())),
            rest => rest.starts_with('=').then_some((at, option.len() + 1)),
        })
}

#[cfg(test)]
mod tests;
