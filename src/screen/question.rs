//! Questions to the operator, on a terminal.

use std::io::{self, IsTerminal, Write};

/// Tells whether the operator can be asked: stdin and stderr are terminals.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a question on stderr. Only `y` and `yes` are a yes: an empty line, the end of the input and
/// everything else are a no.
pub(crate) fn confirm(question: &str) -> bool {
    let mut err = io::stderr();
    let _ = write!(err, "{} [y/N] ", super::line(question));
    let _ = err.flush();
    let mut answer = String::new();
    let is_read = io::stdin().read_line(&mut answer).is_ok();
    if !answer.ends_with('\n') {
        let _ = writeln!(err);
    }
    is_read && ["y", "yes"].contains(&answer.trim().to_lowercase().as_str())
}
