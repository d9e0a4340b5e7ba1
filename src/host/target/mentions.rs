//! Words of a config that name files, and the files that a process itself writes.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::File,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use crate::host::proc::kernel::descriptors;

/// Most distinct words of one text that are looked at: each costs up to three looks at the disk,
/// about 5 us.
const MAX_WORDS: usize = 20_000;

/// Most distinct words without any mark of a path that are looked at; of more, none is.
const MAX_BARE: usize = 2_000;

/// The readers of one target whose descriptors are looked at: instances of one config write the
/// same logs.
pub(crate) const READERS: usize = 4;

/// Places with files that change by themselves.
const LIVELY: &[&str] = &["/proc", "/sys", "/dev", "/run", "/var/run"];

/// The words of `text` that may name a file or, with a `*`, several; none where these are too many.
/// Lines that begin with `#` are comments.
pub(crate) fn mentions(text: &str) -> Option<BTreeSet<&str>> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(|line| {
        line.split(|c: char| c.is_whitespace() || "'\"\\`;,{}[]()<>=|".contains(c))
    });
    // `file:/a/b` and `crt:/a` name what follows.
    let words = words.flat_map(|word| {
        std::iter::once(word).chain(word.split(':').skip(1).filter(|part| part.starts_with('/')))
    });
    let mut all = BTreeSet::new();
    for word in words.filter(|word| may_name(word)) {
        all.insert(word);
        if all.len() > MAX_WORDS {
            return None;
        }
    }
    let bare = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split(|c: char| !is_of_name(c)));
    // `@admins` names a file beside pg_hba.conf.
    let bare = bare.map(|word| word.trim_start_matches('@'));
    let bare: BTreeSet<&str> = bare
        .filter(|word| word.starts_with(char::is_alphabetic) && !all.contains(word))
        .take(MAX_WORDS)
        .collect();
    if bare.len() <= MAX_BARE {
        all.extend(bare);
    }
    Some(all)
}

/// Whether a file beside a config may have this letter in its name, and no other meaning.
fn is_of_name(letter: char) -> bool {
    letter.is_alphanumeric() || "-_+@".contains(letter)
}

/// Whether a word looks like a path. A pattern must not begin at the root of the tree, or go down
/// at will.
fn may_name(word: &str) -> bool {
    let is_pattern = word.contains('*');
    let is_wide = || {
        word.contains("**")
            || word.trim_start_matches('/').starts_with('*') && word.starts_with('/')
    };
    word.contains(['/', '.', '*'])
        && word.chars().any(char::is_alphanumeric)
        && !(is_pattern && is_wide())
}

/// Whether the file is a program, or stands where files change by themselves.
pub(crate) fn is_of_programs(path: &Path) -> bool {
    let mut head = [0; 4];
    let mut is_elf = || {
        File::open(path)
            .and_then(|mut file| file.read_exact(&mut head))
            .is_ok()
            && head == *b"\x7fELF"
    };
    LIVELY.iter().any(|dir| path.starts_with(dir)) || is_elf()
}

/// How a file is held open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenMode {
    Any,
    /// Only its end is written to: it is a log, and no input that is held open for its lock.
    Appends,
}

/// The flag of open(2) for that, where proc_pid_fdinfo(5) tells it.
const APPEND: u32 = 0o2000;

/// Files that processes hold open for writing, by device and inode: logs, for example.
#[derive(Debug)]
pub(crate) struct Written(BTreeSet<(u64, u64)>);

impl Written {
    /// The files that the first few of these processes hold open for writing, as `how` says.
    pub(crate) fn by(pids: &[i32], how: OpenMode) -> Self {
        let mut all = BTreeSet::new();
        for pid in pids.iter().take(READERS) {
            let mut names: Vec<PathBuf> = Vec::new();
            // What cannot be seen is not known to be written.
            let _ = descriptors(*pid, |fd, to| {
                if to.is_ok_and(|to| to.starts_with(b"/")) {
                    names.push(OsStr::from_bytes(fd.to_bytes()).into());
                }
            });
            let proc = Path::new("/proc").join(pid.to_string());
            let is_written = |fd: &&PathBuf| {
                std::fs::read_to_string(proc.join("fdinfo").join(fd))
                    .is_ok_and(|info| writes(&info, how))
            };
            let meta = |fd: &PathBuf| proc.join("fd").join(fd).metadata().ok();
            all.extend(
                names
                    .iter()
                    .filter(is_written)
                    .filter_map(meta)
                    .map(|meta| (meta.dev(), meta.ino())),
            );
        }
        Self(all)
    }

    /// Whether the file at `path` is one of them.
    pub(crate) fn has(&self, path: &Path) -> bool {
        path.metadata()
            .is_ok_and(|meta| self.0.contains(&(meta.dev(), meta.ino())))
    }
}

/// Whether the `flags` of a `/proc/PID/fdinfo` file, which are octal, are those of a descriptor
/// that writes.
fn writes(info: &str, how: OpenMode) -> bool {
    let flags = info
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & 0o3 != 0 && (how == OpenMode::Any || flags & APPEND != 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn words_that_may_name_files_are_found_in_every_grammar() {
        let of = |text: &str| {
            mentions(text)
                .unwrap()
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let of_paths = of;
        let of = |text: &str| {
            of_paths(text)
                .into_iter()
                .filter(|word| may_name(word))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of_paths("include users; # no\n# no\n 12 \"a-b\""),
            ["a-b", "include", "no", "users"]
        );
        assert_eq!(
            of("http-request deny if { src -f /a/b.lst } map(/m,0)"),
            ["/a/b.lst", "/m"]
        );
        assert_eq!(
            of("files: [\n  'r/*.yml',\n  s.yml ]\n# /no"),
            ["r/*.yml", "s.yml"]
        );
        assert_eq!(
            of("key file:/a/b; x = \"conf.d\""),
            ["/a/b", "conf.d", "file:/a/b"]
        );
        assert!(of("location /*.php { } a/**/b . / * word 12").is_empty());
    }

    #[test]
    fn a_descriptor_writes_by_its_flags() {
        assert!(
            writes("pos:\t0\nflags:\t0102001\n", OpenMode::Any)
                && writes("flags:\t02\n", OpenMode::Any)
        );
        assert!(!writes("pos:\t0\nflags:\t0100000\n", OpenMode::Any) && !writes("", OpenMode::Any));
        assert!(
            writes("flags:\t0102001\n", OpenMode::Appends)
                && !writes("flags:\t02\n", OpenMode::Appends)
        );
    }
}
