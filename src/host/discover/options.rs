//! The options on a command line, as the program itself parses them.

use crate::fleet::Repeated;

/// Longest text of the command line that a reason quotes, in characters.
const QUOTED: usize = 80;

/// The arguments of a process, and how its program parses them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options<'a> {
    /// Without its own name, and without what belongs to an interpreter.
    pub(super) args: &'a [String],
    /// See [`crate::fleet::Reading::getopt`].
    pub(super) getopt: Option<&'a str>,
    /// Which value counts.
    pub(super) repeated: Repeated,
}

/// The values that a command line gives an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GivenOptions {
    /// The option is not there.
    Absent,
    /// It has this value.
    Value(String),
    /// It has several values, and the program reads all of them.
    Several(Vec<String>),
    /// This word may be the option, or something else.
    Unclear(String),
}

/// One word that is an option, or may be.
#[derive(Debug, PartialEq, Eq)]
enum Given {
    Sure(usize, String),
    Unsure(String),
}

/// The meaning of the letters of one word.
enum Letters<'a> {
    /// Each option with its value, where it has one in this word.
    Options(Vec<(char, Option<&'a str>)>),
    /// A letter that the program is not known to have.
    Unknown,
}

impl Options<'_> {
    /// Returns the values of an option that has all these spellings.
    pub(super) fn given_values(&self, spellings: &[&str]) -> GivenOptions {
        let mut given: Vec<(Given, &str)> = Vec::new();
        for name in spellings {
            given.extend(self.given(name).into_iter().map(|one| (one, *name)));
        }
        if given.is_empty() {
            // Such an argument names a file with more arguments, which is not read here.
            let file = self
                .args
                .iter()
                .find(|arg| arg.len() > 1 && arg.starts_with('@'));
            return file.map_or(GivenOptions::Absent, |arg| {
                GivenOptions::Unclear(quoted(arg))
            });
        }
        let position = |given: &Given| match given {
            Given::Sure(at, _) => *at,
            Given::Unsure(_) => usize::MAX,
        };
        given.sort_by_key(|(one, _)| position(one));
        let mut values = Vec::new();
        for (one, _) in &given {
            match one {
                Given::Sure(_, value) if !values.contains(value) => values.push(value.clone()),
                Given::Sure(..) => {}
                Given::Unsure(word) => return GivenOptions::Unclear(word.clone()),
            }
        }
        // Two spellings may be two options, and the program may prefer either of them.
        let names: Vec<&str> = given.iter().map(|(_, name)| *name).collect();
        let is_mixed =
            self.getopt.is_none() && values.len() > 1 && names.iter().any(|name| *name != names[0]);
        let last = |given: &[(Given, &str)]| match given {
            [.., (Given::Sure(_, value), _)] => value.clone(),
            _ => String::new(),
        };
        match self.repeated {
            Repeated::Last if is_mixed => {
                GivenOptions::Unclear(format!("{} and {}", names[0], names[names.len() - 1]))
            }
            Repeated::Last => GivenOptions::Value(last(&given)),
            Repeated::First => GivenOptions::Value(values.swap_remove(0)),
            Repeated::All if values.len() > 1 => GivenOptions::Several(values),
            Repeated::All => GivenOptions::Value(values.swap_remove(0)),
        }
    }

    /// Returns a word `@FILE` after the last `value`: in programs that take such a word for a file
    /// of arguments, these decide.
    pub(super) fn file_behind(&self, value: &str) -> Option<&str> {
        let at = self.args.iter().rposition(|arg| arg.ends_with(value))?;
        let is_last = self.repeated == Repeated::Last;
        let behind = self.args[at + 1..].iter().filter(|_| is_last);
        behind
            .map(String::as_str)
            .find(|arg| arg.len() > 1 && arg.starts_with('@'))
    }

    /// Lists every word that is the option, or may be.
    fn given(&self, name: &str) -> Vec<Given> {
        let mut found = match self.getopt {
            Some("") => self.words(name),
            Some(letters) => self.letters(name, letters),
            None => self.guessed(name),
        };
        // No option follows the end of the options. A program may take the words there for more
        // files, and read these too.
        if self.repeated == Repeated::All && self.end() + 1 < self.args.len() {
            found.push(Given::Unsure("--".into()));
        }
        // Only the words from the last certain one on count.
        if self.repeated == Repeated::Last
            && let Some(sure) = found.iter().rposition(|one| matches!(one, Given::Sure(..)))
        {
            found.drain(..sure);
        }
        found
    }

    /// The index of the end of the options: at `--`, or with the arguments.
    fn end(&self) -> usize {
        self.args
            .iter()
            .position(|arg| arg == "--")
            .unwrap_or(self.args.len())
    }

    /// Every option is a word, and `-x` the same as `--x`.
    fn words(&self, name: &str) -> Vec<Given> {
        let plain = name.trim_start_matches('-');
        let dashed = name.starts_with('-');
        let one = |at: usize| {
            let arg = &self.args[at];
            if arg.starts_with('-') != dashed {
                return None;
            }
            match arg.trim_start_matches('-').strip_prefix(plain)? {
                "" if dashed => Some(self.next(at)),
                rest => rest
                    .strip_prefix('=')
                    .map(|value| Given::Sure(at, value.into())),
            }
        };
        (0..self.end()).filter_map(one).collect()
    }

    /// The argument behind the one at `at` is its value.
    fn next(&self, at: usize) -> Given {
        match self.args.get(at + 1) {
            Some(value) => Given::Sure(at, value.clone()),
            None => Given::Unsure(quoted(&self.args[at])),
        }
    }

    /// As `getopt_long(3)` reads it.
    fn letters(&self, name: &str, letters: &str) -> Vec<Given> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < self.args.len() && self.args[at] != "--" {
            let arg = &self.args[at];
            if arg.starts_with("--") {
                found.extend(self.long(at, name));
            } else if arg.len() > 1 && arg.starts_with('-') {
                let Letters::Options(options) = split(&arg[1..], letters) else {
                    found.push(Given::Unsure(quoted(arg)));
                    at += 1;
                    continue;
                };
                let (letter, own) = options[options.len() - 1];
                let takes_next = own.is_none() && takes(letters, letter) == Takes::Value;
                for (letter, value) in options {
                    let value = value.or_else(|| {
                        takes_next
                            .then(|| self.args.get(at + 1).map(String::as_str))
                            .flatten()
                    });
                    found.extend(self.short(at, name, letter, value, takes(letters, letter)));
                }
                at += usize::from(takes_next);
            } else {
                found.extend(assigned(arg, name).map(|value| Given::Sure(at, value.into())));
            }
            at += 1;
        }
        // A word with an unknown letter only counts where it may hold this option.
        found.retain(|one| !matches!(one, Given::Unsure(word) if !may_hold(word, name)));
        found
    }

    /// The option `letter`, where it is the one that is wanted, or its value assigns to it.
    fn short(
        &self,
        at: usize,
        name: &str,
        letter: char,
        value: Option<&str>,
        takes: Takes,
    ) -> Option<Given> {
        if name
            .strip_prefix('-')
            .is_some_and(|wanted| wanted.chars().eq([letter]))
        {
            return Some(value.map_or_else(
                || Given::Unsure(quoted(&self.args[at])),
                |value| Given::Sure(at, value.into()),
            ));
        }
        let value = value.filter(|_| takes != Takes::Nothing)?;
        assigned(value, name).map(|value| Given::Sure(at, value.into()))
    }

    /// A long option: `--name=VALUE`, `--name VALUE`, or what may be its abbreviation.
    fn long(&self, at: usize, name: &str) -> Option<Given> {
        let arg = self.args[at].as_str();
        if let Some(value) = assigned(&arg[2..], name) {
            return Some(Given::Sure(at, value.into()));
        }
        let (word, value) = arg
            .split_once('=')
            .map_or((arg, None), |(word, value)| (word, Some(value)));
        match value {
            Some(value) if word == name => Some(Given::Sure(at, value.into())),
            None if word == name => Some(self.next(at)),
            _ => (name.starts_with("--") && word.len() > 2 && name.starts_with(word))
                .then(|| Given::Unsure(quoted(arg))),
        }
    }

    /// Nothing is known of the program: what is spelled plainly counts, and what may be the option
    /// is unsure.
    fn guessed(&self, name: &str) -> Vec<Given> {
        let end = self.end();
        let is_short = name.len() == 2 && name.starts_with('-');
        let one = |at: usize| {
            let arg = self.args[at].as_str();
            let sure = match arg.strip_prefix(name) {
                Some("") if name.starts_with('-') => Some(self.next(at)),
                Some(rest) if rest.starts_with('/') && is_short => {
                    Some(Given::Sure(at, rest.into()))
                }
                Some(rest) => rest
                    .strip_prefix('=')
                    .map(|value| Given::Sure(at, value.into())),
                None => None,
            };
            let given = sure.or_else(|| self.suspect(at, name))?;
            // Behind `--` it may be an argument of another program that this one starts.
            Some(if at > end {
                Given::Unsure(quoted(arg))
            } else {
                given
            })
        };
        (0..self.args.len()).filter_map(one).collect()
    }

    /// A word that may hold the option, or abbreviate it.
    fn suspect(&self, at: usize, name: &str) -> Option<Given> {
        let arg = self.args[at].as_str();
        // getopt_long(3) takes abbreviations, and other programs take one dash for two.
        let (word, long) = (
            arg.split_once('=')
                .map_or(arg, |(word, _)| word)
                .trim_start_matches('-'),
            name.trim_start_matches('-'),
        );
        if arg.starts_with('-') && name.starts_with('-') && name.len() > 2 {
            let is_short = !arg.starts_with("--") && word.len() < 2;
            return (!word.is_empty() && !is_short && long.starts_with(word))
                .then(|| Given::Unsure(quoted(arg)));
        }
        // `--c FILE`, where `--config` is known as `-c` alone.
        if arg.starts_with("--") && word == long && name.starts_with('-') {
            return Some(Given::Unsure(quoted(arg)));
        }
        if !name.starts_with('-') {
            let value = arg
                .strip_prefix('-')
                .and_then(|rest| rest.get(1..))
                .and_then(|rest| assigned(rest, name));
            return value.map(|value| Given::Sure(at, value.into()));
        }
        let (letters, letter) = (
            arg.strip_prefix('-').filter(|l| !l.starts_with('-'))?,
            name.strip_prefix('-')?,
        );
        let (before, rest) = letters.split_once(letter)?;
        let is_bundle = letter.len() == 1 && before.chars().all(|c| c.is_ascii_alphanumeric());
        let next = self
            .args
            .get(at + 1)
            .is_some_and(|next| !next.starts_with('-'));
        let has_value = if rest.is_empty() {
            !before.is_empty() && next
        } else {
            true
        };
        (is_bundle && has_value).then(|| Given::Unsure(quoted(arg)))
    }
}

/// The value that an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
    /// Only in the same word.
    Maybe,
}

fn takes(letters: &str, letter: char) -> Takes {
    let rest = letters.split_once(letter).map_or("", |(_, rest)| rest);
    match (rest.starts_with("::"), rest.starts_with(':')) {
        (true, _) => Takes::Maybe,
        (_, true) => Takes::Value,
        _ => Takes::Nothing,
    }
}

/// The options in one word behind its dash.
fn split<'a>(word: &'a str, letters: &str) -> Letters<'a> {
    let mut options = Vec::new();
    for (at, letter) in word.char_indices() {
        if letter == ':' || !letters.contains(letter) {
            return Letters::Unknown;
        }
        let rest = &word[at + letter.len_utf8()..];
        if takes(letters, letter) != Takes::Nothing {
            options.push((letter, (!rest.is_empty()).then_some(rest)));
            return Letters::Options(options);
        }
        options.push((letter, None));
    }
    Letters::Options(options)
}

/// Tells whether a word whose letters are not all known may hold the option.
fn may_hold(word: &str, name: &str) -> bool {
    let letter = name.strip_prefix('-').filter(|letter| letter.len() == 1);
    word.starts_with("--") || letter.is_some_and(|letter| word.contains(letter))
}

/// The value that `text` assigns to a setting without a dash: `-` and `_` are one, and so are
/// capital and small letters.
fn assigned<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let plain = |text: &str| text.replace('-', "_").to_ascii_lowercase();
    let (key, value) = text.split_once('=')?;
    (!name.starts_with('-') && plain(key) == plain(name)).then_some(value)
}

fn quoted(word: &str) -> String {
    word.chars().take(QUOTED).collect()
}

/// The arguments with every short option and its value in words of their own; `None` where they are
/// so already, or where a letter is not known.
pub(super) fn unbundled(args: &[String], letters: &str) -> Option<Vec<String>> {
    let mut out = Vec::with_capacity(args.len() + 4);
    let mut at = 0;
    while at < args.len() && args[at] != "--" {
        let word = args[at]
            .strip_prefix('-')
            .filter(|word| !word.is_empty() && !word.starts_with('-'));
        let Some(word) = word else {
            out.push(args[at].clone());
            at += 1;
            continue;
        };
        let Letters::Options(options) = split(word, letters) else {
            return None;
        };
        let (last, own) = options[options.len() - 1];
        for (letter, value) in &options {
            // An optional value counts only in the same word.
            match (value, takes(letters, *letter)) {
                (Some(value), Takes::Maybe) => out.push(format!("-{letter}{value}")),
                (Some(value), _) => out.extend([format!("-{letter}"), (*value).to_owned()]),
                (None, _) => out.push(format!("-{letter}")),
            }
        }
        if own.is_none() && takes(letters, last) == Takes::Value {
            at += 1;
            out.extend(args.get(at).cloned());
        }
        at += 1;
    }
    out.extend(args.iter().skip(at).cloned());
    (out != args).then_some(out)
}

#[cfg(test)]
mod tests;
