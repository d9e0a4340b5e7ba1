//! The name of a host.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest name, in bytes: the limit of a DNS name in text form.
const MAX_NAME: usize = 253;

/// The name of this machine in a fleet of one host. Each of 10,000 instances has a name, and all
/// share these bytes.
static LOCAL: LazyLock<HostName> = LazyLock::new(|| HostName("local".into()));

/// The name of a host: `[A-Za-z0-9_][A-Za-z0-9._-]{0,252}`. It is safe in a path, in a command line
/// and on a terminal.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(inline)]
pub struct HostName(Arc<str>);

/// A text that is no name of a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name of a host: a name has 1 to 253 letters, digits, `.`, `_` and `-`, and begins \
     with none of `.` and `-`"
)]
pub struct NameError(String);

impl HostName {
    /// Checks a name.
    ///
    /// # Errors
    /// Fails if the text has another character, another beginning or another length.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let is_inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let begins = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        if text == LOCAL.as_str() {
            Ok(Self::local())
        } else if begins && text.len() <= MAX_NAME && text.bytes().all(is_inner) {
            Ok(Self(text.into()))
        } else {
            Err(NameError(text.chars().take(MAX_NAME).collect()))
        }
    }

    /// Returns the name of this machine in a fleet of one host.
    #[must_use]
    pub fn local() -> Self {
        LOCAL.clone()
    }

    /// Returns true for the name of this machine in a fleet of one host.
    #[must_use]
    pub fn is_local(&self) -> bool {
        *self == *LOCAL
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0.as_ref().into()
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
