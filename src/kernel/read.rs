//! Reads one file of `/proc` as a whole.

use std::{
    fs::File,
    io::{self, Read},
};

use crate::fleet::Signal;

/// Bytes that the kernel gives in one read of a file in `/proc`: one page.
const PAGE: usize = 4096;

/// Largest file of `/proc` that is read, in bytes; a longer command line is cut. A status names
/// every group of its process, and there can be 65,536 of them.
const MAX: u64 = 4 << 20;

/// Reads a file of `/proc` as a whole.
///
/// # Errors
/// Fails if the system does; also if the process has ended since the file was opened.
pub(crate) fn read_proc_file(file: File) -> io::Result<Vec<u8>> {
    let mut file = file.take(MAX);
    let mut content = vec![0; PAGE];
    let length = file.read(&mut content)?;
    content.truncate(length);
    // The kernel ends a read early only before a line that does not fit, and no line is longer
    // than half a page.
    if length > PAGE / 2 {
        file.read_to_end(&mut content)?;
    }
    Ok(content)
}

pub(super) fn unexpected_format() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the kernel writes it in an unknown format",
    )
}

/// The bit of a signal in a mask.
#[must_use]
pub(crate) fn bit(signal: Signal) -> u64 {
    1 << (signal.number() - 1)
}
