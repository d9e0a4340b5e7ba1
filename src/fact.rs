//! Facts that prove a config: where an instance is asked, what is read of the answer, and what it must be.

use serde::Deserialize;

/// One entry of `[[group.confirm]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// URL with `{listen}` for the instance's own address.
    pub http: String,
    /// What is read of the answer.
    pub read: Read,
    /// What it must be.
    pub wants: Wants,
}

/// What is read of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// The whole body.
    Body,
    /// The status code.
    Status,
    /// A header's value.
    Header(String),
    /// A value of a JSON body, by pointer (RFC 6901).
    Json(String),
}

/// What a reading must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wants {
    /// Exactly this text; `{candidate.KEY}` stands for a key of the new config.
    Equals(String),
    /// This text somewhere in it.
    Contains(String),
    /// Another text than before the signal.
    Changed,
    /// A greater number than before the signal.
    Increased,
}

/// A [`Fact`] as `fleet.toml` writes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFact {
    http: String,
    read: Option<String>,
    equals: Option<String>,
    contains: Option<String>,
    #[serde(default)]
    changed: bool,
    #[serde(default)]
    increased: bool,
}

impl TryFrom<RawFact> for Fact {
    type Error = String;

    fn try_from(raw: RawFact) -> Result<Self, String> {
        if !raw.http.starts_with("http://") {
            return Err(format!("confirm: http = {:?} does not begin with http://", raw.http));
        }
        let read = match raw.read.as_deref().unwrap_or("body") {
            "body" => Read::Body,
            "status" => Read::Status,
            other => match other.split_once(':') {
                Some(("header", name)) => Read::Header(name.to_lowercase()),
                Some(("json", pointer)) => Read::Json(pointer.to_owned()),
                _ => return Err(format!("confirm: read = {other:?} is none of body, status, header:NAME, json:/POINTER")),
            },
        };
        let wants = match (raw.equals, raw.contains, raw.changed, raw.increased) {
            (Some(text), None, false, false) => Wants::Equals(text),
            (None, Some(text), false, false) => Wants::Contains(text),
            (None, None, true, false) => Wants::Changed,
            (None, None, false, true) => Wants::Increased,
            _ => return Err("confirm: say exactly one of equals, contains, changed = true, increased = true".into()),
        };
        Ok(Self { http: raw.http, read, wants })
    }
}

impl Fact {
    /// The fact with every `{candidate.KEY}` filled in from `candidate`.
    ///
    /// # Errors
    /// When the candidate is no TOML or has no such key.
    pub fn filled(&self, candidate: &[u8]) -> Result<Self, String> {
        let wants = match &self.wants {
            Wants::Equals(text) => Wants::Equals(fill(text, candidate)?),
            Wants::Contains(text) => Wants::Contains(fill(text, candidate)?),
            other => other.clone(),
        };
        Ok(Self { wants, ..self.clone() })
    }

    /// Whether `now` is what is wanted, `before` being the reading from before the signal.
    #[must_use]
    pub fn holds(&self, now: &str, before: Option<&str>, _signalled: jiff::Timestamp) -> bool {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        match &self.wants {
            Wants::Equals(text) => now == text,
            Wants::Contains(text) => now.contains(text),
            Wants::Changed => before.is_some_and(|b| b != now),
            Wants::Increased => before.and_then(number).zip(number(now)).is_some_and(|(b, n)| n > b),
        }
    }

    /// Whether the fact compares with a reading from before the signal.
    #[must_use]
    pub fn compares(&self) -> bool {
        matches!(self.wants, Wants::Changed | Wants::Increased)
    }
}

fn fill(text: &str, candidate: &[u8]) -> Result<String, String> {
    let Some((head, rest)) = text.split_once("{candidate.") else { return Ok(text.to_owned()) };
    let (key, tail) = rest.split_once('}').ok_or_else(|| format!("{text:?} has no `}}` after `{{candidate.`"))?;
    let table: toml::Table = std::str::from_utf8(candidate)
        .ok()
        .and_then(|t| t.parse().ok())
        .ok_or_else(|| format!("`{{candidate.{key}}}` needs a config in TOML, and the new one is not"))?;
    let mut value: Option<&toml::Value> = None;
    for part in key.split('.') {
        let inner: &toml::Table = match value {
            None => &table,
            Some(toml::Value::Table(inner)) => inner,
            Some(_) => return Err(format!("the new config has no `{key}`")),
        };
        value = Some(inner.get(part).ok_or_else(|| format!("the new config has no `{key}`"))?);
    }
    let value = match value {
        Some(toml::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    Ok(format!("{head}{value}{}", fill(tail, candidate)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn fact(wants: Wants) -> Fact {
        Fact { http: "http://{listen}/".into(), read: Read::Body, wants }
    }

    #[test]
    fn keys_of_the_candidate_are_filled_in() {
        let candidate = b"a = \"x\"\n[b]\nc = 5\n";
        let filled = fact(Wants::Equals("<{candidate.a}-{candidate.b.c}>".into())).filled(candidate).unwrap();
        assert!(filled.holds("<x-5>", None, jiff::Timestamp::UNIX_EPOCH) && !filled.holds("<x-6>", None, jiff::Timestamp::UNIX_EPOCH));
        assert!(fact(Wants::Equals("{candidate.none}".into())).filled(candidate).unwrap_err().contains("no `none`"));
        assert!(fact(Wants::Equals("{candidate.a}".into())).filled(b"\xff").is_err());
    }

    #[test]
    fn a_comparison_needs_a_reading_from_before() {
        assert!(
            fact(Wants::Increased).holds("10", Some("9"), jiff::Timestamp::UNIX_EPOCH)
                && !fact(Wants::Increased).holds("9", Some("9"), jiff::Timestamp::UNIX_EPOCH)
        );
        assert!(!fact(Wants::Increased).holds("10", None, jiff::Timestamp::UNIX_EPOCH) && !fact(Wants::Changed).holds("x", None, jiff::Timestamp::UNIX_EPOCH));
    }
}
