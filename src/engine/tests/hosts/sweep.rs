//! Every fault of every host at every request, under every budget and every action.

use super::*;

/// The fate of the first instance of a host, or of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    /// It is not the process any more that the survey found.
    Refuses,
    /// It reports that it keeps the old config.
    Invalid,
    InstallFails,
    TimesOut,
    Dies,
    /// It is proven neither on the new config nor on the old one.
    StaysUnproven,
    /// It times out, and its file cannot be rolled back.
    Sticks,
}

const FATES: [Fate; 8] = [
    Fate::Good,
    Fate::Refuses,
    Fate::Invalid,
    Fate::InstallFails,
    Fate::TimesOut,
    Fate::Dies,
    Fate::StaysUnproven,
    Fate::Sticks,
];

/// The most requests of one host in these runs.
const MAX_REQUESTS: usize = 8;

impl Fate {
    fn write(self, place: Place, script: &mut ScriptHost) {
        let ends = match self {
            Self::Good | Self::InstallFails => None,
            Self::Refuses => Some((Outcome::Refused, Outcome::Reverted)),
            Self::Invalid => Some((Outcome::Rejected, Outcome::Reverted)),
            Self::TimesOut | Self::Sticks => Some((Outcome::TimedOut, Outcome::Reverted)),
            Self::Dies => Some((Outcome::Died, Outcome::Died)),
            Self::StaysUnproven => Some((Outcome::TimedOut, Outcome::RevertFailed)),
        };
        script
            .ends
            .extend(ends.map(|ends| (pid_of(place, 0), ends)));
        let stuck = (self == Self::InstallFails, self == Self::Sticks);
        if stuck != (false, false) {
            script.stuck.insert("/c".into(), stuck);
        }
    }
}

/// Returns each fault of one host, with the number of hosts that may be lost untouched.
fn faults() -> impl Iterator<Item = (Option<(Place, usize, Fault)>, usize)> {
    let kinds = [
        (Fault::LostBefore, 0),
        (Fault::LostAfter, 0),
        (Fault::Late, 0),
        (Fault::LostUnsent, 0),
        (Fault::LostUnsent, 1),
        (Fault::LostIdle, 0),
        (Fault::LostIdle, 1),
    ];
    let each = (0..3).flat_map(move |place| {
        (1..=MAX_REQUESTS)
            .flat_map(move |at| kinds.map(move |(fault, reach)| (Some((place, at, fault)), reach)))
    });
    std::iter::once((None, 0)).chain(each)
}

fn sweep(waves: [[usize; 2]; 3], bake: bool) {
    let mut runs = 0;
    let budgets = [0, 1].map(Share::Count);
    for (budget, then) in budgets.into_iter().flat_map(|b| THEN.map(|then| (b, then))) {
        for (fault, reach) in faults() {
            let case = HostsCase {
                waves,
                budget,
                then,
                bake,
                gate: false,
                rounds: None,
                reach,
                fault,
            };
            for (bad, fate) in (0..3).flat_map(|bad| FATES.map(|fate| (bad, fate))) {
                // Without a fate, one host is like another.
                let is_same = fate == Fate::Good && bad > 0;
                // These fates differ from others only in what their own host says.
                let is_idle = matches!(fault, Some((_, _, Fault::LostUnsent | Fault::LostIdle)));
                let is_own = match fate {
                    Fate::Good => false,
                    Fate::Dies | Fate::Refuses => true,
                    _ => is_idle,
                };
                if is_same || (is_own && fault.is_some_and(|(place, _, _)| place != bad)) {
                    continue;
                }
                let ran = case.run(|place, script| {
                    if place == bad {
                        fate.write(place, script);
                    }
                });
                ran.hold(|| format!("{fate:?} on {bad}"));
                runs += 1;
            }
        }
    }
    assert!(runs > 7_000, "{runs}");
}

#[test]
fn hosts_one_by_one_end_as_the_table_of_exit_codes_says() {
    sweep(ONE_BY_ONE.waves, false);
}

#[test]
fn hosts_at_once_end_as_the_table_of_exit_codes_says() {
    sweep([[1, 1], [1, 1], [1, 1]], true);
}

#[test]
fn hosts_that_are_in_several_waves_end_as_the_table_of_exit_codes_says() {
    sweep([[1, 2], [2, 2], [2, 3]], true);
}
