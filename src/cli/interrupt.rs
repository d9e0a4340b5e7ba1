//! SIGINT and SIGTERM to a command that may change something. A thread of its own counts them, so
//! that they are seen while the command waits for the disk.

use std::{
    io::{self, Read},
    os::unix::net::UnixStream,
    thread,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    low_level::{emulate_default_handler, pipe},
};
use tokio::sync::watch;

use crate::{event::Interrupts, screen};

/// The number of the interrupt that ends the process at once. The first ends the run in order; the
/// second ends it without a wait for what is under way.
const AT_ONCE: u8 = 3;

/// Counts interrupts from now on.
///
/// # Errors
/// Fails if the signals cannot be caught.
pub(super) fn watch() -> io::Result<Interrupts> {
    let (mut read, write) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        pipe::register(signal, write.try_clone()?)?;
    }
    let (counter, interrupts) = watch::channel(0u8);
    thread::Builder::new()
        .name("interrupts".into())
        .spawn(move || {
            let mut byte = [0];
            // The handlers have descriptors of their own.
            drop(write);
            while read.read_exact(&mut byte).is_ok() {
                counter.send_modify(|count| *count = count.saturating_add(1));
                let count = *counter.borrow();
                screen::interrupted();
                if count > 1 {
                    screen::leave();
                }
                if count >= AT_ONCE {
                    screen::clear();
                    let _ = emulate_default_handler(SIGINT);
                }
            }
        })?;
    Ok(interrupts)
}
