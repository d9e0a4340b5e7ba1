//! Why something is refused, and the next step: two parts, which no code joins before they are
//! shown and none splits.

use serde::{Deserialize, Serialize};

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hint {
    /// A sentence that leads to the commands.
    pub what: String,
    /// The commands to type, quoted for a shell; those that only read come first.
    pub commands: Vec<String>,
}

impl Hint {
    /// Returns the hint of another host, where its commands are to be typed.
    pub(crate) fn on(self, host: &impl std::fmt::Display) -> Self {
        Self {
            what: format!("on {host}: {}", self.what),
            ..self
        }
    }
}

/// The reason of a refusal, and what the operator can do about it. The text of both is one
/// sentence, mostly without its subject: the process that it is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}{}", after(hint.as_deref()))]
pub(crate) struct Refusal<W = String> {
    /// The reason: an error of the room that refuses, or its text once it is reported.
    pub(crate) why: W,
    /// The next step.
    pub(crate) hint: Option<String>,
}

fn after(hint: Option<&str>) -> String {
    hint.map_or(String::new(), |hint| format!("; {hint}"))
}

impl<W> Refusal<W> {
    /// Adds what the operator can do about it.
    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl<W: ToString> Refusal<W> {
    /// Returns the same refusal for a report, which has its reason as text.
    pub(crate) fn reported(&self) -> Refusal {
        Refusal {
            why: self.why.to_string(),
            hint: self.hint.clone(),
        }
    }
}

impl<W> From<W> for Refusal<W> {
    fn from(why: W) -> Self {
        Self { why, hint: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_follows_the_reason_and_stays_apart() {
        let refusal = Refusal::from("stopped; or traced").with_hint("continue it; then repeat");
        assert_eq!(
            refusal.to_string(),
            "stopped; or traced; continue it; then repeat"
        );
        assert_eq!(refusal.reported().why, "stopped; or traced");
        assert_eq!(
            refusal.reported().hint.as_deref(),
            Some("continue it; then repeat")
        );
        assert_eq!(Refusal::from("stopped").to_string(), "stopped");
    }
}
