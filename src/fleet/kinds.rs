//! Kinds: groups that know a daemon, embedded as data in the schema of a group of `fleet.toml`.

/// What is known of one daemon.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// As a group's `kind` names it.
    pub name: &'static str,
    /// Its TOML; the first comment says what the daemon does on the signal.
    pub text: &'static str,
}

macro_rules! kinds {
    ($($name:literal),+ $(,)?) => {
        &[$(Kind { name: $name, text: include_str!(concat!("../kinds/", $name, ".toml")) }),+]
    };
}

/// Every kind, by name; a group of that kind takes from it what it does not say itself.
pub const KINDS: &[Kind] = kinds!["hello"];
