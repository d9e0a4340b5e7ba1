use std::collections::BTreeSet;

use clap::{CommandFactory, Parser};

use super::*;
use crate::cli::Cli;

/// Lines of the short help that fit on a screen.
const SCREEN: usize = 50;

fn visible() -> Vec<String> {
    Cli::command()
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| command.get_name().to_owned())
        .collect()
}

#[test]
fn every_visible_command_has_one_page() {
    let paged: Vec<String> = PAGES.iter().map(|page| page.command.to_owned()).collect();
    let distinct: BTreeSet<&String> = paged.iter().collect();
    assert_eq!(distinct.len(), paged.len());
    assert_eq!(distinct, visible().iter().collect());
}

#[test]
fn the_overview_fits_into_80_columns() {
    for line in overview(&Cli::command()).lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn every_example_is_a_command_that_parses() {
    for page in PAGES {
        for (line, _) in page.examples {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
    }
}

#[test]
fn the_short_help_of_every_command_fits_on_a_screen_of_80_columns() {
    for name in visible() {
        let mut cli = complete(Cli::command()).term_width(80);
        cli.build();
        let help = cli.find_subcommand_mut(&name).map(Command::render_help);
        let help = help.map(|help| help.to_string()).unwrap_or_default();
        let lines = help.lines().count();
        assert!(lines <= SCREEN, "{name}: {lines} lines\n{help}");
        assert!(lines > 5, "{name}");
    }
}

#[test]
fn the_long_help_ends_with_the_exit_codes() {
    for name in visible() {
        let mut cli = complete(Cli::command());
        cli.build();
        let help = cli
            .find_subcommand_mut(&name)
            .map(Command::render_long_help);
        let help = help.map(|help| help.to_string()).unwrap_or_default();
        assert!(help.contains("\nExit codes:\n   0  "), "{name}\n{help}");
    }
}
