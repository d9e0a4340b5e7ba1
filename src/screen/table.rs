//! Tables with a header, for answers to people.

use std::{io::Write as _, ops::Range};

use comfy_table::{ContentArrangement, presets};

use super::{
    INDENT,
    colour::{Stream, painted_row, text_column},
    harmless,
    wrap::{self, Unit},
    written::Noted,
};

/// The blanks between two columns.
const GAP: u16 = 2;

/// A table whose columns are as wide as their longest cell. A row may have lines below it.
#[derive(Debug)]
pub(crate) struct Table {
    /// The header, and then each row.
    rows: Vec<Vec<String>>,
    /// The column below which rows go on that are too long for the terminal.
    hanging: usize,
    /// Lines below rows, in their order.
    below: Vec<Below>,
}

/// A line below a row.
#[derive(Debug)]
struct Below {
    /// The number of rows above it.
    row: usize,
    text: String,
    /// True if it is never broken, since it is a command to copy or another program's line.
    is_whole: bool,
}

impl Table {
    /// Returns a table without rows. Rows that are too long for a terminal go on below their column
    /// `hanging`, where the lines below them start too.
    pub(crate) fn new<const N: usize>(hanging: usize, header: [&str; N]) -> Self {
        Self {
            rows: vec![header.map(str::to_owned).to_vec()],
            hanging,
            below: Vec::new(),
        }
    }

    /// Appends a row. A cell is on one line, whatever characters are in it.
    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        let cells = cells.map(|cell| super::line(cell).replace('\t', " "));
        self.rows.push(cells.to_vec());
    }

    /// Appends a line below the last row. Further lines of the text start with a bar.
    pub(crate) fn below(&mut self, text: &str) {
        let mut lines = text.lines();
        self.push(lines.next().unwrap_or_default(), false);
        lines.for_each(|line| self.quote(line));
    }

    /// Appends a command below the last row, further indented than other lines.
    pub(crate) fn command(&mut self, command: &str) {
        self.push(&format!("{:INDENT$}{command}", ""), true);
    }

    /// Appends another program's line below the last row. It starts with a bar.
    pub(crate) fn quote(&mut self, line: &str) {
        self.push(&format!("| {line}"), true);
    }

    fn push(&mut self, text: &str, is_whole: bool) {
        self.below.push(Below {
            row: self.len(),
            text: super::line(text).into_owned(),
            is_whole,
        });
    }

    /// Returns the number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() - 1
    }

    /// Returns the header, and the rows with the lines below them, for a terminal of `columns`; as
    /// they are where that is none.
    pub(crate) fn lines(&self, columns: Option<usize>) -> Vec<String> {
        let widths = laid_out(&self.rows, 0..usize::MAX).column_max_content_widths();
        let widths: Vec<usize> = widths.into_iter().map(usize::from).collect();
        let before = widths.iter().take(self.hanging);
        let indent = before.map(|width| width + usize::from(GAP)).sum();
        let fitted = |line: &str, unit| match columns {
            Some(columns) => wrap::rows(line, columns, indent, unit),
            None => vec![line.to_owned()],
        };
        let parts = self.parts(&widths, indent, columns.unwrap_or(usize::MAX));
        let mut parts: Vec<_> = parts
            .into_iter()
            .map(|part| (part.start, laid_out(&self.rows, part)))
            .collect();
        let mut parts: Vec<_> = parts
            .iter_mut()
            .map(|(start, part)| (if *start == 0 { 0 } else { indent }, part.lines()))
            .collect();
        let mut lines = Vec::with_capacity(self.rows.len() + self.below.len());
        let mut below = self.below.iter().peekable();
        for number in 0..self.rows.len() {
            for (indent, part) in &mut parts {
                let line = part.next().unwrap_or_default();
                let line = format!("{:indent$}{}", "", line.trim_end());
                lines.extend(fitted(line.trim_end(), Unit::Cells));
            }
            while let Some(Below { text, is_whole, .. }) = below.next_if(|line| line.row == number)
            {
                let line = format!("{:indent$}{text}", "");
                if *is_whole {
                    lines.push(line);
                } else {
                    lines.extend(fitted(&line, Unit::Words));
                }
            }
        }
        lines
    }

    /// Divides the columns of the table, so that each part fits the terminal. All parts but the
    /// first are indented. No part begins at or before the column that hangs.
    fn parts(&self, widths: &[usize], indent: usize, columns: usize) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        let mut start = 0;
        let mut used = 0;
        for (index, width) in widths.iter().enumerate() {
            if index > self.hanging && used + width > columns {
                parts.push(start..index);
                start = index;
                used = indent;
            }
            used += width + usize::from(GAP);
        }
        parts.push(start..widths.len());
        parts
    }

    /// Returns a line that follows a table, for a terminal of `columns`.
    pub(crate) fn foot(line: &str, columns: Option<usize>) -> Vec<String> {
        let indent = text_column(line).unwrap_or(INDENT);
        match columns {
            Some(columns) => wrap::rows(line, columns, indent, Unit::Words),
            None => vec![line.to_owned()],
        }
    }

    /// Writes the table to stdout, and then more lines.
    pub(crate) fn answer<S: AsRef<str>>(&self, more: impl IntoIterator<Item = S>) {
        let columns = wrap::stdout_columns();
        let has_colours = Stream::Stdout.has_colours();
        let mut out = Noted(std::io::stdout().lock());
        for line in self.lines(columns) {
            let line = harmless(&line);
            let _ = writeln!(out, "{}", painted_row(&line, has_colours));
        }
        for line in more {
            let line = harmless(line.as_ref());
            for line in Self::foot(&line, columns) {
                let _ = writeln!(out, "{}", Stream::Stdout.paint(line.into()));
            }
        }
        let _ = out.flush();
    }
}

/// Returns these columns of the rows as a table.
fn laid_out(rows: &[Vec<String>], columns: Range<usize>) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    let range = |row: &[String]| columns.start..columns.end.min(row.len());
    for (number, row) in rows.iter().enumerate() {
        let cells = &row[range(row)];
        if number == 0 {
            table.set_header(cells);
        } else {
            table.add_row(cells);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(1, ["GROUP", "PID", "RESULT"]);
        table.row(["web", "7", "ok"]);
        table.row(["a long name", "12345", "two\nlines\tand\x1b more"]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        assert_eq!(
            table().lines(None),
            [
                "GROUP        PID    RESULT",
                "web          7      ok",
                "a long name  12345  two\\nlines and\\x1b more",
            ]
        );
    }

    #[test]
    fn a_table_without_rows_is_its_header() {
        assert_eq!(Table::new(0, ["A", "B"]).lines(None), ["A  B"]);
    }

    #[test]
    fn a_cell_that_is_longer_than_the_terminal_is_broken_between_words() {
        let mut table = Table::new(1, ["RESULT", "FINDING"]);
        table.row(["ok", "a long finding"]);
        assert_eq!(
            table.lines(Some(17)),
            ["RESULT  FINDING", "ok      a long", "        finding"]
        );
    }

    #[test]
    fn rows_that_are_too_long_go_on_below_a_column_all_at_the_same_one() {
        let lines = table().lines(Some(39));
        assert_eq!(
            lines,
            [
                "GROUP        PID",
                "             RESULT",
                "web          7",
                "             ok",
                "a long name  12345",
                "             two\\nlines and\\x1b more"
            ]
        );
    }

    #[test]
    fn lines_below_a_row_follow_it_and_a_second_line_of_one_has_a_bar() {
        let mut table = Table::new(1, ["ID", "TEXT"]);
        table.row(["1", "a"]);
        table.below("why\nso");
        table.below("then");
        table.row(["2", "b"]);
        assert_eq!(
            table.lines(None),
            [
                "ID  TEXT", "1   a", "    why", "    | so", "    then", "2   b"
            ]
        );
    }

    #[test]
    fn a_command_and_another_program_s_line_are_never_broken() {
        let mut table = Table::new(1, ["ID", "TEXT"]);
        table.row(["1", "a"]);
        table.below("why it is so\nsaid by it");
        table.command("hello resume 1");
        assert_eq!(
            table.lines(Some(10)),
            [
                "ID  TEXT",
                "1   a",
                "    why it",
                "    is so",
                "    | said by it",
                "      hello resume 1"
            ]
        );
    }

    #[test]
    fn a_wide_character_takes_two_columns() {
        let mut table = Table::new(0, ["A", "B"]);
        table.row(["日本", "1"]);
        table.row(["x", "2"]);
        assert_eq!(table.lines(None), ["A     B", "日本  1", "x     2"]);
    }
}
