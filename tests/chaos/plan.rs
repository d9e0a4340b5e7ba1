//! The plan of a round: fleet, commands and faults, all derived from one seed.

use std::time::Duration;

use crate::{mode::Mode, random::Random};

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) groups: Vec<Group>,
    pub(crate) storage: Storage,
    pub(crate) commands: Vec<Step>,
}

/// The place of the targets and of the state folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// In the temporary folder.
    Disk,
    /// The targets on a small filesystem of their own, which can become full.
    Small,
    /// The state folder on it as well.
    SmallWithState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `hello serve`.
    Serve,
    /// A rogue with the interface of `hello serve`.
    Speaks,
    /// A rogue that `fleet.toml` confirms by assertions.
    Foreign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confirm {
    Equals,
    Contains,
    Changed,
    Increased,
    AfterSignal,
    Workers,
    ExecEquals,
    ExecChanged,
    /// An assertion over an answer that changes by itself.
    Clock,
}

#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) mode: Mode,
    pub(crate) slow: Duration,
    /// Whether others may listen on its port.
    pub(crate) reuseport: bool,
    /// The index of the group's target that it reads.
    pub(crate) target: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) program: Program,
    pub(crate) members: Vec<Member>,
    pub(crate) targets: usize,
    pub(crate) directory: bool,
    /// The assertions. Empty if nothing can be observed, or if the kind has its own.
    pub(crate) confirm: Vec<Confirm>,
    pub(crate) timeout: Duration,
    pub(crate) waves: Option<&'static str>,
    pub(crate) max_failures: usize,
    pub(crate) on_failure: &'static str,
    pub(crate) bake: Duration,
    /// The duration of the gate, and its exit code.
    pub(crate) gate: Option<(Duration, u8)>,
    pub(crate) after_first: bool,
    /// Whether an unproven instance counts as a proven one.
    pub(crate) accepts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Config,
    /// Other bytes with the same message.
    Comment,
    /// The bytes that are on the disk already.
    Same,
    Set,
    /// The targets are written first, and adopted.
    Adopt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Broadcast(Change),
    Status,
    Resume,
    Revert,
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) verb: Verb,
    pub(crate) flags: Vec<&'static str>,
    /// A word in the new message besides its number. Some rogues reject a word.
    pub(crate) word: &'static str,
    /// Changes only the first group if there are more.
    pub(crate) first_group_only: bool,
    pub(crate) faults: Vec<Fault>,
    /// The delay of a second, concurrent broadcast.
    pub(crate) twin: Option<Duration>,
    /// The limit of open files of the coordinator.
    pub(crate) descriptors: Option<usize>,
    /// Gives the first of several groups the bytes that it already has.
    pub(crate) first_group_stays: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) when: When,
    pub(crate) then: Duration,
    pub(crate) what: What,
}

/// The condition that a fault waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Start,
    /// A staged file exists beside a target.
    Staged,
    /// A target has another inode than before.
    Installed,
    /// A gate runs.
    Gate,
    /// The journal has an event of this name.
    Event(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    InPlace,
    Rename,
    /// Writes through a descriptor from before the command.
    Descriptor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Kill(usize),
    Restart(usize),
    Pause(usize, Duration),
    Hangup(usize),
    /// The instance is killed, and another program takes its port.
    Steal(usize),
    /// Another program listens on the instance's port as well.
    Share(usize),
    Write(usize, Write),
    Chmod(usize),
    Chown(usize),
    Immutable(usize),
    Fill,
    CoordinatorKill,
    CoordinatorPause(Duration),
    Interrupt(usize),
    CoordinatorHangup,
}

impl What {
    pub(crate) fn name(self) -> String {
        let text = format!("{self:?}");
        match self {
            Self::Write(_, how) => format!("Write{how:?}"),
            _ => text.split('(').next().unwrap_or_default().to_owned(),
        }
    }
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let many = if random.chance(30) { 2 } else { 1 };
        let groups: Vec<Group> = (0..many).map(|at| group(random, at)).collect();
        let storage = random.weighted(&[
            (75, Storage::Disk),
            (15, Storage::Small),
            (10, Storage::SmallWithState),
        ]);
        let storage = if groups.iter().any(|g| g.directory) && !nix::unistd::getuid().is_root() {
            Storage::Disk
        } else {
            storage
        };
        let first = change(random, &groups);
        let mut commands = vec![step(random, Verb::Broadcast(first), &groups, storage)];
        for _ in 0..random.below(3) {
            let next = change(random, &groups);
            let verb = random.weighted(&[
                (30, Verb::Broadcast(next)),
                (20, Verb::Resume),
                (30, Verb::Revert),
                (20, Verb::Status),
            ]);
            commands.push(step(random, verb, &groups, storage));
        }
        Self {
            seed,
            groups,
            storage,
            commands,
        }
    }
}

fn change(random: &mut Random, groups: &[Group]) -> Change {
    match random.below(100) {
        ..15 => Change::Comment,
        15..30 => Change::Adopt,
        30..45 if !groups.iter().any(|g| g.directory) => Change::Set,
        _ => Change::Config,
    }
}

fn group(random: &mut Random, at: usize) -> Group {
    let program = random.weighted(&[
        (30, Program::Serve),
        (20, Program::Speaks),
        (50, Program::Foreign),
    ]);
    let timeout = random.millis(500, 1200);
    let count = random.between(1, if at == 0 { 4 } else { 2 });
    let bad = match program {
        Program::Serve => Mode::Good,
        Program::Speaks => random.pick(&[
            Mode::Good,
            Mode::SlowEarly,
            Mode::SlowLate,
            Mode::SlowDrop,
            Mode::Liar,
            Mode::Tells,
            Mode::Reexec,
            Mode::Dies,
        ]),
        Program::Foreign => {
            let slow = [Mode::SlowEarly, Mode::SlowLate, Mode::SlowDrop];
            // Half of the rounds have a rogue that easily deceives a coordinator.
            if random.chance(50) {
                random.pick(&Mode::ALL)
            } else {
                random.weighted(&[
                    (40, random.clone().pick(&slow)),
                    (30, Mode::Blank),
                    (20, Mode::KeepsWorker),
                    (10, Mode::Dies),
                ])
            }
        }
    };
    let family = bad.has_workers() || bad == Mode::Helper;
    let directory = program == Program::Foreign && random.chance(15);
    let targets = if random.chance(60) || directory {
        1
    } else {
        count
    };
    let longest = usize::try_from(timeout.as_millis()).unwrap_or(500) * 3;
    let members = (0..count)
        .map(|i| Member {
            mode: if random.chance(60) || (family && i == 0) {
                bad
            } else {
                if family { Mode::Workers } else { Mode::Good }
            },
            slow: random.millis(50, longest),
            reuseport: program != Program::Serve && random.chance(30),
            target: i % targets,
        })
        .collect();
    let confirm = if program == Program::Foreign {
        confirm(random, bad, directory)
    } else {
        Vec::new()
    };
    Group {
        program,
        members,
        targets,
        directory,
        confirm,
        timeout,
        waves: random.pick(&[
            None,
            None,
            Some("[\"1\", \"50%\", \"100%\"]"),
            Some("[\"100%\"]"),
            Some("[\"50%\"]"),
        ]),
        max_failures: if random.chance(40) {
            random.between(1, 2)
        } else {
            0
        },
        on_failure: random.weighted(&[(60, "revert"), (20, "stop"), (20, "continue")]),
        bake: if random.chance(45) {
            random.millis(100, 900)
        } else {
            Duration::ZERO
        },
        gate: random
            .chance(50)
            .then(|| (random.millis(50, 700), u8::from(random.chance(20)))),
        after_first: at > 0 && random.chance(30),
        accepts: random.chance(25),
    }
}

/// Returns the assertions for a program of that kind. A liar's counter and stamp say nothing, so
/// its answer is probed.
fn confirm(random: &mut Random, bad: Mode, directory: bool) -> Vec<Confirm> {
    if random.chance(12) {
        return Vec::new();
    }
    if bad.has_workers() || bad == Mode::Helper {
        return if random.chance(70) {
            vec![Confirm::Workers]
        } else {
            vec![Confirm::Equals]
        };
    }
    let mut all = vec![(20, Confirm::Changed), (10, Confirm::ExecChanged)];
    if !directory && bad != Mode::Blank {
        all.extend([
            (30, Confirm::Equals),
            (10, Confirm::Contains),
            (10, Confirm::ExecEquals),
        ]);
    }
    if bad != Mode::Liar {
        all.extend([
            (15, Confirm::Increased),
            (15, Confirm::AfterSignal),
            (5, Confirm::Clock),
        ]);
    }
    let mut chosen = vec![random.weighted(&all)];
    if random.chance(25) {
        chosen.push(random.weighted(&all));
        chosen.dedup();
    }
    chosen
}

fn step(random: &mut Random, verb: Verb, groups: &[Group], storage: Storage) -> Step {
    let mut flags = Vec::new();
    if verb != Verb::Status {
        for (percent, flag) in [
            (6, "--now"),
            (12, "--include-unresponsive"),
            (6, "--dry-run"),
            (15, "--validate=off"),
        ] {
            let fits = matches!(verb, Verb::Broadcast(_)) || flag != "--now";
            if fits && random.chance(percent) {
                flags.push(flag);
            }
        }
        if matches!(verb, Verb::Broadcast(Change::Config | Change::Comment)) && random.chance(60) {
            flags.push("--overwrite");
        }
    }
    let many = random.weighted(&[(15, 0), (40, 1), (30, 2), (15, 3)]);
    let faults = if verb == Verb::Status {
        Vec::new()
    } else {
        (0..many).map(|_| fault(random, groups, storage)).collect()
    };
    Step {
        verb,
        flags,
        word: random.weighted(&[(60, ""), (20, "odd"), (15, "bad"), (5, "invalid")]),
        first_group_only: random.chance(25),
        faults,
        twin: (verb != Verb::Status && random.chance(8)).then(|| random.millis(0, 400)),
        descriptors: (verb != Verb::Status && random.chance(6)).then(|| {
            if random.chance(40) {
                random.between(8, 40)
            } else {
                random.between(250, 270)
            }
        }),
        first_group_stays: random.chance(25),
    }
}

fn fault(random: &mut Random, groups: &[Group], storage: Storage) -> Fault {
    let slots: Vec<&Member> = groups.iter().flat_map(|g| &g.members).collect();
    let slot = random.below(slots.len());
    let target = random.below(groups.iter().map(|g| g.targets).sum());
    let how = random.pick(&[Write::InPlace, Write::Rename, Write::Descriptor]);
    let mut all = vec![
        (14, What::Kill(slot)),
        (7, What::Restart(slot)),
        (9, What::Pause(slot, random.millis(100, 2500))),
        (8, What::Hangup(slot)),
        (5, What::Steal(slot)),
        (14, What::Write(target, how)),
        (5, What::Chmod(target)),
        (12, What::CoordinatorKill),
        (6, What::CoordinatorPause(random.millis(50, 1500))),
        (8, What::Interrupt(random.between(1, 2))),
        (2, What::CoordinatorHangup),
    ];
    if slots[slot].reuseport {
        all.push((12, What::Share(slot)));
    }
    if nix::unistd::getuid().is_root() {
        all.extend([(3, What::Chown(target)), (5, What::Immutable(target))]);
        if storage != Storage::Disk {
            all.push((40, What::Fill));
        }
    }
    let mut facts = vec![
        (25, When::Start),
        (14, When::Staged),
        (18, When::Installed),
        (6, When::Event("intent")),
        (8, When::Event("instance")),
    ];
    if groups.iter().any(|g| g.gate.is_some()) {
        facts.push((18, When::Gate));
    }
    if groups.iter().any(|g| !g.bake.is_zero()) {
        facts.push((12, When::Event("baking")));
    }
    if groups.iter().any(|g| g.program != Program::Serve) {
        facts.extend([
            (6, When::Event("rollback_began")),
            (6, When::Event("rolled_back")),
        ]);
    }
    let when = random.weighted(&facts);
    let then = match when {
        When::Start => random.millis(0, 600),
        _ if random.chance(50) => random.millis(0, 10),
        _ => random.millis(0, 300),
    };
    Fault {
        when,
        then,
        what: random.weighted(&all),
    }
}
