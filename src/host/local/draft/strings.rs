//! The texts in the executable or the script of a program: absolute paths, and lines of its help.

use std::{collections::BTreeSet, fs::File, io::Read, path::PathBuf};

use super::manual::Item;

/// Most bytes of a program that are read. A static program of Go has some 20 MiB, with its texts in
/// the last third.
const MAX_BYTES: u64 = 48 << 20;

/// Bytes of one read.
const CHUNK: usize = 256 << 10;

/// Shortest and longest text that counts, in bytes.
const SHORTEST: usize = 4;
const LONGEST: usize = 512;

/// The most texts of each sort that are kept.
const MAX_TEXTS: usize = 2000;

/// The texts of a program.
#[derive(Debug, Default)]
pub(super) struct Strings {
    /// Absolute paths.
    pub(super) paths: BTreeSet<PathBuf>,
    /// Lines of its help: an option, and its text.
    pub(super) items: Vec<Item>,
}

impl Strings {
    /// Reads the texts of a program; what cannot be read has none.
    pub(super) fn of(path: &str) -> Self {
        let mut strings = Self::default();
        let Ok(file) = File::open(path) else {
            return strings;
        };
        let mut file = file.take(MAX_BYTES);
        let mut chunk = vec![0; CHUNK];
        let mut text = String::new();
        while let Ok(length @ 1..) = file.read(&mut chunk) {
            for byte in chunk.get(..length).unwrap_or_default() {
                if (b' '..=b'~').contains(byte) || *byte == b'\t' {
                    if text.len() < LONGEST {
                        text.push(char::from(*byte));
                    }
                } else {
                    strings.add(&text);
                    text.clear();
                }
            }
        }
        strings.add(&text);
        strings
    }

    fn add(&mut self, text: &str) {
        if text.len() < SHORTEST {
            return;
        }
        let is_path = text.starts_with('/') && !text.contains([' ', '%', '\t', ':']);
        if is_path && self.paths.len() < MAX_TEXTS {
            self.paths.insert(text.into());
        }
        if let Some(item) = help_line(text)
            && self.items.len() < MAX_TEXTS
        {
            self.items.push(item);
        }
    }
}

/// Returns the option of a line of help, and its text: `-t, --test   tests the config`.
fn help_line(line: &str) -> Option<Item> {
    let line = line.trim();
    if !line.starts_with('-') {
        return None;
    }
    let split = line.find("  ").or_else(|| line.find('\t'));
    let (head, text) = match split {
        Some(at) => line.split_at(at),
        // `-c file : the config`, `-t: test`.
        None => line.split_once(": ")?,
    };
    let text = text.trim().trim_start_matches([':', '-']).trim();
    (!text.is_empty()).then(|| Item {
        head: head.trim().to_owned(),
        text: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn paths_and_lines_of_help_are_found_between_other_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let bytes =
            b"\x7fELF\0\x01/etc/x/x.conf\0/tmp/%s\0\xff  -t, --test   Test it.\n  -c FILE : conf\0";
        std::fs::write(&path, bytes).unwrap();
        let strings = Strings::of(path.to_str().unwrap());
        assert_eq!(strings.paths, BTreeSet::from(["/etc/x/x.conf".into()]));
        let heads: Vec<&str> = strings
            .items
            .iter()
            .map(|item| item.head.as_str())
            .collect();
        assert_eq!(heads, ["-t, --test", "-c FILE"]);
        assert_eq!(strings.items[0].text, "Test it.");
        assert_eq!(strings.items[1].text, "conf");
    }
}
