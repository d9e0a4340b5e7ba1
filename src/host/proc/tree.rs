//! Whose child every process is.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    sync::LazyLock,
};

use crate::host::proc::kernel::{Stat, is_gone, pids, read_proc_file};

/// A process by its number and start time.
pub(crate) type Child = (i32, u64);

/// A process and those that descend from it, itself first.
pub(crate) fn family(pid: i32) -> Vec<i32> {
    descent(pid, |one| children(one).unwrap_or_default())
}

/// The same, with the children that `of` names.
fn descent<I: IntoIterator<Item = i32>>(pid: i32, of: impl Fn(i32) -> I) -> Vec<i32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(one) = all.get(at).copied() {
        // A number that was given out anew meanwhile could make it a circle.
        let new: Vec<i32> = of(one)
            .into_iter()
            .filter(|child| !all.contains(child))
            .collect();
        all.extend(new);
        at += 1;
    }
    all
}

/// Whose child everybody is: one look at all of them is cheaper than one at each of many.
#[derive(Debug)]
pub(crate) struct ProcessTree(HashMap<i32, Vec<i32>>);

impl ProcessTree {
    /// `known` is the parent of each that was looked at a moment ago; none where most others were
    /// not.
    pub(crate) fn of(known: &HashMap<i32, i32>) -> Option<Self> {
        let all = pids().ok()?;
        if known.len() * 2 < all.len() {
            return None;
        }
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        for pid in all {
            if let Some(parent) = known
                .get(&pid)
                .copied()
                .or_else(|| Some(Stat::of(pid).ok()?.parent))
            {
                children.entry(parent).or_default().push(pid);
            }
        }
        Some(Self(children))
    }

    /// As [`family`].
    pub(crate) fn family(&self, pid: i32) -> Vec<i32> {
        descent(pid, |one| self.0.get(&one).into_iter().flatten().copied())
    }
}

/// The children of a process, ended ones among them; none of one that is gone.
///
/// # Errors
/// The system's: nothing is known of its children.
pub(crate) fn children(pid: i32) -> io::Result<BTreeSet<i32>> {
    // Most have one thread, whose number is that of the process.
    let alone =
        std::fs::metadata(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.nlink() == 3);
    let mut all = listed(pid, alone)?;
    // The first of a list is there as long as anybody is.
    if alone && all.is_empty() {
        return Ok(all);
    }
    // While a child ends, its siblings can be missing from the kernel's list: two looks that say
    // the same missed nobody.
    for _ in 0..8 {
        let again = listed(pid, alone)?;
        let same = again == all;
        all.extend(again);
        if same {
            break;
        }
    }
    Ok(all)
}

fn listed(pid: i32, alone: bool) -> io::Result<BTreeSet<i32>> {
    // A kernel without that list (CONFIG_PROC_CHILDREN) is asked for everybody's parent.
    static LISTED: LazyLock<bool> =
        LazyLock::new(|| std::path::Path::new("/proc/thread-self/children").exists());
    if !*LISTED {
        return Ok(pids()?
            .into_iter()
            .filter(|child| Stat::of(*child).is_ok_and(|stat| stat.parent == pid))
            .collect());
    }
    // Each thread has a list of those that it started.
    let of = |thread: &str| -> io::Result<Vec<i32>> {
        let list = there(
            File::open(format!("/proc/{pid}/task/{thread}/children")).and_then(read_proc_file),
        )?
        .unwrap_or_default();
        Ok(String::from_utf8_lossy(&list)
            .split_ascii_whitespace()
            .filter_map(|child| child.parse().ok())
            .collect())
    };
    if alone {
        return Ok(of(&pid.to_string())?.into_iter().collect());
    }
    let mut all = BTreeSet::new();
    for thread in there(std::fs::read_dir(format!("/proc/{pid}/task")))?
        .into_iter()
        .flatten()
    {
        let Some(thread) = there(thread)? else {
            continue;
        };
        all.extend(of(&thread.file_name().to_string_lossy())?);
    }
    Ok(all)
}

/// None where the process, or its thread, has ended; any other error is not its own.
fn there<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A process that has not ended; none where it has.
///
/// # Errors
/// The system's: nothing is known of it.
pub(crate) fn lives(pid: i32) -> io::Result<Option<Stat>> {
    Ok(there(Stat::of(pid))?.filter(Stat::lives))
}
