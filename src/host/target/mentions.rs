//! The words of a config that name files, and the files that a process itself writes.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::File,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use crate::kernel::descriptors;

/// The most distinct words of one text that are examined. Each costs up to three system calls,
/// about 5 us.
const MAX_WORDS: usize = 20_000;

/// The most distinct words without a sign of a path that are examined. If there are more, none of
/// them is.
const MAX_BARE: usize = 2_000;

/// The most readers of one target whose descriptors are examined. Instances of one config write the
/// same logs, so more would add nothing.
pub(crate) const MAX_READERS: usize = 4;

/// Directories with files that change without an edit.
const VOLATILE: &[&str] = &["/proc", "/sys", "/dev", "/run", "/var/run"];

/// Returns the words of `text` that may name a file or, with a `*`, several; none if there are too
/// many. Lines that begin with `#` are comments.
pub(crate) fn mentions(text: &str) -> Option<BTreeSet<&str>> {
    let lines = || {
        text.lines()
            .filter(|line| !line.trim_start().starts_with('#'))
    };
    let words = lines().flat_map(|line| {
        line.split(|c: char| c.is_whitespace() || "'\"\\`;,{}[]()<>=|".contains(c))
    });
    // `file:/a/b` and `crt:/a` name what follows.
    let words = words.flat_map(|word| {
        std::iter::once(word).chain(word.split(':').skip(1).filter(|part| part.starts_with('/')))
    });
    let mut found = BTreeSet::new();
    for word in words.filter(|word| looks_like_path(word)) {
        found.insert(word);
        if found.len() > MAX_WORDS {
            return None;
        }
    }
    let bare: BTreeSet<&str> = lines()
        .flat_map(|line| line.split(|c: char| !is_name_letter(c)))
        // `@admins` names a file next to pg_hba.conf.
        .map(|word| word.trim_start_matches('@'))
        .filter(|word| word.starts_with(char::is_alphabetic) && !found.contains(word))
        .take(MAX_WORDS)
        .collect();
    if bare.len() <= MAX_BARE {
        found.extend(bare);
    }
    Some(found)
}

/// Tells whether a letter is common in file names, and has no other meaning in a config.
fn is_name_letter(letter: char) -> bool {
    letter.is_alphanumeric() || "-_+@".contains(letter)
}

/// Tells whether a word looks like a path. A pattern must not start at the root directory, or match
/// directories of any depth.
fn looks_like_path(word: &str) -> bool {
    let is_pattern = word.contains('*');
    let is_wide = || {
        word.contains("**")
            || word.trim_start_matches('/').starts_with('*') && word.starts_with('/')
    };
    word.contains(['/', '.', '*'])
        && word.chars().any(char::is_alphanumeric)
        && !(is_pattern && is_wide())
}

/// Tells whether the file is an executable, or in a directory whose files change without an edit.
pub(crate) fn is_program_or_volatile(path: &Path) -> bool {
    let mut head = [0; 4];
    let mut is_elf = || {
        File::open(path)
            .and_then(|mut file| file.read_exact(&mut head))
            .is_ok()
            && head == *b"\x7fELF"
    };
    VOLATILE.iter().any(|dir| path.starts_with(dir)) || is_elf()
}

/// How a file must be open for writing to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenMode {
    Any,
    /// Open for appending only: a log, and not an input that is open for its lock.
    Appends,
}

/// `O_APPEND` of open(2), as proc_pid_fdinfo(5) shows it.
const APPEND: u32 = 0o2000;

/// Files that processes have open for writing, such as logs, by device and inode.
#[derive(Debug)]
pub(crate) struct OpenedFiles(BTreeSet<(u64, u64)>);

impl OpenedFiles {
    /// Returns the files that the first few of these processes have open in this mode.
    pub(crate) fn of(pids: &[i32], mode: OpenMode) -> Self {
        let pids = pids.iter().take(MAX_READERS);
        Self(pids.flat_map(|pid| opened_by(*pid, mode)).collect())
    }

    /// Tells whether the file at `path` is one of them.
    pub(crate) fn contains(&self, path: &Path) -> bool {
        path.metadata()
            .is_ok_and(|meta| self.0.contains(&(meta.dev(), meta.ino())))
    }
}

/// Returns the files that a process has open in this mode, as far as they can be seen.
fn opened_by(pid: i32, mode: OpenMode) -> Vec<(u64, u64)> {
    let mut fds: Vec<PathBuf> = Vec::new();
    let _ = descriptors(pid, |fd, target| {
        if target.is_ok_and(|target| target.starts_with(b"/")) {
            fds.push(OsStr::from_bytes(fd.to_bytes()).into());
        }
    });
    let proc = Path::new("/proc").join(pid.to_string());
    fds.iter()
        .filter(|fd| {
            std::fs::read_to_string(proc.join("fdinfo").join(fd))
                .is_ok_and(|info| writes(&info, mode))
        })
        .filter_map(|fd| proc.join("fd").join(fd).metadata().ok())
        .map(|meta| (meta.dev(), meta.ino()))
        .collect()
}

/// Tells whether the octal `flags` of a `/proc/PID/fdinfo` file are those of a descriptor that is
/// open for writing in this mode.
fn writes(info: &str, mode: OpenMode) -> bool {
    let flags = info
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & 0o3 != 0 && (mode == OpenMode::Any || flags & APPEND != 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn words_that_may_name_files_are_found_in_every_grammar() {
        let words = |text: &str| {
            mentions(text)
                .unwrap()
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let paths = |text: &str| {
            words(text)
                .into_iter()
                .filter(|word| looks_like_path(word))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            words("include users; # no\n# no\n 12 \"a-b\""),
            ["a-b", "include", "no", "users"]
        );
        assert_eq!(
            paths("http-request deny if { src -f /a/b.lst } map(/m,0)"),
            ["/a/b.lst", "/m"]
        );
        assert_eq!(
            paths("files: [\n  'r/*.yml',\n  s.yml ]\n# /no"),
            ["r/*.yml", "s.yml"]
        );
        assert_eq!(
            paths("key file:/a/b; x = \"conf.d\""),
            ["/a/b", "conf.d", "file:/a/b"]
        );
        assert!(paths("location /*.php { } a/**/b . / * word 12").is_empty());
    }

    #[test]
    fn a_descriptor_writes_by_its_flags() {
        assert!(writes("pos:\t0\nflags:\t0102001\n", OpenMode::Any));
        assert!(writes("flags:\t02\n", OpenMode::Any));
        assert!(!writes("pos:\t0\nflags:\t0100000\n", OpenMode::Any));
        assert!(!writes("", OpenMode::Any));
        assert!(writes("flags:\t0102001\n", OpenMode::Appends));
        assert!(!writes("flags:\t02\n", OpenMode::Appends));
    }
}
