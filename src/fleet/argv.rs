//! Placeholders in the argv of a command; the host replaces them.

/// The placeholders besides `opt:OPTION`, `arg:OPTION`, `env:NAME` and `title:PATTERN`.
pub(crate) const NAMES: [&str; 10] = [
    "exe",
    "config",
    "config.dir",
    "candidate",
    "candidate.dir",
    "pid",
    "listen",
    "listen.host",
    "listen.port",
    "args",
];

/// Returns the text before the first placeholder, its name, and the text after it. A shell's
/// `${x}`, curl's `%{x}` and braces around anything but a name are not placeholders.
#[must_use]
pub fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices('{').find_map(|(brace, _)| {
        let before = &text[..brace];
        let name = &text[brace + 1..];
        let (name, after) = name.split_once('}')?;
        let (word, option) = name.split_once(':').unwrap_or((name, ""));
        let is_word = word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.chars().all(|c| {
                c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-')
            });
        // A pattern of a title has its blanks.
        let is_whole = match word {
            "title" => !option.starts_with(char::is_whitespace),
            _ => !option.contains(char::is_whitespace),
        };
        let is_name = is_word && is_whole && !option.contains('{');
        (is_name && !before.ends_with(['$', '%'])).then_some((before, name, after))
    })
}

/// Returns the option whose every occurrence `name` stands for.
#[must_use]
pub fn option_of(name: &str) -> Option<&str> {
    name.strip_prefix("opt:")
        .filter(|option| option.len() > 1 && option.starts_with('-'))
}

/// Returns the option, or the number of the argument, whose value `name` stands for.
#[must_use]
pub fn value_of(name: &str) -> Option<&str> {
    let option = name.strip_prefix("arg:")?;
    let is_number = option.bytes().all(|b| b.is_ascii_digit());
    let is_index = is_number && option.parse::<usize>().is_ok_and(|index| index > 0);
    (!option.is_empty() && (is_index || !is_number)).then_some(option)
}

/// Returns the variable of the environment that `name` stands for.
#[must_use]
pub fn variable_of(name: &str) -> Option<&str> {
    let variable = name.strip_prefix("env:")?;
    is_variable(variable).then_some(variable)
}

/// Tells whether a text is the name of an environment variable as POSIX allows it.
fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Returns the texts of a title before and behind the value that `name` stands for.
#[must_use]
pub fn title_of(name: &str) -> Option<(&str, &str)> {
    title_parts(name.strip_prefix("title:")?)
}

/// Splits the pattern of a title at its one `*`. The text before that is never empty.
#[must_use]
pub fn title_parts(pattern: &str) -> Option<(&str, &str)> {
    pattern
        .split_once('*')
        .filter(|(before, after)| !before.trim().is_empty() && !after.contains('*'))
}

/// Tells whether the placeholder `name` occurs in `argv`.
#[must_use]
pub fn uses(argv: &[String], name: &str) -> bool {
    let found = |arg: &String| {
        std::iter::successors(placeholder(arg), |(_, _, after)| placeholder(after))
            .any(|(_, known, _)| known == name)
    };
    argv.iter().any(found)
}

/// Returns the first name in `arg` that is a placeholder in other commands.
pub(super) fn known(arg: &str) -> Option<&str> {
    let (_, name, after) = placeholder(arg)?;
    if is_known(name) || option_of(name).is_some() {
        Some(name)
    } else {
        known(after)
    }
}

/// Tells whether every command has the placeholder, as a part of an argument.
fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
        || value_of(name).is_some()
        || variable_of(name).is_some()
        || title_of(name).is_some()
}

/// Returns what is wrong with an argument, and a hint; `more` are placeholders that only its
/// command has.
pub(super) fn fault(arg: &str, more: &[&str]) -> Option<(String, String)> {
    let (before, name, after) = placeholder(arg)?;
    if name == "args" || option_of(name).is_some() {
        let alone = before.is_empty() && after.is_empty();
        return (!alone).then(|| {
            (
                format!("`{{{name}}}` in {arg:?}"),
                "it becomes several arguments, so it stands alone".into(),
            )
        });
    }
    if is_known(name) || more.contains(&name) {
        return fault(after, more);
    }
    let names: Vec<String> = NAMES
        .iter()
        .chain(more)
        .map(|name| format!("{{{name}}}"))
        .collect();
    Some((
        format!("no placeholder `{{{name}}}`"),
        format!(
            "there are: {}, {{opt:-o}}, {{arg:-o}}, {{arg:1}}, {{env:NAME}}, {{title:TEXT *}}; a \
             literal brace is followed by a space",
            names.join(", ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_braces_are_not_placeholders() {
        assert_eq!(placeholder("a{exe}b{pid}"), Some(("a", "exe", "b{pid}")));
        assert_eq!(
            placeholder("{opt:--config.file}"),
            Some(("", "opt:--config.file", ""))
        );
        assert_eq!(placeholder("{listen_host}"), Some(("", "listen_host", "")));
        for text in [
            "",
            "{",
            "{}",
            "{exe",
            "${home}",
            "%{url}",
            "{ print }",
            "{1}",
            "{\"a\":1}",
            "{a,b}",
            "{Exe}",
            "awk {print $1}",
            "{title: *}",
            "{env:A B}",
        ] {
            assert_eq!(placeholder(text), None, "{text}");
        }
        assert_eq!(placeholder("{x {exe}"), Some(("{x ", "exe", "")));
        assert!(
            uses(&["a".into(), "{exe}={pid}".into()], "pid") && !uses(&["${pid}".into()], "pid")
        );
    }

    #[test]
    fn an_unknown_placeholder_is_a_fault() {
        for good in [
            "{exe}",
            "-c{candidate}",
            "{listen.host}:{listen.port}",
            "{args}",
            "{opt:-c}",
            "{opt:--x}",
            "plain",
            "x{arg:1}y",
            "{arg:-c}",
            "{arg:config_file}",
            "{config.dir}/x {candidate.dir}",
            "{env:MAIL_CONFIG}",
            "-y{title:php-fpm: master process (*)}",
        ] {
            assert_eq!(fault(good, &[]), None, "{good}");
        }
        for (bad, wanted) in [
            ("{candidat}", "there are: {exe}"),
            ("{exe}{x}", "there are"),
            ("-{args}", "alone"),
            ("{opt:-c}x", "alone"),
            ("{opt:c}", "there are"),
            ("{opt:-}", "there are"),
            ("{arg:}", "{arg:1}"),
            ("{arg:0}", "{arg:1}"),
            ("{listen_host}", "{listen.host}"),
            ("{candidate.x}", "there are"),
            ("{env:1X}", "{env:NAME}"),
            ("{title:no value}", "{title:TEXT *}"),
            ("{title:*}", "{title:TEXT *}"),
            ("{title:a * b *}", "{title:TEXT *}"),
            ("{key}", "there are"),
        ] {
            assert!(
                fault(bad, &[]).is_some_and(|(_, hint)| hint.contains(wanted)),
                "{bad}"
            );
        }
        assert_eq!(fault("{key}", &["key"]), None);
    }
}
