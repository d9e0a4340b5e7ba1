//! Names in sentences: the first few of a list, how many more there are, and words of JSON.

/// The most names in one list, so that the sentence can still be read.
pub(crate) const MOST: usize = 10;

/// Returns ` and 2 more`, or nothing for 0.
pub(crate) fn and_more(more: usize) -> String {
    match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}

/// Joins the first `most` of `names` with `separator`, and counts the others.
pub(crate) fn list<T: ToString>(
    names: impl IntoIterator<Item = T>,
    separator: &str,
    most: usize,
) -> String {
    let mut names = names.into_iter();
    let first: Vec<String> = names
        .by_ref()
        .take(most)
        .map(|name| name.to_string())
        .collect();
    first.join(separator) + &and_more(names.count())
}

/// Returns the word that stands for a verb, an outcome, a verdict or a proof in JSON.
pub(crate) fn json_word(value: impl serde::Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Lists pids with commas.
pub(crate) fn pids(pids: &[i32]) -> String {
    list(pids, ", ", MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_the_first_and_counts_the_others() {
        assert_eq!(list(["a", "b", "c"], ", ", 3), "a, b, c");
        assert_eq!(list(["a", "b", "c"], "; ", 2), "a; b and 1 more");
        assert_eq!(list(Vec::<String>::new(), ", ", 2), "");
        let many: Vec<i32> = (1..=12).collect();
        assert_eq!(pids(&many), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more");
    }
}
