//! How a command line names the config, for the words of a validator.

use super::help::HelpOption;

/// How a command line names the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// By this option, as a word before the path.
    Option(String),
    /// By this option and `=`, in one word with the path.
    Joined(String),
    /// As an argument without an option.
    Argument,
    /// Not at all: the program reads its default.
    Default,
}

impl Named {
    /// Returns how an option of the help names the config.
    pub(super) fn of(option: &HelpOption) -> Self {
        let first = option.spellings.first().cloned().unwrap_or_default();
        if first.starts_with("--") {
            Self::Joined(first)
        } else {
            Self::Option(first)
        }
    }

    /// Returns the words of a validator that name the candidate.
    pub(super) fn words(&self) -> Vec<String> {
        match self {
            Self::Option(option) => vec![option.clone(), "{candidate}".to_owned()],
            Self::Joined(option) => vec![format!("{option}={{candidate}}")],
            Self::Argument => vec!["{candidate}".to_owned()],
            // A validator sees the candidate at the path of the config.
            Self::Default => Vec::new(),
        }
    }
}
