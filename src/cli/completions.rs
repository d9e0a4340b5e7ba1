//! `hello completions`: the script that completes the command line in a shell.

use std::process::ExitCode;

use clap::{Command, ValueEnum, builder::PossibleValuesParser};

use super::help;
use crate::{fleet::KINDS, screen};

/// A shell that completes the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl From<Shell> for clap_complete::Shell {
    fn from(shell: Shell) -> Self {
        match shell {
            Shell::Bash => Self::Bash,
            Shell::Zsh => Self::Zsh,
            Shell::Fish => Self::Fish,
        }
    }
}

/// Prints the script of `shell` for the command line `cli`.
pub(super) fn print(cli: Command, shell: Shell) -> ExitCode {
    let mut cli = with_known_words(visible(&cli));
    let mut script = Vec::new();
    clap_complete::generate(
        clap_complete::Shell::from(shell),
        &mut cli,
        "hello",
        &mut script,
    );
    screen::data([String::from_utf8_lossy(&script).trim_end()]);
    ExitCode::SUCCESS
}

/// Returns the command line without hidden commands and options: clap completes these too.
fn visible(command: &Command) -> Command {
    let mut shown = Command::new(command.get_name().to_owned())
        .disable_help_subcommand(true)
        .visible_aliases(command.get_visible_aliases().map(str::to_owned))
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set()))
        .subcommands(
            command
                .get_subcommands()
                .filter(|command| !command.is_hide_set())
                .map(visible),
        );
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    shown
}

/// Lets the words that an argument takes from a table of the program be completed.
fn with_known_words(cli: Command) -> Command {
    let subjects: Vec<String> = help::subjects(&cli).map(str::to_owned).collect();
    let kinds = KINDS.iter().map(|kind| kind.name);
    let kinds = PossibleValuesParser::new(kinds);
    cli.mut_subcommand("help", |command| {
        command.mut_arg("subject", |arg| {
            arg.value_parser(PossibleValuesParser::new(subjects))
        })
    })
    .mut_subcommand("kinds", |command| {
        command.mut_arg("name", |arg| arg.value_parser(kinds))
    })
}
