//! Injects each fault of a command when its condition holds, and records the time.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write as _},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::{
    live::{Live, written},
    plan::{Fault, What, When, Write},
    world::{Seen, config, file_of, hidden, now, seen},
};

/// A fault that was injected.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) what: What,
    pub(crate) began: f64,
    pub(crate) ended: f64,
    /// The bytes that another writer wrote.
    pub(crate) bytes: Option<Vec<u8>>,
    /// The mode and owner that were set.
    pub(crate) attributes: Option<(u32, (u32, u32))>,
}

pub(crate) struct Injector {
    pending: Vec<(Fault, Option<f64>)>,
    undo: Vec<(f64, Undo)>,
    pub(crate) done: Vec<Done>,
    began: f64,
    before: Vec<Option<Seen>>,
    /// Descriptors from before the command, for writers of that kind.
    open: Vec<Option<File>>,
    thieves: Vec<Child>,
    immutable: Vec<PathBuf>,
    filler: Option<PathBuf>,
}

enum Undo {
    Continue(i32, Option<u64>),
    Interrupt(i32),
}

impl Injector {
    pub(crate) fn new(live: &Live, faults: &[Fault]) -> Self {
        let needed = |at| {
            faults
                .iter()
                .any(|f| f.what == What::Write(at, Write::Descriptor))
        };
        let open = |path: &Path| OpenOptions::new().write(true).open(file_of(path)).ok();
        Self {
            pending: faults.iter().map(|f| (f.clone(), None)).collect(),
            undo: Vec::new(),
            done: Vec::new(),
            began: now(),
            before: live.files(),
            open: live
                .targets
                .iter()
                .enumerate()
                .map(|(at, t)| needed(at).then(|| open(&t.path)).flatten())
                .collect(),
            thieves: Vec::new(),
            immutable: Vec::new(),
            filler: None,
        }
    }

    /// Whether a later poll may still inject something.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.pending.is_empty() || !self.undo.is_empty()
    }

    /// Injects the faults that are due. `runs` are the folders of the runs that the command has
    /// begun.
    pub(crate) fn poll(
        &mut self,
        live: &mut Live,
        coordinator: i32,
        runs: impl Fn() -> Vec<PathBuf>,
    ) {
        for (fault, armed) in &mut self.pending {
            if armed.is_none() && holds(fault.when, live, &self.before, &runs) {
                *armed = Some(if fault.when == When::Start {
                    self.began
                } else {
                    now()
                });
            }
        }
        let is_due = |(fault, armed): &(Fault, Option<f64>)| {
            armed.is_some_and(|at| now() >= at + fault.then.as_secs_f64())
        };
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(is_due);
        self.pending = rest;
        for what in due.into_iter().map(|(fault, _)| fault.what) {
            let began = now();
            if let Some(bytes) = self.inject(live, coordinator, what) {
                let attributes = match what {
                    What::Chmod(at) | What::Chown(at) => {
                        seen(&live.targets[at].path).map(|s| (s.mode, s.owner))
                    }
                    _ => None,
                };
                self.done.push(Done {
                    what,
                    began,
                    ended: now(),
                    bytes,
                    attributes,
                });
            }
        }
        let (ready, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.undo)
            .into_iter()
            .partition(|(at, _)| *at <= now());
        self.undo = later;
        for (_, undo) in ready {
            finish(&undo);
        }
    }

    /// Returns `None` if the fault was not possible.
    fn inject(&mut self, live: &mut Live, coordinator: i32, what: What) -> Option<Option<Vec<u8>>> {
        let coordinator_gets =
            |signal| kill(Pid::from_raw(coordinator), signal).ok().map(|()| None);
        match what {
            What::Kill(at) => live.slots[at].kill().then_some(None),
            What::Restart(at) => live.restart(at).then_some(None),
            What::Hangup(at) => live.slots[at].signal(Signal::SIGHUP).then_some(None),
            What::Pause(at, time) => {
                let (pid, started) = live.slots[at].leader();
                live.slots[at].signal(Signal::SIGSTOP).then_some(())?;
                self.undo.push((
                    now() + time.as_secs_f64(),
                    Undo::Continue(pid, Some(started)),
                ));
                Some(None)
            }
            What::Steal(at) => {
                live.slots[at].kill().then_some(())?;
                self.steal(live, at);
                Some(None)
            }
            What::Share(at) => {
                (live.slots[at].member.reuseport && self.steal(live, at)).then_some(None)
            }
            What::Write(at, how) => self.write(live, at, how).map(Some),
            What::Chmod(at) => {
                let path = &live.targets[at].path;
                let mode = if path.is_dir() { 0o750 } else { 0o640 };
                std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
                    .ok()
                    .map(|()| None)
            }
            What::Chown(at) => std::os::unix::fs::chown(&live.targets[at].path, Some(0), Some(1))
                .ok()
                .map(|()| None),
            What::Immutable(at) => {
                let path = file_of(&live.targets[at].path);
                set_immutable(&path, true)?;
                self.immutable.push(path);
                Some(None)
            }
            What::Fill => {
                let path = live.dir.join("etc").join("filler");
                let mut file = File::create(&path).ok()?;
                while file.write_all(&[0; 4096]).is_ok() {}
                self.filler = Some(path);
                Some(None)
            }
            What::CoordinatorKill => coordinator_gets(Signal::SIGKILL),
            What::CoordinatorHangup => coordinator_gets(Signal::SIGHUP),
            What::CoordinatorPause(time) => {
                self.undo.push((
                    now() + time.as_secs_f64(),
                    Undo::Continue(coordinator, None),
                ));
                coordinator_gets(Signal::SIGSTOP)
            }
            What::Interrupt(times) => {
                if times > 1 {
                    self.undo.push((now() + 0.15, Undo::Interrupt(coordinator)));
                }
                coordinator_gets(Signal::SIGINT)
            }
        }
    }

    /// Starts a program that answers on a slot's port.
    fn steal(&mut self, live: &Live, at: usize) -> bool {
        let slot = &live.slots[at];
        let port = slot
            .url
            .trim_end_matches('/')
            .rsplit(':')
            .next()
            .unwrap_or_default()
            .to_owned();
        let Ok(exe) = std::env::current_exe() else {
            return false;
        };
        let mark = live.dir.display().to_string();
        let thief = Command::new(exe)
            .args(["thief", &port, "stolen", &mark])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut thief) = thief else { return false };
        let mut line = String::new();
        let there = thief.stdout.take().is_some_and(|out| {
            BufReader::new(out)
                .read_line(&mut line)
                .is_ok_and(|n| n > 0)
        });
        self.thieves.push(thief);
        there
    }

    /// Edits a target as another writer, and returns the bytes.
    fn write(&mut self, live: &mut Live, at: usize, how: Write) -> Option<Vec<u8>> {
        let bytes = config(&live.message("edit"), 1000);
        let file = file_of(&live.targets[at].path);
        match how {
            Write::InPlace => {
                let open = OpenOptions::new().write(true).open(&file).ok()?;
                open.write_all_at(&bytes, 0)
                    .and_then(|()| open.set_len(bytes.len() as u64))
                    .ok()?;
            }
            Write::Descriptor => {
                let open = self.open[at].as_ref()?;
                open.write_all_at(&bytes, 0)
                    .and_then(|()| open.set_len(bytes.len() as u64))
                    .ok()?;
            }
            Write::Rename => {
                let new = live.dir.join("etc").join("another.tmp");
                written(&new, &bytes)
                    .and_then(|()| std::fs::rename(&new, &file))
                    .ok()?;
            }
        }
        Some(bytes)
    }

    /// Ends every fault that lasts.
    pub(crate) fn finish(&mut self) {
        self.pending.clear();
        for (_, undo) in self.undo.drain(..) {
            if let Undo::Continue(..) = undo {
                finish(&undo);
            }
        }
        for path in self.immutable.drain(..) {
            let _ = set_immutable(&path, false);
        }
        if let Some(path) = self.filler.take() {
            let _ = std::fs::remove_file(path);
        }
        for mut thief in self.thieves.drain(..) {
            let _ = thief.kill();
            let _ = thief.wait();
        }
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        self.finish();
    }
}

fn finish(undo: &Undo) {
    match undo {
        Undo::Continue(pid, started)
            if started.is_none_or(|started| crate::world::lives(*pid, started)) =>
        {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
        }
        Undo::Continue(..) => {}
        Undo::Interrupt(pid) => {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGTERM);
        }
    }
}

fn set_immutable(path: &Path, immutable: bool) -> Option<()> {
    let file = File::open(path).ok()?;
    let flags = ioctl_getflags(&file).ok()?;
    ioctl_setflags(
        &file,
        if immutable {
            flags | IFlags::IMMUTABLE
        } else {
            flags - IFlags::IMMUTABLE
        },
    )
    .ok()
}

fn holds(
    when: When,
    live: &Live,
    before: &[Option<Seen>],
    runs: &impl Fn() -> Vec<PathBuf>,
) -> bool {
    match when {
        When::Start => true,
        When::Staged => live.targets.iter().any(|t| !hidden(&t.path).is_empty()),
        When::Installed => live.targets.iter().zip(before).any(|(target, before)| {
            let inode = std::fs::metadata(&target.path).map(|m| m.ino());
            inode.is_ok_and(|inode| before.as_ref().is_some_and(|b| b.inode != inode))
        }),
        When::Gate => (0..live.plan.groups.len()).any(|group| live.gate_runs(group).exists()),
        When::Event(name) => {
            let line = format!("{{\"event\":\"{name}\"");
            runs().iter().any(|run| {
                std::fs::read_to_string(run.join("events.jsonl"))
                    .is_ok_and(|text| text.contains(&line))
            })
        }
    }
}
