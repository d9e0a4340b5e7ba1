//! Users by name.

use nix::unistd::User;

/// The number of a user who is named by it or by name.
pub(crate) fn uid_of(user: &str) -> Result<u32, String> {
    if let Ok(uid) = user.parse() {
        return Ok(uid);
    }
    match User::from_name(user) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        _ => Err(format!("no user `{user}` on this host")),
    }
}
