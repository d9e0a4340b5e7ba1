#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;

use super::*;
use crate::{
    config::Listen,
    fleet::{self, Share},
    runs::Retention,
};

mod reference;

const COMMANDS: [&str; 16] = [
    "serve",
    "check",
    "broadcast",
    "watch",
    "resume",
    "revert",
    "kinds",
    "status",
    "doctor",
    "history",
    "show",
    "diff",
    "forget",
    "completions",
    "schema",
    "help",
];
const OPTIONS: [&str; 22] = [
    "--fleet",
    "--state",
    "--config",
    "--set",
    "--reason",
    "--timeout",
    "--waves",
    "--listen",
    "-o",
    "--keep",
    "--count",
    "--max-failures",
    "--on-failure",
    "--lock-timeout",
    "--drain",
    "--proof",
    "--validate=",
    "-n",
    "--all",
    "--now",
    "--dry-run",
    "--",
];

/// Arguments that are unusual in one of many ways.
fn word() -> impl Strategy<Value = OsString> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..8).prop_map(OsString::from_vec),
        "[-+0-9]{0,24}(s|ms|h|d|%|\\.\\.|e|y)?[0-9]{0,4}".prop_map(OsString::from),
        "[0-9]{1,3}%?(,[0-9]{1,3}%?){0,3}".prop_map(OsString::from),
        proptest::sample::select(&OPTIONS[..]).prop_map(OsString::from),
        any::<String>().prop_map(OsString::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_arguments_make_the_command_line_panic(
        command in proptest::sample::select(&COMMANDS[..]),
        words in proptest::collection::vec(word(), 0..6),
    ) {
        let line = ["hello".into(), command.into()].into_iter().chain(words);
        match Cli::try_parse_from(line) {
            Ok(Cli {
                command: Some(Command::Broadcast(mut args)),
                ..
            }) => {
                args.fleet.fleet = Some("/nowhere".into());
                drop(broadcast::options(args));
            }
            Ok(_) => {}
            Err(e) => drop(e.to_string()),
        }
    }

    #[test]
    fn no_text_makes_a_number_or_a_duration_panic(
        text in any::<String>(),
        number in "[-+0-9.eE]{0,30}",
        unit in "(s|ms|us|ns|m|h|d|w|y|%|\\.\\.)?",
    ) {
        for text in [text, format!("{number}{unit}")] {
            let _ = (
                fleet::parse_duration(&text),
                fleet::parse_count(&text),
                text.parse::<Share>(),
                text.parse::<Retention>(),
                text.parse::<Listen>(),
            );
            if let Ok(share) = text.parse::<Share>() {
                prop_assert!(
                    share.rounded_up(usize::MAX >> 16) <= usize::MAX >> 16
                        && share.rounded_down(7) <= 7
                );
            }
            if let Ok(limit) = fleet::parse_duration(&text) {
                prop_assert!(std::time::Instant::now().checked_add(limit).is_some());
            }
        }
    }
}

#[test]
fn the_options_with_a_value_behind_an_equals_sign_are_known() {
    let cli = command_line();
    let options = cli.get_subcommands().flat_map(clap::Command::get_arguments);
    let mut names: Vec<String> = options
        .filter(|option| option.is_require_equals_set())
        .filter_map(|option| option.get_long().map(|name| format!("--{name}")))
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names, mistaken::BY_EQUALS);
}
