//! `source` of a group: where its new content comes from, if the operator names none.

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::{
    access::{CREDENTIALS, CommandRevision, StoreAccess, StoreCommands},
    address::{Address, AddressError, Origin},
};

mod access;
mod address;

/// The time in which a store must have answered, if its table sets none. A store in another region
/// answers within a second.
pub(super) const DEFAULT_STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time between two reads of a key in a store without a watch, if its table sets none.
pub(super) const DEFAULT_POLL: Duration = Duration::from_secs(5);

/// The place that a group's new content comes from, if the operator names none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ContentSource {
    /// A path that another program stages each target's new content at; `{config}` stands for the
    /// target.
    Path(String),
    /// A key in a store.
    Key(Box<Key>),
}

impl ContentSource {
    /// Returns the key; none of a path.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Path(_) => None,
            Self::Key(key) => Some(key),
        }
    }
}

/// One value in a store, and the means to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its URL, without any credential.
    pub url: String,
    /// What a request for it needs.
    pub access: StoreAccess,
}

impl Key {
    /// Returns the parts of its URL.
    ///
    /// # Errors
    /// Fails if the URL names no key of a store.
    pub fn address(&self) -> Result<Address, AddressError> {
        Address::parse(&self.url)
    }
}
