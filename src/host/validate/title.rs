//! The arguments of a process that has overwritten them with a title.
//!
//! Some programs repeat their arguments in the title (`nginx: master process nginx -c /etc/x -g pid
//! /run/x;`), without the borders between them. Others write another text there (`gunicorn: master
//! [app]`), and the arguments are lost.

use crate::{
    fleet::{option_of, placeholder},
    host::discover::title::{arguments as arguments_of, certain as certain_of},
    identity::Line,
    kernel::strip_deleted,
    step::PlannedInstance,
};

/// The arguments of a process, as far as they are known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// The command line still has them.
    Kept,
    /// A title repeats them. The words of a value with blanks are joined again.
    InTitle(Vec<String>),
    /// They are not known.
    Hidden,
}

impl Arguments {
    /// Returns the arguments without the program's own name; `kept` if there is no title.
    pub(crate) fn known<'a>(&'a self, kept: &'a [String]) -> &'a [String] {
        match self {
            Self::Kept => kept,
            Self::InTitle(args) => args,
            Self::Hidden => &[],
        }
    }
}

/// Tells whether a placeholder of `argv` stands for arguments of the process.
pub(crate) fn uses_arguments(argv: &[String]) -> bool {
    let is_several = |name: &str| name == "args" || option_of(name).is_some();
    let is_placeholder =
        |arg: &String| matches!(placeholder(arg), Some(("", name, "")) if is_several(name));
    argv.iter().any(is_placeholder)
}

/// Returns the arguments of an instance from its present command line.
pub(crate) fn arguments(planned: &PlannedInstance) -> Arguments {
    let exe = strip_deleted(&planned.instance.exe).to_string_lossy();
    let line = std::fs::read(format!("/proc/{}/cmdline", planned.identity.pid)).unwrap_or_default();
    if let Some(args) = by_group(planned, &line) {
        return if certain_of(&args) == args.len() {
            Arguments::Kept
        } else {
            Arguments::Hidden
        };
    }
    match parse(&line, &exe) {
        // A title of another form, such as `uWSGI master`.
        Arguments::Kept if planned.identity.line == Line::Title => Arguments::Hidden,
        arguments => arguments,
    }
}

/// Returns the arguments in a title whose format the group of the process declares. The survey
/// reads them in the same way.
fn by_group(planned: &PlannedInstance, line: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(line).ok()?.trim_end_matches('\0');
    if text.contains('\0') {
        None
    } else {
        arguments_of(planned.identity.pid, text, &planned.group.reading)
    }
}

/// Parses the bytes of `/proc/PID/cmdline` of a process that runs `exe`.
fn parse(line: &[u8], exe: &str) -> Arguments {
    let text = line
        .iter()
        .rposition(|b| *b != 0)
        .map_or(&[][..], |last| &line[..=last]);
    // A title is a single string `NAME: words`. A path may contain a blank, but no such name.
    let Ok(text) = std::str::from_utf8(text) else {
        return Arguments::Kept;
    };
    let Some((name, words)) = text
        .split_once(": ")
        .filter(|(name, _)| !name.contains(char::is_whitespace) && !text.contains('\0'))
    else {
        return Arguments::Kept;
    };
    let file_name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let is_program = |word: &str| {
        !word.starts_with(['(', '[', '-'])
            && (file_name(word) == file_name(exe) || file_name(word) == name)
    };
    let mut end = 0;
    for word in words.split(' ') {
        end += word.len() + 1;
        if is_program(word) {
            return Arguments::InTitle(split(words.get(end..).unwrap_or_default()));
        }
    }
    Arguments::Hidden
}

/// Splits a text that has lost the borders between the arguments. A word that begins with `-` is an
/// option, and all words up to the next option are its value. A word in brackets is a state, and
/// ends the arguments.
fn split(text: &str) -> Vec<String> {
    let mut arguments: Vec<String> = Vec::new();
    let mut is_value = false;
    for word in text.split(' ') {
        if word.starts_with('[') || word.starts_with('(') {
            break;
        }
        let is_option = word.len() > 1 && word.starts_with('-');
        match arguments.last_mut() {
            Some(value) if is_value && !is_option => {
                value.push(' ');
                value.push_str(word);
            }
            _ => {
                is_value = !is_option;
                arguments.push(word.to_owned());
            }
        }
    }
    arguments.retain(|word| !word.is_empty());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_blanks_is_joined_again() {
        let joined = |line: &str, exe: &str| match parse(line.as_bytes(), exe) {
            Arguments::InTitle(args) => args.join("|"),
            other => format!("{other:?}"),
        };
        let nginx = "nginx: master process nginx -c /srv/my app/n.conf -g pid /run/x;  daemon on; \
                     -e /e.log\0\0\0";
        assert_eq!(
            joined(nginx, "/usr/sbin/nginx"),
            "-c|/srv/my app/n.conf|-g|pid /run/x;  daemon on;|-e|/e.log"
        );
        assert_eq!(
            joined(
                "nginx: master process /opt/nginx/sbin/nginx",
                "/opt/nginx/sbin/nginx"
            ),
            ""
        );
        assert_eq!(
            joined(
                "sshd: /usr/sbin/sshd -D -f /a -o Port=2 [listener] 0 of 10-100 startups",
                "/usr/sbin/sshd"
            ),
            "-D|-f|/a|-o|Port=2"
        );
        assert_eq!(
            joined("gunicorn: master [app:app]", "/usr/bin/python3.11"),
            "Hidden"
        );
        assert_eq!(
            joined(
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
            assert_eq!(joined(line, "/usr/bin/python3.11"), "Kept", "{line:?}");
        }
    }
}
