//! Users by name.

use nix::unistd::User;

/// No user of this name is on this host.
#[derive(Debug, thiserror::Error)]
#[error("no user `{0}` on this host")]
pub(crate) struct NoUser(String);

/// Returns the number of a user that is given by number or by name.
///
/// # Errors
/// Fails if this host has no user of that name.
pub(crate) fn uid_of(user: &str) -> Result<u32, NoUser> {
    if let Ok(uid) = user.parse() {
        return Ok(uid);
    }
    match User::from_name(user) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        _ => Err(NoUser(user.into())),
    }
}
