//! The operator of a run: the one of this process, and the one that a coordinator claims.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{protocol, screen};

/// Longest text about the operator of this process, in bytes: the URL of a job of a CI system.
const MAX_OWN: usize = 4096;
/// Longest text of a claim, in bytes. The name of a host has at most 64, and that of a user 32.
const MAX_CLAIM: usize = 256;

/// The user of the command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Operator {
    pub uid: u32,
    /// The login user, before any `su` or `sudo`.
    pub login_uid: Option<u32>,
    pub sudo_user: Option<String>,
    pub ci_job: Option<String>,
}

/// The operator of a run over hosts, as its coordinator claims. A host records it beside its own
/// [`Operator`], and decides nothing by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ClaimedOperator {
    /// The user of the coordinator.
    pub uid: u32,
    /// The login user there, before any `su` or `sudo`.
    pub login_uid: Option<u32>,
    pub sudo_user: Option<String>,
    pub ci_job: Option<String>,
    /// The host of the coordinator.
    pub host: Option<String>,
    /// Its version of hello.
    pub version: String,
}

impl Operator {
    /// Returns the operator of this process.
    pub(crate) fn now() -> Self {
        let env = |name: &str| {
            let value = std::env::var_os(name)?;
            Some(cut(&value.to_string_lossy(), MAX_OWN).to_owned())
        };
        Self {
            uid: nix::unistd::getuid().as_raw(),
            // The kernel writes (uid_t) -1 where no user has logged in: proc_pid_loginuid(5).
            login_uid: std::fs::read_to_string("/proc/self/loginuid")
                .ok()
                .and_then(|t| t.trim().parse().ok())
                .filter(|uid| *uid != u32::MAX),
            sudo_user: env("SUDO_USER"),
            ci_job: ["CI_JOB_URL", "GITHUB_RUN_ID", "BUILD_URL", "BUILD_TAG"]
                .into_iter()
                .find_map(env),
        }
    }
}

impl From<&protocol::Operator> for ClaimedOperator {
    /// Takes a claim from the wire: each text is cut, and has no character that a terminal obeys.
    fn from(claim: &protocol::Operator) -> Self {
        let cleaned = |text: &Option<String>| text.as_deref().map(cleaned);
        Self {
            uid: claim.uid,
            login_uid: claim.login_uid,
            sudo_user: cleaned(&claim.sudo_user),
            ci_job: cleaned(&claim.ci_job),
            host: cleaned(&claim.host),
            version: self::cleaned(&claim.version),
        }
    }
}

impl fmt::Display for Operator {
    /// Writes "uid 0 (logged in as uid 1000, alice)".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = [&self.sudo_user, &self.ci_job];
        f.write_str(&described((self.uid, self.login_uid), texts))
    }
}

impl fmt::Display for ClaimedOperator {
    /// Writes "uid 1000 (alice) on laptop".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = [&self.sudo_user, &self.ci_job];
        f.write_str(&described((self.uid, self.login_uid), texts))?;
        match &self.host {
            Some(host) => write!(f, " on {host}"),
            None => Ok(()),
        }
    }
}

fn described((uid, login_uid): (u32, Option<u32>), texts: [&Option<String>; 2]) -> String {
    let login = login_uid
        .filter(|login| *login != uid)
        .map(|login| format!("logged in as uid {login}"));
    let more: Vec<String> = login
        .into_iter()
        .chain(texts.into_iter().flatten().cloned())
        .collect();
    if more.is_empty() {
        format!("uid {uid}")
    } else {
        format!("uid {uid} ({})", more.join(", "))
    }
}

fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Returns a text from another machine on one line, without characters that a terminal obeys.
fn cleaned(text: &str) -> String {
    let safe = |c: char| {
        if screen::is_plain(c) {
            c
        } else {
            char::REPLACEMENT_CHARACTER
        }
    };
    let safe: String = text.chars().take(MAX_CLAIM).map(safe).collect();
    cut(&safe, MAX_CLAIM).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> protocol::Operator {
        protocol::Operator {
            uid: 1000,
            login_uid: Some(5),
            sudo_user: Some("alice".into()),
            ci_job: None,
            host: Some("laptop".into()),
            version: "0.1.0".into(),
        }
    }

    #[test]
    fn a_claim_names_the_user_and_the_host() {
        let claimed = ClaimedOperator::from(&claim());
        let text = "uid 1000 (logged in as uid 5, alice) on laptop";
        assert_eq!(claimed.to_string(), text);
    }

    #[test]
    fn a_claim_has_no_character_that_a_terminal_obeys() {
        let claimed = ClaimedOperator::from(&protocol::Operator {
            sudo_user: Some("a\u{1b}[2J\r\nb\tc\u{202e}d\u{7f}é".into()),
            ..claim()
        });
        let user = claimed.sudo_user.unwrap_or_default();
        assert_eq!(
            user,
            "a\u{fffd}[2J\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}é"
        );
    }

    #[test]
    fn a_claim_is_cut_at_a_character() {
        let claimed = ClaimedOperator::from(&protocol::Operator {
            host: Some("ü".repeat(1 << 20)),
            ..claim()
        });
        assert_eq!(claimed.host.map(|host| host.len()), Some(MAX_CLAIM));
    }
}
