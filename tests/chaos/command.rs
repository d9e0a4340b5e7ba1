//! Runs one command of `hello` under its faults, and keeps all that is needed to judge it.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    inject::{Done, Injector},
    live::{Live, written},
    plan::{Change, Step, Verb, What},
    world::{Seen, config, file_of, message_of, now},
};

/// The interval between two checks for due faults. Short enough to hit the phases of a run.
const TICK: Duration = Duration::from_millis(1);
/// The time that a command gets beyond its own waits. A busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// The state before a command.
pub(crate) struct Before {
    pub(crate) files: Vec<Option<Seen>>,
    pub(crate) sighups: Vec<Option<u64>>,
    pub(crate) processes: Vec<(i32, u64)>,
    pub(crate) runs: BTreeSet<String>,
}

/// A command that ended by itself or was killed.
pub(crate) struct Ran {
    pub(crate) line: String,
    pub(crate) verb: Verb,
    pub(crate) dry: bool,
    pub(crate) began: f64,
    pub(crate) ended: f64,
    pub(crate) code: Option<i32>,
    pub(crate) json: Value,
    pub(crate) stderr: String,
    pub(crate) timed_out: bool,
    /// Whether its limit of open files was low.
    pub(crate) starved: bool,
    /// Whether another coordinator ran at the same time.
    pub(crate) beside: bool,
    /// Whether it was signalled twice, or killed.
    pub(crate) cut: bool,
    pub(crate) done: Vec<Done>,
    /// Folders of the runs that began during the command.
    pub(crate) runs: Vec<PathBuf>,
}

impl Before {
    fn new(live: &Live) -> Self {
        Self {
            files: live.files(),
            sighups: live
                .slots
                .iter()
                .map(|s| s.lives().then(|| s.sighups()).flatten())
                .collect(),
            processes: live.slots.iter().map(crate::live::Slot::leader).collect(),
            runs: runs(live),
        }
    }
}

/// Names of the runs in the state folder.
pub(crate) fn runs(live: &Live) -> BTreeSet<String> {
    names(&live.state.join("runs"))
}

/// Names of the runs that have an open mark.
pub(crate) fn open_marks(live: &Live) -> BTreeSet<String> {
    names(&live.state.join("open"))
}

fn names(folder: &std::path::Path) -> BTreeSet<String> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect()
}

struct Running {
    child: Child,
    line: String,
    verb: Verb,
    dry: bool,
    began: f64,
    out: PathBuf,
    ended: Option<(f64, ExitStatus)>,
    timed_out: bool,
}

impl Running {
    fn start(live: &Live, number: usize, step: &Step, arguments: &[String]) -> io::Result<Self> {
        let mut command: Command = live.hello(step.descriptors);
        let out = live.dir.join(format!("out-{number}.json"));
        command
            .args(arguments)
            .stdout(File::create(&out)?)
            .stderr(File::create(out.with_extension("err"))?);
        let began = now();
        let child = command.spawn()?;
        let line = format!("hello {}", arguments.join(" "));
        std::fs::write(out.with_extension("cmd"), &line)?;
        Ok(Self {
            child,
            line,
            verb: step.verb,
            dry: step.flags.contains(&"--dry-run"),
            began,
            out,
            ended: None,
            timed_out: false,
        })
    }

    fn look(&mut self, deadline: f64) -> io::Result<()> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?.map(|status| (now(), status));
        }
        if self.ended.is_none() && now() > deadline {
            self.timed_out = true;
            self.child.kill()?;
            self.ended = Some((now(), self.child.wait()?));
        }
        Ok(())
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or_default()
    }
}

/// Runs `step`, and its twin, to the end.
pub(crate) fn run(live: &mut Live, step: &Step, number: usize) -> io::Result<(Before, Vec<Ran>)> {
    let arguments = arguments(live, step, number)?;
    let before = Before::new(live);
    let mut injector = Injector::new(live, &step.faults);
    let mut all = vec![Running::start(live, number * 10, step, &arguments)?];
    let deadline = now() + PATIENCE.as_secs_f64() + longest(live);
    let mut twin = step.twin.map(|delay| now() + delay.as_secs_f64());
    while all.iter().any(|r| r.ended.is_none()) {
        let first = &all[0];
        if first.ended.is_none() && injector.is_waiting() {
            let state = live.state.join("runs");
            let pid = first.pid();
            injector.poll(live, pid, || runs_since(&state, &before.runs));
        }
        if twin.is_some_and(|at| now() >= at) {
            twin = None;
            all.push(Running::start(live, number * 10 + 1, step, &arguments)?);
        }
        thread::sleep(TICK);
        for running in &mut all {
            running.look(deadline)?;
        }
        if all[0].ended.is_some() {
            injector.finish();
        }
    }
    injector.finish();
    let done = std::mem::take(&mut injector.done);
    let since = runs_since(&live.state.join("runs"), &before.runs);
    let spans: Vec<(f64, f64)> = all
        .iter()
        .map(|r| (r.began, r.ended.map_or(f64::MAX, |(at, _)| at)))
        .collect();
    let ran = all.into_iter().enumerate().map(|(at, running)| {
        let (ended, status) = running
            .ended
            .ok_or_else(|| io::Error::other("it has not ended"))?;
        let text = std::fs::read(&running.out)?;
        let beside = spans
            .iter()
            .enumerate()
            .any(|(other, (began, end))| other != at && *began <= ended && *end >= running.began);
        let cut =
            status.signal().is_some() || done.iter().any(|d| matches!(d.what, What::Interrupt(2)));
        Ok(Ran {
            line: running.line,
            verb: running.verb,
            dry: running.dry,
            began: running.began,
            ended,
            code: status.code(),
            json: serde_json::from_slice(&text).unwrap_or_default(),
            stderr: String::from_utf8_lossy(&std::fs::read(running.out.with_extension("err"))?)
                .into_owned(),
            timed_out: running.timed_out,
            starved: step.descriptors.is_some(),
            beside,
            cut,
            done: done.clone(),
            runs: since.clone(),
        })
    });
    Ok((before, ran.collect::<io::Result<_>>()?))
}

fn runs_since(state: &std::path::Path, before: &BTreeSet<String>) -> Vec<PathBuf> {
    names(state)
        .difference(before)
        .map(|name| state.join(name))
        .collect()
}

/// The longest time, in seconds, that a run may take by its `fleet.toml`.
fn longest(live: &Live) -> f64 {
    let of = |g: &crate::plan::Group| {
        let gate = g.gate.map_or(0.0, |(takes, _)| takes.as_secs_f64() + 5.0);
        (g.members.len() + 2) as f64
            * (4.0 * g.timeout.as_secs_f64() + g.bake.as_secs_f64() + gate + 5.0)
    };
    live.plan.groups.iter().map(of).sum()
}

fn arguments(live: &mut Live, step: &Step, number: usize) -> io::Result<Vec<String>> {
    let mut all: Vec<String> = Vec::new();
    let text = |path: &std::path::Path| path.display().to_string();
    let groups = if step.first_group_only {
        1
    } else {
        live.plan.groups.len()
    };
    let fleet = ["--fleet".to_owned(), text(&live.write_fleet()?)];
    match step.verb {
        Verb::Status => {
            all.push("status".into());
            all.extend(fleet);
        }
        Verb::Resume => all.push("resume".into()),
        Verb::Revert => {
            all.push("revert".into());
            // Without an open run, the newest run is reverted.
            if open_marks(live).is_empty() {
                all.extend(runs(live).last().cloned());
            }
        }
        Verb::Broadcast(change) => {
            all.push("broadcast".into());
            all.extend(fleet);
            if live.plan.groups.len() > 1 {
                all.push(if groups == 1 {
                    "g0".into()
                } else {
                    "--all".into()
                });
            }
            let message = live.message(step.word);
            for group in 0..groups {
                let stays = step.first_group_stays && group == 0 && groups > 1;
                let change = if stays && change == Change::Config {
                    Change::Same
                } else {
                    change
                };
                all.extend(changed(live, change, group, &message, number)?);
            }
            if change == Change::Set {
                all.extend(["--set".into(), format!("message={message}")]);
            }
        }
    }
    if step.verb != Verb::Status {
        all.extend(step.flags.iter().map(ToString::to_string));
        if step.flags.contains(&"--now") {
            all.extend(["--reason".into(), "an incident".into()]);
        }
    }
    all.extend([
        "--state".into(),
        text(&live.state),
        "-o".into(),
        "json".into(),
    ]);
    Ok(all)
}

/// Prepares a group's change. Returns the options for it, or writes the targets for an adoption.
fn changed(
    live: &Live,
    change: Change,
    group: usize,
    message: &str,
    number: usize,
) -> io::Result<Vec<String>> {
    let targets: Vec<&PathBuf> = live
        .targets
        .iter()
        .filter(|t| t.group == group)
        .map(|t| &t.path)
        .collect();
    let bytes = match change {
        Change::Set => return Ok(Vec::new()),
        Change::Comment => {
            let now = std::fs::read(file_of(targets[0]))
                .ok()
                .and_then(|bytes| message_of(&bytes));
            config(&now.unwrap_or_default(), number + 1)
        }
        Change::Same => std::fs::read(file_of(targets[0])).unwrap_or_default(),
        Change::Config | Change::Adopt => config(message, 0),
    };
    if change == Change::Adopt {
        for target in targets {
            let file = file_of(target);
            // An edit may have removed it, or the disk may be full. The command then finds what
            // there is.
            let _ = written(&file.with_extension("new"), &bytes)
                .and_then(|()| std::fs::rename(file.with_extension("new"), &file));
        }
        return Ok(Vec::new());
    }
    let new = live.dir.join(format!("new-{number}-g{group}"));
    if live.plan.groups[group].directory {
        std::fs::create_dir_all(&new)?;
        written(&new.join("web.toml"), &bytes)?;
    } else {
        written(&new, &bytes)?;
    }
    Ok(vec![
        "--config".into(),
        format!("g{group}={}", new.display()),
    ])
}
