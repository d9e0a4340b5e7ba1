//! A screenful of lines that is drawn again in the same place.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
};

use console::Term;

use super::{INDENT, harmless, wrap, written::Noted};

/// The lines on the terminal of stdout.
#[derive(Debug)]
pub(crate) struct Frame {
    lines: Vec<String>,
    /// Rows and columns when it was drawn; none before that.
    size: Option<(u16, u16)>,
}

impl Frame {
    /// Returns a frame that is not drawn yet; none if stdout is no terminal.
    pub(crate) fn of_stdout() -> Option<Self> {
        io::stdout().is_terminal().then_some(Self {
            lines: Vec::new(),
            size: None,
        })
    }

    /// Draws new lines over the old ones.
    pub(crate) fn draw(&mut self, lines: Vec<String>) {
        self.lines = lines;
        self.redraw();
    }

    /// Draws the same lines again if the terminal has another size now.
    pub(crate) fn follow_size(&mut self) {
        if self.size.is_some_and(|size| size != Term::stdout().size()) {
            self.size = None;
            self.redraw();
        }
    }

    fn redraw(&mut self) {
        let size = Term::stdout().size();
        // In one write, so that the terminal never shows a half. Each line overwrites the old one
        // and clears the rest of its row, so nothing blinks.
        let mut text = String::from(if self.size.is_none() {
            "\x1b[2J\x1b[H"
        } else {
            "\x1b[H"
        });
        for line in fitted(&self.lines, size) {
            let _ = writeln!(text, "{line}\x1b[K");
        }
        text.push_str("\x1b[J");
        self.size = Some(size);
        let mut out = Noted(io::stdout().lock());
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// Returns the rows that fit a terminal of `rows` and `columns`; a long line takes several. The
/// last row stays free for the cursor, and the last column too: a full row would wrap by itself.
fn fitted(lines: &[String], (rows, columns): (u16, u16)) -> Vec<String> {
    let room = usize::from(rows).saturating_sub(1).max(1);
    let width = usize::from(columns).saturating_sub(1).max(1);
    let wrapped = lines.iter().map(|line| wrapped(line, width));
    let lines: Vec<Vec<String>> = wrapped.collect();
    if lines.iter().map(Vec::len).sum::<usize>() <= room {
        return lines.concat();
    }
    let mut left = room.saturating_sub(1);
    let fits = |line: &&Vec<String>| {
        let fits = line.len() <= left;
        left = left.saturating_sub(line.len());
        fits
    };
    let mut shown: Vec<&Vec<String>> = lines.iter().take_while(fits).collect();
    let more = format!(".. and {} more lines", lines.len() - shown.len());
    let more = vec![more.chars().take(width).collect()];
    shown.push(&more);
    shown.into_iter().flatten().cloned().collect()
}

/// Breaks a line into rows. Each further row is indented.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    let indent = if width > 2 * INDENT { INDENT } else { 0 };
    wrap::cut(&harmless(line).replace('\t', " "), width, indent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_fit_the_terminal() {
        let lines: Vec<String> = (0..5).map(|n| format!("{n}{}", "x".repeat(30))).collect();
        assert_eq!(fitted(&lines, (24, 80)), lines);
        assert_eq!(
            fitted(&lines, (4, 40)),
            [lines[0].as_str(), &lines[1], ".. and 3 more lines"]
        );
        let wrapped = fitted(&lines[..1], (4, 21));
        assert_eq!(wrapped, [&lines[0][..20], "  xxxxxxxxxxx"]);
        assert_eq!(
            fitted(&lines, (4, 21)),
            [&lines[0][..20], "  xxxxxxxxxxx", ".. and 4 more lines"]
        );
        for size in [(0, 0), (1, 1), (2, 3), (24, 4)] {
            let rows = fitted(&lines, size);
            assert!(rows.len() <= usize::from(size.0).saturating_sub(1).max(1));
            let width = usize::from(size.1).saturating_sub(1).max(1);
            assert!(rows.iter().all(|row| row.len() <= width), "{rows:?}");
        }
    }

    #[test]
    fn no_unsafe_character_reaches_the_terminal() {
        let lines = ["a\x1b[2Jb\tc".to_owned()];
        assert_eq!(fitted(&lines, (24, 80)), ["a\\x1b[2Jb c"]);
    }
}
