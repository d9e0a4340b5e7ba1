//! The file that a program may read its config from: by its command line, its environment, its open
//! files, or a usual name. A key counts only if the survey of a run finds the same file by it.

mod places;

use std::path::{Path, PathBuf};

use self::places::Place;
use super::{
    fact::{About, Fact, Source},
    files::OpenFiles,
    help::{Help, HelpOption},
    named::Named,
    program::Program,
    selection::Selection,
    text::{GroupText, comment, one_or_list, quoted},
};
use crate::{
    host::discover::{ConfigPaths, configs_of, title::Telling},
    names,
};

/// The most candidates that are written.
const MAX_CANDIDATES: usize = 6;

/// The config of a program, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct ConfigDraft {
    /// How a command line names the config for a validator; none where nothing tells.
    pub(super) named: Option<Named>,
    /// True if the key `config` is written.
    pub(super) is_written: bool,
    keys: Vec<Key>,
    notes: Vec<String>,
    facts: Vec<Fact>,
}

/// A key of the group about the config.
#[derive(Debug)]
struct Key {
    name: &'static str,
    value: String,
    source: Source,
    why: String,
    is_written: bool,
}

impl ConfigDraft {
    /// Looks for the config of a program.
    pub(super) async fn of(
        program: &Program<'_>,
        help: &Help,
        files: &OpenFiles,
        selection: &Selection,
    ) -> Self {
        let mut draft = Self::default();
        let places = Place::all(program, help, files);
        let path = match places.as_slice() {
            [] => draft.by_name(program, help, selection).await,
            [place, rest @ ..] if rest.iter().all(|other| other.rank > place.rank) => {
                draft.by_place(program, selection, place).await
            }
            several => {
                draft.undecided(several);
                None
            }
        };
        if let Some(path) = path.filter(|path| files.watches(path)) {
            let why = "inotify of the process watches it: it may read a change without a signal";
            let fact = format!("{}: {why}", path.display());
            draft.facts.push(Fact::seen(About::Config, fact));
            draft.notes.push(format!("{}: {why}", path.display()));
        }
        draft
    }

    /// Writes its keys.
    pub(super) fn write(self, text: &mut GroupText, facts: &mut Vec<Fact>) {
        for key in &self.keys {
            if key.is_written {
                text.key(key.name, &key.value, key.source, &key.why);
            } else {
                text.candidate(key.name, &key.value, key.source, &key.why);
            }
        }
        if self.keys.is_empty() {
            let why = "no file was found; without this line a run only signals and confirms";
            text.typed("config", "\"/PATH\"", why);
            facts.push(Fact::guessed(About::Config, "no file was found"));
        }
        self.notes.iter().for_each(|note| text.note(note));
        facts.extend(self.facts);
    }

    /// Takes the place that the process itself names. Returns the file.
    async fn by_place(
        &mut self,
        program: &Program<'_>,
        selection: &Selection,
        place: &Place,
    ) -> Option<PathBuf> {
        let detail = format!("{} ({})", place.path.display(), place.why);
        self.facts
            .push(Fact::new(About::Config, place.source, detail));
        self.named = place.named.clone();
        let literal = place.path.to_str().map(quoted);
        let mut first_refusal = None;
        for (value, with_base) in [
            (place.toml.clone(), false),
            (place.toml.clone(), true),
            (literal, false),
        ] {
            let Some(value) = value else { continue };
            let mut keys = vec![Key::config(&value, place.source, &place.why)];
            if value.contains('{') && !selection.users.is_empty() {
                keys.extend(Key::under(&place.path));
            }
            if with_base {
                keys.push(Key::base());
            }
            match refusal(program, selection, &keys, &place.path).await {
                None => {
                    self.keys = keys;
                    self.is_written = true;
                    return Some(place.path.clone());
                }
                Some(why) => _ = first_refusal.get_or_insert(why),
            }
        }
        let mut key = Key::config(place.toml.as_deref()?, place.source, &place.why);
        key.is_written = false;
        self.keys = vec![key];
        let refusal = first_refusal.unwrap_or_default();
        self.notes
            .push(format!("a run would refuse that: {refusal}"));
        Some(place.path.clone())
    }

    /// Takes the file that has a usual name. It counts only behind the option that would name
    /// another one: a run then wants to see it opened. Returns the file.
    async fn by_name(
        &mut self,
        program: &Program<'_>,
        help: &Help,
        selection: &Selection,
    ) -> Option<PathBuf> {
        let mut paths = places::usual(program);
        // A path that stands in the program comes first.
        paths.sort_by_key(|path| !help.has_path(path));
        let (path, more) = paths.split_first()?;
        let literal = path.to_str()?;
        let why = if help.has_path(path) {
            "a text in its program, and the file exists"
        } else {
            "a usual name, and the file exists"
        };
        let detail = format!("{literal} ({why})");
        self.facts.push(Fact::guessed(About::Config, detail));
        let option = help.config_option();
        let is_told = !matches!(program.found.telling, Telling::Title(_));
        let mut keys = match option.as_ref().filter(|_| is_told) {
            Some(option) => vec![Key::listed(option, literal, why)],
            None => Vec::new(),
        };
        if !keys.is_empty() && !selection.users.is_empty() {
            keys.extend(Key::under(path));
        }
        self.named = Some(match &option {
            Some(option) => Named::of(option),
            None => Named::Default,
        });
        let refused = match keys.is_empty() {
            true => Some("no option of it is known that names another file".to_owned()),
            false => refusal(program, selection, &keys, path).await,
        };
        self.is_written = refused.is_none();
        if let Some(refused) = refused {
            keys = vec![Key::config(&quoted(literal), Source::Guessed, why)];
            keys.iter_mut().for_each(|key| key.is_written = false);
            self.notes.push(format!(
                "remove the mark if that is the file which it reads; it is not certain: {refused}"
            ));
        }
        self.keys = keys;
        for path in more.iter().take(MAX_CANDIDATES) {
            let detail = format!("{} (a usual name)", path.display());
            self.facts.push(Fact::guessed(About::Config, detail));
        }
        Some(path.clone())
    }

    /// Writes several places of one rank, of which the operator chooses.
    fn undecided(&mut self, places: &[Place]) {
        let rank = places.first().map(|place| place.rank);
        let equal = places.iter().filter(|place| Some(place.rank) == rank);
        for place in equal.take(MAX_CANDIDATES) {
            let detail = format!("{} ({})", place.path.display(), place.why);
            self.facts
                .push(Fact::new(About::Config, place.source, detail));
            let Some(toml) = &place.toml else { continue };
            let mut key = Key::config(toml, place.source, &place.why);
            key.is_written = false;
            self.keys.push(key);
        }
        self.notes
            .push("each of these files may be its config: choose one".to_owned());
    }
}

impl Key {
    fn config(value: &str, source: Source, why: &str) -> Self {
        Self {
            name: "config",
            value: value.to_owned(),
            source,
            why: why.to_owned(),
            is_written: true,
        }
    }

    /// The file that an option names, or else the default.
    fn listed(option: &HelpOption, path: &str, why: &str) -> Self {
        let options = option
            .spellings
            .iter()
            .map(|word| format!("{{arg:{word}}}"));
        let places: Vec<String> = options.chain([path.to_owned()]).collect();
        let why = format!("{why}; {}", comment(&option.why));
        Self::config(&one_or_list(&places), Source::Guessed, &why)
    }

    /// The directory in which the command line of another user may name a config.
    fn under(path: &Path) -> Option<Self> {
        let dir = path.parent()?.to_str()?;
        Some(Self {
            name: "config_under",
            value: quoted(dir),
            source: Source::Guessed,
            why: "the directory of its config".to_owned(),
            is_written: true,
        })
    }

    fn base() -> Self {
        Self {
            name: "base",
            value: quoted("{cwd}"),
            source: Source::Guessed,
            why: "the path is relative, and it exists below its working directory".to_owned(),
            is_written: true,
        }
    }
}

/// Returns why the survey of a run would not find exactly `path` by these keys; none if it would.
async fn refusal(
    program: &Program<'_>,
    selection: &Selection,
    keys: &[Key],
    path: &Path,
) -> Option<String> {
    let lines = keys
        .iter()
        .map(|key| format!("{} = {}", key.name, key.value));
    let lines: Vec<String> = lines.collect();
    let group = match selection.group(&lines.join("\n")) {
        Ok(group) => group,
        Err(why) => return Some(why.to_string()),
    };
    match configs_of(program.found, &group, &ConfigPaths::default()).await {
        Err(why) => Some(why.reported().why),
        Ok(configs) => {
            let found: Vec<String> = configs
                .iter()
                .map(|config| config.path.display().to_string())
                .collect();
            let is_it = path
                .canonicalize()
                .is_ok_and(|path| matches!(configs.as_slice(), [config] if config.path == path));
            (!is_it).then(|| format!("it would be {}", names::list(found, ", ", MAX_CANDIDATES)))
        }
    }
}
