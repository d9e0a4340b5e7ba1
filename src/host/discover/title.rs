//! The arguments of a process that wrote a title over its command line.

use crate::{fleet::Reading, host::proc::title::is_cut};

/// How much the command line of a process shows of its arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Telling {
    /// All of them.
    #[default]
    Arguments,
    /// All of them, from a title without borders between them. These first ones have only one
    /// reading.
    Joined(Vec<String>),
    /// Only a title, which may not hold all of them.
    Title(String),
}

/// Returns the arguments in `title`, by the pattern of `reading`; none without a pattern, or if the
/// title was cut off.
pub(crate) fn arguments(pid: i32, title: &str, reading: &Reading) -> Option<Vec<String>> {
    let (before, after) = Reading::title_parts(reading.title.as_deref()?).ok()?;
    let rest = title.strip_prefix(before)?;
    // The last place where what follows the arguments begins.
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    let end = ends
        .rev()
        .find(|at| rest.get(*at..).is_some_and(|tail| after.matches(tail)))?;
    if is_cut(pid, title.len()) {
        return None;
    }
    let (_, args) = rest[..end].split_once(' ').unwrap_or(("", ""));
    Some(words(args, reading.getopt.as_deref().unwrap_or_default()))
}

/// How many of the arguments out of a title can be read in one way only: behind a value with
/// blanks, an option may be a part of that value.
pub(crate) fn certain(args: &[String]) -> usize {
    let is_doubtful = |(value, next): (&String, &String)| {
        next.starts_with('-') && next.len() > 1 && !is_whole(value)
    };
    args.iter()
        .zip(args.iter().skip(1))
        .position(is_doubtful)
        .map_or(args.len(), |at| at + 1)
}

/// Tells whether a value goes on in no other way: without blanks, the path of something that is
/// there, or directives that are complete.
fn is_whole(value: &str) -> bool {
    let is_even = |quote: char| value.matches(quote).count().is_multiple_of(2);
    let complete = value.trim_end().ends_with([';', '}'])
        && !value.contains('#')
        && is_even('"')
        && is_even('\'');
    let is_there = || {
        let path = value.find('/').map(|at| std::path::Path::new(&value[at..]));
        path.is_some_and(std::path::Path::exists)
    };
    !value.contains(' ') || complete || is_there()
}

/// Arguments that a title joins by blanks: what follows an option that takes a value is one value,
/// with its blanks, up to the next option.
fn words(text: &str, letters: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut in_value = false;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(' ').unwrap_or(rest.len());
        let (word, behind) = (&rest[..end], rest.get(end + 1..).unwrap_or(""));
        rest = behind;
        let is_option = word.len() > 1 && word.starts_with('-');
        match words.last_mut() {
            Some(last) if in_value && !is_option => *last = format!("{last} {word}"),
            _ if word.is_empty() => {}
            Some(last) if !is_option && wants_value(last, letters) => {
                in_value = true;
                words.push(word.to_owned());
            }
            _ => {
                // A value in the word of its option may go on as well.
                in_value = is_option && has_value(word, letters);
                words.push(word.to_owned());
            }
        }
    }
    words
}

/// The options of one word: whether the last one takes a value, and whether that begins in the
/// word.
fn last_option(word: &str, letters: &str) -> (bool, bool) {
    let Some(word) = word.strip_prefix('-').filter(|word| !word.starts_with('-')) else {
        return (false, false);
    };
    let takes = |letter: char| {
        letters
            .split_once(letter)
            .is_some_and(|(_, rest)| rest.starts_with(':'))
    };
    match word.char_indices().find(|(_, letter)| takes(*letter)) {
        Some((at, letter)) => (true, at + letter.len_utf8() < word.len()),
        None => (false, false),
    }
}

fn wants_value(word: &str, letters: &str) -> bool {
    matches!(last_option(word, letters), (true, false))
}

fn has_value(word: &str, letters: &str) -> bool {
    matches!(last_option(word, letters), (true, true))
}

/// The possible values after an option in a title that does not say where a value ends: the first
/// word, the first two, and so on.
pub(super) fn values(title: &str, option: &str) -> Vec<String> {
    let starts = title
        .match_indices(option)
        .filter(|(at, _)| *at > 0 && title[..*at].ends_with(' '));
    let value = |(at, _): (usize, &str)| {
        let rest = &title[at + option.len()..];
        rest.strip_prefix([' ', '='])
            .map(|rest| rest.trim_start_matches(' '))
    };
    let Some(text) = starts.filter_map(value).last() else {
        return Vec::new();
    };
    let ends = text
        .match_indices(' ')
        .map(|(at, _)| at)
        .chain([text.len()]);
    ends.map(|end| text[..end].to_owned())
        .filter(|value| !value.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    const NGINX: &str = "?hVvtTqp:s:e:g:c:";

    fn reading(title: &str, getopt: &str) -> Reading {
        Reading {
            title: Some(title.into()),
            getopt: Some(getopt.into()),
            ..Reading::default()
        }
    }

    /// Reads a title of this process, which has memory for much longer ones.
    fn of(title: &str, reading: &Reading) -> Option<Vec<String>> {
        arguments(i32::try_from(std::process::id()).unwrap(), title, reading)
    }

    #[test]
    fn blanks_belong_to_the_value_before_them() {
        let nginx = reading("nginx: master process {argv}", NGINX);
        for (title, args) in [
            ("nginx", vec![]),
            ("/usr/sbin/nginx -c /a", vec!["-c", "/a"]),
            (
                "nginx -c /srv/my site/a  b.conf -q",
                vec!["-c", "/srv/my site/a  b.conf", "-q"],
            ),
            (
                "nginx -g daemon off; -p /x y/ -c c",
                vec!["-g", "daemon off;", "-p", "/x y/", "-c", "c"],
            ),
            ("nginx -c/a b -q", vec!["-c/a b", "-q"]),
            ("nginx -qc /a b", vec!["-qc", "/a b"]),
        ] {
            assert_eq!(
                of(&format!("nginx: master process {title}"), &nginx).unwrap(),
                args,
                "{title}"
            );
        }
        assert_eq!(of("nginx: worker process", &nginx), None);
        let sshd = reading("sshd: {argv} [[]listener] *", "Df:");
        let title = "sshd: /usr/sbin/sshd -D -f /a b/c [listener] 0 of 10-100 startups";
        assert_eq!(of(title, &sshd).unwrap(), ["-D", "-f", "/a b/c"]);
    }

    #[test]
    fn an_option_behind_a_value_with_blanks_may_be_a_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("a b");
        std::fs::write(&there, "").unwrap();
        let there = format!("-c {} -q", there.display());
        for (title, known) in [
            ("-c /a -q", 3),
            ("-g daemon off; -c /a", 4),
            ("-g daemon off; # as before -c /b -q", 2),
            ("-g env A='x; -c y' -c /a", 2),
            ("-p /none x/ -c a", 2),
            ("-p /none x/", 2),
            (&there, 3),
        ] {
            assert_eq!(certain(&words(title, NGINX)), known, "{title}");
        }
    }

    #[test]
    fn without_a_pattern_every_end_of_a_value_is_possible() {
        assert_eq!(
            values("app: run -c /a b/c --x", "-c"),
            ["/a", "/a b/c", "/a b/c --x"]
        );
        assert_eq!(values("app: run --config=/a", "--config"), ["/a"]);
        assert!(
            values("app: run x-c /a", "-c").is_empty()
                && values("app: run -config /a", "-c").is_empty()
        );
    }
}
