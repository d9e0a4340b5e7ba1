//! Parents and children.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    sync::LazyLock,
};

use crate::kernel::{Stat, is_gone, pids, read_proc_file};

/// A process by pid and start time.
pub(crate) type Child = (i32, u64);

/// Returns a process and its descendants, itself first.
///
/// # Errors
/// Fails if the children of one of them cannot be read: then others may exist.
pub(crate) fn family(pid: i32) -> io::Result<Vec<i32>> {
    descent(pid, children)
}

/// Collects a family, with `children_of` for the children of one process.
fn descent<I: IntoIterator<Item = i32>, E>(
    pid: i32,
    children_of: impl Fn(i32) -> Result<I, E>,
) -> Result<Vec<i32>, E> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        // A pid that was reused meanwhile could make a circle.
        let new: Vec<i32> = children_of(parent)?
            .into_iter()
            .filter(|child| !family.contains(child))
            .collect();
        family.extend(new);
        next += 1;
    }
    Ok(family)
}

/// The children of every process. One pass over all processes is cheaper than one listing for each
/// of many instances.
#[derive(Debug)]
pub(crate) struct ProcessTree(HashMap<i32, Vec<i32>>);

impl ProcessTree {
    /// Reads the parent of every process. `known` holds the parents of the processes that were read
    /// a moment ago. None if these are less than half of all: then single listings are cheaper.
    /// None also if a process cannot be read, which may be a child of any other.
    pub(crate) fn of(known: &HashMap<i32, i32>) -> Option<Self> {
        let pids = pids().ok()?;
        if known.len() * 2 < pids.len() {
            return None;
        }
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        for pid in pids {
            let parent = match known.get(&pid) {
                Some(parent) => Some(*parent),
                None => there(Stat::of(pid)).ok()?.map(|stat| stat.parent),
            };
            if let Some(parent) = parent {
                children.entry(parent).or_default().push(pid);
            }
        }
        Some(Self(children))
    }

    /// Returns a process and its descendants, as [`family`].
    pub(crate) fn family(&self, pid: i32) -> Vec<i32> {
        let children =
            |parent| Ok::<_, Infallible>(self.0.get(&parent).into_iter().flatten().copied());
        let Ok(family) = descent(pid, children);
        family
    }
}

/// Lists the children of a process, ended ones included; none for a process that is gone.
///
/// # Errors
/// Fails if the list cannot be read: then nothing is known of its children.
pub(crate) fn children(pid: i32) -> io::Result<BTreeSet<i32>> {
    // Most processes have one thread, whose number is the pid.
    let alone =
        std::fs::metadata(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.nlink() == 3);
    let mut children = listed(pid, alone)?;
    // The first entry of the list is never missing while there is any child.
    if alone && children.is_empty() {
        return Ok(children);
    }
    // While a child ends, its siblings can be missing from the kernel's list. Two listings that
    // agree missed none.
    for _ in 0..8 {
        let again = listed(pid, alone)?;
        let same = again == children;
        children.extend(again);
        if same {
            break;
        }
    }
    Ok(children)
}

/// Lists the children of a process once; `alone`: it has one thread.
fn listed(pid: i32, alone: bool) -> io::Result<BTreeSet<i32>> {
    // On a kernel without that list (CONFIG_PROC_CHILDREN), the parent of every process is read.
    static LISTED: LazyLock<bool> =
        LazyLock::new(|| std::path::Path::new("/proc/thread-self/children").exists());
    if !*LISTED {
        let mut all = BTreeSet::new();
        for child in pids()? {
            if there(Stat::of(child))?.is_some_and(|stat| stat.parent == pid) {
                all.insert(child);
            }
        }
        return Ok(all);
    }
    // Each thread has a list of the children that it started.
    let children_of = |thread: &str| -> io::Result<Vec<i32>> {
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
        return Ok(children_of(&pid.to_string())?.into_iter().collect());
    }
    let mut all = BTreeSet::new();
    for thread in there(std::fs::read_dir(format!("/proc/{pid}/task")))?
        .into_iter()
        .flatten()
    {
        let Some(thread) = there(thread)? else {
            continue;
        };
        all.extend(children_of(&thread.file_name().to_string_lossy())?);
    }
    Ok(all)
}

/// Turns the error of a process, or a thread, that has ended into none.
fn there<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads a process; none if it has ended.
///
/// # Errors
/// Fails if it cannot be read: then nothing is known of it.
pub(crate) fn lives(pid: i32) -> io::Result<Option<Stat>> {
    Ok(there(Stat::of(pid))?.filter(Stat::lives))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_with_children_that_cannot_be_listed_is_not_known() {
        let children = |pid: i32| match pid {
            1 => Ok(vec![2]),
            _ => Err("denied"),
        };
        assert_eq!(descent(1, children), Err("denied"));
        assert_eq!(
            descent(1, |pid| Ok::<_, ()>((pid < 3).then_some(pid + 1))),
            Ok(vec![1, 2, 3])
        );
    }
}
