//! `{candidate.KEY}` in the expectation of an assertion: a key of the new config, or its digest.

use yaml_rust2::{Yaml, YamlLoader};

use super::directives::values;
use crate::{config, diagnostic::suggest_similar, refusal::Refusal};

const OPEN: &str = "{candidate.";

/// A value of a config, in the language that the config is written in.
#[derive(Clone, Copy)]
enum Node<'a> {
    Json(&'a serde_json::Value),
    Toml(&'a toml::Value),
    Yaml(&'a Yaml),
}

/// A whole config.
enum Config {
    Json(serde_json::Value),
    Toml(toml::Value),
    Yaml(Vec<Yaml>),
}

impl Config {
    /// Parses a config; none if the text is neither JSON, TOML nor YAML with keys in it.
    fn parse(text: &str) -> Option<Self> {
        // JSON is also valid YAML, and nearly every text is a YAML scalar.
        if let Ok(json) = serde_json::from_str(text) {
            return Some(Self::Json(json));
        }
        if let Ok(table) = text.parse::<toml::Table>() {
            return Some(Self::Toml(toml::Value::Table(table)));
        }
        let documents = YamlLoader::load_from_str(text).ok()?;
        documents
            .iter()
            .any(|document| matches!(document, Yaml::Hash(_) | Yaml::Array(_)))
            .then_some(Self::Yaml(documents))
    }

    /// Returns the value of `key` as text.
    fn get(&self, key: &str) -> Option<String> {
        let parts: Vec<&str> = key.split('.').collect();
        let found = match self {
            Self::Json(value) => Node::Json(value).below(&parts),
            Self::Toml(value) => Node::Toml(value).below(&parts),
            Self::Yaml(documents) => documents
                .iter()
                .find_map(|document| Node::Yaml(document).below(&parts)),
        };
        found?.text()
    }
}

impl<'a> Node<'a> {
    /// Returns the value at a path. A key may contain dots itself; the longest key that exists
    /// counts.
    fn below(self, parts: &[&str]) -> Option<Self> {
        if parts.is_empty() {
            return Some(self);
        }
        (1..=parts.len()).rev().find_map(|length| {
            self.get(&parts[..length].join("."))?
                .below(&parts[length..])
        })
    }

    fn get(self, key: &str) -> Option<Self> {
        let index = || key.parse::<usize>().ok();
        match self {
            Self::Json(serde_json::Value::Array(list)) => list.get(index()?).map(Node::Json),
            Self::Json(value) => value.get(key).map(Node::Json),
            Self::Toml(toml::Value::Array(list)) => list.get(index()?).map(Node::Toml),
            Self::Toml(value) => value.get(key).map(Node::Toml),
            Self::Yaml(Yaml::Array(list)) => list.get(index()?).map(Node::Yaml),
            Self::Yaml(Yaml::Hash(map)) => map
                .iter()
                .find(|(name, _)| Node::Yaml(name).text().as_deref() == Some(key))
                .map(|(_, value)| Node::Yaml(value)),
            Self::Yaml(_) => None,
        }
    }

    /// Returns the value as an answer would have it; none for a YAML list or map.
    fn text(self) -> Option<String> {
        match self {
            Self::Json(value) => Some(
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned),
            ),
            Self::Toml(value) => Some(
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned),
            ),
            Self::Yaml(Yaml::String(text) | Yaml::Real(text)) => Some(text.clone()),
            Self::Yaml(Yaml::Integer(number)) => Some(number.to_string()),
            Self::Yaml(Yaml::Boolean(truth)) => Some(truth.to_string()),
            Self::Yaml(Yaml::Null) => Some("null".into()),
            Self::Yaml(_) => None,
        }
    }
}

/// Why a placeholder has no value in a candidate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresolved {
    /// A placeholder without its end.
    #[error("{0:?} has no `}}` after `{OPEN}`")]
    Unclosed(String),
    /// The config is a directory, or there is none.
    #[error("`{{candidate.{0}}}` needs a config that is one file")]
    NotOneFile(String),
    /// The config is in no format that has keys.
    #[error("`{{candidate.{0}}}` needs a config in TOML, JSON or YAML, and the new one is none")]
    NoFormat(String),
    /// The config has no such key, or one without a value that is text.
    #[error("the new config has no `{0}`")]
    NoKey(String),
}

/// Why a config gives no value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoKeyValue {
    /// It is no text.
    #[error("is no text")]
    NoText,
    #[error("has no such key")]
    Absent,
    #[error("has several values of it")]
    Several,
}

/// Returns the value of a key in a config of TOML, JSON or YAML. Of another format, returns what
/// stands behind the key in its lines: `KEY VALUE`, `KEY = VALUE`, `KEY: VALUE`.
///
/// # Errors
/// Fails if the config has no such key, or if its lines have several values.
pub(crate) fn value_in(config: &[u8], key: &str) -> Result<String, NoKeyValue> {
    let text = std::str::from_utf8(config).map_err(|_| NoKeyValue::NoText)?;
    if let Some(parsed) = Config::parse(text) {
        return parsed.get(key).ok_or(NoKeyValue::Absent);
    }
    let mut found = values(text, &[key.to_ascii_lowercase()]);
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [] => Err(NoKeyValue::Absent),
        [value] => Ok(value.clone()),
        _ => Err(NoKeyValue::Several),
    }
}

/// Returns a text with every placeholder replaced.
///
/// # Errors
/// Fails if the candidate is not one file (none), has no such key, or is in no format that has
/// keys.
pub(super) fn fill(text: &str, candidate: Option<&[u8]>) -> Result<String, Refusal<Unresolved>> {
    fill_with(text, candidate, |value| value)
}

/// Returns a regular expression with every placeholder replaced by a text that is taken literally.
///
/// # Errors
/// Fails as [`fill`] does.
pub(super) fn fill_escaped(
    pattern: &str,
    candidate: Option<&[u8]>,
) -> Result<String, Refusal<Unresolved>> {
    fill_with(pattern, candidate, |value| regex::escape(&value))
}

fn fill_with(
    text: &str,
    candidate: Option<&[u8]>,
    written: impl Fn(String) -> String,
) -> Result<String, Refusal<Unresolved>> {
    let mut filled = String::new();
    let mut rest = text;
    let mut config = None;
    while let Some((head, opened)) = rest.split_once(OPEN) {
        let (key, tail) = opened
            .split_once('}')
            .ok_or_else(|| Unresolved::Unclosed(text.into()))?;
        let candidate = candidate.ok_or_else(|| Unresolved::NotOneFile(key.into()))?;
        filled += head;
        if key == "sha256" {
            filled += &config::digest(candidate);
        } else {
            let parsed = config
                .get_or_insert_with(|| std::str::from_utf8(candidate).ok().and_then(Config::parse));
            let parsed = parsed
                .as_ref()
                .ok_or_else(|| Unresolved::NoFormat(key.into()))?;
            let value = parsed.get(key).ok_or_else(|| Refusal {
                why: Unresolved::NoKey(key.into()),
                hint: suggest_similar(key, std::iter::once("sha256")),
            })?;
            filled += &written(value);
        }
        rest = tail;
    }
    Ok(filled + rest)
}

/// Returns what is wrong with the placeholders of an expectation, and a hint. Braces around
/// anything but a word are text, such as those of JSON.
pub(super) fn template_fault(text: &str) -> Option<(String, String)> {
    let known = "there are {candidate.KEY} and {candidate.sha256}";
    for (brace, _) in text.match_indices('{') {
        let rest = &text[brace + 1..];
        let Some((name, _)) = rest.split_once('}') else {
            return rest
                .starts_with("candidate")
                .then(|| (Unresolved::Unclosed(text.into()).to_string(), known.into()));
        };
        if name
            .strip_prefix("candidate.")
            .is_some_and(|key| !key.is_empty() && key.split('.').all(|part| !part.is_empty()))
        {
            continue;
        }
        let is_word = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._:-".contains(c));
        let word = name.split(['.', ':']).next().unwrap_or_default();
        let meant = suggest_similar(&word.to_lowercase(), std::iter::once("candidate"));
        if is_word && (meant.is_some() || !name.starts_with(|c: char| c.is_ascii_uppercase())) {
            let key = name
                .split_once(['.', ':'])
                .map_or("KEY", |(_, key)| key.trim_matches(['.', ':']));
            let hint = meant.map_or(known.into(), |_| {
                format!(
                    "did you mean `{{candidate.{}}}`?",
                    if key.is_empty() { "KEY" } else { key }
                )
            });
            return Some((format!("no placeholder `{{{name}}}`"), hint));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn a_key_is_found_in_every_format() {
        let value = |key: &str, config: &str| {
            fill(&format!("<{{candidate.{key}}}>"), Some(config.as_bytes()))
        };
        let yaml = "# text\nglobal: { scrape_interval: 1m, ratio: 1.10, on: true }\njobs:\n- \
                    name: 'a: b'\n- name: 7\n---\nlate: x\n";
        let json = r#"{"global": {"scrape_interval": "1m", "ratio": 1.5, "on": true},
                       "jobs": [{"name": "a: b"}], "a.b": {"c": 1}}"#;
        let toml = "[global]\nscrape_interval = \"1m\"\nratio = 1.5\non = true\n[[jobs]]\nname = \
                    \"a: b\"\n[\"a.b\"]\nc = 1\n";
        for config in [yaml, json, toml] {
            for (key, wanted) in [
                ("global.scrape_interval", "<1m>"),
                ("global.on", "<true>"),
                ("jobs.0.name", "<a: b>"),
            ] {
                assert_eq!(
                    value(key, config).as_deref(),
                    Ok(wanted),
                    "{key} of {config}"
                );
            }
            assert_eq!(
                value("global.none", config),
                Err(Unresolved::NoKey("global.none".into()).into()),
                "{config}"
            );
            assert!(
                value("jobs.9", config).is_err() && value("", config).is_err(),
                "{config}"
            );
        }
        assert_eq!(
            (
                value("a.b.c", json).as_deref(),
                value("a.b.c", toml).as_deref()
            ),
            (Ok("<1>"), Ok("<1>"))
        );
        assert_eq!(
            (
                value("global.ratio", yaml).as_deref(),
                value("jobs.1.name", yaml).as_deref(),
                value("late", yaml).as_deref()
            ),
            (Ok("<1.10>"), Ok("<7>"), Ok("<x>"))
        );
        for other in [
            "worker_processes 1;\nevents { }\n",
            "just words",
            "",
            "- a\n b: [\n",
        ] {
            assert!(value("a", other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_key_of_lines_has_one_value() {
        let tinyproxy = "Port 8888\n# LogFile /no\nLogFile \"/var/log/t.log\"\n";
        let ini = "[main]\nlogfile = /var/log/i.log\n[other]\nx = 1\n";
        for (config, key, wanted) in [
            (tinyproxy, "LogFile", Ok("/var/log/t.log".into())),
            (ini, "logfile", Ok("/var/log/i.log".into())),
            ("log:\n  file: /y\n", "log.file", Ok("/y".into())),
            (
                "error_log /a; error_log /b;\n",
                "error_log",
                Err(NoKeyValue::Several),
            ),
            (tinyproxy, "SysLog", Err(NoKeyValue::Absent)),
        ] {
            assert_eq!(value_in(config.as_bytes(), key), wanted, "{config}");
        }
        assert_eq!(value_in(&[0xff], "x"), Err(NoKeyValue::NoText));
    }

    #[test]
    fn the_digest_needs_no_format() {
        let digest = config::digest(b"listen 80;\n");
        assert_eq!(
            fill("a {candidate.sha256} b", Some(b"listen 80;\n")),
            Ok(format!("a {digest} b"))
        );
        assert_eq!(
            fill("{candidate.sha256}", None),
            Err(Unresolved::NotOneFile("sha256".into()).into())
        );
        let meant = fill("{candidate.sha265}", Some(b"listen: 80")).unwrap_err();
        assert_eq!(meant.hint.as_deref(), Some("did you mean `sha256`?"));
    }

    #[test]
    fn an_unknown_placeholder_is_a_fault() {
        for good in [
            "{candidate.a}",
            "x{candidate.a.b-c_d.0}y{candidate.sha256}",
            "{\"a\":1}",
            "{}",
            "{ a }",
            "{1}",
            "a}b{",
            "{x",
            "${candidate.x}",
        ] {
            assert_eq!(template_fault(good), None, "{good}");
        }
        for (bad, hint) in [
            ("{candidat.message}", "did you mean `{candidate.message}`?"),
            ("{Candidate.message}", "did you mean `{candidate.message}`?"),
            ("{candidate:message}", "did you mean `{candidate.message}`?"),
            ("{canddiate.a.b}", "`{candidate.a.b}`"),
            ("{candidate}", "`{candidate.KEY}`"),
            ("{candidate.}", "`{candidate.KEY}`"),
            ("a {candidate.x", "there are"),
            ("{message}", "there are {candidate.KEY}"),
            ("{\"a\":\"{config.message}\"}", "there are {candidate.KEY}"),
            ("{listen}", "there are"),
        ] {
            assert!(
                template_fault(bad).is_some_and(|(_, shown)| shown.contains(hint)),
                "{bad}: {:?}",
                template_fault(bad)
            );
        }
    }
}
