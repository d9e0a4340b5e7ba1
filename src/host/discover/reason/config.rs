//! Why the config of a process is not known, or must not be replaced.

use std::{fmt, io, path::PathBuf, sync::Arc};

use crate::{host::discover::built::BuiltError, refusal::Refusal, trust::Distrust};

/// A reason, and the line of `fleet.toml` or the step that helps.
pub(crate) type ConfigRefusal = Refusal<ConfigReason>;

/// Why the config of a process is not known, or must not be replaced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigReason {
    /// A word of its command line is an option in one reading only.
    #[error("may have {option} in `{word}` of its command line, or not")]
    Unclear { option: String, word: String },
    /// The argument at a position is not one of the program.
    #[error(
        "has `{word}` as its argument {position}, which belongs to its interpreter or names its \
         script: count on from there"
    )]
    OfInterpreter { word: String, position: usize },
    /// An option of a title may be a part of the value before it.
    #[error("has {0} in its title behind a value with blanks, of which it may be a part")]
    AfterBlanks(String),
    /// A file of arguments may give an option another value.
    #[error("may have {option} once more in the file that `{word}` of its command line names")]
    Repeated { option: String, word: String },
    /// The bytes of a value are not known.
    #[error("names a config that cannot be told from `{0}`")]
    NotText(String),
    /// Its title has no such option.
    #[error("has written a title over its command line (`{0}`), which does not tell its arguments")]
    Title(String),
    /// Its title has no such value.
    #[error("has written a title over its command line (`{title}`), in which `{pattern}` is not")]
    OtherTitle { title: String, pattern: String },
    /// Its title is as long as the memory for it.
    #[error("has written a title over its command line, and the end of it may be cut off")]
    CutTitle,
    /// Several readings of its title name a file.
    #[error("has blanks in its title (`{title}`), which may name {}", list(values))]
    AmbiguousTitle { title: String, values: Vec<String> },
    /// Its program did not print the path that is compiled into it.
    #[error("does not tell which config is compiled into it: {0}")]
    NotPrinted(Arc<BuiltError>),
    /// Its program was not run to print it.
    #[error("its program was not asked what is compiled into it")]
    NotAsked,
    /// This user may not read its environment.
    #[error("does not tell its environment, which may have {0}")]
    NoEnvironment(String),
    /// This user may not read its working directory.
    #[error("does not tell its working directory: {0}")]
    NoWorkingDirectory(io::Error),
    /// A relative path leads to two files.
    #[error(
        "was given `{}`, which exists below the directory that it was started in and below `{}`, \
         its working directory now (`{}` and `{}`)",
        .value.display(), .base.display(), .first.display(), .second.display()
    )]
    TwoFiles {
        value: PathBuf,
        base: PathBuf,
        first: PathBuf,
        second: PathBuf,
    },
    /// Its group's `base` has no value.
    #[error("names its config by a path below a directory that nothing tells")]
    NoBase,
    /// The directory that it was started in is not known.
    #[error(
        "was given `{}`, a path relative to the directory that it was started in, and nothing \
         tells that one (its working directory is `{}` now)",
        .value.display(), .cwd.display()
    )]
    NoStart { value: PathBuf, cwd: PathBuf },
    /// No base of its group's `config` names a file.
    #[error("{0}")]
    Nowhere(Attempts),
    /// An option excludes the default.
    #[error("says by `{word}` that it does not read `{}`", .path.display())]
    NotDefault { word: String, path: PathBuf },
    /// Each process has its own file at that path.
    #[error(
        "reads its config from `{}`, which each process has for itself, which is no file that a \
         run could replace",
        .0.display()
    )]
    OwnStream(PathBuf),
    /// The path is that of a pipe, a socket or a device.
    #[error(
        "reads its config from `{}`, which is a stream or a device, and no file that a run could \
         replace",
        .0.display()
    )]
    Stream(PathBuf),
    /// The path is `-`.
    #[error("reads its config from its standard input, which is no file that a run could replace")]
    StandardInput,
    /// The value of its option is a URL.
    #[error("reads its config from `{0}`, which is no path of a file")]
    NoPath(String),
    /// A word of its command line may name another config than the default.
    #[error("names no config by {options}, and may do so by `{word}` of its command line")]
    Unexplained { options: String, word: String },
    /// The path is inside its own mounts.
    #[error("reads `{}` in a mount namespace of its own", .0.display())]
    InOwnMounts(PathBuf),
    /// The path does not lead to a file.
    #[error("reads its config from `{}`: {}", .0.display(), .1)]
    Unresolved(PathBuf, io::Error),
    /// Its root directory, or a mount of its own, has another file at that path.
    #[error(
        "sees another file at `{}` than this host does (its own mount or root directory)",
        .0.display()
    )]
    OtherFile(PathBuf),
    /// It reads all of several files.
    #[error("reads {}, and nothing says which of them the change is for", list(.0))]
    Several(Vec<String>),
    /// Another user chose the path, and the fleet does not permit that.
    #[error("is of another user (uid {uid}) and names `{}`", .path.display())]
    ChosenByOther { uid: u32, path: PathBuf },
    /// Another user chose the path, and can lead its group's `config_under` elsewhere.
    #[error(
        "is of another user (uid {uid}) and names `{}`; uid {uid} or others can lead \
         `config_under` (`{}`) elsewhere by a link",
        .path.display(), .root.display()
    )]
    LedElsewhere {
        uid: u32,
        path: PathBuf,
        root: PathBuf,
    },
    /// Another user can change where the path leads.
    #[error("reads `{}`, and {}", .0.display(), .1)]
    Untrusted(PathBuf, Distrust),
}

/// A base of a group's `config` that named no file.
#[derive(Debug)]
pub(crate) enum Absent {
    Option(String),
    Variable(String),
    Title(String),
    Path(PathBuf, io::Error),
}

/// The bases that named no file, as far as the operator has to know them: the last option or path,
/// and every variable after it.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Vec<Absent>);

impl Attempts {
    pub(crate) fn add(&mut self, absent: Absent) {
        if !matches!(absent, Absent::Variable(_)) {
            self.0.clear();
        }
        self.0.push(absent);
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, absent) in self.0.iter().enumerate() {
            let before = if index == 0 { "has " } else { ", and " };
            match absent {
                Absent::Option(name) => write!(f, "has no {{arg:{name}}} on its command line")?,
                Absent::Variable(name) => write!(f, "{before}no {name} in its environment")?,
                Absent::Title(pattern) => write!(f, "has no title with `{pattern}`")?,
                Absent::Path(path, why) => write!(f, "config `{}`: {why}", path.display())?,
            }
        }
        Ok(())
    }
}

/// Lists values in backticks.
fn list(values: &[String]) -> String {
    values
        .iter()
        .map(|value| format!("`{value}`"))
        .collect::<Vec<_>>()
        .join(" and ")
}
