//! How interpreters read their command lines.

/// The options of an interpreter, by their letters as in `getopt(3)`.
pub(super) struct Interpreter {
    /// File names of its executable, without a version.
    names: &'static [&'static str],
    /// Options whose value is the rest of the argument, or the next argument.
    valued: &'static str,
    /// Long options whose value is the next argument.
    long: &'static [&'static str],
    /// Options whose value is only the rest of the argument.
    rest: &'static str,
    /// Options whose value is code: there is no script.
    code: &'static str,
    /// Options whose value is the script, or a module that is run as one.
    script: &'static str,
}

/// An interpreter of which no option is known.
pub(super) const ANY: Interpreter = Interpreter {
    names: &[],
    valued: "",
    long: &[],
    rest: "",
    code: "",
    script: "",
};

/// Interpreters that run daemons.
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
    // Its options are words after one dash: none is a single letter.
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

/// Returns the interpreter with this file name, in any version.
pub(super) fn known(name: &str) -> Option<&'static Interpreter> {
    KNOWN.iter().find(|interpreter| {
        interpreter.names.iter().any(|known| {
            name.strip_prefix(known)
                .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
        })
    })
}

impl Interpreter {
    /// Returns the script: the first argument that is neither an option nor the value of one, or
    /// the value of the option that names the script.
    pub(super) fn script_of<'a>(&self, args: &'a [String]) -> Option<&'a str> {
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == "--" {
                return args.next().map(String::as_str);
            }
            if self.long.contains(&arg.as_str()) {
                args.next();
                continue;
            }
            if arg.starts_with("--") {
                continue;
            }
            match arg.strip_prefix('-') {
                None => return Some(arg),
                // With a lone dash, the script comes from standard input.
                Some("") => return None,
                Some(letters) => match self.bundle(letters) {
                    Bundle::Options => {}
                    Bundle::OptionAndNext => drop(args.next()),
                    Bundle::Script(value) => return Some(value),
                    Bundle::ScriptIsNext => return args.next().map(String::as_str),
                    Bundle::Code => return None,
                },
            }
        }
        None
    }

    /// Reads the letters of one argument.
    fn bundle<'a>(&self, letters: &'a str) -> Bundle<'a> {
        for (start, letter) in letters.char_indices() {
            let value = &letters[start + letter.len_utf8()..];
            if self.code.contains(letter) {
                return Bundle::Code;
            }
            if self.script.contains(letter) {
                return match value {
                    "" => Bundle::ScriptIsNext,
                    value => Bundle::Script(value),
                };
            }
            if self.valued.contains(letter) && value.is_empty() {
                return Bundle::OptionAndNext;
            }
            if self.valued.contains(letter) || self.rest.contains(letter) {
                break;
            }
        }
        Bundle::Options
    }
}

/// The meaning of an argument of option letters.
enum Bundle<'a> {
    /// Options with their values.
    Options,
    /// Options, and the next argument is the value of the last one.
    OptionAndNext,
    /// The last option names the script.
    Script(&'a str),
    /// The last option names the script by the next argument.
    ScriptIsNext,
    /// The last option gives code in place of a script.
    Code,
}
