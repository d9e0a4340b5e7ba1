//! The note in the file of a first lock: what its holder says of itself. Only the user of a run can
//! read and write it.

use std::{io, os::fd::OwnedFd};

use rustix::{
    fs::ftruncate,
    io::{pread, pwrite},
};

use crate::kernel::Stat;

/// Longest note, in bytes with the process that wrote it. It has the id of a run, and an operator
/// with four texts of 256 bytes.
const MAX_NOTE: usize = 2048;

/// Writes what another run says of this process if it finds the lock held. The lock holds without
/// the note too, so an error changes nothing.
pub(super) fn write_note(file: &OwnedFd, note: &str) {
    if !note.is_empty() {
        let _ = try_write(file, note);
    }
}

fn try_write(file: &OwnedFd, note: &str) -> io::Result<()> {
    let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let started = Stat::of(pid)?.started;
    let text = format!("{pid} {started} {note}");
    let end = text.floor_char_boundary(MAX_NOTE);
    ftruncate(file, 0)?;
    pwrite(file, &text.as_bytes()[..end], 0)?;
    Ok(())
}

/// Returns the note of the process `pid`, which holds the lock; none if it wrote none. A note of an
/// earlier holder names another process.
pub(super) fn note_of(file: &OwnedFd, pid: i32) -> Option<String> {
    let mut bytes = [0; MAX_NOTE];
    let length = pread(file, &mut bytes, 0).ok()?;
    let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
    let started = Stat::of(pid).ok()?.started;
    let note = text.strip_prefix(&format!("{pid} {started} "))?;
    Some(note.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn file() -> OwnedFd {
        tempfile::tempfile().unwrap().into()
    }

    fn own_pid() -> i32 {
        std::process::id().try_into().unwrap()
    }

    #[test]
    fn the_note_of_the_holder_is_read_back() {
        let file = file();
        write_note(&file, "a longer note");
        write_note(&file, "run 1");
        assert_eq!(note_of(&file, own_pid()).as_deref(), Some("run 1"));
    }

    #[test]
    fn a_note_of_another_process_is_none_of_the_holder() {
        let file = file();
        write_note(&file, "run 1");
        assert_eq!(note_of(&file, 1), None);
        let started = Stat::of(own_pid()).unwrap().started + 1;
        let text = format!("{} {started} earlier", own_pid());
        ftruncate(&file, 0).unwrap();
        pwrite(&file, text.as_bytes(), 0).unwrap();
        assert_eq!(note_of(&file, own_pid()), None);
    }

    #[test]
    fn a_long_note_is_cut() {
        let file = file();
        write_note(&file, &"ü".repeat(MAX_NOTE));
        let note = note_of(&file, own_pid()).unwrap();
        assert!(
            note.len() < MAX_NOTE && note.chars().all(|c| c == 'ü'),
            "{note}"
        );
    }
}
