//! One line in the system's log for every run that began: who did what, why, and how it ended.

use std::{fmt::Write, os::unix::net::UnixDatagram};

use super::{Record, records::RunBegan};
use crate::{
    event::{Event, Verdict},
    step::short,
};

const SOCKET: &str = "/dev/log";
/// Longest message, in bytes, that RFC 3164 lets every receiver take.
const LONGEST: usize = 1024;
/// Longest reason in it, so that there is room for the rest.
const REASON: usize = 300;
const DAEMON: u8 = 3 << 3;

/// What is known of a run when it begins.
#[derive(Debug)]
pub(super) struct Line {
    /// Who, what and why.
    who: String,
    /// The targets; cut where there are many.
    targets: String,
}

/// A value of one word, or in quotes; one line whatever is in it.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=');
    if !text.is_empty() && text.chars().all(plain) {
        text.into()
    } else {
        format!("{text:?}")
    }
}

fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

impl Line {
    pub(super) fn new(record: &Record<'_>, began: &RunBegan) -> Self {
        let verb = serde_json::to_value(began.verb)
            .ok()
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default();
        let mut who = format!("verb={verb} uid={}", began.operator.uid);
        let login = began.operator.login_uid.map(|uid| uid.to_string());
        let groups = began.groups.join(",");
        let all = [
            ("login_uid", login.as_deref()),
            ("sudo_user", began.operator.sudo_user.as_deref()),
            ("ci_job", began.operator.ci_job.as_deref()),
            ("of", began.of.as_deref()),
            ("reason", began.reason.as_deref()),
            ("groups", Some(groups.as_str())),
        ];
        for (key, value) in all
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
        {
            let _ = write!(who, " {key}={}", word(cut(value, REASON)));
        }
        let mut targets = String::new();
        for target in &record.targets {
            if targets.len() > LONGEST {
                break;
            }
            let from = target.from.as_deref().map_or("?", short);
            let _ = write!(
                targets,
                " {}:{from}->{}",
                word(&target.path.to_string_lossy()),
                short(&target.to)
            );
        }
        Self {
            who: format!("run={} {who}", record.id),
            targets,
        }
    }

    /// The message; none of what is no end.
    fn message(&self, end: &Event) -> Option<String> {
        let Event::Finished {
            verdict, counts, ..
        } = end
        else {
            return None;
        };
        let severity = match verdict {
            Verdict::Converged => 6,
            Verdict::Mixed => 3,
            _ => 4,
        };
        let at = jiff::Zoned::now().strftime("%b %e %H:%M:%S").to_string();
        let word = serde_json::to_value(verdict).ok()?;
        let mut text = format!(
            "<{}>{at} hello[{}]: verdict={} {}",
            DAEMON + severity,
            std::process::id(),
            word.as_str()?,
            self.who
        );
        for (state, n) in counts {
            let _ = write!(text, " {}={n}", serde_json::to_value(state).ok()?.as_str()?);
        }
        Some(cut(&(text + &self.targets), LONGEST).into())
    }

    /// Sends it, where somebody takes it at once. A log that is full or not there changes nothing.
    pub(super) fn send(&self, end: &Event) {
        let heard = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.connect(SOCKET).map(|()| socket)
        });
        // Where nobody listens no line is made: the local time alone may be looked for in a hundred
        // folders.
        if let (Ok(socket), Some(message)) = (heard, self.message(end)) {
            let _ = socket.send(message.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_message_is_one_line_that_every_receiver_takes() {
        let line = Line {
            who: format!("run=1 reason={}", word("a \"b\"\nü")),
            targets: " /a:1->2".repeat(1000),
        };
        let message = line
            .message(&Event::Finished {
                verdict: Verdict::Mixed,
                reason: String::new(),
                counts: BTreeMap::new(),
            })
            .unwrap_or_default();
        assert!(
            message.len() <= 1024 && message.len() > 1000 && message.starts_with("<27>"),
            "{message}"
        );
        assert!(
            message.contains(r#": verdict=mixed run=1 reason="a \"b\"\nü" /a:1->2 "#)
                && !message.contains('\n'),
            "{message}"
        );
        assert_eq!(
            line.message(&Event::RollbackBegan { why: String::new() }),
            None
        );
    }
}
