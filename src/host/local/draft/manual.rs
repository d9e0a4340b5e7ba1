//! The page of a program in the manual, as plain items: a head, such as `-c FILE`, and its text.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::host::exec::query;

/// Sections of daemons and commands, in the order in which they are looked at.
const SECTIONS: [&str; 2] = ["8", "1"];

/// The directories of manual pages.
const DIRS: [&str; 2] = ["/usr/share/man", "/usr/local/share/man"];

/// Programs that unpack a page.
const GZIP: [&str; 2] = ["/usr/bin/gzip", "/bin/gzip"];

/// Longest time in which a page is unpacked.
const LIMIT: Duration = Duration::from_secs(2);

/// Largest page that is read, in bytes; a longer one is cut.
const MAX_BYTES: u64 = 256 << 10;

/// Macros of man(7) whose words are joined without blanks.
const JOINED: &[&str] = &["BR", "RB", "BI", "IB", "IR", "RI"];

/// A page of the manual.
#[derive(Debug, Default)]
pub(super) struct Manual {
    /// Its name with its section, such as `nsd(8)`.
    pub(super) name: String,
    pub(super) items: Vec<Item>,
}

/// A paragraph, or an option with its text.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// The option as it is written; empty for a paragraph.
    pub(super) head: String,
    pub(super) text: String,
}

impl Manual {
    /// Reads the page of the first of `names` that has one.
    pub(super) async fn of(names: &[String]) -> Option<Self> {
        for name in names {
            for section in SECTIONS {
                for dir in DIRS {
                    let path = format!("{dir}/man{section}/{name}.{section}");
                    if let Some(text) = text(&path).await {
                        return Some(Self {
                            name: format!("{name}({section})"),
                            items: items(&text),
                        });
                    }
                }
            }
        }
        None
    }
}

/// Returns the source of a page; none if there is none.
async fn text(path: &str) -> Option<String> {
    if let Ok(file) = fs::File::open(path) {
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        return Some(String::from_utf8_lossy(&bytes).into_owned());
    }
    let packed = PathBuf::from(format!("{path}.gz"));
    if !packed.is_file() {
        return None;
    }
    let gzip = GZIP.into_iter().find(|gzip| Path::new(gzip).is_file())?;
    let argv = [gzip, "-dc", "--", packed.to_str()?].map(str::to_owned);
    let bytes = query(&argv, LIMIT).await?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Divides the source of a page into items. It knows the macros of man(7) and mdoc(7) that begin
/// one, and drops all others.
fn items(source: &str) -> Vec<Item> {
    let mut items: Vec<Item> = vec![Item::default()];
    let mut is_head = false;
    for line in source.lines() {
        let (name, rest) = macro_of(line);
        match name {
            "\\\"" | "'" => continue,
            "TP" | "TQ" => {
                is_head = true;
                continue;
            }
            "SH" | "SS" | "Sh" | "Ss" | "PP" | "P" | "LP" | "Pp" | "sp" => {
                items.push(Item::default());
                is_head = false;
                continue;
            }
            "IP" | "It" => {
                let head = match name {
                    "IP" => plain(arguments(rest).first().map_or("", String::as_str)),
                    _ => plain(&mdoc(rest)),
                };
                items.push(Item {
                    head,
                    text: String::new(),
                });
                is_head = false;
                continue;
            }
            _ => {}
        }
        let words = match name {
            "" => plain(line),
            name if JOINED.contains(&name) => plain(&arguments(rest).concat()),
            "B" | "I" | "SM" | "SB" => plain(&arguments(rest).join(" ")),
            name if is_mdoc(name) => plain(&mdoc(line.trim_start_matches('.'))),
            _ => continue,
        };
        if is_head {
            items.push(Item {
                head: words,
                text: String::new(),
            });
            is_head = false;
        } else if let Some(item) = items.last_mut() {
            if !item.text.is_empty() {
                item.text.push(' ');
            }
            item.text.push_str(words.trim());
        }
    }
    items.retain(|item| !item.head.is_empty() || !item.text.is_empty());
    items
}

/// The name of the macro of a line, and what follows; an empty name for text.
fn macro_of(line: &str) -> (&str, &str) {
    let Some(rest) = line.strip_prefix(['.', '\'']) else {
        return ("", line);
    };
    let rest = rest.trim_start();
    rest.split_once([' ', '\t']).unwrap_or((rest, ""))
}

/// The arguments of a macro: words, or text in quotes.
fn arguments(rest: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut rest = rest.trim();
    while !rest.is_empty() {
        let (word, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once([' ', '\t']).unwrap_or((rest, "")),
        };
        all.push(word.to_owned());
        rest = behind.trim_start();
    }
    all
}

/// Tells whether a line of mdoc(7) has text: its macros have two letters, the second a small one.
fn is_mdoc(name: &str) -> bool {
    let mut letters = name.chars();
    let is_pair = letters.next().is_some_and(|c| c.is_ascii_uppercase())
        && letters.next().is_some_and(|c| c.is_ascii_lowercase())
        && letters.next().is_none();
    is_pair && !["Bl", "El", "Dd", "Dt", "Os", "Bd", "Ed"].contains(&name)
}

/// Replaces the macros within a line of mdoc(7): `Fl t` is `-t`.
fn mdoc(rest: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut is_flag = false;
    for word in rest.split_ascii_whitespace() {
        match word {
            "Fl" => is_flag = true,
            _ if is_mdoc(word) => {}
            _ if is_flag => {
                out.push(format!("-{word}"));
                is_flag = false;
            }
            _ => out.push(word.to_owned()),
        }
    }
    out.join(" ")
}

/// Removes the escapes of roff: fonts, dashes, names of characters.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('-') => out.push('-'),
            Some('e' | '\\') => out.push('\\'),
            Some(' ' | '~' | '0') => out.push(' '),
            Some('f') => match chars.next() {
                Some('(') => drop(chars.nth(1)),
                Some('[') => drop(chars.find(|c| *c == ']')),
                _ => {}
            },
            Some('(') => {
                let name: String = chars.by_ref().take(2).collect();
                out.push_str(match name.as_str() {
                    "aq" | "cq" | "oq" => "'",
                    "dq" | "lq" | "rq" => "\"",
                    "em" | "en" | "hy" | "mi" => "-",
                    _ => "",
                });
            }
            Some('*' | 's') => {
                let next = chars.next();
                match next {
                    Some('[') => drop(chars.find(|c| *c == ']')),
                    Some('(') => drop(chars.nth(1)),
                    Some('+' | '-') => drop(chars.next()),
                    _ => {}
                }
            }
            Some('"') => break,
            _ => {}
        }
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(head: &str, text: &str) -> Item {
        Item {
            head: head.into(),
            text: text.into(),
        }
    }

    #[test]
    fn an_option_of_either_macro_package_is_an_item() {
        let man = ".SH OPTIONS\n.TP\n\\fB\\-t\\fR, \\fB\\-\\-config\\-test\\fR\nTests the config.\n\
                   Then ends.\n.TP\n.BI \\-c \" file\"\nIts file.\n.IP \"\\-v\" 4\nMore.\n";
        assert_eq!(
            items(man),
            [
                item("-t, --config-test", "Tests the config. Then ends."),
                item("-c file", "Its file."),
                item("-v", "More."),
            ]
        );
        let mdoc = ".Sh OPTIONS\n.Bl -tag\n.It Fl c Ar file\nIts\n.Ar file .\n.El\n";
        assert_eq!(items(mdoc), [item("-c file", "Its file .")]);
    }

    #[test]
    fn escapes_are_removed() {
        for (source, text) in [
            ("\\fB\\-\\-x\\fP", "--x"),
            ("a\\&b\\(aqc", "ab'c"),
            ("\\f(CWx\\f[R]y", "xy"),
            ("tail\\", "tail"),
        ] {
            assert_eq!(plain(source), text);
        }
    }
}
