//! What is wrong in a TOML text, where, and what would be right.

use std::{fmt, ops::Range, path::Path};

use serde::de::DeserializeOwned;

use crate::screen;

/// A fault with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// What is wrong, in one line.
    pub message: String,
    /// Counted from 1; none where the whole text is meant.
    pub line: Option<usize>,
    /// Counted from 1, in bytes.
    pub column: Option<usize>,
    /// What would be right.
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
    /// A fault at `span` of `bytes`.
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

    /// Line and column alone, for a text that must not be shown.
    #[must_use]
    pub fn place(&self) -> String {
        format!(
            "line {}, column {}",
            self.line.unwrap_or(1),
            self.column.unwrap_or(1)
        )
    }

    /// For people: the file, the place, the line itself, and what would be right.
    #[must_use]
    pub fn render(&self, path: &Path, bytes: &[u8]) -> String {
        use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
        let name = path.to_string_lossy();
        let (name, message) = (screen::line(&name), screen::line(&self.message));
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
/// The first fault.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ConfigError> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let at = e.valid_up_to();
        ConfigError::new(bytes, "not UTF-8 text", None, Some(at..at))
    })?;
    toml::from_str(text).map_err(|e| {
        let message = e.message().lines().next().unwrap_or_default();
        // "unknown field `x`, expected one of `a`, `b`": the text itself says what is known.
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

/// What was probably meant; without anything near, what there is.
#[must_use]
pub fn suggest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.collect();
    // A swap of two letters in a short word is near for one, a wrong ending of a long word for the
    // other.
    let near = |k: &&&str| {
        strsim::jaro_winkler(k, word).max(strsim::normalized_damerau_levenshtein(k, word))
    };
    let best = known.iter().max_by(|a, b| near(a).total_cmp(&near(b)))?;
    Some(if near(&best) > 0.66 {
        format!("did you mean `{best}`?")
    } else {
        format!("there are: {}", known.join(", "))
    })
}
