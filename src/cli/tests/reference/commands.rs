//! `docs/commands.md`.

use super::*;

/// Tells whether a heading of the page is about the command: `hello resume, hello revert`.
fn is_about(heading: &str, command: &str) -> bool {
    heading.split(", ").any(|name| name == command)
}

/// Returns the rows about a command: its options, and the default of each.
fn documented(command: &str) -> Vec<(&'static str, &'static str)> {
    let tables = tables(page("commands.md"));
    let own = tables
        .iter()
        .filter(|table| is_about(table.heading, command));
    let rows = own.flat_map(|table| &table.rows);
    rows.map(|row| (option(row[0]), row[2])).collect()
}

/// Returns the long name of the option in a cell such as `-n`, `--last N`.
fn option(cell: &'static str) -> &'static str {
    let long = codes(cell).into_iter().find(|code| code.starts_with("--"));
    let name = long.unwrap_or(cell);
    let end = name.find([' ', '=', '[']).unwrap_or(name.len());
    &name[..end]
}

/// Returns every command that an operator sees, by its heading.
fn commands() -> Vec<(String, clap::Command)> {
    let mut cli = command_line();
    cli.build();
    let visible = cli
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let inner: Vec<_> = visible
        .map(|command| (format!("hello {}", command.get_name()), command.clone()))
        .collect();
    inner.into_iter().chain([("hello".into(), cli)]).collect()
}

#[test]
fn every_option_of_every_command_is_documented_once() {
    let every: Vec<&str> = documented("Every command")
        .into_iter()
        .map(|r| r.0)
        .collect();
    for (name, command) in commands() {
        let known = command.get_arguments().filter(|arg| !arg.is_positional());
        let known = known
            .filter_map(clap::Arg::get_long)
            .map(|long| format!("--{long}"));
        let own = documented(&name).into_iter().map(|(option, _)| option);
        let found = own.chain(every.iter().copied()).map(str::to_owned);
        assert_each_once(&name, known, found);
    }
}

#[test]
fn the_default_of_every_option_is_documented() {
    let mut seen = 0;
    for (name, command) in commands() {
        let rows = documented(&name)
            .into_iter()
            .chain(documented("Every command"));
        let rows: BTreeMap<_, _> = rows.collect();
        for arg in command
            .get_arguments()
            .filter(|arg| arg.get_action().takes_values())
        {
            let (Some(long), [default]) = (arg.get_long(), arg.get_default_values()) else {
                continue;
            };
            let default = default.to_string_lossy();
            let cell = rows
                .get(format!("--{long}").as_str())
                .copied()
                .unwrap_or_default();
            assert!(
                codes(cell).contains(&&*default),
                "{name} --{long}: {cell}, not {default}"
            );
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} defaults were compared");
}

#[test]
fn no_other_page_has_a_table_of_options() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(docs).unwrap() {
        let path = entry.unwrap().path();
        if std::fs::read_to_string(&path)
            .unwrap()
            .contains("\n| option |")
        {
            pages.push(path.file_name().unwrap().to_owned());
        }
    }
    assert_eq!(pages, ["commands.md"]);
}
