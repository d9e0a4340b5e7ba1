//! Whether the caller may create entries in a directory.

use std::os::fd::AsFd;

use rustix::{
    fs::{self, Access, AtFlags},
    io::Errno,
};

/// Checks that the effective user may create an entry in the directory. A kernel before 5.8 has no
/// faccessat2(2) and cannot tell; then the check passes.
///
/// # Errors
/// Fails as the system does.
pub(crate) fn check_may_create(dir: impl AsFd) -> Result<(), Errno> {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    match fs::accessat(dir, ".", access, AtFlags::EACCESS) {
        Ok(()) | Err(Errno::NOSYS) => Ok(()),
        Err(e) => Err(e),
    }
}
