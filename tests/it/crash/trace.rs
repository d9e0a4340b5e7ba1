//! Runs `hello` under strace, lists the effects of a run, and injects a fault at one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    daemons::need,
    support::{CommandEnd, run_to_end},
};

/// Every call that changes something outside of the process, or speaks to an instance.
const EFFECTS: &str = "mkdir,mkdirat,write,pwrite64,fsync,fdatasync,syncfs,rename,renameat,renameat2,link,linkat,symlinkat,unlink,unlinkat,\
                       fchmod,fchmodat,fchown,fchownat,fsetxattr,fremovexattr,utimensat,ftruncate,flock,pidfd_send_signal,connect";

/// The number of attempts to hit one effect. The count of calls varies by a few between runs.
pub(super) const TRIES: usize = 12;

/// One effect of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Effect {
    /// The system call.
    pub(super) call: String,
    /// The number of the call among those of its name in the coordinator's thread, from 1. strace
    /// counts by it.
    pub(super) nth: usize,
    /// A name that is the same in every run: the call, its object, and a number.
    pub(super) name: String,
    /// Whether it is a real effect: the thread also writes to itself.
    pub(super) outside: bool,
    /// Whether strace made it fail.
    pub(super) failed: bool,
}

/// An effect to hit. Its number in strace varies by a few calls, since other threads interfere.
pub(super) struct Aim {
    pub(super) wanted: Effect,
    nth: usize,
    /// The number that the attempt before the last one aimed at.
    before: Option<usize>,
}

impl Aim {
    pub(super) fn at(wanted: &Effect) -> Self {
        Self {
            wanted: wanted.clone(),
            nth: wanted.nth,
            before: None,
        }
    }

    /// Returns the option for strace. `what` is `signal=NAME` or `error=NAME`.
    pub(super) fn inject(&self, what: &str) -> String {
        format!("{}:{what}:when={}", self.wanted.call, self.nth)
    }

    /// Aims again after a run that was hit elsewhere or not at all. `whole` is the run that
    /// `wanted` comes from.
    pub(super) fn correct(&mut self, whole: &[Effect], run: &[Effect]) {
        let next = self.corrected(whole, run);
        // Files of a killed run can shift the count of the next one. Each attempt corrects by the
        // last miss.
        let returns = next != self.nth && self.before == Some(next);
        self.before = (!returns).then_some(self.nth);
        if !returns {
            self.nth = next;
        }
    }

    fn corrected(&self, whole: &[Effect], run: &[Effect]) -> usize {
        let same = |e: &&Effect| e.call == self.wanted.call;
        if let Some(there) = run.iter().find(|e| e.name == self.wanted.name) {
            return there.nth;
        }
        let known = |e: &Effect| {
            whole
                .iter()
                .find(|known| known.name == e.name)
                .map(|known| known.nth)
        };
        let last = run
            .iter()
            .rev()
            .filter(same)
            .find_map(|e| Some((e.nth, known(e)?)));
        // The difference in the count.
        let moved = last.map_or(self.nth, |(nth, known)| {
            (self.wanted.nth + nth).saturating_sub(known).max(1)
        });
        // The run does not have it, so it comes after every call that the run has: the effect that
        // was hit may be missing in `whole`, such as a wake-up or the journal of a killed run.
        let after = run.iter().rev().find(same).map_or(0, |e| e.nth);
        moved.max(after + 1)
    }
}

/// A traced run.
pub(super) struct Traced {
    pub(super) end: CommandEnd,
    /// All calls in order. In a killed run, the last one was not executed.
    pub(super) effects: Vec<Effect>,
}

/// Whether strace exists and may trace.
pub(super) fn can_trace() -> bool {
    if !need("strace") {
        return false;
    }
    let result = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&result.stderr).into_owned();
    if !result.status.success() {
        crate::support::skipped(&format!("nothing may be traced here: {why}"));
    }
    result.status.success()
}

/// Returns the path of a log that no other run writes to.
pub(super) fn log(dir: &Path) -> PathBuf {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    dir.join(format!(
        "strace-{}",
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ))
}

/// Returns `command` under strace. `inject` is the fault at one of the calls; see [`Aim::inject`].
pub(super) fn under(command: &Command, log: &Path, inject: Option<&str>) -> Command {
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-y", "-s", "80", "-o"])
        .arg(log)
        .args(["-e", &format!("trace={EFFECTS}")]);
    if inject.is_none_or(|inject| inject.contains("error=")) {
        // Faster, since the process stops at these calls alone. No signal can be sent to it then.
        strace.arg("--seccomp-bpf");
    }
    if let Some(inject) = inject {
        strace.args(["-e", &format!("inject={inject}")]);
    }
    strace.arg(command.get_program()).args(command.get_args());
    strace
}

/// Runs the command to its end. `dir` holds everything that it changes.
pub(super) fn traced(command: &Command, dir: &Path, inject: Option<&str>) -> Traced {
    let log = log(dir);
    let end = run_to_end(&mut under(command, &log, inject));
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    std::fs::remove_file(log).unwrap();
    Traced {
        end,
        effects: effects(&text, dir),
    }
}

/// Returns the coordinator's own thread, from the log of strace. Earlier threads only read.
pub(super) fn thread(log: &str) -> &str {
    log.lines()
        .find(|line| line.contains('('))
        .and_then(|line| line.split(' ').next())
        .unwrap_or_default()
}

/// Returns the effects of that thread.
pub(super) fn effects(log: &str, dir: &Path) -> Vec<Effect> {
    let lines = log.lines().filter_map(|line| line.split_once(' '));
    let thread = thread(log);
    let (mut calls, mut names) = (
        BTreeMap::<&str, usize>::new(),
        BTreeMap::<String, usize>::new(),
    );
    let mut all: Vec<Effect> = Vec::new();
    for (_, line) in lines.filter(|(pid, _)| *pid == thread) {
        let failed = line.ends_with("(INJECTED)");
        if let Some(last) = all.last_mut().filter(|_| line.contains(" resumed>")) {
            last.failed |= failed;
        }
        // `+++ exited` is no call.
        let Some((call, args)) = line
            .trim_start()
            .split_once('(')
            .filter(|(call, _)| call.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_'))
        else {
            continue;
        };
        let nth = calls.entry(call).or_default();
        *nth += 1;
        let nth = *nth;
        let about = about(call, args, dir);
        let name = format!("{call} {}", about.as_deref().unwrap_or("elsewhere"));
        let place = names.entry(name.clone()).or_default();
        *place += 1;
        all.push(Effect {
            call: call.to_owned(),
            nth,
            name: format!("{} #{place}", name.trim_end()),
            outside: about.is_some(),
            failed,
        });
    }
    all
}

/// Whether a run has no effect of the name of `wanted` and came past its position in `whole`. The
/// number of probes and timers varies between runs.
pub(super) fn lacks(run: &[Effect], whole: &[Effect], wanted: &Effect) -> bool {
    let place = |effect: &Effect| whole.iter().position(|e| e.name == effect.name);
    let came = run.iter().rev().filter(|e| e.outside).find_map(place);
    came > place(wanted) && !has(run, wanted)
}

/// Whether a run had the effect of this name.
pub(super) fn has(run: &[Effect], wanted: &Effect) -> bool {
    run.iter().any(|e| e.name == wanted.name)
}

/// Returns the kinds of effects of which none was hit. A single effect may be missed if the thread
/// writes to itself.
pub(super) fn missed<'a>(
    points: impl IntoIterator<Item = &'a Effect>,
    is_hit: impl Fn(&Effect) -> bool,
) -> Vec<&'a str> {
    let mut kinds: BTreeMap<&str, bool> = BTreeMap::new();
    for effect in points {
        *kinds
            .entry(effect.name.rsplit_once(" #").unwrap().0)
            .or_default() |= is_hit(effect);
    }
    kinds
        .into_iter()
        .filter(|(_, hit)| !hit)
        .map(|(kind, _)| kind)
        .collect()
}

/// Returns what a run had not synced before an install or a signal, and must have: rollback
/// content, intents and installed files. A test cannot cut the power, but it can check the order of
/// calls.
pub(super) fn unsynced(all: &[Effect]) -> Vec<String> {
    let (mut dirty, mut late, mut intended) = (BTreeSet::new(), Vec::new(), false);
    for Effect { call, name, .. } in all.iter().filter(|e| e.outside) {
        let words: Vec<&str> = name.split(' ').collect();
        let installs = call.starts_with("rename") && words[1] == "/etc";
        if installs || call == "pidfd_send_signal" {
            late.extend((!intended).then(|| format!("what is intended before {name}")));
            late.extend(dirty.iter().map(|what| format!("{what} before {name}")));
        }
        // The record of staged files survives a kill and needs no sync.
        if words[1].starts_with("/state/staged") {
            continue;
        }
        if words[1].ends_with("events.jsonl") && call == "write" {
            intended = (intended || words[2] == "intent") && words[2] != "rollback_began";
        }
        let folder = |path: &str| {
            path.rsplit_once('/')
                .map_or(path, |(folder, _)| folder)
                .to_owned()
        };
        match call.as_str() {
            "fsync" | "fdatasync" => drop(dirty.remove(words[1])),
            "syncfs" => dirty.clear(),
            // The outcome of each instance is synced with the next intent.
            "write"
                if words[1].ends_with("events.jsonl")
                    && !words.iter().any(|w| {
                        ["began", "intent", "rollback_began", "rolled_back"].contains(w)
                    }) => {}
            "write" | "fchmod" | "fchown" | "utimensat" | "fsetxattr" => {
                let _ = dirty.insert(words[1].to_owned());
            }
            "mkdir" => drop(dirty.insert(folder(words[1]))),
            "rename" | "link" | "linkat" => drop(dirty.insert(folder(words[2]))),
            _ if installs => drop(dirty.insert(words[1].to_owned())),
            _ => {}
        }
    }
    late
}

/// Returns the object of a call without the parts that vary. `None` if it is nothing outside of the
/// process.
fn about(call: &str, args: &str, dir: &Path) -> Option<String> {
    if matches!(call, "pidfd_send_signal" | "connect") {
        return Some(String::new());
    }
    // If another thread calls in between, strace ends the line before the result.
    let args = args.strip_suffix(" <unfinished ...>").unwrap_or(args);
    // The file of the descriptor, and the names.
    let held = args
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map(|(path, _)| path);
    let quoted = args
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|_| !call.contains("write"));
    let places: Vec<&str> = held.into_iter().chain(quoted).collect();
    let dir = dir.to_str().unwrap();
    if !places.iter().any(|place| place.starts_with(dir)) {
        return None;
    }
    let mut result: Vec<String> = places
        .iter()
        .map(|place| unnumbered(place.strip_prefix(dir).unwrap_or(place)))
        .collect();
    if let Some((_, event)) = args.split_once(r#"{\"event\":\""#) {
        result.push(event.split('\\').next().unwrap_or_default().to_owned());
        result.extend(
            event
                .contains(r#"\"undo\":true"#)
                .then(|| "undo".to_owned()),
        );
    }
    Some(result.join(" "))
}

/// Removes run ids, digests and inodes.
fn unnumbered(place: &str) -> String {
    let mut text = String::new();
    for word in place.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '#') {
        let name = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let number = (name.len() >= 32 && name.bytes().all(|c| c.is_ascii_hexdigit()))
            || name.starts_with('#');
        text += &if number {
            word.replace(name, if name.len() == 64 { "SHA" } else { "ID" })
        } else {
            word.to_owned()
        };
    }
    text
}

#[test]
fn an_effect_has_the_same_name_in_every_run() {
    let log = r#"6 +++ exited with 0 +++
7 flock(12</d>, LOCK_EX|LOCK_NB) = 0
7 write(6<anon_inode:[eventfd]>, "\1\0", 8) = 8
8 write(1</d/out>, "x", 1) = 1
7 write(14</d/state/runs/01a21ba538e671d491a379cbff57482d/events.jsonl>, "{\"event\":\"intent\",\"undo\":true,"..., 9 <unfinished ...>
7 <... write resumed>)                   = 9
7 fsync(13</d/#10043564>(deleted)) = 0
7 fsync(12</d> <unfinished ...>
7 <... fsync resumed>) = -1 EIO (Input/output error) (INJECTED)
7 renameat2(12</d>, ".web.toml.hello-01a21ba538e671d491a379cbff57482d", 12</d>, "web.toml", RENAME_EXCHANGE) = 0
7 pidfd_send_signal(15<anon_inode:[pidfd]>, SIGHUP, NULL, 0) = ?
7 mkdir("/d/state/bytes", 0700 <unfinished ...>
7 +++ killed by SIGKILL +++
"#;
    let all = effects(log, Path::new("/d"));
    let told: Vec<(&str, usize)> = all
        .iter()
        .filter(|e| e.outside)
        .map(|e| (e.name.as_str(), e.nth))
        .collect();
    let failed: Vec<&str> = all
        .iter()
        .filter(|e| e.failed)
        .map(|e| e.name.as_str())
        .collect();
    assert_eq!((failed, all.len()), (vec!["fsync #1"], told.len() + 1));
    let wanted = [
        ("flock #1", 1),
        ("write /state/runs/ID/events.jsonl intent undo #1", 2),
        ("fsync /ID #1", 1),
        ("fsync #1", 2),
        ("renameat2  .web.toml.hello-ID web.toml #1", 1),
        ("pidfd_send_signal #1", 1),
        ("mkdir /state/bytes #1", 1),
    ];
    assert_eq!(told, wanted);
}
