//! Whether a process takes the signal: many die of it, some never see it. Read from
//! `/proc/PID/status` and `/proc/PID/fdinfo`.

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use procfs::process::Process;
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
use tokio::time::Instant;

use crate::{
    fleet::{ExecutesItself, Group, Reloads, Signal},
    host::proc::{
        kernel::{Stat, Status, bit, descriptors, is_gone},
        sigwait,
    },
};

/// A process that has run this long has installed its handlers.
const YOUNG: Duration = Duration::from_secs(10);
/// An old process may re-execute itself at this very moment, for some milliseconds.
const REEXEC: Duration = Duration::from_millis(500);
/// One that blocks the signal may be loading: for a port that is taken HAProxy tries for 2 s, nginx
/// for 2.5 s.
const LOADING: Duration = Duration::from_secs(4);

/// What becomes of a signal to a process, as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// A handler takes it.
    Caught,
    /// A signalfd waits for it.
    Awaited,
    /// It is dropped.
    Ignored,
    /// A thread waits for it in `sigwait`, and every other one blocks it.
    InSigwait,
    /// It has a handler, and every thread blocks it: it stays pending until one does not.
    Blocked,
    /// It ends the process, unless a thread waits for it in `sigwait` and this user may not see
    /// that.
    Default,
}

/// What becomes of `signal` to `pid` now.
///
/// # Errors
/// A sentence when the process cannot be looked at.
pub(crate) fn disposition(pid: i32, signal: Signal) -> Result<Disposition, String> {
    let status = Status::of(pid).map_err(|e| format!("cannot be looked at: {e}"))?;
    if status.ignores(signal) {
        return Ok(Disposition::Ignored);
    }
    // What a thread is open for never comes to a signalfd.
    if status.catches(signal) && !status.blocks(signal) {
        return Ok(Disposition::Caught);
    }
    if has_signalfd(pid, bit(signal)) {
        return Ok(Disposition::Awaited);
    }
    if !status.catches(signal) {
        return Ok(if sigwait::waits(pid, signal) {
            Disposition::InSigwait
        } else {
            Disposition::Default
        });
    }
    // A signal to the process is taken by any thread that does not block it.
    let any = || {
        Process::new(pid)
            .and_then(|p| p.tasks())
            .is_ok_and(|tasks| {
                tasks
                    .flatten()
                    .any(|t| Status::of(t.tid).is_ok_and(|s| !s.blocks(signal)))
            })
    };
    Ok(if any() {
        Disposition::Caught
    } else {
        Disposition::Blocked
    })
}

/// Why `pid` does not take `signal` now; none when it does.
#[must_use]
pub(crate) fn not_taking(pid: i32, group: &Group) -> Option<String> {
    why_not(&disposition(pid, group.signal), group)
}

fn why_not(found: &Result<Disposition, String>, group: &Group) -> Option<String> {
    let (name, reloads) = (group.signal.name(), group.reloads);
    match found {
        Err(why) => Some(why.clone()),
        Ok(Disposition::Ignored) => Some(format!("ignores {name} (started under nohup?)")),
        // Somebody says that it waits in sigwait, which shows no bit.
        Ok(_) if reloads == Reloads::Unchecked => None,
        Ok(Disposition::Caught | Disposition::Awaited | Disposition::InSigwait) => None,
        // What is pending is lost where the process executes itself before it takes it.
        Ok(Disposition::Blocked) if group.executes_itself == ExecutesItself::No => None,
        Ok(Disposition::Default) => Some(format!("has no handler for {name} and would die of it")),
        Ok(Disposition::Blocked) => Some(format!("blocks {name} in every thread")),
    }
}

/// Whether a process is in the same namespace of this sort (`mnt`, `net`) as this one; none where
/// this user may not see that.
#[must_use]
pub(crate) fn shares(pid: i32, namespace: &str) -> Option<bool> {
    fn of(who: &str, namespace: &str) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{who}/ns/{namespace}")).ok()
    }
    // This process stays where it was started.
    static OWN: LazyLock<[Option<PathBuf>; 2]> =
        LazyLock::new(|| ["net", "mnt"].map(|namespace| of("self", namespace)));
    let [net, mnt] = &*OWN;
    Some(of(&pid.to_string(), namespace)? == *if namespace == "net" { net } else { mnt }.as_ref()?)
}

/// Whether a signalfd of the process waits for the signal.
fn has_signalfd(pid: i32, bit: u64) -> bool {
    let mut found = false;
    // What was seen counts.
    let _ = descriptors(pid, |fd, to| {
        if !found && to.is_ok_and(|to| to == b"anon_inode:[signalfd]") {
            let info =
                std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.to_string_lossy()))
                    .unwrap_or_default();
            let mask = info
                .lines()
                .find_map(|l| l.strip_prefix("sigmask:"))
                .and_then(|m| u64::from_str_radix(m.trim(), 16).ok());
            found = mask.is_some_and(|m| m & bit != 0);
        }
    });
    found
}

/// Waits, at most `limit`, until the process takes the signal: one that has just started or
/// re-executes itself has no handler for a moment. One that blocks it is given the time of a load:
/// HAProxy forgets what comes before that is over.
///
/// # Errors
/// Why it does not.
pub(crate) async fn wait_for_handler(
    pid: i32,
    group: &Group,
    limit: Duration,
) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let found = disposition(pid, group.signal);
        let Some(why) = why_not(&found, group) else {
            return Ok(());
        };
        // What blocked it a moment ago may not any more.
        let loads = matches!(found, Ok(Disposition::Blocked)) || blocks(pid, group.signal);
        let limit = if loads { limit.max(LOADING) } else { limit };
        if began.elapsed() >= limit || has_ended(pid) {
            return Err(why);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn has_ended(pid: i32) -> bool {
    match Stat::of(pid) {
        Ok(stat) => !stat.lives(),
        Err(e) => is_gone(&e),
    }
}

fn blocks(pid: i32, signal: Signal) -> bool {
    Status::of(pid).is_ok_and(|status| status.blocks(signal))
}

/// How long a process is given to have its handler: until it is young no more.
#[must_use]
pub(crate) fn handler_grace_period(pid: i32, limit: Duration) -> Duration {
    let age = Process::new(pid)
        .ok()
        .and_then(|p| age(&p))
        .unwrap_or_default();
    limit.min(YOUNG.saturating_sub(age).max(REEXEC))
}

/// How long a process has run.
#[must_use]
pub(crate) fn age(process: &Process) -> Option<Duration> {
    let started = Stat::of(process.pid()).ok()?.started;
    let up: f64 = std::fs::read_to_string("/proc/uptime")
        .ok()?
        .split(' ')
        .next()?
        .parse()
        .ok()?;
    Duration::try_from_secs_f64(up - started as f64 / procfs::ticks_per_second() as f64).ok()
}

/// Now, by the clock that start times are counted by, in its ticks.
#[must_use]
pub(crate) fn ticks() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanos * i128::from(procfs::ticks_per_second()) / 1_000_000_000)
        .unwrap_or_default()
}

/// When a process started, in nanoseconds since 1970; rather too early than too late, since the
/// kernel counts in ticks.
#[must_use]
pub(crate) fn start_time_ns(pid: i32) -> Option<i128> {
    let age = age(&Process::new(pid).ok()?)?;
    let ticks = Duration::from_secs(2).as_nanos() / u128::from(procfs::ticks_per_second());
    Some(jiff::Timestamp::now().as_nanosecond() - i128::try_from(age.as_nanos() + ticks).ok()?)
}

/// The same of a process that started at this tick since boot.
#[must_use]
pub(crate) fn started_at(started: u64) -> i128 {
    let per_second = procfs::ticks_per_second();
    let since_boot = i128::from(ticks()) - i128::from(started) + 2;
    jiff::Timestamp::now().as_nanosecond() - since_boot * (1_000_000_000 / i128::from(per_second))
}

/// Whether the signal was sent to `pid` and not taken yet.
#[must_use]
pub(crate) fn is_pending(pid: i32, signal: Signal) -> bool {
    Status::of(pid).is_ok_and(|status| status.is_pending(signal))
}

/// Whether `pid` is stopped, by a signal or a tracer: it would take the signal only once it goes
/// on.
#[must_use]
pub(crate) fn is_stopped(pid: i32) -> bool {
    Status::of(pid).is_ok_and(|status| status.is_stopped())
}

/// Where a process that was found is now.
#[derive(Debug)]
pub(crate) enum Presence {
    /// It lives, though another program may stand at the path of its executable by now.
    Same(Stat),
    /// It has ended, or its pid is another process, or it executes another program.
    Gone,
    /// This program could not look: nothing is known of the process.
    Unknown(io::Error),
}

/// Where the process that was found as `pid` is now.
pub(crate) fn presence(pid: i32, started: u64, exe: &Path) -> Presence {
    // In this order: the process that is `started` at last was it when its executable was read.
    let look = || -> io::Result<Option<Stat>> {
        let now = std::fs::read_link(format!("/proc/{pid}/exe"))?;
        if strip_deleted(&now) != strip_deleted(exe) {
            return Ok(None);
        }
        Ok(Some(Stat::of(pid)?).filter(|stat| stat.started == started && stat.lives()))
    };
    match look() {
        Ok(Some(stat)) => Presence::Same(stat),
        Ok(None) => Presence::Gone,
        Err(e) if is_gone(&e) => Presence::Gone,
        Err(e) => Presence::Unknown(e),
    }
}

/// Whether `pid` is certainly the process that was found.
#[must_use]
pub(crate) fn is_same(pid: i32, started: u64, exe: &Path) -> bool {
    matches!(presence(pid, started, exe), Presence::Same(_))
}

/// Whether the process that was found as `pid` is certainly not there any more.
#[must_use]
pub(crate) fn is_over(pid: i32, started: u64, exe: &Path) -> bool {
    matches!(presence(pid, started, exe), Presence::Gone)
}

/// Whether it is, and takes `signal` by a handler of its first thread: one look is enough for most.
#[must_use]
pub(crate) fn is_ready(pid: i32, started: u64, exe: &Path, signal: Signal) -> bool {
    matches!(presence(pid, started, exe), Presence::Same(stat) if stat.takes(signal))
}

/// An executable's path without the kernel's mark of a replaced one.
fn strip_deleted(exe: &Path) -> &[u8] {
    let bytes = exe.as_os_str().as_bytes();
    bytes.strip_suffix(b" (deleted)").unwrap_or(bytes)
}

/// Whether what stands at `path`, as the process sees it, is what this host sees there, and what is
/// put there will be. The same file bound onto itself would stay the old one, and so would one that
/// is bound alone into a directory of its own, as a container has it: what is exchanged is in
/// another.
#[must_use]
pub(crate) fn sees_the_same(pid: i32, path: &Path) -> bool {
    if sees_all(pid) {
        path.symlink_metadata().is_ok()
    } else {
        View::of(path, Path::new("/")).is_seen_by(pid, path)
    }
}

/// Whether every path leads the process where it leads this one: the same mounts, from the same
/// root.
fn sees_all(pid: i32) -> bool {
    // What is read of it is seen from the root of this process.
    shares(pid, "mnt") == Some(true)
        && std::fs::read_link(format!("/proc/{pid}/root")).is_ok_and(|root| root == Path::new("/"))
}

/// What stands at a path and in the directory above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    /// Inode, and whether something is mounted there.
    file: Option<((u32, u32, u64), bool)>,
    /// Through which mount the directory is seen makes no difference.
    dir: Option<(u32, u32, u64)>,
}

impl View {
    /// Of the absolute `path` below `root`.
    #[must_use]
    pub(crate) fn of(path: &Path, root: &Path) -> Self {
        let look = |p: &Path| {
            let stat = rustix::fs::statx(
                rustix::fs::CWD,
                root.join(p.strip_prefix("/").unwrap_or(p)),
                AtFlags::empty(),
                StatxFlags::BASIC_STATS,
            )
            .ok()?;
            Some((
                (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino),
                stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
            ))
        };
        Self {
            file: look(path),
            dir: look(path.parent().unwrap_or(path)).map(|(inode, _)| inode),
        }
    }

    /// Whether a process sees just this at `path`.
    #[must_use]
    pub(crate) fn is_seen_by(&self, pid: i32, path: &Path) -> bool {
        self.file.is_some()
            && (sees_all(pid)
                || Self::of(path, &Path::new("/proc").join(pid.to_string()).join("root")) == *self)
    }
}

/// Why the process would go on seeing the old directory, or a part of it, after `dir` was
/// exchanged; none when it would not.
#[must_use]
pub(crate) fn keeps_directory_open(pid: i32, dir: &Path) -> Option<String> {
    let proc = Path::new("/proc").join(pid.to_string());
    for (link, what) in [("cwd", "working directory"), ("root", "root directory")] {
        match std::fs::read_link(proc.join(link)) {
            Ok(at) if at.starts_with(dir) => {
                return Some(format!(
                    "has its {what} in `{}` and would go on seeing the old one; start it \
                     elsewhere, or change single files",
                    dir.display()
                ));
            }
            Ok(_) => {}
            Err(e) => return Some(format!("cannot be looked at ({what}): {e}")),
        }
    }
    // A mount stays on what it was mounted on.
    match std::fs::read(proc.join("mountinfo")) {
        Ok(mounts) => mounts
            .split(|b| *b == b'\n')
            .filter_map(mount_point)
            .find(|at| at.starts_with(dir))
            .map(|at| format!("has a mount of its own at `{}`", at.display())),
        Err(e) => Some(format!("cannot be looked at (mounts): {e}")),
    }
}

/// The fifth field of a line of `/proc/PID/mountinfo`, in which blanks and the like are written as
/// `\040`.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let (mut path, mut rest) = (Vec::new(), line.split(|b| *b == b' ').nth(4)?);
    while let [first, tail @ ..] = rest {
        let escaped = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    Some(OsString::from_vec(path).into())
}

#[cfg(test)]
mod tests;
