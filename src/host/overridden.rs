//! Keys of a new config that another place overrides: they would be loaded and change nothing.

use std::{collections::BTreeSet, path::Path};

use crate::{
    event::{Stop, Verdict},
    host::restart::{ask_of, keys_of, quoted, set_anew},
    step::{Member, Shift},
    tree::Node,
};

/// Holds the keys that get another value in each target of `member` against the keys that its
/// group's command says are overridden; `{config}` of that is the path of the target.
///
/// # Errors
/// `Refused` with the keys, and where the command does not tell them.
pub(super) async fn keys(member: &Member, shifts: &[Shift]) -> Result<(), Stop> {
    let (group, i) = (&member.group, &member.instance);
    if group.overridden_keys.is_empty() {
        return Ok(());
    }
    for shift in shifts {
        for (path, keys) in set(shift) {
            let refused = |why: String| Stop::new(Verdict::Refused, format!("pid {}: which keys are overridden is not told: {why}", i.pid));
            let told = ask_of(&group.overridden_keys, member, &path).await.map_err(refused)?;
            let in_vain: BTreeSet<String> = keys_of(&told).intersection(&keys).cloned().collect();
            if !in_vain.is_empty() {
                let (them, name) = (quoted(&in_vain), &i.group);
                let why = format!("pid {} ({name}): {them} in `{}` would change nothing: another place overrides it", i.pid, path.display());
                return Err(Stop::new(Verdict::Refused, format!("{why}; change it there, or say `overridden_keys = []` in group `{name}`")));
            }
        }
    }
    Ok(())
}

/// Each file of a target with the keys that get another value in it.
fn set(shift: &Shift) -> Vec<(std::path::PathBuf, BTreeSet<String>)> {
    let Some(from) = &shift.from else { return Vec::new() };
    let all = match (&from.tree, &shift.to.tree) {
        (Some(old), Some(new)) => {
            let bytes = |node: Option<&Node>| if let Some(Node::File(_, bytes)) = node { bytes.to_vec() } else { Vec::new() };
            let below = |path: &Path| if path.as_os_str().is_empty() { shift.path.clone() } else { shift.path.join(path) };
            old.differences(new).iter().map(|d| (below(&d.path), set_anew(&bytes(d.old), &bytes(d.new)))).collect()
        }
        _ => vec![(shift.path.clone(), set_anew(&from.bytes, &shift.to.bytes))],
    };
    all.into_iter().filter(|(_, keys): &(_, BTreeSet<String>)| !keys.is_empty()).collect()
}
