//! How a program reads its command line, and which file it takes where that names none.

use serde::{Deserialize, Serialize};

use super::PathBase;

/// How a program reads its command line, as its group or kind says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Its short options as `getopt(3)` has them; empty where every option is a word of its own.
    /// None where nothing says so: a word that may hold an option then refuses the instance.
    pub getopt: Option<String>,
    /// Which value counts of an option that is given more than once.
    pub repeated: Repeated,
    /// Its command line as it rewrites it, with `{argv}` for the arguments; the rest behind it is a
    /// glob.
    pub title: Option<String>,
    /// Directories that a relative path of its command line is below: the first that there is.
    pub base: Vec<PathBase>,
    /// A command that prints the paths that are compiled into the program.
    pub built: Vec<String>,
    /// Directives of its config whose values are paths or globs of more of it.
    pub includes: Vec<String>,
    /// Arguments with which it reads no file of its own accord: only what others name is its
    /// config.
    #[serde(default)]
    pub no_default: Vec<String>,
}

/// Which value counts of an option that is given more than once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Repeated {
    /// The last one.
    #[default]
    Last,
    /// All of them: two different ones are no single file.
    All,
    /// The first one.
    First,
}

/// Where a `title` has the arguments of the process.
const ARGV: &str = "{argv}";

impl Reading {
    /// The text before the arguments in a rewritten command line, and the glob behind them.
    ///
    /// # Errors
    /// A sentence where `title` says neither.
    pub fn title_parts(title: &str) -> Result<(&str, glob::Pattern), String> {
        let (before, after) = title.split_once(ARGV).ok_or_else(|| {
            format!("title = {title:?} does not say where the arguments are: {ARGV}")
        })?;
        Ok((
            before,
            glob::Pattern::new(after).map_err(|e| format!("title = {title:?}: {e}"))?,
        ))
    }
}
