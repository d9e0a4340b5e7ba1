//! The journal of systemd, by `journalctl`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{
    LogError, LogReading,
    lines::{MAX_READ, Tail},
};
use crate::host::exec::fetch;

/// The programs that read the journal.
const JOURNALCTL: [&str; 2] = ["/usr/bin/journalctl", "/bin/journalctl"];
/// The socket that journald has while it runs (systemd-journald.service(8)).
const SOCKET: &str = "/run/systemd/journal/socket";
/// The suffixes of units that have processes.
const UNITS: [&str; 2] = [".service", ".scope"];

/// Which entries of the journal count.
#[derive(Debug, Clone)]
pub(super) struct Query {
    journalctl: PathBuf,
    /// A field and its value; of several, one must fit.
    field: String,
}

/// The fields of an entry that are read. The journal writes them in upper case.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(rename = "MESSAGE")]
    message: Option<Value>,
    #[serde(rename = "SYSLOG_IDENTIFIER")]
    identifier: Option<Value>,
    #[serde(rename = "_PID")]
    pid: Option<Value>,
}

/// A value: text, the bytes of what is no text, or several values.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Bytes(Vec<u8>),
    Several(Vec<Self>),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Several(values) => values.first().map(Self::text).unwrap_or_default(),
        }
    }
}

impl Entry {
    /// Returns the lines of the entry as syslog writes them: `NAME[PID]: MESSAGE`.
    fn lines(&self) -> Vec<String> {
        let text = |value: &Option<Value>| value.as_ref().map(Value::text).unwrap_or_default();
        let (name, pid) = (text(&self.identifier), text(&self.pid));
        let message = text(&self.message);
        let lines = message.lines().map(|line| format!("{name}[{pid}]: {line}"));
        lines.collect()
    }
}

impl Query {
    /// Returns the entries of the unit of a process; those of the process itself if it has none.
    ///
    /// # Errors
    /// Fails if this host has no journal.
    pub(super) fn of_process(pid: i32) -> Result<Self, LogError> {
        let journalctl = journalctl()
            .filter(|_| Path::new(SOCKET).exists())
            .ok_or(LogError::NoJournal)?;
        let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let field = match unit(&cgroups) {
            Some(unit) => format!("_SYSTEMD_UNIT={unit}"),
            None => format!("_PID={pid}"),
        };
        Ok(Self { journalctl, field })
    }

    /// Returns the entries of an identifier; none if journald does not run here.
    pub(super) fn of_identifier(name: &str) -> Option<Self> {
        let journalctl = journalctl().filter(|_| Path::new(SOCKET).exists())?;
        let field = format!("SYSLOG_IDENTIFIER={name}");
        Some(Self { journalctl, field })
    }

    /// Returns what identifies the entries.
    pub(super) fn name(&self) -> String {
        format!("journal {}", self.field)
    }

    /// Runs `journalctl` with `args`, and returns the entries that it prints.
    async fn entries(&self, args: &[&str], limit: Duration) -> Result<Vec<Entry>, LogError> {
        let program = self.journalctl.to_string_lossy();
        let fixed = ["--quiet", "--no-pager", "--all", "--output=json"];
        let argv: Vec<String> = std::iter::once(&*program)
            .chain(fixed)
            .chain(args.iter().copied())
            .map(str::to_owned)
            .collect();
        let max = usize::try_from(MAX_READ).unwrap_or(usize::MAX);
        let output = fetch(&argv, Vec::new(), max, limit).await?;
        if output.stdout.len() > max {
            return Err(LogError::TooLong {
                log: "the journal".into(),
                max: MAX_READ,
            });
        }
        if output.code != 0 {
            let text = String::from_utf8_lossy(&output.stderr);
            let line = text.lines().next_back().unwrap_or_default();
            return Err(LogError::Journalctl(output.code, line.into()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines
            .map(|line| serde_json::from_str(line).map_err(|_| LogError::NoEntry))
            .collect()
    }
}

fn journalctl() -> Option<PathBuf> {
    JOURNALCTL
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

/// Returns the unit in the lines of `/proc/PID/cgroup`: the innermost that has processes.
fn unit(cgroups: &str) -> Option<&str> {
    let path = cgroups.lines().find_map(|line| {
        line.strip_prefix("0::")
            .or_else(|| line.split_once(":name=systemd:").map(|(_, path)| path))
    })?;
    path.trim_end()
        .rsplit('/')
        .find(|part| UNITS.iter().any(|suffix| part.ends_with(suffix)))
}

/// The entries of the journal since the last signal of an instance.
#[derive(Debug)]
pub(super) struct Journal {
    query: Query,
    /// The last entry that was read, or that was there before; none where there was none.
    cursor: Option<String>,
    tail: Tail,
}

impl Journal {
    /// Takes the position at the present end of the journal.
    ///
    /// # Errors
    /// Fails if `journalctl` does.
    pub(super) async fn at_end(query: Query, limit: Duration) -> Result<Self, LogError> {
        let last = query.entries(&["--lines=1"], limit).await?;
        let tail = Tail::new("the journal".into(), None);
        Ok(Self {
            query,
            cursor: last.into_iter().next_back().map(|entry| entry.cursor),
            tail,
        })
    }

    pub(super) fn tail_mut(&mut self) -> &mut Tail {
        &mut self.tail
    }

    /// Reads what was written since the last look.
    ///
    /// # Errors
    /// Fails if `journalctl` does, or if more was written than is read.
    pub(super) async fn look(&mut self, limit: Duration) -> Result<LogReading, LogError> {
        self.tail.begin();
        let after = self
            .cursor
            .as_ref()
            .map(|cursor| format!("--after-cursor={cursor}"));
        let args: Vec<&str> = after
            .as_deref()
            .into_iter()
            .chain([&*self.query.field])
            .collect();
        let entries = match self.query.entries(&args, limit).await {
            // The claim was made by an entry that was read.
            Err(LogError::TooLong { .. }) if self.tail.is_proven() => Vec::new(),
            entries => entries?,
        };
        for entry in entries {
            for line in entry.lines() {
                self.tail.count(line.len())?;
                self.tail.add(line.as_bytes());
            }
            self.cursor = Some(entry.cursor);
        }
        Ok(self.tail.reading())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Returns a journal whose entries are the lines of a file, read by a script in place of
    /// journalctl: it takes the same options, and a cursor is the number of a line.
    fn journal(dir: &Path) -> Query {
        let script = "#!/bin/sh
[ \"$1 $2 $3 $4\" = '--quiet --no-pager --all --output=json' ] || exit 9
after=0
case $5 in
  --lines=1) tail -n 1 \"$0.entries\"; exit ;;
  --after-cursor=*) after=${5#--after-cursor=}; shift ;;
esac
[ \"$5\" = _SYSTEMD_UNIT=x.service ] || exit 8
tail -n +$((after + 1)) \"$0.entries\"
";
        let journalctl = dir.join("journalctl");
        // Written by another process: a descriptor that is open for writing here could be inherited
        // by a child of a parallel test.
        let mut sh = std::process::Command::new("sh");
        let write = sh.args(["-c", "printf %s \"$1\" > \"$0\""]);
        let written = write.arg(&journalctl).arg(script).status().unwrap();
        assert!(written.success());
        std::fs::set_permissions(&journalctl, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(dir.join("journalctl.entries"), "").unwrap();
        Query {
            journalctl,
            field: "_SYSTEMD_UNIT=x.service".into(),
        }
    }

    fn append(dir: &Path, number: usize, message: &str) {
        let path = dir.join("journalctl.entries");
        let mut text = std::fs::read_to_string(&path).unwrap();
        text += &format!(
            "{{\"__CURSOR\":\"{number}\",\"MESSAGE\":{message},\"SYSLOG_IDENTIFIER\":\"x\",\
             \"_PID\":\"7\"}}\n"
        );
        std::fs::write(path, text).unwrap();
    }

    #[tokio::test]
    async fn only_entries_after_the_position_are_read_and_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let query = journal(dir.path());
        let limit = Duration::from_secs(30);
        append(dir.path(), 1, "\"before\"");
        let mut journal = Journal::at_end(query, limit).await.unwrap();
        assert!(journal.look(limit).await.unwrap().is_empty());
        append(dir.path(), 2, "\"one\\ntwo\"");
        append(dir.path(), 3, "[116,104,114,101,101]");
        let lines = ["x[7]: one", "x[7]: two", "x[7]: three"];
        for _ in 0..2 {
            let reading = journal.look(limit).await.unwrap();
            assert_eq!(reading.last(9, 999), lines);
        }
    }

    #[tokio::test]
    async fn a_journal_that_cannot_be_read_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let query = Query {
            field: "other".into(),
            ..journal(dir.path())
        };
        let limit = Duration::from_secs(30);
        let mut journal = Journal::at_end(query, limit).await.unwrap();
        let why = journal.look(limit).await.unwrap_err();
        assert!(why.to_string().contains("exit status 8"), "{why}");
    }

    #[test]
    fn the_unit_of_a_process_is_the_innermost_of_its_control_group() {
        for (cgroups, found) in [
            ("0::/system.slice/nginx.service\n", Some("nginx.service")),
            (
                "0::/user.slice/user-0.slice/session-1.scope\n",
                Some("session-1.scope"),
            ),
            ("0::/system.slice/x.service/sub\n", Some("x.service")),
            (
                "2:cpu:/x\n1:name=systemd:/system.slice/a.service\n",
                Some("a.service"),
            ),
            ("0::/\n", None),
            ("", None),
        ] {
            assert_eq!(unit(cgroups), found, "{cgroups}");
        }
    }
}
