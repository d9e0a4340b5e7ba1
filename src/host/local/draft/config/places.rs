//! Files that a process names, and files of usual names.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use crate::host::{
    discover::title::Telling,
    exec,
    local::draft::{
        fact::Source,
        files::{OpenFiles, is_log},
        help::Help,
        named::Named,
        program::Program,
        text::quoted,
    },
};

/// Extensions of configs.
const EXTENSIONS: &[&str] = &[
    "conf", "cfg", "cnf", "cf", "ini", "yaml", "yml", "toml", "json", "xml", "config", "vcl", "rc",
];

/// Parts of the names of options whose value is no config.
const OTHER_OPTIONS: &[&str] = &[
    "pid", "log", "sock", "lock", "cert", "key", "pass", "secret", "-jar", "dir", "root",
];

/// Directories that hold no config.
const OTHER_PLACES: &[&str] = &["/run", "/var/run", "/var/log", "/dev", "/proc", "/sys"];

/// Spellings of options that often name a config.
const USUAL_OPTIONS: &[&str] = &["-c", "-f", "-C"];

/// The most variables of an environment that are looked at.
const MAX_VARIABLES: usize = 512;

/// The place of a file that may be the config.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The place as `config` names it; none if it cannot be named.
    pub(super) toml: Option<String>,
    pub(super) path: PathBuf,
    pub(super) named: Option<Named>,
    pub(super) source: Source,
    pub(super) why: String,
    /// The lower, the more it looks like a config.
    pub(super) rank: u8,
}

impl Place {
    /// Returns the places that a process names, the likeliest first. Each file is named once.
    pub(super) fn all(program: &Program<'_>, help: &Help, files: &OpenFiles) -> Vec<Self> {
        if !program.shares_mounts {
            return Vec::new();
        }
        let mut places = match &program.found.telling {
            Telling::Title(title) => in_title(program, title),
            _ => in_arguments(program, help),
        };
        places.extend(in_environment(program));
        places.extend(opened(files));
        places.sort_by_key(|place| place.rank);
        let mut known: Vec<PathBuf> = Vec::new();
        places.retain(|place| {
            let path = place.path.canonicalize().unwrap_or(place.path.clone());
            let is_new = !known.contains(&path);
            known.push(path);
            is_new
        });
        places
    }
}

/// The files that the arguments name.
fn in_arguments(program: &Program<'_>, help: &Help) -> Vec<Place> {
    let args = &program.found.args;
    let script = program.script.as_deref().unwrap_or_default();
    let begin = args
        .iter()
        .position(|arg| !script.is_empty() && script.ends_with(arg.as_str()))
        .map_or(0, |index| index + 1);
    let mut places = Vec::new();
    for (index, word) in args.iter().enumerate().skip(begin) {
        let before = index.checked_sub(1).filter(|before| *before >= begin);
        let before = before.and_then(|before| args.get(before));
        let option = before.filter(|before| {
            before.starts_with('-')
                && !before.contains('=')
                && help.takes_value(before) != Some(false)
        });
        let (place, named, value) = match (word.split_once('='), option) {
            (Some((name, value)), _) if word.starts_with('-') => (
                name.to_owned(),
                Named::Joined(name.to_owned()),
                value.to_owned(),
            ),
            _ if is_attached(word) => {
                let (name, value) = word.split_at(2);
                (
                    name.to_owned(),
                    Named::Option(name.to_owned()),
                    value.to_owned(),
                )
            }
            _ if word.starts_with('-') => continue,
            (_, Some(name)) => (name.clone(), Named::Option(name.clone()), word.clone()),
            (_, None) => ((index + 1).to_string(), Named::Argument, word.clone()),
        };
        if let Some(path) = config_at(program, &place, &value) {
            let rank = rank(&place, &path);
            // Whether an option of another name has a value, only its help tells.
            let is_named =
                rank < 2 || option != Some(&place) || help.takes_value(&place) == Some(true);
            places.push(Place {
                toml: if is_named {
                    Some(quoted(&format!("{{arg:{place}}}")))
                } else {
                    path.to_str().map(quoted)
                },
                rank,
                path,
                named: Some(named),
                source: Source::Seen,
                why: format!("`{word}` in its command line, as {}", of_place(&place)),
            });
        }
    }
    places
}

fn of_place(place: &str) -> String {
    match place.parse::<u32>() {
        Ok(number) => format!("argument {number}"),
        Err(_) => format!("the value of `{place}`"),
    }
}

/// Tells whether a word is a short option with a path behind it: `-c/etc/x.conf`.
fn is_attached(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() > 3 && bytes[0] == b'-' && bytes[1].is_ascii_alphabetic() && bytes[2] == b'/'
}

/// How little a file that an option names looks like a config.
fn rank(option: &str, path: &Path) -> u8 {
    let option_name = option.to_ascii_lowercase();
    if option_name.contains("conf") || option_name.contains("cfg") {
        0
    } else if USUAL_OPTIONS.contains(&option) {
        1
    } else if looks_like_config(path) {
        2
    } else {
        3
    }
}

/// Returns the file that a value names, if it may be a config.
fn config_at(program: &Program<'_>, option: &str, value: &str) -> Option<PathBuf> {
    let option = option.to_ascii_lowercase();
    if value.is_empty() || OTHER_OPTIONS.iter().any(|name| option.contains(name)) {
        return None;
    }
    let path = program.cwd.as_ref()?.join(value);
    (path.is_file() && may_be_config(&path) && path != program.exe).then_some(path)
}

/// Tells whether a file is in no place of other files.
fn may_be_config(path: &Path) -> bool {
    !OTHER_PLACES.iter().any(|dir| path.starts_with(dir)) && !is_log(path)
}

/// Tells whether a file has the extension of a config, or is below `/etc`.
fn looks_like_config(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) || path.starts_with("/etc")
}

/// The files that the words of a title name. A title is no command line, so that they are guessed.
fn in_title(program: &Program<'_>, title: &str) -> Vec<Place> {
    let words = title
        .split(|c: char| c.is_whitespace() || "()[],;\"'".contains(c))
        .map(|word| word.split_once('=').map_or(word, |(_, value)| value));
    let paths = words.filter(|word| word.starts_with('/') && Path::new(word).is_file());
    let places = paths.map(|word| Place {
        toml: Some(quoted(word)),
        path: word.into(),
        named: None,
        source: Source::Guessed,
        why: "its title names it".to_owned(),
        rank: if looks_like_config(Path::new(word)) {
            2
        } else {
            3
        },
    });
    let is_other = |place: &Place| place.path == program.exe || !may_be_config(&place.path);
    places.filter(|place| !is_other(place)).collect()
}

/// The files that the environment names. Only names of variables and paths are kept of it.
fn in_environment(program: &Program<'_>) -> Vec<Place> {
    let variables = exec::variables(program.found.pid);
    let variables = variables.into_iter().take(MAX_VARIABLES);
    let places = variables.filter_map(|(name, value)| {
        let path = Path::new(&value);
        let is_config =
            path.is_absolute() && path.is_file() && may_be_config(path) && looks_like_config(path);
        let is_own = name.to_ascii_lowercase().contains("conf");
        (is_config && is_own).then(|| Place {
            toml: Some(quoted(&format!("{{env:{name}}}"))),
            path: path.to_owned(),
            named: None,
            source: Source::Seen,
            why: format!("the variable {name} of its environment"),
            rank: 4,
        })
    });
    places.collect()
}

/// The files that it has open and only reads.
fn opened(files: &OpenFiles) -> impl Iterator<Item = Place> {
    let is_config = |path: &&PathBuf| {
        let extension = path.extension().and_then(OsStr::to_str);
        may_be_config(path) && extension.is_some_and(|name| EXTENSIONS.contains(&name))
    };
    files.read.iter().filter(is_config).map(|path| Place {
        toml: path.to_str().map(quoted),
        path: path.clone(),
        named: None,
        source: Source::Seen,
        why: "it has the file open for reading".to_owned(),
        rank: 5,
    })
}

/// The files of usual names that exist: `/etc/NAME/NAME.conf`, `/etc/NAME.conf` and the like.
pub(super) fn usual(program: &Program<'_>) -> Vec<PathBuf> {
    if !program.shares_mounts {
        return Vec::new();
    }
    let names = program.file_names();
    let mut files = Vec::new();
    for name in &names {
        for dir in &names {
            let ends = EXTENSIONS.iter().take(9);
            files.extend(ends.map(|end| format!("/etc/{dir}/{name}.{end}")));
        }
        let ends = EXTENSIONS.iter().take(9);
        files.extend(ends.map(|end| format!("/etc/{name}.{end}")));
        files.extend([format!("/etc/{name}/config"), format!("/etc/{name}rc")]);
    }
    let mut found: Vec<PathBuf> = Vec::new();
    for path in files.into_iter().map(PathBuf::from) {
        if path.is_file() && !found.contains(&path) {
            found.push(path);
        }
    }
    found
}
