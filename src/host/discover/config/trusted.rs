//! Whether the path that a process names decides which file is overwritten.

use std::path::{Path, PathBuf};

use crate::{fleet::Group, host::discover::found::Found, trust::ResolvedPath};

/// Refuses a path that another user can lead elsewhere: a run as root may only overwrite a file
/// that the user of the process could overwrite itself. `declared`: `fleet.toml` names the path.
pub(super) fn trusted(
    found: &Found,
    group: &Group,
    resolved: &ResolvedPath,
    declared: bool,
) -> Result<(), String> {
    if found.uid == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    let path = resolved.end.display();
    if !declared {
        under(found.uid, &resolved.end, &group.config_under).map_err(|why| {
            format!(
                "is of another user (uid {}) and names `{path}`; {why}",
                found.uid
            )
        })?;
    }
    resolved
        .changeable_only_by(found.uid)
        .map_err(|why| format!("reads `{path}`, and {why}"))
}

/// Checks that `path` is below one of `roots` that the user of the process cannot lead elsewhere.
fn under(uid: u32, path: &Path, roots: &[PathBuf]) -> Result<(), String> {
    let mut last = "its command line alone does not decide that: write `config` as a path, or \
                    `config_under`, into its group"
        .to_owned();
    for root in roots {
        let Ok(resolved) = ResolvedPath::of(root) else {
            continue;
        };
        if !path.starts_with(&resolved.end) {
            continue;
        }
        match resolved.links_trusted() {
            Ok(()) => return Ok(()),
            Err(_) => {
                last = format!(
                    "uid {uid} or others can lead `config_under` (`{}`) elsewhere by a link",
                    root.display()
                )
            }
        }
    }
    Err(last)
}
