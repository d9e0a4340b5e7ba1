//! The log of a program: a file that it has open, the journal of its unit, or syslog. A line of it
//! may tell of a refused config.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use super::{
    fact::{About, Fact, Source},
    files::OpenFiles,
    program::Program,
    service::Services,
    text::{GroupText, quoted},
};

/// The most logs that are named.
const MAX_LOGS: usize = 4;

/// The largest executable that is searched for the names of functions, in bytes.
const MAX_EXE: u64 = 64 << 20;

/// The functions of syslog(3), as the symbols of an executable have them.
const SYSLOG: [&[u8]; 3] = [b"\0syslog\0", b"\0__syslog_chk\0", b"\0vsyslog\0"];

/// The socket that journald reads the output of units from.
const JOURNAL: &str = "/run/systemd/journal/stdout";

/// What many programs write about a config that they cannot load.
const REFUSALS: &str = concat!(
    r"(?i)\b(errors?|failed|failure|fatal|invalid|cannot|could not|unable to|syntax|",
    r"unknown|unrecogni[sz]ed)\b"
);

/// The likeliest log of a program.
pub(super) struct LogDraft {
    /// The value of `log`.
    value: String,
    source: Source,
}

/// Writes the likeliest log, and names the others.
pub(super) fn write(
    program: &Program<'_>,
    services: &Services,
    files: &OpenFiles,
    text: &mut GroupText,
    facts: &mut Vec<Fact>,
) -> Option<LogDraft> {
    let name = program.name();
    let chosen = likeliest(files, &name);
    for log in files.logs.iter().take(MAX_LOGS) {
        let detail = format!("{} is open for writing", log.display());
        if chosen != Some(log) {
            text.note(&format!("another log: {detail}"));
        }
        facts.push(Fact::seen(About::Log, detail));
    }
    let (value, source, why) = if let Some(path) = chosen {
        let why = "it has this file open for writing".to_owned();
        (path.to_str()?.to_owned(), Source::Seen, why)
    } else if let Some(unit) = services
        .unit
        .as_ref()
        .filter(|_| writes_to_a_socket(program.found.pid))
    {
        let why = format!("the output of {unit} is a socket, as that of the journal is");
        ("journal".to_owned(), Source::Guessed, why)
    } else if !program.is_interpreter && calls_syslog(program.found.pid) {
        let why = "its executable calls syslog(3)".to_owned();
        (format!("syslog:{name}"), Source::Guessed, why)
    } else {
        facts.push(Fact::guessed(About::Log, "none was found"));
        return None;
    };
    if source == Source::Guessed {
        facts.push(Fact::guessed(About::Log, format!("{value}: {why}")));
    }
    text.key("log", &quoted(&value), source, &why);
    Some(LogDraft { value, source })
}

/// Returns the log that tells of errors: by its name, else the one with the name of the program,
/// else one that the program itself has opened.
fn likeliest<'a>(files: &'a OpenFiles, name: &str) -> Option<&'a PathBuf> {
    let own = |path: &&PathBuf| !files.outputs.contains(path);
    let has = |part: &str| {
        files.logs.iter().filter(own).find(|path| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.to_lowercase().contains(part)
        })
    };
    has("err")
        .or_else(|| has(name))
        .or_else(|| files.logs.iter().find(own))
        .or_else(|| files.logs.first())
}

impl LogDraft {
    /// Writes what a line about a refused config looks like. It counts for a file that the process
    /// has open.
    pub(super) fn write_reject(&self, text: &mut GroupText) {
        let mark = match self.source {
            Source::Seen => "",
            Source::Guessed => "# ",
        };
        text.line(&format!(
            "{mark}[[group.reject]]  # guessed: correct it if a good reload writes such a line"
        ));
        text.line(&format!("{mark}log = {}", quoted(&self.value)));
        text.line(&format!("{mark}matches = {}", quoted(REFUSALS)));
    }
}

/// Tells whether the output of a process goes to a socket, on a host with a journal.
fn writes_to_a_socket(pid: i32) -> bool {
    let is_socket = |number: u32| {
        let link = std::fs::read_link(format!("/proc/{pid}/fd/{number}"));
        link.is_ok_and(|link| link.to_string_lossy().starts_with("socket:"))
    };
    Path::new(JOURNAL).exists() && (is_socket(1) || is_socket(2))
}

/// Tells whether the executable of a process calls syslog(3).
fn calls_syslog(pid: i32) -> bool {
    let mut bytes = Vec::new();
    let read = File::open(format!("/proc/{pid}/exe"))
        .and_then(|file| file.take(MAX_EXE).read_to_end(&mut bytes));
    let has = |name: &[u8]| bytes.windows(name.len()).any(|part| part == name);
    read.is_ok() && SYSLOG.iter().any(|name| has(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assertion::Pattern;

    #[test]
    fn the_log_of_errors_is_the_likeliest() {
        let files = |names: &[&str]| OpenFiles {
            logs: names.iter().map(PathBuf::from).collect(),
            outputs: vec!["/l/out".into()],
            ..OpenFiles::default()
        };
        for (names, wanted) in [
            (
                &["/l/access.log", "/l/error.log", "/l/x.log"] as &[&str],
                "/l/error.log",
            ),
            (&["/l/access.log", "/l/x.log"], "/l/x.log"),
            (&["/l/out", "/l/y.log"], "/l/y.log"),
            (&["/l/out"], "/l/out"),
        ] {
            let files = files(names);
            assert_eq!(likeliest(&files, "x"), Some(&PathBuf::from(wanted)));
        }
        assert_eq!(likeliest(&files(&[]), "x"), None);
    }

    #[test]
    fn a_refusal_is_told_from_a_good_reload() {
        let pattern = Pattern::from(REFUSALS.to_owned());
        for line in [
            "ERROR: Reloading config file failed!",
            "x.zone read with 2 errors",
            "Error: Unknown configuration variable \"bogus\" at line 3.",
            "cannot open /etc/x",
        ] {
            assert!(pattern.fits(line), "{line}");
        }
        for line in [
            "Reloading config file finished",
            "error_log is /l/x",
            "read 12 zones",
        ] {
            assert!(!pattern.fits(line), "{line}");
        }
    }
}
