//! The only module that writes to stdout and stderr. Text for the operator passes a filter: another
//! user, process or host may have chosen its bytes.

use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
    io::{self, IsTerminal, Write},
};

mod colour;
mod frame;
mod progress;
mod question;
mod shell;
mod sink;
mod table;
mod wrap;
mod written;

use self::{colour::Stream, written::Noted};
pub(crate) use self::{
    colour::{COLUMN, set as set_colours},
    frame::Frame,
    progress::{Awaited, PhaseEnd, Progress, clear},
    question::{can_ask, confirm},
    shell::{counted, quote},
    sink::{Sink, interrupted, is_interrupted, leave},
    table::Table,
    written::{
        is_reader_gone, note as note_unwritten, note_file as note_unwritten_file, unwritten,
    },
};

/// The spaces before each line of an error or an answer but the first.
const INDENT: usize = 2;

/// Tells whether a terminal could obey `c`, hide it, or reverse the text around it. These are the
/// controls (C0, DEL, C1) and the formatting characters of Unicode, without newline and tab.
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

/// Tells whether `c` is shown as it is inside a line: no terminal obeys or hides it.
pub(crate) fn is_plain(c: char) -> bool {
    !matches!(c, '\n' | '\t') && !is_unsafe(c)
}

/// Escapes unsafe characters, and replaces each newline.
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

/// Returns `text` on one line: each unsafe character and each newline is a visible escape.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    if text.contains(|c| c == '\n' || is_unsafe(c)) {
        escaped(text, "\\n").into()
    } else {
        text.into()
    }
}

/// Returns `text` as the rest of a line. Each further line starts with `indent` spaces and a bar,
/// as no line of this program does.
pub(crate) fn block(text: &str, indent: usize) -> Cow<'_, str> {
    let text = text.trim_end_matches('\n');
    if text.contains(|c| c == '\n' || is_unsafe(c)) {
        escaped(text, &format!("\n{:indent$}| ", "")).into()
    } else {
        text.into()
    }
}

/// Returns lines of another program: each starts with a bar, also the first.
pub(crate) fn quoted(text: &str) -> String {
    let lines = text
        .lines()
        .map(|text| format!("{:INDENT$}| {}\n", "", line(text)));
    lines.collect()
}

/// Escapes unsafe characters in text whose lines are this program's own.
fn harmless(text: &str) -> Cow<'_, str> {
    if text.contains(is_unsafe) {
        escaped(text, "\n").into()
    } else {
        text.into()
    }
}

/// Returns one line of a report: its word, right-aligned, and its text.
pub(crate) fn worded(word: &str, text: &str) -> String {
    format!("{:>12} {}", line(word), block(text, COLUMN))
}

/// Returns the last line of a command that failed: `error: ..`.
pub(crate) fn failure(why: &str) -> String {
    // A rendered diagnostic starts with it already.
    let why = why.trim_start_matches("error: ");
    format!("error: {}", block(why, INDENT))
}

/// Returns a hint: what to do next, and the commands to type, each on its own line.
pub(crate) fn hint<S: AsRef<str>>(what: &str, commands: &[S]) -> String {
    let commands = commands
        .iter()
        .map(|command| format!("\n  {}", line(command.as_ref())));
    format!("hint: {}{}", line(what), commands.collect::<String>())
}

/// Returns a row of an answer.
pub(crate) fn row(text: &str) -> Cow<'_, str> {
    block(text, INDENT)
}

/// Writes a line for the operator to stderr. A closed stderr is no error.
pub(crate) fn tell(text: &str) {
    let text = wrap::labelled(harmless(text), wrap::stderr_columns());
    let _ = writeln!(io::stderr(), "{}", Stream::Stderr.paint(text));
}

/// Returns the size of the file that stdout leads to; none if it is no regular file.
pub(crate) fn stdout_file_size() -> Option<u64> {
    let stat = rustix::fs::fstat(io::stdout()).ok()?;
    let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    is_file.then(|| u64::try_from(stat.st_size).unwrap_or_default())
}

/// Writes lines for the operator to stdout. A closed stdout is no error.
pub(crate) fn answer<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) {
    let mut out = Noted(io::stdout().lock());
    for text in lines {
        let _ = writeln!(out, "{}", Stream::Stdout.paint(harmless(text.as_ref())));
    }
    let _ = out.flush();
}

/// Writes the bytes of a content to stdout, exactly. On a terminal they are text, and unsafe
/// characters are escaped.
pub(crate) fn content(bytes: &[u8]) {
    let mut out = Noted(io::stdout().lock());
    if !io::stdout().is_terminal() {
        let _ = out.write_all(bytes).and_then(|()| out.flush());
        return;
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&harmless(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    let _ = write!(out, "{text}{newline}").and_then(|()| out.flush());
}

/// Writes JSON, or a script of this program, to stdout: one value per line, unfiltered.
pub(crate) fn data<D: Display>(values: impl IntoIterator<Item = D>) {
    let mut out = Noted(io::stdout().lock());
    for value in values {
        let _ = writeln!(out, "{value}");
    }
    let _ = out.flush();
}

/// Returns stdout for the frames of an agent, unfiltered.
pub(crate) fn frames() -> impl Write {
    io::stdout()
}

/// The log of a server; each write is one entry. JSON has its own escapes and is not filtered.
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

/// Returns stderr, for a caller that needs a descriptor.
pub(crate) fn stderr() -> io::Stderr {
    io::stderr()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_unsafe_character_passes(
            text in any::<String>(),
            indent in 0..20usize,
        ) {
            let texts = [
                line(&text).into_owned(),
                block(&text, indent).into_owned(),
                quoted(&text),
                worded(&text, &text),
                failure(&text),
            ];
            for shown in texts.iter().map(String::as_str).chain([&*harmless(&text)]) {
                prop_assert!(!shown.contains(is_unsafe), "{shown:?}");
            }
            prop_assert!(!line(&text).contains('\n'));
            let once = line(&text);
            prop_assert_eq!(
                line(&once),
                &*once,
                "filtered text stays the same"
            );
        }

        #[test]
        fn a_further_line_starts_with_a_bar(text in "[a-z \n]{0,40}") {
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
    fn unsafe_characters_are_escaped_and_text_is_unchanged() {
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
            worded("Skipped", "pid 1\nerror: x\n"),
            "     Skipped pid 1\n             | error: x"
        );
        assert_eq!(failure("a\nhint: b"), "error: a\n  | hint: b");
        assert_eq!(
            hint("go on\nhere", &["a\nb", "c"]),
            "hint: go on\\nhere\n  a\\nb\n  c"
        );
    }
}
