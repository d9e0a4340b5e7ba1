//! An interrupt, and a journal that fails, at every event of a run.

use super::*;
use crate::event::Direction;

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

/// No instance times out, or one of them does, whether or not it can be rolled back.
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
fn an_interrupt_at_every_event_ends_as_the_group_says() {
    for case in cases() {
        for fate in fates(case) {
            let all = case.run(write(fate)).events.len();
            for at in 0..all {
                let ran = case
                    .run_with(write(fate), |n, _| (u8::from(n == at), true))
                    .hold(|| format!("interrupted at event {at}, {fate:?}"));
                let context = || {
                    format!(
                        "interrupted at event {at}, {fate:?}\n{case:?}: {:?} {:?}\n{:#?}",
                        ran.verdict,
                        ran.outcomes(),
                        ran.events
                    )
                };
                let undoes = |e: &Event| {
                    matches!(
                        e,
                        Event::RollbackBegan { .. }
                            | Event::RolledBack { .. }
                            | Event::Intent {
                                direction: Direction::Back,
                                ..
                            }
                    )
                };
                // A rollback goes on after one interrupt. Before it, no new signal is sent.
                let forth = ran.events[at..].iter().skip(1).any(is_forward_intent);
                assert!(!forth, "{}", context());
                let goes_back = ran.events[at..].iter().any(undoes);
                if case.now {
                    assert!(!goes_back, "{}", context());
                }
                if fate.is_none()
                    && case.then == OnFailure::Revert
                    && !case.now
                    && ran.verdict.is_ok()
                {
                    assert!(
                        matches!(ran.verdict, Ok(Verdict::Reverted | Verdict::Converged)),
                        "{}",
                        context()
                    );
                }
                if fate.is_none() && ran.verdict == Ok(Verdict::Mixed) {
                    assert!(
                        case.now && ran.outcomes().contains(&Outcome::TimedOut),
                        "an instance that was not waited for can be rolled back: {}",
                        context()
                    );
                }
            }
        }
    }
}

#[test]
fn the_second_interrupt_leaves_at_once_with_true_outcomes() {
    for case in cases().filter(|case| case.waves == 2) {
        for fate in fates(case) {
            let all = case.run(write(fate)).events.len();
            for first in 0..all {
                let once = case
                    .run_with(write(fate), |n, _| (u8::from(n == first), true))
                    .events
                    .len();
                for second in first..once {
                    let sent = |n: usize| u8::from(n == first) + u8::from(n == second);
                    let ran = case
                        .run_with(write(fate), |n, _| (sent(n), true))
                        .hold(|| format!("interrupted at events {first} and {second}, {fate:?}"));
                    let context = || {
                        format!(
                            "interrupted at events {first} and {second}, {fate:?}\n{case:?}: \
                             {:?}\n{:#?}",
                            ran.verdict, ran.events
                        )
                    };
                    let begun = ran.events[second..]
                        .iter()
                        .skip(1)
                        .any(|e| matches!(e, Event::Intent { pids, .. } if !pids.is_empty()));
                    assert!(
                        !begun,
                        "nothing is waited for, and nothing is begun: {}",
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
fn a_journal_that_fails_at_any_event_is_an_interrupt() {
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
                        ran.verdict,
                        ran.outcomes(),
                        ran.events
                    )
                };
                let forth = ran.events[at..].iter().skip(1).any(is_forward_intent);
                assert!(!forth, "{}", context());
                // Nothing is touched after the final check.
                assert!(
                    ran.verdict != Ok(Verdict::Converged)
                        || matches!(ran.events[at], Event::FinalCheck),
                    "{}",
                    context()
                );
                let went_on = ran.events[at..]
                    .iter()
                    .skip(1)
                    .any(|e| matches!(e, Event::Baking { .. } | Event::Gate { .. }));
                assert!(
                    !went_on,
                    "no bake and no gate without a journal: {}",
                    context()
                );
            }
        }
    }
}

fn is_forward_intent(event: &Event) -> bool {
    let Event::Intent {
        direction, pids, ..
    } = event
    else {
        return false;
    };
    !direction.is_back() && !pids.is_empty()
}
