//! The matrix: each fault in each phase of a run, with real agents.

use super::{
    check::{self, NEW, OLD},
    end::{Verb, end_everything, judge_run, settle, story},
    evidence::Evidence,
    fault::{FAULTS, Fault, PHASES, Phase, Side, TIMER},
    has_namespaces,
};
use crate::{
    hosts::bed::Bed,
    support::{CommandEnd, run_to_end},
};

/// The hosts of each cell, with one server each.
const HOSTS: usize = 3;

/// The lease of each host.
const LEASE: &str = "4s";
/// The lease of each host in a run whose timer is armed.
const SHORT_LEASE: &str = "2s";

/// The silence of hosts whose links are down for longer than a timer: they are not lost meanwhile.
const LONG_SILENCE: &str = "5s";

#[derive(Debug, Clone, Copy)]
struct Cell {
    fault: Fault,
    phase: Phase,
    side: Side,
}

/// How the run of a cell ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// As it would without the fault, and no instance is signalled twice.
    Same,
    /// By one of these exit codes.
    Exit(&'static [i32]),
    /// By the signal.
    Killed,
    /// By any exit code that the outcomes make.
    Any,
}

impl Cell {
    /// Returns how the run of the cell must end.
    fn expected(self) -> End {
        let is_progress = self.phase.place(self.side).is_progress();
        match self.fault {
            Fault::CoordinatorKilled | Fault::ArmedCoordinatorKilled => End::Killed,
            Fault::CutBack
            | Fault::HalfOpenBack
            | Fault::DownBack
            | Fault::Silent
            | Fault::Dropped
            | Fault::Doubled
            | Fault::Late
            | Fault::Reordered
            | Fault::Garbled
            | Fault::Long
            | Fault::AgentKilled => End::Same,
            Fault::CoordinatorPaused => End::Any,
            Fault::Unknown if is_progress || self.side == Side::Second => End::Same,
            Fault::StateFull => self.full(),
            Fault::Unknown => match self.phase {
                Phase::Survey | Phase::Plan => End::Exit(&[5]),
                _ => self.lost(),
            },
            Fault::ArmedDown if !self.is_armed_there() || self.is_finished_there() => End::Same,
            fault if fault.is_armed() && self.phase == Phase::Finish => End::Exit(&[7]),
            _ => self.lost(),
        }
    }

    /// Returns true if the host has begun a commit when the fault comes.
    fn is_armed_there(self) -> bool {
        match self.phase {
            Phase::Survey | Phase::Plan => false,
            Phase::BeforeInstall => self.side == Side::Second,
            _ => true,
        }
    }

    /// Returns true if the host has recorded the end of the run when the fault comes.
    fn is_finished_there(self) -> bool {
        self.phase == Phase::Finish && self.side == Side::Second
    }

    /// Returns how a run ends that loses the host in this phase.
    fn lost(self) -> End {
        match self.phase {
            Phase::Survey | Phase::Plan => End::Exit(&[11]),
            // The verdict stands, and the run stays open on the host.
            Phase::Finish => End::Exit(&[0]),
            _ => End::Exit(&[7]),
        }
    }

    /// Returns how a run ends whose host cannot write its journal.
    fn full(self) -> End {
        match self.phase {
            Phase::Survey => End::Exit(&[1]),
            Phase::Plan if self.side == Side::First => End::Exit(&[1]),
            // After the last check nothing is touched. The host cannot record the end.
            Phase::Finish if self.side == Side::Second => End::Exit(&[0]),
            Phase::Conclude | Phase::Finish => End::Exit(&[8]),
            Phase::BetweenWaves | Phase::Rollback => End::Exit(&[6]),
            // The answer to a commit says whether the journal took it.
            Phase::Plan | Phase::BeforeInstall if !self.phase.place(self.side).is_progress() => {
                End::Exit(&[6])
            }
            // The commit may be over before the directory is full, or the journal may have got a page
            // that takes its end.
            _ => End::Exit(&[0, 6, 8]),
        }
    }

    /// Returns the signals that each host has acted on if the run ends as without the fault.
    fn signals(self) -> [u64; HOSTS] {
        match self.phase {
            // The first wave is committed and rolled back.
            Phase::Rollback => [2, 0, 0],
            _ => [1; HOSTS],
        }
    }

    fn bed(self) -> Bed {
        let bed = if self.fault.needs_namespaces() {
            Bed::start_in_namespaces(HOSTS)
        } else {
            Bed::start(&[1; HOSTS])
        };
        bed.fleet(self.phase.rollout());
        bed.lease(if self.fault.is_armed() {
            SHORT_LEASE
        } else {
            LEASE
        });
        if self.fault == Fault::ArmedDown {
            bed.silence(LONG_SILENCE);
        }
        let place = self.phase.place(self.side);
        bed.between(place.host, &[self.fault.rule(&bed, place)]);
        bed
    }

    /// Returns the command that ends what the cell has left: each in half of the cells. A run that a
    /// timer has rolled back on a host cannot be resumed there.
    fn verb(self) -> Verb {
        match self.side {
            Side::First if !self.fault.is_armed() => Verb::Resume,
            _ => Verb::Revert,
        }
    }

    fn broadcast(self, bed: &Bed) -> CommandEnd {
        let set = format!("message={NEW}");
        let mut args = vec!["broadcast", "--set", &set];
        if self.fault.is_armed() {
            args.extend(["--commit-confirmed", TIMER]);
        }
        run_to_end(&mut bed.command(&args))
    }

    /// Starts what a unit starts on a host whose agent has ended, and checks what became of timers.
    fn check_timers(self, bed: &Bed, host: usize) -> Vec<String> {
        if !self.fault.is_armed() {
            return Vec::new();
        }
        let mut faults = Vec::new();
        let is_killed = self.fault.ends_the_agent();
        if is_killed {
            let end = run_to_end(&mut bed.agent_command(host, &["--resume-armed"]));
            if end.code != Some(0) {
                let CommandEnd { code, stderr, .. } = end;
                faults.push(format!("--resume-armed ends with {code:?}: {stderr}"));
            }
        }
        faults.extend(check::timers(&Evidence::all(bed), is_killed));
        faults
    }

    /// Runs the cell. Returns what is wrong, with everything that explains it.
    fn run(self) -> Result<(), String> {
        let mut bed = self.bed();
        let before = Evidence::all(&bed);
        let end = self.broadcast(&bed);
        let host = self.phase.place(self.side).host;
        let mut faults = Vec::new();
        if bed.acts(host).is_empty() {
            faults.push("the fault did not happen".to_owned());
        }
        let full = (self.fault == Fault::StateFull).then_some(host);
        let is_same = self.expected() == End::Same;
        faults.extend(self.judge(end.code));
        if self.fault.reboots() {
            settle(&bed);
            bed.reboot(host);
        }
        let ended = (self.fault.ends_the_agent(), full);
        let settled = judge_run(&bed, (&end, &before), ended, &mut faults);
        faults.extend(self.check_timers(&bed, host));
        if is_same {
            faults.extend(check::signals(&self.signals(), &settled));
            let message = if self.phase == Phase::Rollback {
                OLD
            } else {
                NEW
            };
            faults.extend(check::ended(message, &bed.open_here(), &settled));
        }
        if self.fault == Fault::StateFull {
            bed.mounts(host).empty();
        }
        // The gate of the rollback would refuse the resume as well.
        bed.fleet(Phase::Survey.rollout());
        faults.extend(end_everything(&bed, self.verb(), full));
        if faults.is_empty() {
            return Ok(());
        }
        let faults = faults.join("\n");
        Err(format!("{self:?}\n{faults}\n{}", story(&bed, &end)))
    }

    fn judge(self, code: Option<i32>) -> Option<String> {
        let fits = match (self.expected(), code) {
            (End::Same, Some(code)) => code == if self.phase == Phase::Rollback { 6 } else { 0 },
            (End::Exit(codes), Some(code)) => codes.contains(&code),
            (End::Killed, None) | (End::Any, Some(_)) => true,
            _ => false,
        };
        (!fits).then(|| format!("it ends with {code:?}, not {:?}", self.expected()))
    }
}

/// Returns the cells of a fault: two, or all in a full test. Those of all faults have every phase.
/// An armed host takes longer, so one cell is enough.
fn cells(fault: Fault) -> Vec<Cell> {
    let sides = [Side::First, Side::Second];
    let all = PHASES.iter().flat_map(|phase| {
        sides.map(|side| Cell {
            fault,
            phase: *phase,
            side,
        })
    });
    let all: Vec<Cell> = all.collect();
    if std::env::var_os("HELLO_TEST_FULL").is_some() {
        return all;
    }
    let number = FAULTS.iter().position(|one| *one == fault).unwrap();
    let count = if fault.is_armed() { 1 } else { 2 };
    [number * 2 + 5, number * 5 + 12]
        .iter()
        .take(count)
        .map(|number| all[number % all.len()])
        .collect()
}

fn try_fault(fault: Fault) {
    if fault.needs_namespaces() && !has_namespaces(&["--mount"]) {
        return;
    }
    let failed: Vec<String> = cells(fault)
        .into_iter()
        .filter_map(|cell| {
            eprintln!("{cell:?}");
            cell.run().err()
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn the_sample_has_every_phase() {
    let phases: Vec<Phase> = FAULTS
        .iter()
        .flat_map(|fault| cells(*fault))
        .map(|cell| cell.phase)
        .collect();
    let missing: Vec<&Phase> = PHASES.iter().filter(|p| !phases.contains(p)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Declares the test of each fault.
macro_rules! faults {
    ($($name:ident: $fault:ident,)*) => {
        $(
            #[test]
            fn $name() {
                try_fault(Fault::$fault);
            }
        )*

        #[test]
        fn every_fault_has_a_test() {
            let tried = [$(Fault::$fault),*];
            assert_eq!(tried, FAULTS);
        }
    };
}

faults! {
    a_cut_in_any_phase: CutBack,
    a_half_open_connection_in_any_phase: HalfOpenBack,
    a_link_that_is_down_for_a_moment_in_any_phase: DownBack,
    a_cut_for_good_in_any_phase: CutForGood,
    a_killed_agent_in_any_phase: AgentKilled,
    a_killed_agent_without_a_new_one_in_any_phase: AgentKilledForGood,
    a_reboot_of_a_host_in_any_phase: Rebooted,
    a_killed_coordinator_in_any_phase: CoordinatorKilled,
    a_stopped_coordinator_in_any_phase: CoordinatorPaused,
    a_full_state_directory_of_a_host_in_any_phase: StateFull,
    a_silent_connection_in_any_phase: Silent,
    a_lost_line_in_any_phase: Dropped,
    a_doubled_line_in_any_phase: Doubled,
    a_late_line_in_any_phase: Late,
    a_line_behind_the_next_one_in_any_phase: Reordered,
    a_garbled_line_in_any_phase: Garbled,
    a_line_of_two_mebibytes_in_any_phase: Long,
    an_unknown_word_in_any_phase: Unknown,
    a_cut_for_good_of_an_armed_host_in_any_phase: ArmedCutForGood,
    a_link_that_is_down_for_longer_than_the_timer_in_any_phase: ArmedDown,
    a_killed_coordinator_of_armed_hosts_in_any_phase: ArmedCoordinatorKilled,
    a_killed_agent_of_an_armed_host_in_any_phase: ArmedAgentKilledForGood,
    a_reboot_of_an_armed_host_in_any_phase: ArmedRebooted,
}
