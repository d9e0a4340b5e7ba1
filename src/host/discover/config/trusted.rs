//! Whether the path that a process names decides which file is overwritten.

use std::path::{Path, PathBuf};

use crate::{
    fleet::Group,
    host::discover::{
        found::Found,
        reason::{ConfigReason, ConfigRefusal},
    },
    trust::ResolvedPath,
};

/// Refuses a path that another user can lead elsewhere: a run as root may only overwrite a file
/// that the user of the process could overwrite itself. `declared`: `fleet.toml` names the path.
pub(super) fn trusted(
    found: &Found,
    group: &Group,
    resolved: &ResolvedPath,
    declared: bool,
) -> Result<(), ConfigRefusal> {
    if found.uid == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    if !declared {
        under(found.uid, &resolved.end, &group.config_under)?;
    }
    resolved
        .changeable_only_by(found.uid)
        .map_err(|why| ConfigReason::Untrusted(resolved.end.clone(), why).into())
}

/// Checks that `path` is below one of `roots` that the user of the process cannot lead elsewhere.
fn under(uid: u32, path: &Path, roots: &[PathBuf]) -> Result<(), ConfigRefusal> {
    let chosen = ConfigReason::ChosenByOther {
        uid,
        path: path.into(),
    };
    let mut refusal = ConfigRefusal::from(chosen).with_hint(
        "its command line alone does not decide that: write `config` as a path, or \
         `config_under`, into its group",
    );
    for root in roots {
        let Ok(resolved) = ResolvedPath::of(root) else {
            continue;
        };
        if !path.starts_with(&resolved.end) {
            continue;
        }
        if resolved.links_trusted().is_ok() {
            return Ok(());
        }
        let led = ConfigReason::LedElsewhere {
            uid,
            path: path.into(),
            root: root.clone(),
        };
        refusal = led.into();
    }
    Err(refusal)
}
