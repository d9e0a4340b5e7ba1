//! An error in a TOML text, with its position and a hint.

use std::{fmt, ops::Range, path::Path};

use serde::de::DeserializeOwned;

use crate::screen;

/// An error in a TOML text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The error in one line.
    pub message: String,
    /// The line, from 1; none if the whole text is meant.
    pub line: Option<usize>,
    /// The column, from 1, in bytes.
    pub column: Option<usize>,
    /// A likely fix.
    pub hint: Option<String>,
    span: Option<Range<usize>>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line.is_some() {
            write!(f, "{}: ", self.place())?;
        }
        f.write_str(&self.message)?;
        self.hint
            .as_ref()
            .map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

impl ConfigError {
    /// Returns an error at `span` of `bytes`.
    #[must_use]
    pub fn new(
        bytes: &[u8],
        message: impl Into<String>,
        hint: Option<String>,
        span: Option<Range<usize>>,
    ) -> Self {
        let before = span.as_ref().and_then(|s| bytes.get(..s.start));
        let line = before.map(|b| b.iter().filter(|c| **c == b'\n').count() + 1);
        let column = before.map(|b| b.iter().rev().take_while(|c| **c != b'\n').count() + 1);
        Self {
            message: message.into(),
            line,
            column,
            hint,
            span,
        }
    }

    /// Returns line and column alone, for a text that must not be shown.
    #[must_use]
    pub fn place(&self) -> String {
        format!(
            "line {}, column {}",
            self.line.unwrap_or(1),
            self.column.unwrap_or(1)
        )
    }

    /// Renders the error with the file, the position, the line itself, and the hint.
    #[must_use]
    pub fn render(&self, path: &Path, bytes: &[u8]) -> String {
        use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
        let name = path.to_string_lossy();
        let name = screen::line(&name);
        let message = screen::line(&self.message);
        let (Ok(source), Some(span)) = (std::str::from_utf8(bytes), self.span.clone()) else {
            return format!("{name}: {self}");
        };
        let note = screen::line(self.hint.as_deref().unwrap_or_default());
        let snippet = Snippet::source(source)
            .path(&*name)
            .annotation(AnnotationKind::Primary.span(span).label(&*note));
        let group = Level::ERROR.primary_title(&*message).element(snippet);
        Renderer::plain().render(&[group])
    }
}

/// Parses a whole text.
///
/// # Errors
/// Returns the first error.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ConfigError> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let end = e.valid_up_to();
        ConfigError::new(bytes, "not UTF-8 text", None, Some(end..end))
    })?;
    toml::from_str(text).map_err(|e| {
        let message = e.message().lines().next().unwrap_or_default();
        // "unknown field `x`, expected one of `a`, `b`": the parser's message lists the known keys.
        let (what, expected) = message.split_once(", expected").unwrap_or((message, ""));
        let quoted = |text: &str| {
            text.split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let unknown = what.starts_with("unknown");
        let hint = match quoted(what).first() {
            Some(key) if what.starts_with("missing field") => Some(format!("add `{key} = ..`")),
            Some(key) if unknown => suggest(key, quoted(expected).iter().map(String::as_str)),
            _ => None,
        };
        ConfigError::new(bytes, if unknown { what } else { message }, hint, e.span())
    })
}

/// The least similarity, from 0 to 1, of a word that is suggested.
const MIN_SIMILARITY: f64 = 0.66;

/// Suggests the known word that is most similar to `word`; without a similar one, lists all.
#[must_use]
pub(crate) fn suggest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.collect();
    suggest_similar(word, known.iter().copied())
        .or_else(|| (!known.is_empty()).then(|| format!("there are: {}", known.join(", "))))
}

/// Suggests the known word that is most similar to `word`; none without a similar one.
#[must_use]
pub(crate) fn suggest_similar<'a>(
    word: &str,
    known: impl Iterator<Item = &'a str>,
) -> Option<String> {
    // Jaro-Winkler tolerates a wrong ending of a long word, and Damerau-Levenshtein two swapped
    // letters in a short one.
    let similarity = |k: &str| {
        strsim::jaro_winkler(k, word).max(strsim::normalized_damerau_levenshtein(k, word))
    };
    known
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
        .filter(|best| similarity(best) > MIN_SIMILARITY)
        .map(|best| format!("did you mean `{best}`?"))
}
