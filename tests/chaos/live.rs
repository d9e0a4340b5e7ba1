//! The processes and files of one round.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    mode::Mode,
    plan::{Confirm, Group, Member, Plan, Program, Storage},
    world::{Seen, ask, config, file_of, lives, processes_of, seen, started_at},
};

/// The time limit for an answer of an instance. A busy machine is slow; a dead instance does not
/// answer at all.
const ANSWER: Duration = Duration::from_secs(10);
/// The time limit until the instances have handled every signal.
const SETTLES: Duration = Duration::from_secs(30);

pub(crate) struct Live {
    pub(crate) plan: Plan,
    pub(crate) dir: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) targets: Vec<Target>,
    pub(crate) slots: Vec<Slot>,
    hello: PathBuf,
    mounted: bool,
    next_message: usize,
}

pub(crate) struct Target {
    pub(crate) group: usize,
    pub(crate) path: PathBuf,
}

/// A slot of the fleet, which one process after the other fills.
pub(crate) struct Slot {
    pub(crate) group: usize,
    pub(crate) target: usize,
    pub(crate) member: Member,
    pub(crate) program: Program,
    pub(crate) url: String,
    pub(crate) log: PathBuf,
    pub(crate) child: Child,
    pub(crate) started: u64,
    /// Every process that this program started here.
    pub(crate) known: Vec<(i32, u64)>,
}

/// The true state of a process, whatever it reports elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Truth {
    pub(crate) sha256: String,
    pub(crate) message: String,
    pub(crate) busy: bool,
}

/// A line of a rogue's log.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) at: f64,
    pub(crate) pid: i32,
    pub(crate) what: String,
}

impl Slot {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or_default()
    }

    /// Returns the process that serves here: the one that was started, or its successor.
    pub(crate) fn leader(&self) -> (i32, u64) {
        if self.member.mode == Mode::Successor
            && let Some(note) = self
                .notes()
                .iter()
                .rev()
                .find(|n| n.what.starts_with("began"))
        {
            return (note.pid, started_at(note.pid).unwrap_or_default());
        }
        (self.pid(), self.started)
    }

    pub(crate) fn lives(&self) -> bool {
        let (pid, started) = self.leader();
        lives(pid, started)
    }

    pub(crate) fn notes(&self) -> Vec<Note> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let note = |line: &str| {
            let mut parts = line.splitn(3, ' ');
            Some(Note {
                at: parts.next()?.parse().ok()?,
                pid: parts.next()?.parse().ok()?,
                what: parts.next()?.to_owned(),
            })
        };
        text.lines().filter_map(note).collect()
    }

    /// Returns the number of signals that arrived here. `None` if the process that counted them is
    /// gone.
    pub(crate) fn sighups(&self) -> Option<u64> {
        if self.program != Program::Serve {
            return Some(self.notes().iter().filter(|n| n.what == "hup").count() as u64);
        }
        let answer = ask(&self.url, "/-/config", ANSWER)?;
        let told: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
        Some(told["last_attempt"]["seq"].as_u64()?.saturating_sub(1))
    }

    /// Probes once over a fresh connection.
    pub(crate) fn truth(&self) -> Option<Truth> {
        if self.program == Program::Serve {
            let answer = ask(&self.url, "/", ANSWER)?;
            let sha256 = answer.header("x-config-sha256")?.to_owned();
            return Some(Truth {
                sha256,
                message: answer.body,
                busy: false,
            });
        }
        let answer = ask(&self.url, "/truth", ANSWER)?;
        let mut words = answer.body.split(' ');
        let (sha256, _, busy) = (
            words.next()?.to_owned(),
            words.next()?,
            words.next()? == "1",
        );
        Some(Truth {
            sha256,
            message: String::new(),
            busy,
        })
    }

    /// Probes as any client does.
    pub(crate) fn answer(&self) -> Option<String> {
        ask(&self.url, "/", ANSWER).map(|answer| answer.body)
    }

    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let (pid, started) = self.leader();
        lives(pid, started) && kill(Pid::from_raw(pid), signal).is_ok()
    }

    /// Ends the process and its workers.
    pub(crate) fn kill(&mut self) -> bool {
        let leader = self.leader();
        let killed =
            lives(leader.0, leader.1) && kill(Pid::from_raw(leader.0), Signal::SIGKILL).is_ok();
        if leader.0 == self.pid() {
            let _ = self.child.wait();
        }
        killed
    }
}

impl Live {
    /// Builds the folder and starts every process.
    pub(crate) fn start(plan: &Plan, dir: &Path, hello: &Path) -> io::Result<Self> {
        let (etc, log) = (dir.join("etc"), dir.join("log"));
        for folder in [&etc, &log, &dir.join("bin")] {
            std::fs::create_dir_all(folder)?;
        }
        let small = plan.storage != Storage::Disk && nix::unistd::getuid().is_root();
        let mounted = small
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=2m,mode=755", "none"])
                .arg(&etc)
                .status()?
                .success();
        let state = if mounted && plan.storage == Storage::SmallWithState {
            etc.join("state")
        } else {
            dir.join("state")
        };
        let mut live = Self {
            plan: plan.clone(),
            dir: dir.into(),
            state,
            targets: Vec::new(),
            slots: Vec::new(),
            hello: hello.into(),
            mounted,
            next_message: 0,
        };
        for (at, group) in plan.groups.iter().enumerate() {
            live.make_targets(at, group, &etc)?;
            let exe = live.exe(at);
            let program = if group.program == Program::Serve {
                hello.to_owned()
            } else {
                std::env::current_exe()?
            };
            linked(&program, &exe)?;
            live.make_gate(at, group)?;
        }
        for (at, group) in plan.groups.iter().enumerate() {
            for member in &group.members {
                live.start_slot(at, group.program, member)?;
            }
        }
        Ok(live)
    }

    fn make_targets(&mut self, at: usize, group: &Group, etc: &Path) -> io::Result<()> {
        for number in 0..group.targets {
            let bytes = config("first", 0);
            let path = if group.directory {
                etc.join(format!("g{at}.d"))
            } else {
                etc.join(format!("g{at}-{number}.toml"))
            };
            if group.directory {
                std::fs::create_dir(&path)?;
                written(&path.join("other.txt"), b"stays\n")?;
            }
            written(&file_of(&path), &bytes)?;
            self.targets.push(Target { group: at, path });
        }
        Ok(())
    }

    fn make_gate(&self, at: usize, group: &Group) -> io::Result<()> {
        let Some((takes, exit)) = group.gate else {
            return Ok(());
        };
        let running = self.gate_runs(at);
        let text = format!(
            "#!/bin/sh\ncat >/dev/null\n: >'{0}'\nsleep {1:.3}\nrm -f '{0}'\nexit {exit}\n",
            running.display(),
            takes.as_secs_f64()
        );
        let path = self.dir.join(format!("gate-{at}"));
        written(&path, text.as_bytes())?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))
    }

    pub(crate) fn gate_runs(&self, group: usize) -> PathBuf {
        self.dir.join(format!("gate-{group}-runs"))
    }

    fn exe(&self, group: usize) -> PathBuf {
        self.dir
            .join("bin")
            .join(format!("fault{}-{group}", self.plan.seed))
    }

    fn start_slot(&mut self, group: usize, program: Program, member: &Member) -> io::Result<()> {
        let first = self
            .targets
            .iter()
            .position(|t| t.group == group)
            .unwrap_or_default();
        let (target, log) = (
            first + member.target,
            self.dir
                .join("log")
                .join(format!("{}.log", self.slots.len())),
        );
        let (child, url) = self.spawn(group, program, member, target, &log)?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        let started = started_at(pid).unwrap_or_default();
        let known = vec![(pid, started)];
        self.slots.push(Slot {
            group,
            target,
            member: member.clone(),
            program,
            url,
            log,
            child,
            started,
            known,
        });
        Ok(())
    }

    fn spawn(
        &self,
        group: usize,
        program: Program,
        member: &Member,
        target: usize,
        log: &Path,
    ) -> io::Result<(Child, String)> {
        let mut command = Command::new(self.exe(group));
        let config = &self.targets[target].path;
        if program == Program::Serve {
            command.args(["serve", "--config"]).arg(config);
        } else {
            command
                .args(["rogue", "--config"])
                .arg(config)
                .arg("--log")
                .arg(log);
            command.args([
                "--mode",
                &member.mode.name(),
                "--slow",
                &member.slow.as_millis().to_string(),
            ]);
            if program == Program::Speaks {
                command.arg("--merges");
            }
            if member.reuseport {
                command.arg("--reuseport");
            }
        }
        let errors = File::options()
            .append(true)
            .create(true)
            .open(log.with_extension("err"))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line.starts_with("http://") {
            return Ok((child, line.trim().to_owned()));
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(io::Error::other(format!(
            "{} does not start: {line:?}",
            self.exe(group).display()
        )))
    }

    /// Restarts the program of a slot. A config that it cannot read keeps it from starting.
    pub(crate) fn restart(&mut self, at: usize) -> bool {
        self.slots[at].kill();
        let slot = &self.slots[at];
        let Ok((child, url)) = self.spawn(
            slot.group,
            slot.program,
            &slot.member,
            slot.target,
            &slot.log,
        ) else {
            return false;
        };
        let slot = &mut self.slots[at];
        (slot.child, slot.url) = (child, url);
        slot.started = started_at(slot.pid()).unwrap_or_default();
        slot.known.push((slot.pid(), slot.started));
        true
    }

    /// Returns a message that no config had before.
    pub(crate) fn message(&mut self, word: &str) -> String {
        self.next_message += 1;
        format!("m{}{word}", self.next_message)
    }

    /// Returns the slot of a process that this round knows.
    pub(crate) fn slot_of(&self, pid: i32, started: u64) -> Option<usize> {
        // A successor is known by its own note only.
        let took = |slot: &Slot| {
            slot.notes()
                .iter()
                .any(|n| n.pid == pid && n.what.starts_with("began"))
        };
        let of = |slot: &Slot| slot.known.contains(&(pid, started)) || took(slot);
        self.slots.iter().position(of)
    }

    pub(crate) fn target_of(&self, path: &str) -> Option<usize> {
        self.targets.iter().position(|t| t.path == Path::new(path))
    }

    pub(crate) fn files(&self) -> Vec<Option<Seen>> {
        self.targets.iter().map(|t| seen(&t.path)).collect()
    }

    /// Waits until every signal is handled. Continues paused processes first.
    pub(crate) fn settle(&self) -> bool {
        let deadline = Instant::now() + SETTLES;
        let mut idle = 0;
        for slot in &self.slots {
            slot.signal(Signal::SIGCONT);
        }
        while idle < 3 {
            let busy = self
                .slots
                .iter()
                .any(|s| s.lives() && s.truth().is_some_and(|t| t.busy));
            idle = if busy { 0 } else { idle + 1 };
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(if busy { 50 } else { 25 }));
        }
        true
    }

    /// Returns the command of a coordinator with this limit of open files.
    pub(crate) fn hello(&self, descriptors: Option<usize>) -> Command {
        let mut command = Command::new(&self.hello);
        if let Some(limit) = descriptors {
            // The shell hands on its limit, and exec keeps its pid.
            command = Command::new("sh");
            command
                .args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")])
                .arg(&self.hello);
        }
        command
            .stdin(Stdio::null())
            .env_remove("HELLO_FLEET")
            .env_remove("HELLO_STATE")
            .current_dir(&self.dir);
        command
    }

    pub(crate) fn write_fleet(&self) -> io::Result<PathBuf> {
        let mut text = "version = 1\n".to_owned();
        for (at, group) in self.plan.groups.iter().enumerate() {
            self.describe(at, group, &mut text)
                .map_err(io::Error::other)?;
        }
        let path = self.dir.join("fleet.toml");
        written(&path, text.as_bytes())?;
        Ok(path)
    }

    fn describe(&self, at: usize, group: &Group, text: &mut String) -> std::fmt::Result {
        let (exe, role) = (
            self.exe(at),
            if group.program == Program::Serve {
                "serve"
            } else {
                "rogue"
            },
        );
        writeln!(
            text,
            "\n[[group]]\nname = \"g{at}\"\nmatch = {{ exe = \"{}\", args = [\"{role}\"] }}",
            exe.display()
        )?;
        writeln!(
            text,
            "config = \"{{arg:--config}}\"\ntimeout = \"{}ms\"",
            group.timeout.as_millis()
        )?;
        if group.program == Program::Foreign {
            writeln!(text, "reloads = true")?;
            if !group.directory {
                writeln!(
                    text,
                    "validate = [\"{{exe}}\", \"check\", \"{{candidate}}\"]"
                )?;
            }
        } else {
            writeln!(text, "kind = \"hello\"")?;
        }
        if group.accepts {
            writeln!(text, "unproven = \"accept\"")?;
        }
        if group.after_first {
            writeln!(text, "after = [\"g0\"]")?;
        }
        if group.program == Program::Foreign && group.confirm.is_empty() {
            writeln!(text, "confirm = []")?;
        }
        for confirm in &group.confirm {
            writeln!(text, "[[group.confirm]]\n{}", fact(*confirm, &exe))?;
        }
        writeln!(
            text,
            "[group.rollout]\nmax_failures = {}\non_failure = \"{}\"",
            group.max_failures, group.on_failure
        )?;
        if let Some(waves) = group.waves {
            writeln!(text, "waves = {waves}")?;
        }
        if !group.bake.is_zero() {
            writeln!(text, "bake = \"{}ms\"", group.bake.as_millis())?;
        }
        if group.gate.is_some() {
            writeln!(
                text,
                "gate = [\"{}\"]",
                self.dir.join(format!("gate-{at}")).display()
            )?;
        }
        Ok(())
    }

    /// Returns every content on a disk of the round: targets and what `hello` keeps.
    pub(crate) fn kept(&self) -> Vec<Vec<u8>> {
        let (mut kept, mut folders) = (Vec::new(), vec![self.state.clone(), self.dir.join("etc")]);
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder)
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path())
            {
                // The file that fills the disk is large and has no content of interest.
                let small = || std::fs::metadata(&path).is_ok_and(|m| m.len() < 1 << 20);
                match path.is_dir() {
                    true => folders.push(path),
                    false => kept.extend(small().then(|| std::fs::read(&path).ok()).flatten()),
                }
            }
        }
        kept
    }

    /// Ends every process of the round.
    pub(crate) fn end(&mut self) {
        for slot in &mut self.slots {
            slot.kill();
        }
        for (pid, started, _) in processes_of(&self.dir) {
            if lives(pid, started) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        for slot in &mut self.slots {
            let _ = slot.child.kill();
            let _ = slot.child.wait();
        }
        if std::mem::take(&mut self.mounted) {
            let _ = Command::new("umount")
                .arg("-l")
                .arg(self.dir.join("etc"))
                .status();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.end();
    }
}

fn fact(confirm: Confirm, exe: &Path) -> String {
    let exe = exe.display();
    match confirm {
        Confirm::Equals => "http = \"http://{listen}/\"\nequals = \"{candidate.message}\"".into(),
        Confirm::Contains => {
            "http = \"http://{listen}/\"\ncontains = \"{candidate.message}\"".into()
        }
        Confirm::Changed => "http = \"http://{listen}/\"\nchanged = true".into(),
        Confirm::Increased => "http = \"http://{listen}/count\"\nincreased = true".into(),
        Confirm::AfterSignal => "http = \"http://{listen}/stamp\"\nafter_signal = true".into(),
        Confirm::Workers => "workers = true\nreplaced = true".into(),
        Confirm::ExecEquals => format!(
            "exec = [\"{exe}\", \"ask\", \"http://{{listen}}/\"]\nequals = \"{{candidate.message}}\""
        ),
        Confirm::ExecChanged => {
            format!("exec = [\"{exe}\", \"ask\", \"http://{{listen}}/\"]\nchanged = true")
        }
        Confirm::Clock => "http = \"http://{listen}/clock\"\nchanged = true".into(),
    }
}

/// Sets mode 0644 regardless of the umask, so that the file is trusted.
pub(crate) fn written(path: &Path, bytes: &[u8]) -> io::Result<()> {
    std::fs::write(path, bytes)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o644))
}

/// Links a program to a second name, or copies it. Another process does so. A child of another
/// round could inherit a descriptor that is open for writing, and the copy could not be executed.
fn linked(program: &Path, name: &Path) -> io::Result<()> {
    if std::fs::hard_link(program, name).is_ok()
        || Command::new("cp")
            .arg(program)
            .arg(name)
            .status()?
            .success()
    {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "cannot copy {}",
        program.display()
    )))
}
