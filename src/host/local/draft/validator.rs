//! A command that may validate the config: one that the unit runs, a program beside it, or an
//! option that its help names. Nothing is run.

use std::path::Path;

use super::{
    fact::{About, Fact, Source},
    help::{Help, TESTS},
    named::Named,
    program::Program,
    service::Services,
    sources::Sources,
    text::{GroupText, list},
};
use crate::host::exec::usable;

/// Ends of the names of programs that check a config.
const CHECKERS: &[&str] = &["-checkconf", "-check-config", "-checkconfig", "-configtest"];

/// Tells whether a word of a command in a unit makes it only test a config.
fn tests(word: &str) -> bool {
    word == "configtest" || TESTS.contains(&word)
}

/// A command that may validate the config.
struct Validator {
    argv: Vec<String>,
    source: Source,
    why: String,
    /// False if the operator must complete it, or decide about it.
    is_complete: bool,
}

/// Writes the likeliest validator.
pub(super) fn write(
    Sources {
        program,
        services,
        help,
    }: Sources<'_>,
    named: Option<&Named>,
    text: &mut GroupText,
    facts: &mut Vec<Fact>,
) {
    let validator = of_services(program, services, named)
        .or_else(|| checker(program))
        .or_else(|| of_help(program, help, named));
    let Some(validator) = validator else {
        let why = "none was found; replace it by the command, as [\"COMMAND\", \
                   \"{candidate}\"], if there is one";
        text.key("validate", "\"none\"", Source::Guessed, why);
        facts.push(Fact::guessed(About::Validator, "none was found"));
        return;
    };
    let command = validator.argv.join(" ");
    let detail = format!("{command} ({})", validator.why);
    facts.push(Fact::new(About::Validator, validator.source, detail));
    let argv = list(&validator.argv);
    if validator.is_complete {
        text.key("validate", &argv, validator.source, &validator.why);
    } else {
        text.candidate("validate", &argv, validator.source, &validator.why);
    }
}

/// Tells whether a command of a unit runs the program only to test its config.
pub(super) fn is_test(program: &Program<'_>, argv: &[String]) -> bool {
    let is_it = argv.first().is_some_and(|path| program.is_at(path));
    is_it && argv.iter().any(|word| tests(word))
}

/// The command of a unit that tests the config before a start or a reload.
fn of_services(
    program: &Program<'_>,
    services: &Services,
    named: Option<&Named>,
) -> Option<Validator> {
    services.all.iter().find_map(|service| {
        let before = service.before.iter().map(|argv| ("ExecStartPre", argv));
        let reloads = service.reloads.iter().map(|argv| ("ExecReload", argv));
        let (key, argv) = before
            .chain(reloads)
            .find(|(_, argv)| is_test(program, argv))?;
        let is_config = |word: &&String| word.starts_with('/') && Path::new(word).is_file();
        let has_config = argv.iter().skip(1).any(|word| is_config(&word));
        let mut words = own(program);
        words.extend(argv.iter().skip(1).map(|word| {
            if is_config(&word) {
                "{candidate}".to_owned()
            } else {
                word.clone()
            }
        }));
        if !has_config {
            words.extend(named.map(Named::words).unwrap_or_default());
        }
        Some(Validator {
            is_complete: !words.iter().any(|word| word.contains('$')),
            argv: words,
            source: Source::Seen,
            why: format!("{key} of {}", service.name),
        })
    })
}

/// The program beside it that has the name of a checker.
fn checker(program: &Program<'_>) -> Option<Validator> {
    if !program.shares_mounts {
        return None;
    }
    let names = program.names();
    let checkers = names
        .iter()
        .flat_map(|name| CHECKERS.iter().map(move |end| format!("{name}{end}")));
    let found = checkers
        .into_iter()
        .find(|name| usable(name, Path::new("/"), false).is_ok())?;
    Some(Validator {
        why: format!("the program {found} is on this host"),
        argv: vec![found, "{candidate}".to_owned()],
        source: Source::Guessed,
        is_complete: true,
    })
}

/// The option that the help of the program names.
fn of_help(program: &Program<'_>, help: &Help, named: Option<&Named>) -> Option<Validator> {
    let option = help.test_option()?;
    let mut argv = own(program);
    let usual = option.spellings.iter().find(|word| tests(word));
    argv.push(usual.or(option.spellings.first())?.clone());
    argv.extend(named.map(Named::words).unwrap_or_default());
    Some(Validator {
        argv,
        source: Source::Guessed,
        why: format!("remove the mark if it only tests and ends: {}", option.why),
        // With a wrong guess, a run would start the program as its validator.
        is_complete: false,
    })
}

/// The words that run the program of the process.
fn own(program: &Program<'_>) -> Vec<String> {
    let exe = "{exe}".to_owned();
    match &program.script {
        Some(script) => vec![exe, script.clone()],
        None => vec![exe],
    }
}
