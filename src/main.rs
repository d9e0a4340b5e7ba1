//! The binary: catches SIGHUP before anything else, then runs the command line.

use std::process::ExitCode;

use hello::serve::ReloadSignals;

fn main() -> ExitCode {
    hello::cli::main(ReloadSignals::catch())
}
