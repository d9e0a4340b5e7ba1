//! Users by name.

use nix::unistd::User;

/// Returns the number of a user that is given by number or by name.
///
/// # Errors
/// Fails if this host has no user of that name; the text names it.
pub(crate) fn uid_of(user: &str) -> Result<u32, String> {
    if let Ok(uid) = user.parse() {
        return Ok(uid);
    }
    match User::from_name(user) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        _ => Err(format!("no user `{user}` on this host")),
    }
}
