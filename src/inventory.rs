//! The hosts of a fleet: their names, addresses and labels, and terms that select some of them.

use std::collections::BTreeMap;

pub use self::{
    host_name::{HostName, NameError},
    printed::{Format, InventoryError, read},
    ranges::{RangeError, expand},
    selection::{Ended, Expression, Term, TermError, Unmatched},
};

mod address;
mod host_name;
mod printed;
mod ranges;
mod selection;
#[cfg(test)]
mod tests;

pub use self::address::{AddressFault, check_address, is_label};

/// The most hosts of one fleet. It bounds what a range or an inventory may make of a short text.
pub const MAX_HOSTS: usize = 100_000;

/// One host: a name that reports show, an address for the transport, and labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEntry {
    /// The name; unique in a fleet.
    pub name: HostName,
    /// The text that `{address}` stands for in the command that connects.
    pub address: String,
    /// The labels: for selections, for waves, and as `{LABEL}` in the command that connects.
    pub labels: BTreeMap<String, String>,
}

impl HostEntry {
    /// Returns a host whose address is its name, without a label.
    #[must_use]
    pub fn named(name: HostName) -> Self {
        Self {
            address: name.as_str().to_owned(),
            name,
            labels: BTreeMap::new(),
        }
    }
}

/// Two hosts of one fleet that cannot be told apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Duplicate {
    /// They have one name.
    #[error("two hosts are named `{0}`")]
    Name(HostName),
    /// They have one address: each would be reloaded twice.
    #[error("`{first}` and `{second}` have the same address, `{address}`")]
    Address {
        /// The first of the two.
        first: HostName,
        /// The second of the two.
        second: HostName,
        /// The address of both.
        address: String,
    },
}

/// Checks that no two hosts have one name or one address.
///
/// # Errors
/// Fails with the first two that do.
pub fn check_distinct(hosts: &[HostEntry]) -> Result<(), Duplicate> {
    let mut names = std::collections::BTreeSet::new();
    let mut addresses: BTreeMap<&str, &HostName> = BTreeMap::new();
    for host in hosts {
        if !names.insert(&host.name) {
            return Err(Duplicate::Name(host.name.clone()));
        }
        if let Some(first) = addresses.insert(&host.address, &host.name) {
            return Err(Duplicate::Address {
                first: first.clone(),
                second: host.name.clone(),
                address: host.address.clone(),
            });
        }
    }
    Ok(())
}
