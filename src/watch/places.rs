//! The places where a change of a path is seen: every directory on the way to it, by the names that
//! count there, and the files at the ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs,
    path::{Component, Path, PathBuf},
};

use crate::{
    host::target::behind::followed,
    tree::{MAX_DEPTH, MAX_ENTRIES},
};

/// The most links on one path. The kernel has the same limit (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// The names in a directory that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Names {
    /// Only these.
    Some(BTreeSet<OsString>),
    /// Every name.
    All,
}

impl Names {
    pub(super) fn has(&self, name: &OsStr) -> bool {
        match self {
            Self::Some(names) => names.contains(name),
            Self::All => true,
        }
    }
}

/// Where the changes of some paths are seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Directories, resolved.
    pub(super) directories: BTreeMap<PathBuf, Names>,
    /// Files. A file that is mounted alone has no event in the directory above it.
    pub(super) files: BTreeSet<PathBuf>,
}

impl Places {
    /// Adds every place on the way to `named`, and on the ways to what it includes.
    pub(super) fn add(&mut self, named: &Path, includes: &[String]) {
        let Some(end) = self.walk(named) else {
            return;
        };
        if end.is_dir() {
            self.add_tree(&end, MAX_DEPTH);
        } else {
            self.files.insert(end.clone());
        }
        let Some(followed) = followed(&end, includes) else {
            return;
        };
        for path in followed.paths.iter().filter(|path| !path.starts_with(&end)) {
            if self.walk(path).is_some_and(|end| end.is_dir()) {
                self.directories.insert(path.clone(), Names::All);
            }
        }
        for folder in &followed.folders {
            // A glob in a directory part names no directory.
            if let Some(folder) = self.walk(folder).filter(|end| end.is_dir()) {
                self.directories.insert(folder, Names::All);
            }
        }
    }

    /// Walks a path part by part. Returns its end, resolved; none where it does not exist.
    fn walk(&mut self, named: &Path) -> Option<PathBuf> {
        let mut pending = parts(named);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = pending.pop() {
            match Path::new(&part).components().next() {
                Some(Component::RootDir) => at = PathBuf::from("/"),
                Some(Component::ParentDir) => drop(at.pop()),
                Some(Component::Normal(name)) => {
                    self.add_name(&at, name);
                    let next = at.join(name);
                    match fs::read_link(&next) {
                        Ok(to) if links < MAX_LINKS => {
                            links += 1;
                            pending.extend(parts(&to));
                        }
                        Ok(_) => return None,
                        Err(_) => {
                            next.symlink_metadata().ok()?;
                            at = next;
                        }
                    }
                }
                _ => {}
            }
        }
        Some(at)
    }

    fn add_name(&mut self, directory: &Path, name: &OsStr) {
        let names = self
            .directories
            .entry(directory.to_owned())
            .or_insert_with(|| Names::Some(BTreeSet::new()));
        if let Names::Some(names) = names {
            names.insert(name.to_owned());
        }
    }

    /// Adds a directory with everything in it. Links are not followed.
    fn add_tree(&mut self, directory: &Path, depth: usize) {
        self.directories.insert(directory.to_owned(), Names::All);
        if depth == 0 || self.directories.len() > MAX_ENTRIES {
            return;
        }
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            self.add_tree(&entry.path(), depth - 1);
        }
    }
}

/// Returns the parts of a path as a stack: the first part is on top.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::os::unix::fs::symlink;

    use super::*;

    fn names<'a>(places: &'a Places, directory: &Path) -> Option<Vec<&'a str>> {
        match places.directories.get(directory)? {
            Names::All => Some(vec!["*"]),
            Names::Some(names) => Some(names.iter().map(|name| name.to_str().unwrap()).collect()),
        }
    }

    fn of(path: &Path) -> Places {
        let mut places = Places::default();
        places.add(path, &["include".to_owned()]);
        places
    }

    #[test]
    fn each_link_on_the_way_is_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir(base.join("..1")).unwrap();
        fs::write(base.join("..1/x"), "one").unwrap();
        symlink("..1", base.join("..data")).unwrap();
        symlink("..data/x", base.join("x")).unwrap();
        let places = of(&base.join("x"));
        assert_eq!(names(&places, &base), Some(vec!["..1", "..data", "x"]));
        assert_eq!(names(&places, &base.join("..1")), Some(vec!["x"]));
        assert!(places.files.contains(&base.join("..1/x")));
    }

    #[test]
    fn a_missing_part_is_a_name_in_the_last_directory_that_exists() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let places = of(&base.join("a/b/c"));
        assert_eq!(names(&places, &base), Some(vec!["a"]));
        assert!(places.files.is_empty());
    }

    #[test]
    fn a_loop_of_links_ends() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        symlink("b", base.join("a")).unwrap();
        symlink("a", base.join("b")).unwrap();
        assert_eq!(names(&of(&base.join("a")), &base), Some(vec!["a", "b"]));
    }

    #[test]
    fn every_name_counts_in_a_directory_and_below_it() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("conf/sub")).unwrap();
        let places = of(&base.join("conf"));
        assert_eq!(names(&places, &base), Some(vec!["conf"]));
        assert_eq!(names(&places, &base.join("conf")), Some(vec!["*"]));
        assert_eq!(names(&places, &base.join("conf/sub")), Some(vec!["*"]));
    }

    #[test]
    fn a_directory_that_a_directive_names_is_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir(base.join("conf.d")).unwrap();
        fs::write(base.join("main"), "include conf.d/*.conf;\n").unwrap();
        let places = of(&base.join("main"));
        assert_eq!(names(&places, &base.join("conf.d")), Some(vec!["*"]));
    }
}
