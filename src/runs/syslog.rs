//! One line in the system's log for every run that began: the operator, the command, the reason and
//! the end.

use std::{fmt::Write, os::unix::net::UnixDatagram};

use super::{Record, format::RunBegan};
use crate::{
    event::{Event, Verdict},
    names::json_word,
    step::short,
};

const SOCKET: &str = "/dev/log";
/// Longest message, in bytes, that RFC 3164 lets every receiver take.
const LONGEST: usize = 1024;
/// Longest reason in it, so that there is room for the rest.
const REASON: usize = 300;
/// Longest text that a coordinator claims in it: it must not displace what the host knows itself.
const CLAIM: usize = 200;
const DAEMON: u8 = 3 << 3;

/// The facts of a run when it begins.
#[derive(Debug)]
pub(super) struct Line {
    /// The run, its host, the command, the operator and the reason.
    head: String,
    /// The targets; cut where there are many.
    targets: String,
}

/// Returns a value as one word, or in quotes; it is one line whatever is in it.
fn value(text: &str) -> String {
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
        let mut head = format!(
            "run={} host={} verb={} uid={}",
            record.id,
            record.host,
            json_word(began.verb),
            began.operator.uid
        );
        let login = began.operator.login_uid.map(|uid| uid.to_string());
        let claimed = began.claimed.as_ref();
        let claimed = claimed.map(|claimed| cut(&claimed.to_string(), CLAIM).to_owned());
        let groups = began.groups.join(",");
        let all = [
            ("login_uid", login.as_deref()),
            ("sudo_user", began.operator.sudo_user.as_deref()),
            ("ci_job", began.operator.ci_job.as_deref()),
            ("claimed_by", claimed.as_deref()),
            ("of", began.of.as_deref()),
            ("reason", began.reason.as_deref()),
            ("groups", Some(groups.as_str())),
        ];
        for (key, text) in all.into_iter().filter_map(|(key, text)| Some((key, text?))) {
            let _ = write!(head, " {key}={}", value(cut(text, REASON)));
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
                value(&target.path.to_string_lossy()),
                short(&target.to)
            );
        }
        Self { head, targets }
    }

    /// Returns the message; none where the event is not an end.
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
        let mut text = format!(
            "<{}>{at} hello[{}]: verdict={} {}",
            DAEMON + severity,
            std::process::id(),
            json_word(verdict),
            self.head
        );
        for (outcome, n) in counts {
            let _ = write!(text, " {}={n}", json_word(outcome));
        }
        Some(cut(&(text + &self.targets), LONGEST).into())
    }

    /// Sends the message if the log takes it at once. A log that is full or absent changes nothing.
    pub(super) fn send(&self, end: &Event) {
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.connect(SOCKET).map(|()| socket)
        });
        // Without a listener no message is made: to find the local time zone may read a hundred
        // folders.
        if let Ok(socket) = socket
            && let Some(message) = self.message(end)
        {
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
            head: format!("run=1 reason={}", value("a \"b\"\nü")),
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
