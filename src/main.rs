//! The binary: catches SIGHUP before anything else, then hands over to the command line.

use std::{os::unix::net::UnixStream, process::ExitCode};

use nix::sys::signal::{SigSet, Signal};

fn main() -> ExitCode {
    // First thing: until a handler is there, a SIGHUP ends the process.
    let (read, write) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(_) => return ExitCode::FAILURE,
    };
    if signal_hook::low_level::pipe::register(signal_hook::consts::SIGHUP, write).is_err() {
        return ExitCode::FAILURE;
    }
    // A parent may have left the signal blocked; the handler above has replaced an inherited ignore.
    let _ = SigSet::from(Signal::SIGHUP).thread_unblock();
    hello::cli::main(read)
}
