//! Content that is read through a target and is none of it: behind links that lead out of a
//! directory, behind directives that include more files, and in files that its text names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    config::{MAX_TARGET, digest},
    host::{
        exec,
        target::mentions::{OpenMode, READERS, Written, is_of_programs, mentions},
    },
};

/// Most files and directories that are followed, as many as a target may have entries. Of more
/// nothing is known.
const MAX_FOLLOWED: usize = crate::tree::MAX_ENTRIES;

/// Stands for the content of a path where nothing is.
const MISSING: &str = "missing";

/// The digest of everything that is read through the target at `path`; empty where that is nothing,
/// and none where it is too much to be known. Files that the text of the target names count only
/// where there are `readers`: processes that cannot tell themselves what they run.
pub(crate) fn behind<'a>(
    path: &Path,
    includes: impl IntoIterator<Item = &'a String>,
    readers: &[i32],
) -> Option<String> {
    let walk = Walk::over(path, includes, readers, OpenMode::Any)?;
    let all: Vec<String> = walk
        .found
        .iter()
        .map(|(path, content)| format!("{}\0{content}\n", path.display()))
        .collect();
    Some(if all.is_empty() {
        String::new()
    } else {
        digest(all.concat().as_bytes())
    })
}

/// The last change, in nanoseconds since 1970, of the target at `path` and of everything that is
/// read through it, with the links and directories that lead there; none where it is too much to be
/// known.
pub(crate) fn newest<'a>(
    path: &Path,
    includes: impl IntoIterator<Item = &'a String>,
    readers: &[i32],
) -> Option<i128> {
    let mut walk = Walk::over(path, includes, readers, OpenMode::Appends)?;
    walk.dated(path);
    Some(walk.newest)
}

/// What is read through one target.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    /// The directives of the groups that read it.
    includes: BTreeSet<String>,
    /// The processes that read it and cannot tell what they run.
    readers: Vec<i32>,
    /// As it was last looked at: at the survey, and again before a signal.
    pub(crate) behind: Option<String>,
}

impl Follow {
    pub(crate) fn of<'a>(
        path: &Path,
        includes: impl Iterator<Item = &'a String>,
        readers: Vec<i32>,
    ) -> Self {
        let mut follow = Self {
            includes: includes.cloned().collect(),
            readers,
            behind: None,
        };
        follow.look(path);
        follow
    }

    pub(crate) fn look(&mut self, path: &Path) {
        self.behind = behind(path, &self.includes, &self.readers);
    }
}

/// What was followed so far. Each step answers none where there is too much.
struct Walk<'a> {
    top: &'a Path,
    /// In small letters.
    includes: Vec<String>,
    /// Files that the readers write; none where files that a text names are not followed.
    written: Option<Written>,
    /// Directories below which relative paths may begin, besides that of the file that names them.
    bases: Vec<PathBuf>,
    /// Variables that a text may name, of a reader.
    variables: Vec<(String, String)>,
    /// Whether what is followed now was only named by a text, and by no directive or link.
    is_named: bool,
    seen: BTreeSet<PathBuf>,
    /// What does not belong to the target, by its resolved path, with a digest.
    found: BTreeMap<PathBuf, String>,
    bytes: u64,
    /// The last change of anything that was followed.
    newest: i128,
}

impl<'a> Walk<'a> {
    fn over<'i>(
        top: &'a Path,
        includes: impl IntoIterator<Item = &'i String>,
        readers: &[i32],
        how: OpenMode,
    ) -> Option<Self> {
        let includes: Vec<String> = includes
            .into_iter()
            .map(|name| name.to_ascii_lowercase())
            .collect();
        let written = (!readers.is_empty()).then(|| Written::by(readers, how));
        let follows = !includes.is_empty() || written.is_some();
        let (seen, found) = (BTreeSet::new(), BTreeMap::new());
        let variables = readers
            .first()
            .map(|pid| exec::variables(*pid))
            .unwrap_or_default();
        let bases = bases(top, readers);
        let mut walk = Self {
            top,
            includes,
            written,
            bases,
            variables,
            is_named: false,
            seen,
            found,
            bytes: 0,
            newest: i128::MIN,
        };
        if top.is_dir() {
            walk.directory(top)?;
        } else if follows {
            walk.file(top)?;
        }
        Some(walk)
    }

    /// Takes down the last change of what stands at `path` itself.
    fn dated(&mut self, path: &Path) {
        if let Ok(meta) = path.symlink_metadata() {
            self.newest = self
                .newest
                .max(i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec()));
        }
    }

    /// A path that a link, a directive or a directory names.
    fn entry(&mut self, named: &Path) -> Option<()> {
        self.dated(named);
        let Ok(path) = named.canonicalize() else {
            self.found.insert(named.to_owned(), MISSING.into());
            return Some(());
        };
        match path.metadata() {
            Ok(meta) if meta.is_dir() => self.directory(&path),
            Ok(meta) if meta.is_file() => self.file(&path),
            // A device or a stream has no content that stays.
            _ => Some(()),
        }
    }

    fn directory(&mut self, path: &Path) -> Option<()> {
        if !self.takes(path)? {
            return Some(());
        }
        let Ok(entries) = fs::read_dir(path) else {
            return Some(());
        };
        let mut names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        names.sort();
        names.iter().try_for_each(|name| self.entry(name))
    }

    fn file(&mut self, path: &Path) -> Option<()> {
        if !self.takes(path)? {
            return Some(());
        }
        let is_own = path.starts_with(self.top);
        if is_own && self.includes.is_empty() && self.written.is_none() {
            return Some(());
        }
        let Some(bytes) = self.read(path) else {
            // One that may not be read, or is too large, is told by what it is.
            let identity = path.metadata().map(|m| {
                format!(
                    "{} {} {} {} {}",
                    m.dev(),
                    m.ino(),
                    m.size(),
                    m.ctime(),
                    m.ctime_nsec()
                )
            });
            self.found
                .insert(path.to_owned(), identity.unwrap_or_else(|_| MISSING.into()));
            return Some(());
        };
        if !is_own {
            // A program may write a file that its text only names anew at each reload, such as its
            // pid file.
            let when = if self.is_named {
                String::new()
            } else {
                changed(path)
            };
            self.found
                .insert(path.to_owned(), format!("{} {when}", digest(&bytes)));
        }
        let text = expanded(&String::from_utf8_lossy(&bytes), &self.variables);
        let dirs = self.dirs(path);
        values(&text, &self.includes)
            .iter()
            .try_for_each(|value| self.included(&dirs, value))?;
        if self.written.is_none() || bytes.contains(&0) {
            return Some(());
        }
        // A bare word names a file only beside the config: anywhere else it is a user or a group.
        let beside = [self.top.parent(), Some(self.top), path.parent()];
        let is_near = |dir: &&PathBuf| beside.contains(&Some(dir.as_path()));
        let near: Vec<PathBuf> = dirs.iter().filter(is_near).cloned().collect();
        mentions(&text)?.into_iter().try_for_each(|word| {
            let is_bare = !word.contains(['/', '.', '*']);
            self.mentioned(if is_bare { &near } else { &dirs }, word)
        })
    }

    /// A word of a text that may name files below `dirs`. Only a file that is there counts, and
    /// none that a process writes.
    fn mentioned(&mut self, dirs: &[PathBuf], word: &str) -> Option<()> {
        for dir in dirs {
            let named = dir.join(word);
            let all = if word.contains('*') {
                globbed(&named)
            } else {
                vec![named]
            };
            for (named, path) in all
                .iter()
                .filter_map(|path| Some((path, path.canonicalize().ok()?)))
            {
                let is_written = |written: &Written| written.has(&path);
                if !path.is_file()
                    || is_of_programs(&path)
                    || self.written.as_ref().is_some_and(is_written)
                {
                    continue;
                }
                self.dated(named);
                let before = std::mem::replace(&mut self.is_named, true);
                let followed = self.file(&path);
                self.is_named = before;
                followed?;
            }
            if word.starts_with('/') {
                break;
            }
        }
        Some(())
    }

    /// The content of a file, within what a target may have in all.
    fn read(&mut self, path: &Path) -> Option<Vec<u8>> {
        let left = MAX_TARGET.saturating_sub(self.bytes);
        let mut bytes = Vec::new();
        let file = File::open(path).ok()?;
        if file.metadata().ok()?.len() > left {
            return None;
        }
        file.take(left).read_to_end(&mut bytes).ok()?;
        self.bytes += bytes.len() as u64;
        Some(bytes)
    }

    /// What a directive names: a path or a glob, below one of `dirs`.
    fn included(&mut self, dirs: &[PathBuf], value: &str) -> Option<()> {
        let mut named: Vec<PathBuf> = dirs.iter().map(|dir| dir.join(value)).collect();
        named.sort();
        named.dedup();
        let mut is_there = false;
        for path in &named {
            // A file that went away shows in its directory.
            path.parent().into_iter().for_each(|dir| self.dated(dir));
            for path in globbed(path) {
                is_there = true;
                self.entry(&path)?;
            }
        }
        if !is_there && !value.contains(['*', '?', '[']) {
            self.found.insert(named.pop()?, MISSING.into());
        }
        Some(())
    }

    /// The directories below which a relative path in the file `by` may begin.
    fn dirs(&self, by: &Path) -> Vec<PathBuf> {
        let mut all = self.bases.clone();
        let own = by.parent().map(Path::to_owned);
        all.extend(own.filter(|own| !self.bases.contains(own)));
        all
    }

    /// Whether a path was not followed yet.
    fn takes(&mut self, path: &Path) -> Option<bool> {
        let is_new = self.seen.insert(path.to_owned());
        self.dated(path);
        (self.seen.len() <= MAX_FOLLOWED).then_some(is_new)
    }
}

/// Where relative paths in a target may begin: in it, beside it, in the directory that holds both
/// that and the main config (`sites-enabled` below that of `nginx.conf`), and in the working
/// directories of its readers.
fn bases(top: &Path, readers: &[i32]) -> Vec<PathBuf> {
    let above = top
        .ancestors()
        .skip(1)
        .take(if readers.is_empty() { 1 } else { 2 });
    let cwd = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).ok();
    // The root directory is where daemons stand that begin nowhere.
    let cwds = readers
        .iter()
        .take(READERS)
        .filter_map(cwd)
        .filter(|cwd| cwd != Path::new("/"));
    let mut all = Vec::new();
    for dir in above
        .filter(|dir| *dir != Path::new("/"))
        .chain([top])
        .map(Path::to_owned)
        .chain(cwds)
    {
        if !all.contains(&dir) {
            all.push(dir);
        }
    }
    all
}

/// When a file was last changed, which tells of a content that was there and is back.
fn changed(path: &Path) -> String {
    path.metadata().map_or_else(
        |_| MISSING.into(),
        |meta| format!("{} {}", meta.ctime(), meta.ctime_nsec()),
    )
}

/// `text` with each `${NAME}` replaced by the variable of that name, where there is one.
fn expanded(text: &str, variables: &[(String, String)]) -> String {
    if !text.contains("${") {
        return text.to_owned();
    }
    variables
        .iter()
        .fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("${{{name}}}"), value)
        })
}

/// The paths that a pattern names, or the path itself where it is none and something is there.
fn globbed(pattern: &Path) -> Vec<PathBuf> {
    let found = pattern.to_str().and_then(|text| glob::glob(text).ok());
    found
        .into_iter()
        .flatten()
        .flatten()
        .take(MAX_FOLLOWED + 1)
        .collect()
}

/// The values of these directives in a text, whose lines may begin with `#` as a comment.
fn values(text: &str, directives: &[String]) -> Vec<String> {
    let mut values = Vec::new();
    if directives.is_empty() {
        return values;
    }
    let mut in_list = false;
    for line in text.lines() {
        let plain = line.trim_start();
        if plain.starts_with('#') || plain.is_empty() {
            continue;
        }
        if let Some(item) = plain.strip_prefix("- ").filter(|_| in_list) {
            values.extend(words(item));
            continue;
        }
        in_list = false;
        let lower = plain.to_ascii_lowercase();
        for directive in directives {
            for (at, _) in lower.match_indices(directive.as_str()) {
                let rest = &plain[at + directive.len()..];
                let begins = plain[..at]
                    .chars()
                    .next_back()
                    .is_none_or(|c| c.is_whitespace() || "{;[".contains(c));
                let ends = rest.starts_with(|c: char| c.is_whitespace() || "=:'\"".contains(c));
                if !begins || !ends {
                    continue;
                }
                let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || "=:".contains(c));
                in_list |= rest.is_empty();
                values.extend(words(rest));
            }
        }
    }
    values
}

/// The paths in what follows a directive: the first word, and each further one that looks like a
/// path.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches('[');
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        let quote = rest.chars().next().filter(|c| "'\"".contains(*c));
        let (word, behind) = match quote {
            Some(quote) => rest[1..].split_once(quote).unwrap_or((&rest[1..], "")),
            None => {
                let end = rest
                    .find(|c: char| c.is_whitespace() || ";,{}]#".contains(c))
                    .unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        if word.is_empty() {
            return words;
        }
        if words.is_empty() || word.contains(['/', '.', '*']) {
            words.push(word.to_owned());
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests;
