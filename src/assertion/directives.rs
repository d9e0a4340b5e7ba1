//! The values of the directives of a config: `KEY VALUE`, `KEY = VALUE`, `KEY: VALUE`.

/// Returns `text` with each `${NAME}` replaced by the value of that variable, if there is one.
pub(crate) fn expanded(text: &str, variables: &[(String, String)]) -> String {
    if !text.contains("${") {
        return text.to_owned();
    }
    variables
        .iter()
        .fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("${{{name}}}"), value)
        })
}

/// Returns the values of `directives`, which are in lower case, in a text. A line that begins with
/// `#` is a comment.
pub(crate) fn values(text: &str, directives: &[String]) -> Vec<String> {
    let mut values = Vec::new();
    if directives.is_empty() {
        return values;
    }
    let mut in_list = false;
    for line in text.lines() {
        let line = line.trim_start();
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        if let Some(item) = line.strip_prefix("- ").filter(|_| in_list) {
            values.extend(paths(item));
            continue;
        }
        in_list = false;
        for rest in after_directives(line, directives) {
            in_list |= rest.is_empty();
            values.extend(paths(rest));
        }
    }
    values
}

/// Returns the rest of a line after each directive in it, without `=`, `:` and spaces.
fn after_directives<'a>(line: &'a str, directives: &[String]) -> Vec<&'a str> {
    let lower = line.to_ascii_lowercase();
    let is_separator = |c: char| c.is_whitespace() || "=:".contains(c);
    let mut found = Vec::new();
    for directive in directives {
        for (start, _) in lower.match_indices(directive.as_str()) {
            let rest = &line[start + directive.len()..];
            let begins_word = line[..start]
                .chars()
                .next_back()
                .is_none_or(|c| c.is_whitespace() || "{;[".contains(c));
            let ends_word = rest.starts_with(|c: char| is_separator(c) || "'\"".contains(c));
            if begins_word && ends_word {
                found.push(rest.trim_start_matches(is_separator));
            }
        }
    }
    found
}

/// Returns the paths in the text after a directive: the first word, and each later word that looks
/// like a path.
fn paths(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut rest = text.trim_start_matches('[');
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        let quote = rest.chars().next().filter(|c| "'\"".contains(*c));
        let (word, after) = match quote {
            Some(quote) => rest[1..].split_once(quote).unwrap_or((&rest[1..], "")),
            None => {
                let end = rest
                    .find(|c: char| c.is_whitespace() || ";,{}]#".contains(c))
                    .unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        if word.is_empty() {
            return paths;
        }
        if paths.is_empty() || word.contains(['/', '.', '*']) {
            paths.push(word.to_owned());
        }
        rest = after;
    }
}
