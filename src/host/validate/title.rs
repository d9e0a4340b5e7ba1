//! The arguments of a process that wrote a title over them.
//!
//! Some programs repeat their arguments in the title (`nginx: master process nginx -c /etc/x -g pid
//! /run/x;`), without the borders between them. Others tell something else there (`gunicorn: master
//! [app]`), and the arguments are lost.

use crate::{
    fleet::{option_of, placeholder},
    host::discover::title::{arguments as arguments_of, certain as certain_of},
    step::PlannedInstance,
};

/// Why nothing is asked of a process about its arguments.
pub(crate) const HIDDEN: &str = "its command line is a title that hides the arguments of the \
                                 process, or the borders between them, which `{args}` and \
                                 `{opt:..}` stand for; say another `validate` without them";

/// What is known of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// They are as the process was started with them.
    Kept,
    /// They stand in a title; of a value with blanks the words belong together again.
    Told(Vec<String>),
    /// They stand nowhere.
    Hidden,
}

impl Arguments {
    /// The arguments without its own name; `kept` where they are no title.
    pub(crate) fn known<'a>(&'a self, kept: &'a [String]) -> &'a [String] {
        match self {
            Self::Kept => kept,
            Self::Told(args) => args,
            Self::Hidden => &[],
        }
    }
}

/// Whether `argv` stands for arguments of the process.
pub(crate) fn asks(argv: &[String]) -> bool {
    let is_several = |name: &str| name == "args" || option_of(name).is_some();
    let asks = |arg: &String| matches!(placeholder(arg), Some(("", name, "")) if is_several(name));
    argv.iter().any(asks)
}

/// The arguments of `member` as its command line tells them now.
pub(crate) fn arguments(member: &PlannedInstance) -> Arguments {
    let exe = member.instance.exe.to_string_lossy();
    let line = std::fs::read(format!("/proc/{}/cmdline", member.identity.pid)).unwrap_or_default();
    if let Some(args) = by_group(member, &line) {
        return if certain_of(&args) == args.len() {
            Arguments::Kept
        } else {
            Arguments::Hidden
        };
    }
    of(&line, exe.strip_suffix(" (deleted)").unwrap_or(&exe))
}

/// The arguments in a title, where the group of the process says how it writes that. The survey has
/// read them in the same way.
fn by_group(member: &PlannedInstance, line: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(line).ok()?.trim_end_matches('\0');
    if text.contains('\0') {
        None
    } else {
        arguments_of(member.identity.pid, text, &member.group.reading)
    }
}

/// Those of the bytes of `/proc/PID/cmdline` of a process that runs `exe`.
fn of(line: &[u8], exe: &str) -> Arguments {
    let text = line
        .iter()
        .rposition(|b| *b != 0)
        .map_or(&[][..], |last| &line[..=last]);
    // A single string, which is no path with a blank in it but `NAME: words`.
    let Ok(text) = std::str::from_utf8(text) else {
        return Arguments::Kept;
    };
    let Some((name, words)) = text
        .split_once(": ")
        .filter(|(name, _)| !name.contains(char::is_whitespace) && !text.contains('\0'))
    else {
        return Arguments::Kept;
    };
    let file = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let own = |word: &str| {
        !word.starts_with(['(', '[', '-']) && (file(word) == file(exe) || file(word) == name)
    };
    let mut at = 0;
    for word in words.split(' ') {
        at += word.len() + 1;
        if own(word) {
            return Arguments::Told(split(words.get(at..).unwrap_or_default()));
        }
    }
    Arguments::Hidden
}

/// The arguments in a text that has lost the borders between them: a word that begins with `-`
/// begins an option, and all that follows up to the next one is its value. A word in brackets tells
/// a state.
fn split(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut is_value = false;
    for word in text.split(' ') {
        if word.starts_with('[') || word.starts_with('(') {
            break;
        }
        let is_option = word.len() > 1 && word.starts_with('-');
        match all.last_mut() {
            Some(value) if is_value && !is_option => {
                value.push(' ');
                value.push_str(word);
            }
            _ => {
                is_value = !is_option;
                all.push(word.to_owned());
            }
        }
    }
    all.retain(|word| !word.is_empty());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_blanks_is_whole_again() {
        let told = |line: &str, exe: &str| match of(line.as_bytes(), exe) {
            Arguments::Told(args) => args.join("|"),
            other => format!("{other:?}"),
        };
        let nginx = "nginx: master process nginx -c /srv/my app/n.conf -g pid /run/x;  daemon on; \
                     -e /e.log\0\0\0";
        assert_eq!(
            told(nginx, "/usr/sbin/nginx"),
            "-c|/srv/my app/n.conf|-g|pid /run/x;  daemon on;|-e|/e.log"
        );
        assert_eq!(
            told(
                "nginx: master process /opt/nginx/sbin/nginx",
                "/opt/nginx/sbin/nginx"
            ),
            ""
        );
        assert_eq!(
            told(
                "sshd: /usr/sbin/sshd -D -f /a -o Port=2 [listener] 0 of 10-100 startups",
                "/usr/sbin/sshd"
            ),
            "-D|-f|/a|-o|Port=2"
        );
        assert_eq!(
            told("gunicorn: master [app:app]", "/usr/bin/python3.11"),
            "Hidden"
        );
        assert_eq!(
            told(
                "php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)\0",
                "/usr/sbin/php-fpm8.2"
            ),
            "Hidden"
        );
        for line in [
            "",
            "/usr/bin/python3\0/usr/bin/gunicorn\0-c\0x: y\0",
            "python3 /usr/bin/gunicorn -c x",
            "x\0",
        ] {
            assert_eq!(told(line, "/usr/bin/python3.11"), "Kept", "{line:?}");
        }
    }
}
