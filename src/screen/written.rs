//! Whether stdout took what it was given: an answer that a full disk swallowed is no success.

use std::{
    io::{self, Write},
    sync::OnceLock,
};

use rustix::{
    fs::{FileType, fstat, major},
    io::Errno,
};

/// Why the first write to stdout that failed did so.
static UNWRITTEN: OnceLock<String> = OnceLock::new();

/// The major number of `/dev/full` and its siblings (`drivers/char/mem.c`).
const MEMORY: u32 = 1;

/// Stdout, which remembers that it failed.
#[derive(Debug)]
pub(super) struct Noted<W>(pub(super) W);

impl<W: Write> Write for Noted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).inspect_err(note)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().inspect_err(note)
    }
}

/// Keeps the reason, unless the reader or the terminal went away: that changes nothing.
pub(crate) fn note(e: &io::Error) {
    let is_gone = match Errno::from_io_error(e) {
        Some(Errno::PIPE | Errno::INTR) => true,
        Some(Errno::IO) => is_terminal(),
        _ => false,
    };
    if !is_gone {
        let _ = UNWRITTEN.set(e.to_string());
    }
}

/// Whether stdout is a terminal, though it may have been hung up.
fn is_terminal() -> bool {
    fstat(io::stdout()).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && major(stat.st_rdev) != MEMORY
    })
}

/// Why stdout did not take all that it was given; none where it did, or where its reader went away.
pub(crate) fn unwritten() -> Option<&'static str> {
    UNWRITTEN.get().map(String::as_str)
}
