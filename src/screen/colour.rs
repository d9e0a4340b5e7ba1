//! Colours of the labels at the start of a line. The text of a line has none: it may be another
//! program's.

use std::{
    borrow::Cow,
    io::{self, IsTerminal},
    sync::atomic::{AtomicBool, Ordering},
};

use console::Style;

/// The column where the text of a line starts, after its word: 12 letters and a space.
pub(crate) const COLUMN: usize = 13;

/// True where stdout, or stderr, shows colours. Both begin without.
static STDOUT: AtomicBool = AtomicBool::new(false);
static STDERR: AtomicBool = AtomicBool::new(false);

/// Labels of a step that went well.
const GOOD: &[&str] = &[
    "Survey",
    "Valid",
    "Wave",
    "Installed",
    "Confirmed",
    "Reverted",
    "Baking",
    "Baked",
    "Gate",
    "Unchanged",
    "Forgotten",
    "Process",
];

/// Labels of what the operator should know of.
const NOTABLE: &[&str] = &[
    "Skipped",
    "Gone",
    "Insecure",
    "Failing",
    "Not opened",
    "Unvalidated",
    "Unresponsive",
    "Foreign lock",
    "Left beside",
    "Late edit",
    "Not watched",
    "No rollback",
    "Superseded",
    "Not pruned",
    "Stopped",
    "Signalled",
    "Rolling back",
    "Rolled back",
    "Open run",
    "Under way",
    "Interrupted",
    "Refused",
];

/// Returns the style of a result in the first column of a table; none for any other word.
fn result_style(word: &str) -> Option<Style> {
    match word {
        "ok" => Some(Style::new().green()),
        "FAULT" | "NO" => Some(Style::new().bold().red()),
        _ => None,
    }
}

/// Decides about colours from now on; without a decision, each terminal has them.
pub(crate) fn set(decision: Option<bool>) {
    let stdout = decision.unwrap_or_else(|| io::stdout().is_terminal());
    let stderr = decision.unwrap_or_else(|| io::stderr().is_terminal());
    STDOUT.store(stdout, Ordering::Relaxed);
    STDERR.store(stderr, Ordering::Relaxed);
}

/// A standard stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// Returns the text with the colours of this stream.
    pub(super) fn paint(self, text: Cow<'_, str>) -> Cow<'_, str> {
        painted(text, self.has_colours())
    }

    /// Tells whether this stream shows colours.
    pub(super) fn has_colours(self) -> bool {
        let is_on = match self {
            Self::Stdout => &STDOUT,
            Self::Stderr => &STDERR,
        };
        is_on.load(Ordering::Relaxed)
    }
}

/// Returns a row of a table with the colour of its first cell, if that is the word for a result.
pub(super) fn painted_row(row: &str, is_on: bool) -> String {
    let word = row.split(' ').next().unwrap_or_default();
    let Some(style) = result_style(word).filter(|_| is_on) else {
        return row.to_owned();
    };
    let rest = &row[word.len()..];
    format!("{}{rest}", style.force_styling(true).apply_to(word))
}

/// Colours the label of each line, after the filter, so that no other text has colours.
fn painted(text: Cow<'_, str>, is_on: bool) -> Cow<'_, str> {
    if !is_on {
        return text;
    }
    let lines: Vec<String> = text.split('\n').map(line).collect();
    lines.join("\n").into()
}

fn line(line: &str) -> String {
    let Some((label, style)) = label(line) else {
        return line.to_owned();
    };
    format!(
        "{}{}",
        style.force_styling(true).apply_to(label),
        &line[label.len()..]
    )
}

/// Returns the column where the text of a labelled line starts; none for a line of another form.
pub(super) fn text_column(line: &str) -> Option<usize> {
    let (label, _) = label(line)?;
    Some(if label.ends_with(':') {
        label.len() + 1
    } else {
        COLUMN
    })
}

/// Returns the label of a line, with its padding; none for a line of another form.
fn label(line: &str) -> Option<(&str, Style)> {
    let bold = Style::new().bold();
    if line.starts_with("error:") {
        return Some((&line[.."error:".len()], bold.red()));
    }
    if line.starts_with("hint:") {
        return Some((&line[.."hint:".len()], bold.cyan()));
    }
    let label = line.get(..COLUMN)?.strip_suffix(' ')?;
    let style = match label.trim_start() {
        "FAILED" => bold.red(),
        word if GOOD.contains(&word) => bold.green(),
        word if NOTABLE.contains(&word) => bold.yellow(),
        "Summary" | "Result" => bold,
        _ => return None,
    };
    Some((label, style))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::{failure, hint, worded};

    fn shown(text: &str) -> String {
        painted(text.into(), true).into_owned()
    }

    #[test]
    fn a_label_has_a_colour_and_its_text_has_none() {
        assert_eq!(
            shown(&worded("Confirmed", "web pid 7")),
            "\u{1b}[32m\u{1b}[1m   Confirmed\u{1b}[0m web pid 7"
        );
        assert_eq!(
            shown(&worded("FAILED", "web")),
            "\u{1b}[31m\u{1b}[1m      FAILED\u{1b}[0m web"
        );
    }

    #[test]
    fn an_error_and_its_hint_differ() {
        let error = shown(&failure("no\nsecond"));
        assert_eq!(error, "\u{1b}[31m\u{1b}[1merror:\u{1b}[0m no\n  | second");
        let hint = shown(&hint("look:", &["hello status"]));
        assert_eq!(
            hint,
            "\u{1b}[36m\u{1b}[1mhint:\u{1b}[0m look:\n  hello status"
        );
    }

    #[test]
    fn the_result_in_a_table_has_a_colour() {
        assert_eq!(painted_row("ok  web", true), "\u{1b}[32mok\u{1b}[0m  web");
        assert_eq!(
            painted_row("FAULT  web", true),
            "\u{1b}[31m\u{1b}[1mFAULT\u{1b}[0m  web"
        );
        for row in ["okay  web", "    ok", "RESULT  GROUP", "NOT"] {
            assert_eq!(painted_row(row, true), row);
        }
        assert_eq!(painted_row("ok  web", false), "ok  web");
    }

    #[test]
    fn other_text_is_left_as_it_is() {
        for text in ["", "web pid 7 ok", "   Confirmedx y", "äöüäöüäöüäöüä b"] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn without_colours_nothing_changes() {
        let text = worded("FAILED", "web");
        assert_eq!(painted(text.as_str().into(), false), text);
    }
}
