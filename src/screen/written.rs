//! Errors of writes of the output: an answer that is lost on a full disk is no success.

use std::{
    io::{self, Write},
    path::Path,
    sync::OnceLock,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, fstat, major},
    io::Errno,
};

/// Where the first write of the output failed, and why.
static UNWRITTEN: OnceLock<String> = OnceLock::new();

/// The major number of `/dev/full` and its siblings (`drivers/char/mem.c`).
const MEMORY: u32 = 1;

/// Stdout that remembers an error.
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

/// Remembers an error. A closed pipe or terminal is no error: nothing was to be read.
pub(crate) fn note(e: &io::Error) {
    let is_closed = match Errno::from_io_error(e) {
        Some(Errno::PIPE | Errno::INTR) => true,
        Some(Errno::IO) => is_terminal(),
        _ => false,
    };
    if !is_closed {
        let _ = UNWRITTEN.set(format!("stdout: {e}"));
    }
}

/// Remembers an error of a report that the operator named.
pub(crate) fn note_file(path: &Path, e: &io::Error) {
    let _ = UNWRITTEN.set(format!("`{}`: {e}", path.display()));
}

/// Tells whether stdout is a terminal. isatty(3) fails after the terminal was closed.
fn is_terminal() -> bool {
    fstat(io::stdout()).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && major(stat.st_rdev) != MEMORY
    })
}

/// Tells whether the reader of stdout has closed it, also where nothing is written.
pub(crate) fn is_reader_gone() -> bool {
    let out = io::stdout();
    let mut fds = [PollFd::new(&out, PollFlags::empty())];
    // Without a wait; only errors and a hangup are reported.
    let polled = poll(&mut fds, Some(&Timespec::default()));
    polled.is_ok_and(|ready| ready > 0)
}

/// Returns where the output could not be written, and why; none if everything was written, or if
/// the reader of stdout closed it.
pub(crate) fn unwritten() -> Option<&'static str> {
    UNWRITTEN.get().map(String::as_str)
}
