//! The manual pages: one of the program, and one of each command. They are made of the command
//! line, and of the examples and exit codes that its help has.

use std::{fs, io, path::Path};

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::pages::{Exits, PAGES};

/// Writes the page of the program and of each visible command into the directory `dir`.
///
/// # Errors
///
/// Fails if a file cannot be written. The error is of the file that is returned with it.
pub(super) fn write(mut cli: Command, dir: &Path) -> Result<(), (String, io::Error)> {
    cli = cli
        .subcommand_value_name("COMMAND")
        .subcommand_help_heading("COMMANDS");
    cli.build();
    let commands = cli
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    for command in commands.cloned().chain([cli.clone()]) {
        let man = Man::new(command.clone())
            .date(date())
            .source(concat!("hello ", env!("CARGO_PKG_VERSION")))
            .manual("hello manual");
        let path = dir.join(man.get_filename());
        text(&man, &command)
            .and_then(|text| fs::write(&path, text))
            .map_err(|e| (path.display().to_string(), e))?;
    }
    Ok(())
}

/// Returns the day of the commit. It is the same in each build of that commit.
fn date() -> &'static str {
    match env!("HELLO_BUILD_DATE") {
        "unknown" => "",
        date => date,
    }
}

/// Returns one page.
fn text(man: &Man, command: &Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().any(|arg| !arg.is_hide_set()) {
        man.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    more(command).to_writer(&mut text)?;
    Ok(text)
}

/// Returns the sections that clap does not know.
fn more(command: &Command) -> Roff {
    let page = PAGES.iter().find(|page| page.command == command.get_name());
    let mut roff = Roff::new();
    if let Some(page) = page {
        roff.control("SH", ["EXAMPLES"]);
        for (line, what) in page.examples {
            roff.control("TP", []);
            roff.text([bold(line)]);
            roff.text([roman(what)]);
        }
    }
    roff.control("SH", ["EXIT STATUS"]);
    for (code, about) in page.map_or(Exits::Run, |page| page.exits).rows() {
        roff.control("TP", ["4"]);
        roff.text([bold(code.to_string())]);
        roff.text([roman(about)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([if page.is_some() {
        roman("hello(1). `hello help TOPIC` prints the pages about the fleet file, proof and more.")
    } else {
        roman("`hello help TOPIC` prints the pages about the fleet file, proof and more.")
    }]);
    roff
}
