//! Lines of syslog: which program wrote them.

/// The entries that count: of this identifier, and of no other process.
#[derive(Debug, Clone)]
pub(super) struct Tag {
    pub(super) name: String,
    /// The instance. An entry that names the pid of another process is not its own.
    pub(super) pid: i32,
}

impl Tag {
    /// Tells whether a line is an entry of this identifier. Its pid, if the line has one, must be
    /// that of the instance or of a child of it.
    pub(super) fn fits(&self, line: &str) -> bool {
        let Some((name, pid)) = tag(line) else {
            return false;
        };
        let is_own = |pid: i32| {
            let parent = || crate::kernel::Stat::of(pid).map(|stat| stat.parent);
            pid == self.pid || parent().is_ok_and(|parent| parent == self.pid)
        };
        name == self.name && pid.is_none_or(is_own)
    }
}

/// Returns the identifier of a line, and the pid behind it. The identifier follows the time and the
/// host: `Nov 30 17:40:01 HOST NAME[PID]: ..` (RFC 3164), or with one word for the time.
fn tag(line: &str) -> Option<(&str, Option<i32>)> {
    let is_one_word = line.starts_with(|c: char| c.is_ascii_digit());
    let words = if is_one_word { 2 } else { 4 };
    let word = line.split_ascii_whitespace().nth(words)?;
    let name = word.strip_suffix(':').unwrap_or(word);
    match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
        Some((name, pid)) => Some((name, pid.parse().ok())),
        None => Some((name, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_by_its_identifier_and_its_pid() {
        let own = Tag {
            name: "tinyproxy".into(),
            pid: 7,
        };
        for line in [
            "Nov 30 17:40:01 host tinyproxy[7]: Reloading",
            "Nov  3 17:40:01 host tinyproxy: Reloading",
            "2026-11-30T17:40:01.000001+00:00 host tinyproxy[7]: Reloading",
        ] {
            assert!(own.fits(line), "{line}");
        }
        for line in [
            "Nov 30 17:40:01 host tinyproxy[1]: Reloading",
            "Nov 30 17:40:01 host other[7]: tinyproxy[7]: Reloading",
            "Nov 30 17:40:01 host",
            "",
        ] {
            assert!(!own.fits(line), "{line}");
        }
    }
}
