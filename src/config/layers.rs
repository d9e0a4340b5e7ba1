//! A config in layers: each gives some of the keys, and the last layer that gives a key wins.

use serde::Deserialize;

use super::{Config, Level, check_listen};
use crate::diagnostic::{self, ConfigError};

/// Some keys of a config.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    message: Option<String>,
    listen: Option<toml::Spanned<String>>,
    log: Option<Level>,
}

impl From<Config> for Layer {
    fn from(config: Config) -> Self {
        Self {
            message: Some(config.message),
            listen: config.listen,
            log: Some(config.log),
        }
    }
}

impl Layer {
    /// Parses and checks one layer. Each key may be missing.
    ///
    /// # Errors
    /// Fails if a key is unknown or its value is not valid, with line, column and a hint.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let layer: Self = diagnostic::parse(bytes)?;
        check_listen(bytes, layer.listen.as_ref())?;
        Ok(layer)
    }

    /// Merges layers key by key; the last one that gives a key wins. None if no layer gives
    /// `message`, which has no default.
    #[must_use]
    pub fn merged(layers: impl IntoIterator<Item = Self>) -> Option<Config> {
        let all = layers
            .into_iter()
            .fold(Self::default(), |under, over| Self {
                message: over.message.or(under.message),
                listen: over.listen.or(under.listen),
                log: over.log.or(under.log),
            });
        Some(Config {
            message: all.message?,
            listen: all.listen,
            log: all.log.unwrap_or_default(),
        })
    }
}

/// Returns the digest of a config in layers, from the digest of each. That of one layer is its own;
/// that of several is the digest of the lines `sha256:DIGEST`, one for each.
#[must_use]
pub fn digest_of_layers<'a>(digests: impl IntoIterator<Item = &'a str>) -> String {
    let digests: Vec<&str> = digests.into_iter().collect();
    match digests.as_slice() {
        [only] => (*only).to_owned(),
        digests => {
            let lines = digests.iter().map(|sha256| format!("sha256:{sha256}\n"));
            super::digest(lines.collect::<String>().as_bytes())
        }
    }
}

/// Returns the keys of two layers as one TOML text; none if one is no TOML. Their values are not
/// checked.
#[must_use]
pub fn overlaid(under: &[u8], over: &[u8]) -> Option<String> {
    let table =
        |bytes: &[u8]| -> Option<toml::Table> { std::str::from_utf8(bytes).ok()?.parse().ok() };
    let mut all = table(under)?;
    all.extend(table(over)?);
    Some(all.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::config::DEFAULT_LISTEN;

    fn merged(texts: &[&str]) -> Option<Config> {
        let layers = texts.iter().map(|text| Layer::parse(text.as_bytes()));
        Layer::merged(layers.map(Result::unwrap))
    }

    #[test]
    fn the_last_layer_that_gives_a_key_wins() {
        let file = "message = \"file\"\nlisten = \"127.0.0.1:1\"\nlog = \"warn\"\n";
        let config = merged(&[file, "message = \"store\"\n"]).unwrap();
        assert_eq!(config.message, "store");
        assert_eq!(config.listen(), "127.0.0.1:1");
        assert_eq!(config.log, Level::Warn);
    }

    #[test]
    fn one_layer_is_a_whole_config() {
        let config = merged(&["message = \"a\"\n"]).unwrap();
        assert_eq!(config.listen(), DEFAULT_LISTEN);
        assert_eq!(config.log, Level::default());
    }

    #[test]
    fn layers_without_a_message_are_no_config() {
        assert_eq!(merged(&["log = \"info\"\n", ""]), None);
    }

    #[test]
    fn an_unknown_key_of_a_layer_is_an_error_with_its_place() {
        let why = Layer::parse(b"log = \"info\"\nmesage = \"x\"\n").unwrap_err();
        assert_eq!(
            why.to_string(),
            "line 2, column 1: unknown field `mesage`; did you mean `message`?"
        );
    }
}
