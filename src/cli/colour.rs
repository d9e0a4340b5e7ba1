//! Whether the output has colours.

use clap::{ColorChoice, ValueEnum};

use crate::screen;

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum When {
    /// On a terminal.
    #[default]
    Auto,
    Always,
    Never,
}

/// The option. Its value is read by [`Colours`] before the command line is parsed, because an error
/// of it has colours too.
#[derive(Debug, clap::Args)]
pub(super) struct ColourArg {
    /// Use colours: auto, always or never.
    ///
    /// auto means on a terminal, unless NO_COLOR is set. CLICOLOR_FORCE means always.
    #[arg(
        long = "color",
        global = true,
        help_heading = "Output",
        hide_short_help = true,
        value_enum,
        value_name = "WHEN",
        default_value_t = When::Auto
    )]
    _when: When,
}

/// The choice of the command line and the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colours(When);

impl Colours {
    /// Reads `--color`, or else the variables of <https://no-color.org> and
    /// <https://bixense.com/clicolors>.
    pub(super) fn of_command_line() -> Self {
        let args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
        let is_set = |name: &str| {
            std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
        };
        Self(named(args).unwrap_or({
            if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
                When::Never
            } else if is_set("CLICOLOR_FORCE") {
                When::Always
            } else if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
                When::Never
            } else {
                When::Auto
            }
        }))
    }

    /// Sets the colours of every output.
    pub(super) fn apply(self) {
        screen::set_colours(match self.0 {
            When::Auto => None,
            When::Always => Some(true),
            When::Never => Some(false),
        });
    }

    /// The same for the help and the errors of clap.
    pub(super) fn of_help(self) -> ColorChoice {
        match self.0 {
            When::Auto => ColorChoice::Auto,
            When::Always => ColorChoice::Always,
            When::Never => ColorChoice::Never,
        }
    }
}

/// The last value of `--color` before `--`.
fn named(args: impl Iterator<Item = String>) -> Option<When> {
    let mut found = None;
    let mut args = args.take_while(|arg| arg != "--");
    while let Some(arg) = args.next() {
        let value = match arg.strip_prefix("--color") {
            Some("") => args.next(),
            Some(value) => value.strip_prefix('=').map(str::to_owned),
            None => None,
        };
        found = value
            .and_then(|value| When::from_str(&value, false).ok())
            .or(found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_the_option_counts() {
        let of = |line: &str| named(line.split(' ').map(str::to_owned));
        assert_eq!(of("hello status --color always"), Some(When::Always));
        assert_eq!(of("hello --color=never status"), Some(When::Never));
        assert_eq!(of("hello --color=never ps --color auto"), Some(When::Auto));
        assert_eq!(of("hello status --color sometimes"), None);
        assert_eq!(of("hello status -- --color always"), None);
        assert_eq!(of("hello status --colors=never"), None);
    }
}
