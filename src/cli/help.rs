//! `hello help`: the overview, the help of a command, and the pages of the manual.

use std::{fmt::Write as _, fs, path::Path, process::ExitCode};

use clap::Command;

use self::{
    pages::{Group, PAGES, Page},
    topics::TOPICS,
};
use super::refusal::fail;
use crate::{diagnostic, event::Verdict, screen};

mod manual;
mod pages;
#[cfg(test)]
mod tests;
mod topics;

/// The column of the text behind a name in the overview.
const COLUMN: usize = 19;

/// Columns of help that is not printed to a terminal, and the most in a wide one.
const MAX_WIDTH: usize = 100;

/// Adds the overview to the help of the program, and examples and exit codes to that of its
/// commands.
pub(super) fn complete(cli: Command) -> Command {
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}\nOptions:\n{{options}}",
        overview(&cli)
    );
    PAGES
        .iter()
        .fold(cli, |cli, page| {
            cli.mut_subcommand(page.command, |command| with_page(command, page))
        })
        .max_term_width(MAX_WIDTH)
        .help_template(template)
}

/// Prints the page about `subject`: the name of a command or of a topic. Without one, prints the
/// overview.
pub(super) fn help(mut cli: Command, subject: Option<&str>) -> ExitCode {
    let Some(subject) = subject else {
        return print(&cli.render_help().to_string());
    };
    if let Some(topic) = TOPICS.iter().find(|topic| topic.name == subject) {
        return print(topic.text);
    }
    cli.build();
    let hint = diagnostic::suggest(subject, subjects(&cli)).unwrap_or_default();
    match cli
        .find_subcommand_mut(subject)
        .filter(|command| !command.is_hide_set())
    {
        Some(command) => print(&command.render_long_help().to_string()),
        None => fail(
            Verdict::Usage.exit(),
            &format!("no command or topic `{subject}`; {hint}"),
        ),
    }
}

/// Returns the subjects of `hello help`: each visible command, and each topic.
pub(super) fn subjects(cli: &Command) -> impl Iterator<Item = &str> {
    cli.get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(Command::get_name)
        .chain(TOPICS.iter().map(|topic| topic.name))
}

/// Writes the manual pages into `dir`, and makes that if it is missing.
pub(super) fn man(cli: Command, dir: &Path) -> ExitCode {
    let made = fs::create_dir_all(dir).map_err(|e| (dir.display().to_string(), e));
    match made.and_then(|()| manual::write(cli, dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err((path, e)) => fail(Verdict::Failed.exit(), &format!("cannot write {path}: {e}")),
    }
}

fn print(text: &str) -> ExitCode {
    screen::answer([text.trim_end_matches('\n')]);
    ExitCode::SUCCESS
}

/// Returns the commands in groups, and the topics.
fn overview(cli: &Command) -> String {
    let mut text = String::new();
    for group in Group::ALL {
        let _ = writeln!(text, "{}:", group.title());
        for page in PAGES.iter().filter(|page| page.group == group) {
            let Some(command) = cli.find_subcommand(page.command) else {
                continue;
            };
            let about = command.get_about().map(ToString::to_string);
            text.push_str(&row(page.command, &about.unwrap_or_default()));
            let aliases: Vec<&str> = command.get_visible_aliases().collect();
            if !aliases.is_empty() {
                text.push_str(&row("", &format!("(also: {})", aliases.join(", "))));
            }
        }
        text.push('\n');
    }
    text.push_str("Topics (hello help TOPIC):\n");
    for topic in TOPICS {
        text.push_str(&row(topic.name, topic.title()));
    }
    text
}

/// Returns one line of the overview.
fn row(name: &str, about: &str) -> String {
    format!("  {name:<width$}{about}\n", width = COLUMN - 2)
}

/// Appends the examples to both forms of the help of a command, and the exit codes to the long one.
fn with_page(command: Command, page: &Page) -> Command {
    let width = page.examples.iter().map(|(line, _)| line.len()).max();
    let width = width.unwrap_or_default();
    let mut text = "Examples:".to_owned();
    for (line, what) in page.examples {
        let _ = write!(text, "\n  {line:<width$}  # {what}");
    }
    let mut long = text.clone() + "\n\nExit codes:";
    for (code, about) in page.exits.rows() {
        let _ = write!(long, "\n  {code:>2}  {about}");
    }
    command.after_help(text).after_long_help(long)
}
