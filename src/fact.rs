//! Facts that prove a config: where an instance is asked, what is read of the answer, and what it must be.

use serde::{Deserialize, Serialize};

/// One entry of `[[group.confirm]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// URL with `{listen}` for the instance's own address.
    pub http: String,
    /// What is read of the answer.
    pub read: Read,
    /// What it must be.
    pub wants: Wants,
}

/// What is read of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Read {
    /// The whole body.
    Body,
    /// The status code.
    Status,
    /// A header's value.
    Header(String),
    /// A value of a JSON body, by pointer (RFC 6901).
    Json(String),
    /// The first sample of this name with these labels in a body of Prometheus' text format.
    Metric(String, Vec<(String, String)>),
}

/// What a reading must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Wants {
    /// Exactly this text; `{candidate.KEY}` stands for a key of the new config.
    Equals(String),
    /// This text somewhere in it.
    Contains(String),
    /// Another text than before the signal.
    Changed,
    /// A greater number than before the signal.
    Increased,
    /// A moment (Unix seconds, or RFC 3339) not before the signal; one of whole seconds counts only if it is later than before.
    AfterSignal,
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
    #[serde(default)]
    after_signal: bool,
}

impl TryFrom<RawFact> for Fact {
    type Error = String;

    fn try_from(raw: RawFact) -> Result<Self, String> {
        if !raw.http.starts_with("http://") {
            return Err(format!("http = {:?} does not begin with http://", raw.http));
        }
        let read = match raw.read.as_deref().unwrap_or("body") {
            "body" => Read::Body,
            "status" => Read::Status,
            other => match other.split_once(':') {
                Some(("header", name)) => Read::Header(name.to_lowercase()),
                Some(("json", pointer)) => Read::Json(pointer.to_owned()),
                Some(("metric", sample)) => {
                    let (name, labels) = sample_name(sample).ok_or_else(|| format!("read = {other:?} is no metric:NAME{{label=\"value\"}}"))?;
                    Read::Metric(name, labels)
                }
                _ => return Err(format!("read = {other:?} is none of body, status, header:NAME, json:/POINTER, metric:NAME{{label=\"value\"}}")),
            },
        };
        let wants = [
            raw.equals.map(Wants::Equals),
            raw.contains.map(Wants::Contains),
            raw.changed.then_some(Wants::Changed),
            raw.increased.then_some(Wants::Increased),
            raw.after_signal.then_some(Wants::AfterSignal),
        ];
        let mut wants = wants.into_iter().flatten();
        let (Some(wants), None) = (wants.next(), wants.next()) else {
            return Err("say exactly one of equals, contains, changed = true, increased = true, after_signal = true".into());
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
    pub fn holds(&self, now: &str, before: Option<&str>, signalled: jiff::Timestamp) -> bool {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        match &self.wants {
            Wants::Equals(text) => now == text,
            Wants::Contains(text) => now.contains(text),
            Wants::Changed => before.is_some_and(|b| b != now),
            Wants::AfterSignal => moment(now).is_some_and(|stamp| {
                let (sent, whole) = (signalled.as_duration().as_secs_f64(), stamp.fract() == 0.0);
                if whole { stamp >= sent.floor() && before.and_then(moment).is_none_or(|b| stamp > b) } else { stamp >= sent }
            }),
            Wants::Increased => before.and_then(number).zip(number(now)).is_some_and(|(b, n)| n > b),
        }
    }

    /// Whether the fact compares with a reading from before the signal.
    #[must_use]
    pub fn compares(&self) -> bool {
        matches!(self.wants, Wants::Changed | Wants::Increased | Wants::AfterSignal)
    }
}

/// Seconds since 1970.
fn moment(text: &str) -> Option<f64> {
    let text = text.trim();
    text.parse().ok().or_else(|| Some(text.parse::<jiff::Timestamp>().ok()?.as_duration().as_secs_f64()))
}

/// `NAME` or `NAME{label="value",..}`, with what is left behind it dropped.
fn sample_name(text: &str) -> Option<(String, Vec<(String, String)>)> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':'))).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let mut labels = Vec::new();
    let Some(mut rest) = rest.strip_prefix('{') else { return (!name.is_empty()).then(|| (name.to_owned(), labels)) };
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if rest.starts_with('}') {
            return (!name.is_empty()).then(|| (name.to_owned(), labels));
        }
        let (label, tail) = rest.split_once("=\"")?;
        let (mut value, mut chars) = (String::new(), tail.char_indices());
        loop {
            match chars.next()? {
                (at, '"') => {
                    rest = &tail[at + 1..];
                    break;
                }
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        }
        labels.push((label.trim().to_owned(), value));
    }
}

/// The value of the first sample of `name` that has all of `labels`, in a body of Prometheus' text format.
#[must_use]
pub fn metric(body: &str, name: &str, labels: &[(String, String)]) -> Option<String> {
    body.lines().filter(|line| line.starts_with(name)).find_map(|line| {
        let (found, has) = sample_name(line)?;
        if found != name || !labels.iter().all(|l| has.contains(l)) {
            return None;
        }
        // A brace inside a label's value is followed by a quote; the one that ends the labels is followed by the value.
        let values = if line[name.len()..].starts_with('{') { &line[line.rfind('}')? + 1..] } else { &line[name.len()..] };
        values.split_whitespace().next().map(str::to_owned)
    })
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

    #[test]
    fn metrics_are_found_by_name_and_labels() {
        let body = "# TYPE a gauge\nab 1\na{x=\"1\",y=\"}\"} 2\na{x=\"2\"} 3 1700\na 4\n";
        let Read::Metric(name, labels) = Fact::try_from(raw("metric:a{x=\"2\"}")).unwrap().read else { panic!("no metric") };
        assert_eq!(metric(body, &name, &labels).as_deref(), Some("3"));
        assert_eq!(metric(body, "a", &[]).as_deref(), Some("2"));
        assert_eq!(metric(body, "ab", &[]).as_deref(), Some("1"));
        assert_eq!(metric(body, "a", &[("x".into(), "9".into())]), None);
        assert!(Fact::try_from(raw("metric:a{x=")).is_err() && Fact::try_from(raw("mertic:a")).is_err());
    }

    fn raw(read: &str) -> RawFact {
        RawFact { http: "http://{listen}/".into(), read: Some(read.into()), equals: None, contains: None, changed: true, increased: false, after_signal: false }
    }

    #[test]
    fn a_stamp_of_whole_seconds_must_be_later_than_before() {
        let (fact, sent) = (fact(Wants::AfterSignal), "2026-01-01T00:00:10.5Z".parse().unwrap());
        let at = |text: &str, before| fact.holds(text, before, sent);
        assert!(at("2026-01-01T00:00:10.6Z", None) && !at("2026-01-01T00:00:10.4Z", None));
        assert!(at("2026-01-01T00:00:10Z", Some("2026-01-01T00:00:09Z")) && !at("2026-01-01T00:00:10Z", Some("2026-01-01T00:00:10Z")));
        assert!(at("1767225611", None) && at("1.767225611e9", None) && !at("1767225609", None) && !at("soon", None));
    }
}
