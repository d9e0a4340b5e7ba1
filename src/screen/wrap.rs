//! Lines that are longer than a terminal is wide, broken between words.

use std::{
    borrow::Cow,
    io::{self, IsTerminal},
};

use console::{Term, measure_text_width as width};

use super::colour;

/// The widest terminal, in columns, that a line is broken for. In a wider one the terminal itself
/// breaks the few lines that are longer.
const WIDEST: usize = 1000;

/// The least columns for the text of a line. In a narrower terminal the terminal breaks the lines.
const LEAST: usize = 40;

/// Returns the columns of the terminal of stdout; none if stdout is no terminal.
pub(super) fn stdout_columns() -> Option<usize> {
    let is_terminal = io::stdout().is_terminal();
    is_terminal.then(|| usize::from(Term::stdout().size().1))
}

/// Returns the columns of the terminal of stderr; none if stderr is no terminal.
pub(super) fn stderr_columns() -> Option<usize> {
    let is_terminal = io::stderr().is_terminal();
    is_terminal.then(|| usize::from(Term::stderr().size().1))
}

/// The parts of a line that go to the next row as a whole, if they fit there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Words,
    /// The cells of a table, which two blanks or more divide.
    Cells,
}

/// Breaks a line into rows of at most `columns`. Each further row is indented. A word that is
/// longer than a row stays whole, so that it can be copied.
pub(super) fn rows(line: &str, columns: usize, indent: usize, unit: Unit) -> Vec<String> {
    if columns > WIDEST || width(line) <= columns {
        return vec![line.to_owned()];
    }
    let indent = indent.min(columns / 2);
    let mut rows = Vec::new();
    let mut row = String::new();
    let mut used = 0;
    // The blanks before the next word, and whether the row has a word already.
    let mut blanks = 0;
    let mut has_word = false;
    let mut rest = line;
    for (index, word) in line.split(' ').enumerate() {
        blanks += usize::from(index > 0);
        if word.is_empty() {
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        let is_cell = unit == Unit::Cells && blanks > 1;
        let cell = rest.split("  ").next().filter(|_| is_cell);
        let fits = |part: &str| used + blanks + width(part) <= columns;
        let cell_goes_on = cell.is_some_and(|cell| !fits(cell) && indent + width(cell) <= columns);
        if has_word && (cell_goes_on || !fits(word)) {
            rows.push(std::mem::take(&mut row));
            used = 0;
            blanks = indent;
        }
        row.extend(std::iter::repeat_n(' ', blanks));
        row.push_str(word);
        used += blanks + width(word);
        blanks = 0;
        has_word = true;
        rest = rest.get(word.len() + 1..).unwrap_or_default();
    }
    rows.push(row);
    rows
}

/// Cuts a line into rows of at most `columns`, between words where that is possible.
pub(super) fn cut(line: &str, columns: usize, indent: usize) -> Vec<String> {
    let whole = rows(line, columns, indent, Unit::Words);
    let pieces = whole
        .into_iter()
        .flat_map(|row| pieces(row, columns, indent));
    pieces.collect()
}

/// Cuts a row anywhere, so that each piece has at most `columns`.
fn pieces(row: String, columns: usize, indent: usize) -> Vec<String> {
    if width(&row) <= columns {
        return vec![row];
    }
    let indent = indent.min(columns / 2);
    let mut pieces = Vec::new();
    let mut piece = String::new();
    let mut used = 0;
    for c in row.chars() {
        let columns_of_c = width(c.encode_utf8(&mut [0; 4]));
        if used + columns_of_c > columns && !piece.is_empty() {
            pieces.push(std::mem::replace(&mut piece, " ".repeat(indent)));
            used = indent;
        }
        piece.push(c);
        used += columns_of_c;
    }
    pieces.push(piece);
    pieces
}

/// Breaks the labelled lines of a text for a terminal. All other lines stay whole: they are
/// commands to copy, or another program's.
pub(super) fn labelled(text: Cow<'_, str>, columns: Option<usize>) -> Cow<'_, str> {
    let Some(columns) = columns.filter(|columns| *columns >= LEAST) else {
        return text;
    };
    if text.lines().all(|line| width(line) <= columns) {
        return text;
    }
    let broken = text.split('\n').flat_map(|line| {
        colour::text_column(line).map_or_else(
            || vec![line.to_owned()],
            |indent| rows(line, columns, indent, Unit::Words),
        )
    });
    broken.collect::<Vec<_>>().join("\n").into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::screen::{failure, hint, worded};

    fn broken(line: &str, columns: usize, indent: usize) -> Vec<String> {
        rows(line, columns, indent, Unit::Words)
    }

    #[test]
    fn a_line_is_broken_between_words_and_further_rows_are_indented() {
        assert_eq!(
            broken("one two  three four", 10, 2),
            ["one two", "  three", "  four"]
        );
        assert_eq!(broken("short", 10, 2), ["short"]);
        assert_eq!(broken("  a  b", 3, 1), ["  a", " b"]);
    }

    #[test]
    fn a_cell_goes_to_the_next_row_as_a_whole_if_it_fits_there() {
        let line = "1  one two  three four";
        assert_eq!(
            rows(line, 17, 3, Unit::Cells),
            ["1  one two", "   three four"]
        );
        assert_eq!(broken(line, 17, 3), ["1  one two  three", "   four"]);
        assert_eq!(
            rows(line, 12, 3, Unit::Cells),
            ["1  one two", "   three", "   four"]
        );
    }

    #[test]
    fn a_long_word_stays_whole_or_is_cut_where_it_must_fit() {
        let path = "/a/very/long/path";
        let line = format!("reads {path} now");
        assert_eq!(
            broken(&line, 10, 2),
            ["reads", &format!("  {path}"), "  now"]
        );
        assert_eq!(
            cut(&line, 10, 2),
            ["reads", "  /a/very/", "  long/pat", "  h", "  now"]
        );
    }

    #[test]
    fn a_wide_character_takes_two_columns() {
        assert_eq!(broken("日本 日本", 9, 0), ["日本 日本"]);
        assert_eq!(broken("日本 日本", 8, 0), ["日本", "日本"]);
        assert_eq!(cut("日本日", 5, 0), ["日本", "日"]);
    }

    #[test]
    fn a_labelled_line_is_broken_and_a_command_is_not() {
        let text = format!(
            "{}\n{}\n{}",
            worded("FAILED", &"word ".repeat(12)),
            failure(&"word ".repeat(12)),
            hint(
                &"word ".repeat(12),
                &["hello revert 1 --state /a/b/c/d/e/f/g/h"]
            )
        );
        let broken = labelled(text.as_str().into(), Some(40)).into_owned();
        let lines: Vec<&str> = broken.lines().collect();
        assert_eq!(lines[1], "             word word word word word");
        assert_eq!(lines[4], "       word word word word word word");
        assert_eq!(lines[6], "      word word word word word");
        let command = "  hello revert 1 --state /a/b/c/d/e/f/g/h";
        assert_eq!(lines.last(), Some(&command));
        assert_eq!(labelled(text.as_str().into(), None), text);
    }

    proptest! {
        #[test]
        fn no_word_is_lost(
            line in "[a-zé日 ]{0,60}",
            columns in 1..30usize,
            indent in 0..9usize,
            is_row: bool,
        ) {
            let unit = if is_row { Unit::Cells } else { Unit::Words };
            let broken = rows(&line, columns, indent, unit).join(" ");
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            prop_assert_eq!(words(&broken), words(&line));
        }

        #[test]
        fn every_piece_fits(line in "[a-zé ]{0,60}", columns in 1..30usize, indent in 0..9usize) {
            for row in cut(&line, columns, indent) {
                prop_assert!(width(&row) <= columns, "{row:?}");
            }
        }
    }
}
