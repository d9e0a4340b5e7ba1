//! What a request to a store needs: files with credentials, limits, commands.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DEFAULT_POLL, DEFAULT_STORE_TIMEOUT};
use crate::assertion::Access;

/// Begins the path of a systemd credential (systemd.exec(5)), whose directory each service has for
/// itself.
pub const CREDENTIALS: &str = "{credentials}/";

/// What a request to a store needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreAccess {
    /// Certificates in PEM that are trusted instead of the system's.
    pub ca: Option<PathBuf>,
    /// The files with the credentials.
    pub files: Access,
    /// The longest time of one request, from the connection to the last byte.
    pub timeout: Duration,
    /// The time between two reads where the store has no watch.
    pub poll: Duration,
    /// The commands of a store that `hello` does not speak itself; none for any other store.
    pub commands: Option<StoreCommands>,
}

impl Default for StoreAccess {
    fn default() -> Self {
        Self {
            ca: None,
            files: Access::default(),
            timeout: DEFAULT_STORE_TIMEOUT,
            poll: DEFAULT_POLL,
            commands: None,
        }
    }
}

/// The commands of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreCommands {
    /// The key as the commands know it: the URL behind that of the store.
    pub key: String,
    /// Prints the value of `{key}`. Exit 3: there is no such key.
    pub get: Vec<String>,
    /// Stores its stdin as `{key}` where its revision is `{rev}`, and prints the new revision.
    /// Exit 3: the revision is another one. Empty for a store that is only read.
    pub put: Vec<String>,
    /// Where the revision of a value is found.
    pub rev: CommandRevision,
}

/// Where the revision of a value is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandRevision {
    /// It is the digest of the value.
    #[default]
    Digest,
    /// It is the first line that `get` prints. The value is what follows.
    FirstLine,
}
