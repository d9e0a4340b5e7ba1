//! `/proc/PID/mountinfo`.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

/// A mount, as a process sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The numbers of the device, as `98:0`.
    pub(crate) device: Vec<u8>,
    /// The directory or file of its filesystem that is mounted.
    pub(crate) root: PathBuf,
    /// The path at which it is mounted.
    pub(crate) point: PathBuf,
    /// True if neither the mount nor its filesystem is read-only.
    pub(crate) is_writable: bool,
    /// The type of its filesystem.
    pub(crate) kind: String,
}

impl Mount {
    /// Parses a line, whose fields proc_pid_mountinfo(5) lists; none if it has not all of them.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        // A device without a name is an empty field.
        let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
        let dash = 6 + fields.get(6..)?.iter().position(|field| *field == b"-")?;
        let is_writable = |options: &[u8]| options.split(|b| *b == b',').next() != Some(b"ro");
        Some(Self {
            device: fields[2].into(),
            root: unescaped(fields[3]),
            point: unescaped(fields[4]),
            is_writable: is_writable(fields[5]) && is_writable(fields.get(dash + 3)?),
            kind: String::from_utf8_lossy(fields.get(dash + 1)?).into_owned(),
        })
    }
}

/// Parses the table of a process. Of two mounts at one path, the later one hides the earlier one.
pub(crate) fn mounts(table: &[u8]) -> Vec<Mount> {
    table
        .split(|b| *b == b'\n')
        .filter_map(Mount::parse)
        .collect()
}

/// Returns a path without the octal escapes by which the kernel writes a blank and the like, as
/// `\040`.
pub(super) fn unescaped(text: &[u8]) -> PathBuf {
    let mut path = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let escaped = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(path).into()
}
