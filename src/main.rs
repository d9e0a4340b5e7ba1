//! The binary: catches SIGHUP before anything else, then hands over to the command line.

use std::process::ExitCode;

use hello::serve::Hangups;

fn main() -> ExitCode {
    hello::cli::main(Hangups::catch())
}
