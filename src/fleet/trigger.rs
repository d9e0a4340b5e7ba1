//! What makes the processes of a group reload: a signal, or a command.

use std::fmt;

use super::{Group, Signal, placeholder};
use crate::screen;

/// What makes an instance reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger<'a> {
    /// A signal to its process.
    Signal(Signal),
    /// A command that asks it, with its placeholders.
    Command(&'a [String]),
}

impl Group {
    /// Returns what makes its instances reload.
    #[must_use]
    pub fn trigger(&self) -> Trigger<'_> {
        if self.reload_by.is_empty() {
            Trigger::Signal(self.signal)
        } else {
            Trigger::Command(&self.reload_by)
        }
    }
}

impl fmt::Display for Trigger<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => f.write_str(signal.name()),
            Self::Command(argv) => {
                let words: Vec<String> = argv.iter().map(|word| shown(word)).collect();
                write!(f, "`{}`", words.join(" "))
            }
        }
    }
}

/// Returns a word of an argv as a shell takes it, with its placeholders as they are written.
fn shown(word: &str) -> String {
    match placeholder(word) {
        Some((before, name, after)) => {
            let around = |text: &str| {
                if text.is_empty() {
                    String::new()
                } else {
                    shown(text)
                }
            };
            format!("{}{{{name}}}{}", around(before), around(after))
        }
        None => screen::quote(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_is_typed() {
        let argv = ["app ctl", "-s{listen}", "", "{pid}"].map(str::to_owned);
        let shown = Trigger::Command(&argv).to_string();
        assert_eq!(shown, "`'app ctl' -s{listen} '' {pid}`");
        assert_eq!(Trigger::Signal(Signal::Usr2).to_string(), "SIGUSR2");
    }
}
