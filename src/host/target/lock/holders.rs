//! The processes that hold a `flock`, and whether they may write the locked directory.
//!
//! `/proc/locks` shows the process that took the lock. It may have ended: a child can hold the same
//! open file description. The holders are the processes with that lock in `/proc/PID/fdinfo`.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    fs::DirEntry,
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    time::Instant,
};

use rustix::{
    fs::{self, Stat},
    io::Errno,
};

use crate::{
    host::proc::guard,
    kernel::{self, Proc, Status, is_gone},
};

/// The inode of the first pid namespace, in which no process is hidden (`PROC_PID_INIT_INO` of the
/// kernel).
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFC;
/// `CAP_DAC_OVERRIDE` as a bit of `CapEff`: the process may write every file (capabilities(7)).
const DAC_OVERRIDE: u64 = 1 << 1;

/// A holder of a lock.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    /// Its process number.
    pub(super) pid: i32,
    /// The end of a sentence: ": pid 17 of uid 0, started 3 s ago: hello broadcast".
    pub(super) text: String,
    /// True if a run must wait for it.
    pub(super) counts: bool,
}

/// The number of a process that holds locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Pid(i32);

/// The locks of all processes at one moment.
#[derive(Debug, Default)]
struct HolderScan {
    /// The holders and their descriptors by locked inode. The descriptor shows the device.
    held: HashMap<u64, Vec<(Pid, String)>>,
    /// True if every process of the machine was read.
    is_complete: bool,
}

/// The holders of locks at the last scan. One scan serves many directories.
#[derive(Debug, Default)]
pub(crate) struct Holders(Option<(Instant, HolderScan)>);

impl HolderScan {
    fn now() -> Self {
        let mut scan = Self {
            is_complete: is_first_namespace() && rustix::process::geteuid().is_root(),
            ..Self::default()
        };
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return Self::default();
        };
        for entry in entries {
            let Ok(entry) = entry else {
                scan.is_complete = false;
                continue;
            };
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
                // A process that has ended holds nothing.
                scan.is_complete &= !std::path::Path::new(&format!("/proc/{pid}")).exists();
                continue;
            };
            scan.is_complete &= scan.add(Pid(pid), files);
        }
        scan
    }

    /// Adds the locks of one process. Returns false if one of its descriptors, which it has not
    /// closed meanwhile, cannot be read.
    fn add(&mut self, pid: Pid, files: impl Iterator<Item = io::Result<DirEntry>>) -> bool {
        let mut is_complete = true;
        for file in files {
            let read = file.and_then(|file| Ok((std::fs::read_to_string(file.path())?, file)));
            let (text, file) = match read {
                Ok(read) => read,
                Err(e) => {
                    is_complete &= is_gone(&e);
                    continue;
                }
            };
            for inode in text.lines().filter_map(locked) {
                self.held
                    .entry(inode)
                    .or_default()
                    .push((pid, file.file_name().to_string_lossy().into_owned()));
            }
        }
        is_complete
    }

    /// Returns the processes that hold a lock on the file of this status.
    fn of(&self, stat: &Stat) -> BTreeSet<Pid> {
        let same = |(pid, fd): &&(Pid, String)| {
            std::fs::metadata(format!("/proc/{}/fd/{fd}", pid.0))
                .is_ok_and(|meta| (meta.dev(), meta.ino()) == (stat.st_dev, stat.st_ino))
        };
        self.held
            .get(&stat.st_ino)
            .into_iter()
            .flatten()
            .filter(same)
            .map(|(pid, _)| *pid)
            .collect()
    }
}

/// Returns the inode in a line `lock:\t1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF`.
fn locked(line: &str) -> Option<u64> {
    let fields: Vec<&str> = line.strip_prefix("lock:")?.split_whitespace().collect();
    (fields.get(1) == Some(&"FLOCK")).then(|| fields.get(5)?.rsplit(':').next()?.parse().ok())?
}

fn is_first_namespace() -> bool {
    std::fs::metadata("/proc/self/ns/pid").is_ok_and(|meta| meta.ino() == FIRST_NAMESPACE)
}

/// Returns the process that took the lock of a file, by `/proc/locks`; none if the file is not
/// locked.
fn taker(stat: &Stat) -> Option<i32> {
    let id = format!(
        "{:02x}:{:02x}:{}",
        fs::major(stat.st_dev),
        fs::minor(stat.st_dev),
        stat.st_ino
    );
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let find = |ending: &str| {
        locks.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (fields.get(1) == Some(&"FLOCK") && fields.get(5)?.ends_with(ending))
                .then(|| fields[4].parse().ok())?
        })
    };
    // Some filesystems (btrfs) have another device number here than in stat(2).
    find(&id).or_else(|| find(&format!(":{}", stat.st_ino)))
}

impl Holders {
    /// Reads the locks of all processes, unless that was done after `since`.
    fn scan(&mut self, since: Instant) -> &HolderScan {
        if self.0.as_ref().is_none_or(|(time, _)| *time < since) {
            self.0 = Some((Instant::now(), HolderScan::now()));
        }
        &self
            .0
            .get_or_insert_with(|| (Instant::now(), HolderScan::default()))
            .1
    }

    /// Returns the holders of the lock on a file that no other user can open.
    pub(super) fn of(&mut self, file: &OwnedFd) -> Vec<Holder> {
        let Ok(stat) = fs::fstat(file) else {
            return Vec::new();
        };
        if taker(&stat).is_none() {
            return Vec::new();
        }
        self.scan(Instant::now())
            .of(&stat)
            .into_iter()
            .map(|pid| Holder {
                pid: pid.0,
                text: description(pid.0),
                counts: true,
            })
            .collect()
    }

    /// Returns the holder of the lock on the directory `dir` of these targets that decides: one
    /// that may write there, else any. It is none if the lock is free.
    ///
    /// A holder that cannot be found or read counts, because it may be a run. It does not count if
    /// every process of the machine was read: then no process has the lock, and its descriptor is
    /// inside a socket. Nor does it count if the process that took it is known and may not write
    /// there.
    pub(super) fn deciding(&mut self, dir: &OwnedFd, names: &[&OsStr]) -> Option<Holder> {
        let stat = fs::fstat(dir).ok()?;
        let taker = taker(&stat)?;
        // One scan serves all directories. A holder that is not in it is newer, or hidden.
        let first_scan = self.0.as_ref().map_or_else(Instant::now, |(time, _)| *time);
        let mut holders = living(&self.scan(first_scan).of(&stat), dir, names);
        // A descriptor that one process passes to another can be missed at both of them.
        for _ in 0..2 {
            if holders.is_empty() {
                holders = living(&self.scan(Instant::now()).of(&stat), dir, names);
            }
        }
        let counting = holders.iter().find(|holder| holder.counts);
        if let Some(holder) = counting.or(holders.first()) {
            return Some(holder.clone());
        }
        let is_complete = self.scan(first_scan).is_complete;
        let text = if Proc::open(taker).is_ok() {
            description(taker)
        } else {
            format!(": no visible process has it open; pid {taker} took it")
        };
        // The process may have released the lock since. A run takes its lock itself, so a lock that
        // this process took is not that of a run.
        let taker_may_not_write = may_write(taker, dir, names) == Some(false);
        Some(Holder {
            pid: taker,
            text,
            counts: !(is_complete || taker_may_not_write),
        })
    }
}

/// Returns those of `found` that still run. A process that has ended holds nothing. Without this
/// check, processes that end while they are read could count again and again.
fn living(found: &BTreeSet<Pid>, dir: &OwnedFd, names: &[&OsStr]) -> Vec<Holder> {
    let holder = |pid: &Pid| {
        let may = may_write(pid.0, dir, names);
        let has_ended = || match kernel::Stat::of(pid.0) {
            Ok(stat) => !stat.lives(),
            Err(e) => is_gone(&e),
        };
        (may.is_some() || !has_ended()).then(|| Holder {
            pid: pid.0,
            text: description(pid.0),
            counts: may != Some(false),
        })
    };
    found.iter().filter_map(holder).collect()
}

/// The bit of the permission to write, in a mode and in an access-control list.
const WRITE: u16 = 2;

/// Tells whether a process may write the directory or one of the targets; none if it cannot be
/// read.
fn may_write(pid: i32, dir: &OwnedFd, names: &[&OsStr]) -> Option<bool> {
    let (status, credentials, _) = Proc::open(pid).and_then(|process| process.status()).ok()?;
    // A set-user-ID process was started by its real user, so all three users must be permitted.
    let uids = credentials.uids;
    let groups: BTreeSet<u32> = [credentials.gid()]
        .into_iter()
        .chain(credentials.groups)
        .collect();
    let same_user_namespace = std::fs::read_link(format!("/proc/{pid}/ns/user")).ok()
        == std::fs::read_link("/proc/self/ns/user").ok();
    if uids == [0; 3] {
        return Some(true);
    }
    let same_uids = uids.iter().all(|uid| *uid == status.euid);
    if same_user_namespace && same_uids && status.effective & DAC_OVERRIDE != 0 {
        return Some(true);
    }
    let may = |stat: &Stat, list: Option<Vec<u8>>, by_mode: bool| {
        uids.iter().all(|uid| {
            *uid == stat.st_uid
                || (by_mode && permitted(stat, list.as_deref(), *uid, &groups, WRITE))
        })
    };
    let stat = fs::fstat(dir).ok()?;
    // In a sticky directory only the owner of an entry, or of the directory, can exchange it.
    if may(&stat, list_of(dir), stat.st_mode & 0o1000 == 0) {
        return Some(true);
    }
    for name in names {
        use rustix::fs::{Mode, OFlags};
        let Ok(file) = fs::openat(
            dir,
            *name,
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        ) else {
            continue;
        };
        if may(&fs::fstat(&file).ok()?, list_of(&file), true) {
            return Some(true);
        }
    }
    Some(false)
}

/// Returns the access-control list of a file, in the format of the kernel; none if it has none.
pub(crate) fn list_of(file: &OwnedFd) -> Option<Vec<u8>> {
    let mut value = vec![0u8; 64 << 10];
    match fs::fgetxattr(file, "system.posix_acl_access", &mut value[..]) {
        Ok(size) => Some(value[..size].to_vec()),
        Err(Errno::NODATA | Errno::OPNOTSUPP) | Err(_) => None,
    }
}

/// Tells whether the mode or the access-control list permits a user, which is not the owner, all of
/// `wanted` (4 read, 2 write, 1 execute). The list has the format of the kernel: a version, then
/// entries of tag, permissions and id (`posix_acl_xattr.h`).
pub(crate) fn permitted(
    stat: &Stat,
    list: Option<&[u8]>,
    uid: u32,
    groups: &BTreeSet<u32>,
    wanted: u16,
) -> bool {
    let suffices = |bits: u16| bits & wanted == wanted;
    let is_member = groups.contains(&stat.st_gid);
    let Some(list) = list else {
        return suffices(
            u16::try_from(stat.st_mode >> if is_member { 3 } else { 0 } & 7).unwrap_or(0),
        );
    };
    let entries: Vec<(u16, u16, u32)> = list
        .get(4..)
        .unwrap_or_default()
        .chunks_exact(8)
        .map(|e| {
            (
                u16::from_le_bytes([e[0], e[1]]),
                u16::from_le_bytes([e[2], e[3]]),
                u32::from_le_bytes([e[4], e[5], e[6], e[7]]),
            )
        })
        .collect();
    let bits_of = |tag: u16| entries.iter().find(|e| e.0 == tag).map(|e| e.1);
    let mask = bits_of(0x10).unwrap_or(7);
    if let Some((_, bits, _)) = entries.iter().find(|e| e.0 == 0x02 && e.2 == uid) {
        return suffices(bits & mask);
    }
    let of_groups: Vec<u16> = entries
        .iter()
        .filter(|e| (e.0 == 0x04 && is_member) || (e.0 == 0x08 && groups.contains(&e.2)))
        .map(|e| e.1)
        .collect();
    match of_groups.as_slice() {
        [] => suffices(bits_of(0x20).unwrap_or(0)),
        of_groups => of_groups.iter().any(|bits| suffices(bits & mask)),
    }
}

/// Describes a process: ": pid 17 of uid 0, started 3 s ago: hello broadcast".
fn description(pid: i32) -> String {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let user = Status::of(pid).map_or(String::new(), |status| format!(" of uid {}", status.euid));
    let age = guard::age(pid).map_or(String::new(), |age| {
        format!(", started {} s ago", age.as_secs())
    });
    format!(": pid {pid}{user}{age}: {}", command.trim())
}

#[cfg(test)]
mod tests;
