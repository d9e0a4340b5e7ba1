//! Tables with a header, for answers to people.

use comfy_table::{ContentArrangement, presets};

/// A table whose columns are as wide as their longest cell. Its last column is not padded.
#[derive(Debug)]
pub(crate) struct Table(comfy_table::Table);

impl Table {
    /// Returns a table without rows.
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        let mut table = comfy_table::Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(header);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self(table)
    }

    /// Appends a row. A cell is on one line, whatever characters are in it.
    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.0.add_row(cells.map(super::line));
    }

    /// Returns the header and the rows as lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let mut table = Table::new(["GROUP", "PID", "RESULT"]);
        table.row(["web", "7", "ok"]);
        table.row(["a long name", "12345", "two\nlines"]);
        assert_eq!(
            table.lines(),
            [
                "GROUP        PID    RESULT",
                "web          7      ok",
                "a long name  12345  two\\nlines",
            ]
        );
    }

    #[test]
    fn a_table_without_rows_is_its_header() {
        assert_eq!(Table::new(["A", "B"]).lines(), ["A  B"]);
    }
}
