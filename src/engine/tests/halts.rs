//! The operator's halt, and a journal that is lost, at every event of a run.

use super::*;

fn cases() -> impl Iterator<Item = Case> {
    let some = (1..=3).flat_map(|waves| {
        [false, true].map(|own| Case {
            waves,
            own,
            bake: true,
            gates: true,
            ..ONE
        })
    });
    let some = some.flat_map(|case| {
        [
            case,
            Case {
                bake: false,
                gates: false,
                ..case
            },
            Case { now: true, ..case },
        ]
    });
    some.flat_map(|case| {
        [Share::Count(0), Share::Count(1)]
            .into_iter()
            .flat_map(move |budget| {
                THEN.map(|then| Case {
                    budget,
                    then,
                    ..case
                })
            })
    })
}

/// Nobody, or each alone, times out, whether it can be put back or not.
fn fates(case: Case) -> impl Iterator<Item = Option<(i32, Outcome)>> {
    std::iter::once(None).chain(case.pids().flat_map(|pid| {
        [
            Some((pid, Outcome::Reverted)),
            Some((pid, Outcome::RevertFailed)),
        ]
    }))
}

fn write(fate: Option<(i32, Outcome)>) -> impl FnOnce(&mut ScriptHost) {
    move |script| {
        script
            .ends
            .extend(fate.map(|(pid, back)| (pid, (Outcome::TimedOut, back))))
    }
}

#[test]
fn a_halt_at_every_event_ends_as_the_group_says() {
    for case in cases() {
        for fate in fates(case) {
            let all = case.run(write(fate)).events.len();
            for at in 0..all {
                let ran = case
                    .run_with(write(fate), |n, _| (u8::from(n == at), true))
                    .hold(|| format!("halted at event {at}, {fate:?}"));
                let context = || {
                    format!(
                        "halted at event {at}, {fate:?}\n{case:?}: {:?} {:?}\n{:#?}",
                        ran.said,
                        ran.states(),
                        ran.events
                    )
                };
                let undoes = |e: &Event| {
                    matches!(
                        e,
                        Event::RollbackBegan { .. }
                            | Event::RolledBack { .. }
                            | Event::Intent { undo: true, .. }
                    )
                };
                // During an undo it is only acknowledged; before it, no new signal is sent.
                let forth = ran.events[at..].iter().skip(1).any(
                    |e| matches!(e, Event::Intent { undo: false, pids, .. } if !pids.is_empty()),
                );
                assert!(!forth, "{}", context());
                let goes_back = ran.events[at..].iter().any(undoes);
                if case.now {
                    assert!(!goes_back, "{}", context());
                }
                if fate.is_none() && case.then == OnFailure::Revert && !case.now && ran.said.is_ok()
                {
                    assert!(
                        matches!(ran.said, Ok(Verdict::Reverted | Verdict::Converged)),
                        "{}",
                        context()
                    );
                }
                if fate.is_none() && ran.said == Ok(Verdict::Mixed) {
                    assert!(
                        case.now && ran.states().contains(&Outcome::TimedOut),
                        "whoever was not waited for can be put back: {}",
                        context()
                    );
                }
            }
        }
    }
}

#[test]
fn the_second_halt_leaves_at_once_and_what_is_told_is_so() {
    for case in cases().filter(|case| case.waves == 2) {
        for fate in fates(case) {
            let all = case.run(write(fate)).events.len();
            for first in 0..all {
                let once = case
                    .run_with(write(fate), |n, _| (u8::from(n == first), true))
                    .events
                    .len();
                for second in first..once {
                    let halts = |n: usize| u8::from(n == first) + u8::from(n == second);
                    let ran = case
                        .run_with(write(fate), |n, _| (halts(n), true))
                        .hold(|| format!("halted at events {first} and {second}, {fate:?}"));
                    let context = || {
                        format!(
                            "halted at events {first} and {second}, {fate:?}\n{case:?}: \
                             {:?}\n{:#?}",
                            ran.said, ran.events
                        )
                    };
                    let begun = ran.events[second..]
                        .iter()
                        .skip(1)
                        .any(|e| matches!(e, Event::Intent { pids, .. } if !pids.is_empty()));
                    assert!(
                        !begun,
                        "whatever runs then is not waited for, and nothing is begun: {}",
                        context()
                    );
                    let goes_back = ran.events[second..].iter().skip(1).any(|e| {
                        matches!(e, Event::RolledBack { .. } | Event::RollbackBegan { .. })
                    });
                    assert!(!goes_back, "{}", context());
                }
            }
        }
    }
}

#[test]
fn a_journal_that_is_lost_is_a_halt_wherever_it_is_lost() {
    for case in cases() {
        for fate in fates(case) {
            let all = case.run(write(fate)).events.len();
            for (at, for_good) in (0..all).flat_map(|at| [(at, true), (at, false)]) {
                let lost = |n: usize| if for_good { n >= at } else { n == at };
                let ran = case
                    .run_with(write(fate), |n, _| (0, !lost(n)))
                    .hold(|| format!("lost at event {at}, {fate:?}"));
                let context = || {
                    format!(
                        "lost at event {at} {for_good}, {fate:?}\n{case:?}: {:?} {:?}\n{:#?}",
                        ran.said,
                        ran.states(),
                        ran.events
                    )
                };
                let forth = ran.events[at..].iter().skip(1).any(
                    |e| matches!(e, Event::Intent { undo: false, pids, .. } if !pids.is_empty()),
                );
                assert!(!forth, "{}", context());
                // Nothing is touched after the last look.
                assert!(
                    ran.said != Ok(Verdict::Converged)
                        || matches!(ran.events[at], Event::FinalCheck),
                    "{}",
                    context()
                );
                let judged = ran.events[at..]
                    .iter()
                    .skip(1)
                    .any(|e| matches!(e, Event::Baking { .. } | Event::Gate { .. }));
                assert!(
                    !judged,
                    "nobody waits for what cannot be kept: {}",
                    context()
                );
            }
        }
    }
}
