//! Samples of Prometheus' text format.

/// Parses `NAME` or `NAME{label="value",..}` at the start of a text; the rest is ignored.
pub(super) fn sample_name(text: &str) -> Option<(String, Vec<(String, String)>)> {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':')))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let mut labels = Vec::new();
    let Some(mut rest) = rest.strip_prefix('{') else {
        return (!name.is_empty()).then(|| (name.to_owned(), labels));
    };
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if rest.starts_with('}') {
            return (!name.is_empty()).then(|| (name.to_owned(), labels));
        }
        let (label, quoted) = rest.split_once("=\"")?;
        let (value, tail) = label_value(quoted)?;
        rest = tail;
        labels.push((label.trim().to_owned(), value));
    }
}

/// Reads a label's value up to its closing quote, and returns it with the text after the quote.
fn label_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (quote, '"') => return Some((value, &text[quote + 1..])),
            (_, '\\') => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            (_, other) => value.push(other),
        }
    }
}

/// Returns the value of the first sample of `name` that has all of `labels`, in a body of
/// Prometheus' text format.
#[must_use]
pub(crate) fn metric(body: &str, name: &str, labels: &[(String, String)]) -> Option<String> {
    body.lines()
        .filter(|line| line.starts_with(name))
        .find_map(|line| {
            let (found, present) = sample_name(line)?;
            if found != name || !labels.iter().all(|label| present.contains(label)) {
                return None;
            }
            // The last brace ends the labels: after it comes the value, and after a brace inside a
            // label comes a quote.
            let values = if line[name.len()..].starts_with('{') {
                &line[line.rfind('}')? + 1..]
            } else {
                &line[name.len()..]
            };
            values.split_whitespace().next().map(str::to_owned)
        })
}
