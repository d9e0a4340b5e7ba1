//! The one place that writes to stdout and stderr. Text for people passes a filter here: it may
//! hold bytes that another user, another process or another host chose.

use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
    io::{self, Write},
};

mod progress;
mod shell;
mod sink;
mod written;

use self::written::Noted;
pub(crate) use self::{
    progress::{Progress, clear},
    shell::{counted, quote},
    sink::{Sink, leave},
    written::{note as note_unwritten, unwritten},
};

/// The column at which the text of a line begins, behind its word.
pub(crate) const COLUMN: usize = 13;

/// How far the lines of an error or an answer are indented after the first.
const INDENT: usize = 2;

/// Whether a terminal could obey `c`, or show it as nothing, or turn the order of what stands
/// around it: controls (C0, DEL, C1) and the formatting characters of Unicode. Newline and tab
/// are not among them.
fn is_unsafe(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        c if c.is_control() => true,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}' => {
            true
        }
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' => true,
        '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    }
}

fn escaped(text: &str, newline: &str) -> String {
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => shown.push_str(newline),
            c if !is_unsafe(c) => shown.push(c),
            c if c.is_ascii() => _ = write!(shown, "\\x{:02x}", u32::from(c)),
            c => _ = write!(shown, "\\u{{{:x}}}", u32::from(c)),
        }
    }
    shown
}

/// `text` on one line: whatever a terminal could obey, and every newline, is a visible escape.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    if text.contains(|c| c == '\n' || is_unsafe(c)) {
        escaped(text, "\\n").into()
    } else {
        text.into()
    }
}

/// `text` as the rest of a line. Each further line of it begins with `indent` spaces and a bar,
/// as no line of this program does.
pub(crate) fn block(text: &str, indent: usize) -> Cow<'_, str> {
    let text = text.trim_end_matches('\n');
    if text.contains(|c| c == '\n' || is_unsafe(c)) {
        escaped(text, &format!("\n{:indent$}| ", "")).into()
    } else {
        text.into()
    }
}

/// Lines of another origin: every one of them begins with a bar, also the first.
pub(crate) fn quoted(text: &str) -> String {
    let lines = text
        .lines()
        .map(|text| format!("{:INDENT$}| {}\n", "", line(text)));
    lines.collect()
}

/// The last filter of text whose lines are this program's own.
fn harmless(text: &str) -> Cow<'_, str> {
    if text.contains(is_unsafe) {
        escaped(text, "\n").into()
    } else {
        text.into()
    }
}

/// One line of a report: its word, right-aligned, and what it says.
pub(crate) fn worded(word: &str, text: &str) -> String {
    format!("{:>12} {}", line(word), block(text, COLUMN))
}

/// `error: ..`, as a command ends with it.
pub(crate) fn failure(why: &str) -> String {
    // A rendered fault of a text begins like that already.
    let why = why.trim_start_matches("error: ");
    format!("error: {}", block(why, INDENT))
}

/// What to do next, and the commands to type. Each command is a line of its own.
pub(crate) fn hint<S: AsRef<str>>(what: &str, commands: &[S]) -> String {
    let commands = commands
        .iter()
        .map(|command| format!("\n  {}", line(command.as_ref())));
    format!("hint: {}{}", line(what), commands.collect::<String>())
}

/// A row of an answer.
pub(crate) fn row(text: &str) -> Cow<'_, str> {
    block(text, INDENT)
}

/// Writes a line for people to stderr. A reader that went away changes nothing.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{}", harmless(text));
}

/// Writes lines for people to stdout. A reader that went away changes nothing.
pub(crate) fn answer<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) {
    let mut out = Noted(io::stdout().lock());
    for text in lines {
        let _ = writeln!(out, "{}", harmless(text.as_ref()));
    }
    let _ = out.flush();
}

/// Writes JSON to stdout, a value a line, exactly as it is.
pub(crate) fn data<D: Display>(values: impl IntoIterator<Item = D>) {
    let mut out = Noted(io::stdout().lock());
    for value in values {
        let _ = writeln!(out, "{value}");
    }
    let _ = out.flush();
}

/// The log of a server, an entry a write. JSON has its own escapes and stays exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Log {
    Lines,
    Json,
}

impl Write for Log {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        match self {
            Self::Json => io::stderr().write_all(entry)?,
            Self::Lines => {
                let text = String::from_utf8_lossy(entry);
                let text = text.strip_suffix('\n').unwrap_or(&text);
                io::stderr().write_all(format!("{}\n", row(text)).as_bytes())?;
            }
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A descriptor of stderr, for what the kernel counts by it.
pub(crate) fn stderr() -> io::Stderr {
    io::stderr()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_that_a_terminal_could_obey_passes(
            text in any::<String>(),
            indent in 0..20usize,
        ) {
            let all = [
                line(&text).into_owned(),
                block(&text, indent).into_owned(),
                quoted(&text),
                worded(&text, &text),
                failure(&text),
            ];
            for shown in all.iter().map(String::as_str).chain([&*harmless(&text)]) {
                prop_assert!(!shown.contains(is_unsafe), "{shown:?}");
            }
            prop_assert!(!line(&text).contains('\n'));
            let once = line(&text);
            prop_assert_eq!(
                line(&once),
                &*once,
                "what was filtered is not filtered once more"
            );
        }

        #[test]
        fn a_further_line_begins_with_a_bar(text in "[a-z \n]{0,40}") {
            prop_assert!(
                worded("Word", &text)
                    .lines()
                    .skip(1)
                    .all(|l| l.starts_with("             | "))
            );
            prop_assert!(
                failure(&text)
                    .lines()
                    .skip(1)
                    .all(|l| l.starts_with("  | "))
            );
            prop_assert!(quoted(&text).lines().all(|l| l.starts_with("  | ")));
        }
    }

    #[test]
    fn what_is_hidden_becomes_visible_and_words_stay_as_they_are() {
        for (text, shown) in [
            ("plain, ä, 日本, 🦀, a\tb", "plain, ä, 日本, 🦀, a\tb"),
            ("\x1b[2J\r\x07\x7f", "\\x1b[2J\\x0d\\x07\\x7f"),
            ("\u{9b}31m", "\\u{9b}31m"),
            (
                "a\u{202e}b\u{2066}c\u{200b}\u{2028}\u{feff}",
                "a\\u{202e}b\\u{2066}c\\u{200b}\\u{2028}\\u{feff}",
            ),
            ("tag \u{e0041}", "tag \\u{e0041}"),
            ("a\nb", "a\\nb"),
        ] {
            assert_eq!(line(text), shown);
        }
        assert_eq!(
            worded("Left out", "pid 1\nerror: x\n"),
            "    Left out pid 1\n             | error: x"
        );
        assert_eq!(failure("a\nhint: b"), "error: a\n  | hint: b");
        assert_eq!(
            hint("go on\nhere", &["a\nb", "c"]),
            "hint: go on\\nhere\n  a\\nb\n  c"
        );
    }
}
