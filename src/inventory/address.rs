//! Texts that become words of the command that connects.

/// The longest address or label, in bytes. A DNS name has 253, a socket path 108.
const MAX_TEXT: usize = 1024;

/// Why a text cannot be the address of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It begins with `-`: the command that connects would take it for an option, such as
    /// `-oProxyCommand=..`, which runs a program.
    #[error("it begins with `-`, so the command that connects would take it for an option")]
    Option,
    /// It has a blank or a control character.
    #[error("it has a blank or a control character")]
    Unprintable,
    /// It is too long.
    #[error("it has more than 1024 bytes")]
    Long,
}

/// Checks a text that becomes a word of the command that connects.
///
/// # Errors
/// Fails if the word could be taken for an option, or holds what a name or address never has.
pub fn check_address(text: &str) -> Result<(), AddressFault> {
    if text.is_empty() {
        return Err(AddressFault::Empty);
    }
    if text.starts_with('-') {
        return Err(AddressFault::Option);
    }
    if text.len() > MAX_TEXT {
        return Err(AddressFault::Long);
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(AddressFault::Unprintable);
    }
    Ok(())
}

/// Tells whether a text can be a label: the key is a name, and the value one printable line.
#[must_use]
pub fn is_label(key: &str, value: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && key.len() <= MAX_TEXT
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && value.len() <= MAX_TEXT
        && !value.chars().any(char::is_control)
}
