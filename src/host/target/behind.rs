//! Content that is read through a target and is not part of it: files behind links that lead out of
//! a directory, files that a directive includes, and files that its text names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    assertion::{expanded, values},
    config::{MAX_TARGET, digest},
    host::{
        exec,
        target::{
            changed::changed_ns,
            mentions::{MAX_READERS, OpenMode, OpenedFiles, is_program_or_volatile, mentions},
        },
    },
};

/// The most files and directories that are followed: as many as a target may have entries. If there
/// are more, nothing is known of them.
const MAX_FOLLOWED: usize = crate::tree::MAX_ENTRIES;

/// The letters that make a path a pattern.
const PATTERN: [char; 3] = ['*', '?', '['];

/// The content of a path that does not exist, in a digest.
const MISSING: &str = "missing";

/// Returns the digest of everything that is read through the target at `path`. It is empty if that
/// is nothing, and none if there is too much. Files that the text of the target names count only if
/// there are `readers`: processes that cannot report which config they run.
pub(crate) fn behind<'a>(
    path: &Path,
    includes: impl IntoIterator<Item = &'a String>,
    readers: &[i32],
) -> Option<String> {
    Some(Walk::over(path, includes, readers, OpenMode::Any)?.digest())
}

/// The content that a target's links and directives lead to.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// The digest of that content; empty if there is none.
    pub(crate) digest: String,
    /// Every file and directory that was followed, resolved.
    pub(crate) paths: BTreeSet<PathBuf>,
    /// The directories in which a new entry may be followed next time.
    pub(crate) folders: BTreeSet<PathBuf>,
}

/// Returns the content that the links of the target at `path`, and these directives in it, lead to.
/// Files that its text only names do not count. None if there is too much.
pub(crate) fn followed(path: &Path, includes: &[String]) -> Option<Followed> {
    let walk = Walk::over(path, includes, &[], OpenMode::Any)?;
    Some(Followed {
        digest: walk.digest(),
        paths: walk.seen,
        folders: walk.folders,
    })
}

/// Returns the last change of the target at `path` and of everything that is read through it, with
/// the links and directories on the path, in nanoseconds since 1970. It is none if there is too
/// much.
pub(crate) fn newest<'a>(
    path: &Path,
    includes: impl IntoIterator<Item = &'a String>,
    readers: &[i32],
) -> Option<i128> {
    let mut walk = Walk::over(path, includes, readers, OpenMode::Appends)?;
    walk.add_change(path);
    Some(walk.newest)
}

/// The content that is read through one target.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    /// The directives of the groups that read it.
    includes: BTreeSet<String>,
    /// The processes that read it and cannot report which config they run.
    readers: Vec<i32>,
    /// The digest when it was last read: at the survey, and again before a signal.
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
        follow.update(path);
        follow
    }

    /// Reads the content again.
    pub(crate) fn update(&mut self, path: &Path) {
        self.behind = behind(path, &self.includes, &self.readers);
    }
}

/// A walk over everything that is read through a target. Each step returns none if there is too
/// much.
struct Walk<'a> {
    top: &'a Path,
    /// The directives, in lower case.
    includes: Vec<String>,
    /// Files that the readers write; none if files that a text names are not followed.
    written: Option<OpenedFiles>,
    /// Directories that a relative path may start at, besides that of the file that names it.
    bases: Vec<PathBuf>,
    /// Environment variables of a reader, which a text may name.
    variables: Vec<(String, String)>,
    /// True if the path that is followed now was only named by a text, not by a directive or link.
    is_named: bool,
    seen: BTreeSet<PathBuf>,
    /// The directories of the paths that directives name.
    folders: BTreeSet<PathBuf>,
    /// The files outside the target by resolved path, each with a digest.
    found: BTreeMap<PathBuf, String>,
    /// The bytes that were read until now.
    bytes: u64,
    /// The last change of anything that was followed.
    newest: i128,
}

impl<'a> Walk<'a> {
    fn over<'i>(
        top: &'a Path,
        includes: impl IntoIterator<Item = &'i String>,
        readers: &[i32],
        mode: OpenMode,
    ) -> Option<Self> {
        let includes: Vec<String> = includes
            .into_iter()
            .map(|name| name.to_ascii_lowercase())
            .collect();
        let written = (!readers.is_empty()).then(|| OpenedFiles::of(readers, mode));
        let follows = !includes.is_empty() || written.is_some();
        let variables = readers
            .first()
            .map(|pid| exec::variables(*pid))
            .unwrap_or_default();
        let mut walk = Self {
            top,
            includes,
            written,
            bases: bases(top, readers),
            variables,
            is_named: false,
            seen: BTreeSet::new(),
            folders: BTreeSet::new(),
            found: BTreeMap::new(),
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

    /// Returns the digest of everything that was found; empty if that is nothing.
    fn digest(&self) -> String {
        if self.found.is_empty() {
            return String::new();
        }
        let line =
            |(path, content): (&PathBuf, &String)| format!("{}\0{content}\n", path.display());
        digest(self.found.iter().map(line).collect::<String>().as_bytes())
    }

    /// Adds the last change of the entry at `path`; a link is not followed.
    fn add_change(&mut self, path: &Path) {
        if let Ok(meta) = path.symlink_metadata() {
            self.newest = self.newest.max(changed_ns(&meta));
        }
    }

    /// Follows a path that a link, a directive or a directory names.
    fn entry(&mut self, named: &Path) -> Option<()> {
        self.add_change(named);
        let path = match named.canonicalize() {
            Ok(path) => path,
            Err(e) if is_missing(&e) => {
                self.found.insert(named.to_owned(), MISSING.into());
                return Some(());
            }
            // Two contents that cannot be read are not known to be equal.
            Err(_) => return None,
        };
        match path.metadata() {
            Ok(meta) if meta.is_dir() => self.directory(&path),
            Ok(meta) if meta.is_file() => self.file(&path),
            // The content of a device or a stream is not stable.
            _ => Some(()),
        }
    }

    fn directory(&mut self, path: &Path) -> Option<()> {
        if !self.is_new(path)? {
            return Some(());
        }
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(e) if is_missing(&e) => return Some(()),
            Err(_) => return None,
        };
        let names = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut names: Vec<PathBuf> = names.collect::<io::Result<_>>().ok()?;
        names.sort();
        names.iter().try_for_each(|name| self.entry(name))
    }

    fn file(&mut self, path: &Path) -> Option<()> {
        if !self.is_new(path)? {
            return Some(());
        }
        let is_own = path.starts_with(self.top);
        if is_own && self.includes.is_empty() && self.written.is_none() {
            return Some(());
        }
        let Some(bytes) = self.read(path) else {
            self.found.insert(path.to_owned(), identity(path));
            return Some(());
        };
        if !is_own {
            // A program may rewrite a file that its text only names at each reload, such as its pid
            // file. So the time of such a file does not count.
            let time = if self.is_named {
                String::new()
            } else {
                changed(path)
            };
            let content = format!("{} {time}", digest(&bytes));
            self.found.insert(path.to_owned(), content);
        }
        let text = expanded(&String::from_utf8_lossy(&bytes), &self.variables);
        let dirs = self.dirs(path);
        values(&text, &self.includes)
            .iter()
            .try_for_each(|value| self.included(&dirs, value))?;
        if self.written.is_none() || bytes.contains(&0) {
            return Some(());
        }
        // A bare word names a file only next to the config; elsewhere it is a user or a group.
        let near_config = [self.top.parent(), Some(self.top), path.parent()];
        let is_near = |dir: &&PathBuf| near_config.contains(&Some(dir.as_path()));
        let near: Vec<PathBuf> = dirs.iter().filter(is_near).cloned().collect();
        mentions(&text)?.into_iter().try_for_each(|word| {
            let is_bare = !word.contains(['/', '.', '*']);
            self.mentioned(if is_bare { &near } else { &dirs }, word)
        })
    }

    /// Follows a word of a text that may name files below `dirs`. Only a file that exists counts,
    /// and none that a process writes.
    fn mentioned(&mut self, dirs: &[PathBuf], word: &str) -> Option<()> {
        for dir in dirs {
            let named = dir.join(word);
            let paths = if word.contains('*') {
                // A word of a text need not name a file at all.
                globbed(&named).into_iter().flatten().collect()
            } else {
                vec![named]
            };
            for (named, path) in paths
                .iter()
                .filter_map(|path| Some((path, path.canonicalize().ok()?)))
            {
                let is_written = |written: &OpenedFiles| written.contains(&path);
                if !path.is_file()
                    || is_program_or_volatile(&path)
                    || self.written.as_ref().is_some_and(is_written)
                {
                    continue;
                }
                self.add_change(named);
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

    /// Reads a file; none if it is unreadable, or more than a target may have in total.
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

    /// Follows the value of a directive: a path or a glob, below one of `dirs`.
    fn included(&mut self, dirs: &[PathBuf], value: &str) -> Option<()> {
        let mut named: Vec<PathBuf> = dirs.iter().map(|dir| dir.join(value)).collect();
        named.sort();
        named.dedup();
        let mut exists = false;
        for path in &named {
            // The removal of a file changes its directory.
            if let Some(dir) = path.parent() {
                self.add_change(dir);
                self.folders.insert(dir.to_owned());
            }
            for path in globbed(path) {
                exists = true;
                // A directory that cannot be read may hold any number of includes.
                self.entry(&path.ok()?)?;
            }
        }
        if !exists && !value.contains(PATTERN) {
            self.found.insert(named.pop()?, MISSING.into());
        }
        Some(())
    }

    /// Returns the directories that a relative path in `file` may start at.
    fn dirs(&self, file: &Path) -> Vec<PathBuf> {
        let mut dirs = self.bases.clone();
        let own = file.parent().map(Path::to_owned);
        dirs.extend(own.filter(|own| !self.bases.contains(own)));
        dirs
    }

    /// Tells whether a path was not followed yet, and remembers it.
    fn is_new(&mut self, path: &Path) -> Option<bool> {
        let is_new = self.seen.insert(path.to_owned());
        self.add_change(path);
        (self.seen.len() <= MAX_FOLLOWED).then_some(is_new)
    }
}

/// Returns the directories that a relative path in a target may start at: the target, its directory
/// and the working directories of its readers. With readers it is also the directory above, which
/// holds the main config (that of `nginx.conf` for a file in `sites-enabled`).
fn bases(top: &Path, readers: &[i32]) -> Vec<PathBuf> {
    let above = top
        .ancestors()
        .skip(1)
        .take(if readers.is_empty() { 1 } else { 2 });
    let cwd = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).ok();
    // `/` is the working directory of a daemon that has no own one (daemon(3)).
    let cwds = readers
        .iter()
        .take(MAX_READERS)
        .filter_map(cwd)
        .filter(|cwd| cwd != Path::new("/"));
    let mut bases = Vec::new();
    for dir in above
        .filter(|dir| *dir != Path::new("/"))
        .chain([top])
        .map(Path::to_owned)
        .chain(cwds)
    {
        if !bases.contains(&dir) {
            bases.push(dir);
        }
    }
    bases
}

/// Tells whether the error means that nothing is there. A loop of links leads nowhere too.
fn is_missing(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) || e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// Describes a file that may not be read, or is too large, by its inode, size and last change.
fn identity(path: &Path) -> String {
    path.metadata().map_or_else(
        |_| MISSING.into(),
        |m| {
            format!(
                "{} {} {} {} {}",
                m.dev(),
                m.ino(),
                m.size(),
                m.ctime(),
                m.ctime_nsec()
            )
        },
    )
}

/// Returns the time of the last change as text. It differs if a file was changed and then got its
/// old content again.
fn changed(path: &Path) -> String {
    path.metadata().map_or_else(
        |_| MISSING.into(),
        |meta| format!("{} {}", meta.ctime(), meta.ctime_nsec()),
    )
}

/// Returns the paths that match a pattern, and an error for each directory that cannot be read. A
/// path without a pattern matches if it exists.
fn globbed(pattern: &Path) -> Vec<io::Result<PathBuf>> {
    let text = pattern.to_str().unwrap_or_default();
    if !text.contains(PATTERN) {
        return match pattern.symlink_metadata() {
            Ok(_) => vec![Ok(pattern.to_owned())],
            Err(e) if is_missing(&e) => Vec::new(),
            Err(e) => vec![Err(e)],
        };
    }
    let found = glob::glob(text).into_iter().flatten();
    found
        .take(MAX_FOLLOWED + 1)
        .map(|path| path.map_err(io::Error::from))
        .collect()
}

#[cfg(test)]
mod tests;
