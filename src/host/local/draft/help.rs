//! What a program says of its options and signals: in the manual, or in its own texts.

use std::collections::BTreeSet;

use super::{
    manual::{Item, Manual},
    program::Program,
    strings::Strings,
};
use crate::fleet::Signal;

/// The most sentences about a signal that are quoted.
const MAX_QUOTES: usize = 2;

/// Spellings of options that only test a config.
pub(super) const TESTS: &[&str] = &[
    "-t",
    "-T",
    "-tt",
    "--test",
    "--configtest",
    "--config-test",
    "--test-config",
    "--check",
    "--check-config",
    "--validate",
];

/// Further spellings, which mean something else in most programs.
const RARE_TESTS: &[&str] = &["-n", "-c", "-C"];

/// Spellings of options that name the config.
const CONFIGS: &[&str] = &[
    "-c",
    "-f",
    "-C",
    "--config",
    "--config-file",
    "--configfile",
    "--conf",
    "--file",
    "--use-file",
    "--configuration",
    "--fpm-config",
];

/// The texts about a program.
#[derive(Debug, Default)]
pub(super) struct Help {
    /// The source that is quoted, such as `nsd(8)`.
    name: String,
    items: Vec<Item>,
    /// The absolute paths in its executable or script.
    paths: BTreeSet<std::path::PathBuf>,
}

/// An option, and the line about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HelpOption {
    /// Its spellings, as `-c` and `--config`.
    pub(super) spellings: Vec<String>,
    /// The source and its words.
    pub(super) why: String,
}

impl Help {
    /// Reads the texts about a program. The manual counts before the texts of the program itself.
    pub(super) async fn of(program: &Program<'_>) -> Self {
        let manual = match program.shares_mounts {
            true => Manual::of(&program.names()).await,
            false => None,
        };
        // The link leads to the running executable, even where its path does not.
        let file = match &program.script {
            Some(script) if program.shares_mounts => script.clone(),
            _ => format!("/proc/{}/exe", program.found.pid),
        };
        let Strings { paths, items } = Strings::of(&file);
        match manual {
            Some(Manual {
                name,
                items: of_manual,
            }) => Self {
                name,
                items: of_manual.into_iter().chain(items).collect(),
                paths,
            },
            None => Self {
                name: format!("the help in {}", program.file().display()),
                items,
                paths,
            },
        }
    }

    /// Tells whether a path stands in the program.
    pub(super) fn has_path(&self, path: &std::path::Path) -> bool {
        self.paths.contains(path)
    }

    /// Returns the option that tests a config and ends.
    pub(super) fn test_option(&self) -> Option<HelpOption> {
        let is_test = |item: &&Item| {
            let text = item.text.to_lowercase();
            // A later sentence is about other things.
            let first = text.split(". ").next().unwrap_or_default();
            let begins = |parts: &[&str]| {
                let mut words = first.split(|c: char| !c.is_alphanumeric());
                words.any(|word| parts.iter().any(|part| word.starts_with(part)))
            };
            let negates = ["do not", "don't", "disable", "skip", "without"];
            begins(&["test", "check", "verif", "validat", "syntax"])
                && begins(&["config", "conf", "syntax"])
                && !negates.iter().any(|word| first.contains(word))
        };
        self.option(&[TESTS, RARE_TESTS].concat(), is_test)
    }

    /// Returns the option that names the config.
    pub(super) fn config_option(&self) -> Option<HelpOption> {
        let is_config = |item: &&Item| {
            let text = item.text.to_lowercase();
            has_value(&item.head)
                && ["config", "conf file"]
                    .iter()
                    .any(|word| text.contains(word))
                && !text.starts_with("test")
                && !text.starts_with("check")
        };
        self.option(CONFIGS, is_config)
    }

    /// Tells whether an option takes a value; none if its help does not name it.
    pub(super) fn takes_value(&self, option: &str) -> Option<bool> {
        let names_it = |item: &&Item| spellings(&item.head).iter().any(|word| word == option);
        let item = self.items.iter().find(names_it)?;
        Some(has_value(&item.head))
    }

    /// Returns the first option of one of these spellings that `fits`.
    fn option(&self, known: &[&str], fits: impl Fn(&&Item) -> bool) -> Option<HelpOption> {
        self.items.iter().filter(&fits).find_map(|item| {
            let spellings = spellings(&item.head);
            let is_known = spellings.iter().any(|word| known.contains(&word.as_str()));
            is_known.then(|| HelpOption {
                why: format!("{}: {}  {}", self.name, item.head, item.text),
                spellings,
            })
        })
    }

    /// Returns the sentences about a signal.
    pub(super) fn about(&self, signal: Signal) -> Vec<String> {
        let short = signal.name().trim_start_matches("SIG");
        let is_about = |text: &str| {
            let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
            words.any(|word| word == signal.name() || word == short)
        };
        let mut quotes = Vec::new();
        for item in &self.items {
            if is_about(&item.head) {
                quotes.push(format!("{}: {}  {}", self.name, item.head, item.text));
            } else {
                let sentences = item.text.split_inclusive(". ");
                let about = sentences.filter(|sentence| is_about(sentence));
                quotes.extend(about.map(|text| format!("{}: {}", self.name, text.trim())));
            }
        }
        quotes.truncate(MAX_QUOTES);
        quotes
    }
}

/// Tells whether the head of an option names a value: `-c FILE`, `--config=FILE`.
fn has_value(head: &str) -> bool {
    let words = head.split([' ', ',', '|', '\t']);
    let mut words = words.filter(|word| !word.is_empty());
    words.any(|word| !word.starts_with('-') || word.contains(['=', '<', '[']))
}

/// The spellings of an option in its head: `-c FILE, --config=FILE`, `-t | --test`.
fn spellings(head: &str) -> Vec<String> {
    let words = head.split([' ', ',', '|', '\t', '/']);
    let options = words.filter(|word| word.starts_with('-') && word.len() > 1);
    options
        .map(|word| {
            let end = word.find(['=', '[', '<']).unwrap_or(word.len());
            word[..end].to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(items: &[(&str, &str)]) -> Help {
        let item = |(head, text): &(&str, &str)| Item {
            head: (*head).into(),
            text: (*text).into(),
        };
        Help {
            name: "x(8)".into(),
            items: items.iter().map(item).collect(),
            paths: BTreeSet::new(),
        }
    }

    #[test]
    fn an_option_counts_by_its_spelling_and_its_text() {
        let help = help(&[
            ("-t TIME", "Timeout of a test in seconds."),
            ("-n", "Do not check the config."),
            (
                "-C, --check",
                "Only run the healthcheck of a configuration. It does not test it.",
            ),
            (
                "-t, --config-test[=FILE]",
                "Test the configuration and exit.",
            ),
            ("-c", "Clear the configuration cache."),
            ("-f FILE, --use-file=FILE", "Use this configuration file."),
        ]);
        let option = help.test_option().map(|option| option.spellings);
        assert_eq!(option, Some(vec!["-t".into(), "--config-test".into()]));
        let option = help.config_option().map(|option| option.spellings);
        assert_eq!(option, Some(vec!["-f".into(), "--use-file".into()]));
        assert_eq!(help.takes_value("--use-file"), Some(true));
        assert_eq!(help.takes_value("--check"), Some(false));
        assert_eq!(help.takes_value("-x"), None);
    }

    #[test]
    fn a_sentence_about_a_signal_is_quoted() {
        let help = help(&[
            ("", "It starts. On SIGHUP it ends. It is fast."),
            ("HUP", "Reads its config."),
        ]);
        assert_eq!(
            help.about(Signal::Hup),
            ["x(8): On SIGHUP it ends.", "x(8): HUP  Reads its config."]
        );
        assert_eq!(help.about(Signal::Usr1), Vec::<String>::new());
    }
}
