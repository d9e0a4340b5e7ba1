//! How a program reads its command line, and the file that it reads by default.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PathBase;

/// How a program reads its command line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Its short options as `getopt(3)` has them; empty if every option is a word of its own. If
    /// none, a word that may contain several options refuses the instance.
    pub getopt: Option<String>,
    /// The value that counts of an option that is given more than once.
    pub repeated: Repeated,
    /// The command line that it writes over its own, with `{argv}` for the arguments; the text
    /// after it is a glob.
    pub title: Option<String>,
    /// Directories that relative paths of its command line are below: the first that exists.
    pub base: Vec<PathBase>,
    /// A command that prints the paths that are compiled into the program.
    pub built: Vec<String>,
    /// Directives of its config whose values are paths or globs of more of it.
    pub includes: Vec<String>,
    /// Arguments that make it read no default file: only files that other arguments name are its
    /// config.
    #[serde(default)]
    pub no_default: Vec<String>,
}

/// The value that counts of an option that is given more than once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Repeated {
    /// The last one.
    #[default]
    Last,
    /// All of them; if they differ, the instance has no single config.
    All,
    /// The first one.
    First,
}

/// Stands in a `title` for the arguments of the process.
const ARGV: &str = "{argv}";

/// Why a `title` does not say where the arguments of a process are.
#[derive(Debug, thiserror::Error)]
pub enum TitleError {
    /// It has no `{argv}`.
    #[error("title = {0:?} does not say where the arguments are: {ARGV}")]
    NoArguments(String),
    /// The text behind that is no glob.
    #[error("title = {0:?}: {1}")]
    Glob(String, glob::PatternError),
}

impl Reading {
    /// Returns the text before the arguments in a rewritten command line, and the glob after them.
    ///
    /// # Errors
    /// Fails if `title` has no arguments or no valid glob.
    pub fn title_parts(title: &str) -> Result<(&str, glob::Pattern), TitleError> {
        let (before, after) = title
            .split_once(ARGV)
            .ok_or_else(|| TitleError::NoArguments(title.into()))?;
        let after = glob::Pattern::new(after).map_err(|e| TitleError::Glob(title.into(), e))?;
        Ok((before, after))
    }
}
