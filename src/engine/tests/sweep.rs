//! Every trouble in every wave, under every budget and everything that may follow.

use super::*;

/// Some of a case's instances, and what becomes of each.
type Fates = Vec<(i32, (Outcome, Outcome))>;

fn fates(case: Case, back: &[Outcome]) -> Vec<Fates> {
    let each = |pid: i32| {
        BAD.into_iter()
            .flat_map(move |f| back.iter().map(move |b| (pid, (f, *b))))
            .collect::<Vec<_>>()
    };
    let mut all: Vec<Fates> = vec![Vec::new()];
    for first in case.pids() {
        all.extend(each(first).into_iter().map(|fate| vec![fate]));
        for second in first + 1..case.pids().end {
            all.extend(
                each(first)
                    .into_iter()
                    .flat_map(|one| each(second).into_iter().map(move |two| vec![one, two])),
            );
        }
    }
    all
}

fn cases() -> impl Iterator<Item = Case> {
    let budgets = [Share::Count(0), Share::Count(1), Share::Part(5_000)];
    let some = (1..=3).flat_map(|waves| [false, true].map(|own| Case { waves, own, ..ONE }));
    some.flat_map(move |case| {
        budgets.into_iter().flat_map(move |budget| {
            THEN.map(|then| Case {
                budget,
                then,
                ..case
            })
        })
    })
}

#[test]
fn every_trouble_in_every_wave_ends_in_its_verdict_and_nothing_is_left_between() {
    let mut runs = 0;
    for case in cases() {
        for fates in fates(case, if case.waves == 3 { &BACK[..2] } else { &BACK }) {
            let ran = case
                .run(|script| script.ends.extend(fates.iter().copied()))
                .hold(|| format!("{fates:?}"));
            let context = || format!("{fates:?}\n{case:?}: {:?} {:?}", ran.said, ran.states());
            let went_on = ran.states().iter().all(|s| *s != Outcome::Untouched);
            if fates.len() <= case.limit() || case.then == OnFailure::Continue {
                assert!(
                    went_on
                        && !ran.told(|e| matches!(
                            e,
                            Event::RollbackBegan { .. } | Event::Stopped { .. }
                        )),
                    "it went on: {}",
                    context()
                );
            }
            // Whoever did not fail, in a wave that was reached, ends on the new config unless
            // everything goes back.
            let reverted = ran.told(|e| matches!(e, Event::RollbackBegan { .. }));
            for i in ran.plan.instances().filter(|i| {
                !fates.iter().any(|(pid, _)| *pid == i.pid) && i.outcome != Outcome::Untouched
            }) {
                assert_eq!(
                    i.outcome,
                    if reverted {
                        Outcome::Reverted
                    } else {
                        Outcome::Confirmed
                    },
                    "{}",
                    context()
                );
            }
            // Whoever failed is where it was, if it could be put back.
            for (pid, (forth, back)) in &fates {
                let i = ran.plan.instances().find(|i| i.pid == *pid).unwrap();
                let stays = ran.case.own || ran.is(&i.targets[0], &OLD);
                match (i.outcome, forth) {
                    (Outcome::Untouched, _) => {}
                    (state, Outcome::Refused) => {
                        assert_eq!(state, Outcome::Refused, "{}", context())
                    }
                    (Outcome::Rejected, Outcome::Rejected) => {
                        assert!(!stays, "its file went back without it: {}", context())
                    }
                    (state, _) => assert_eq!(state, *back, "{}", context()),
                }
            }
            runs += 1;
        }
    }
    assert!(runs > 20_000, "{runs}");
}

#[test]
fn for_an_incident_nothing_goes_back_by_itself() {
    for case in cases().filter(|case| case.waves < 3) {
        let case = Case {
            now: true,
            bake: true,
            gates: true,
            ..case
        };
        for fates in fates(case, &BACK[..1]) {
            let ran = case
                .run(|script| script.ends.extend(fates.iter().copied()))
                .hold(|| format!("{fates:?}"));
            assert!(
                !ran.told(|e| matches!(
                    e,
                    Event::Baking { .. } | Event::Gate { .. } | Event::RolledBack { .. }
                )),
                "{case:?} {fates:?}"
            );
            let installed = ran
                .plan
                .steps()
                .filter(|s| s.instances.iter().any(PlannedInstance::is_touched))
                .all(|s| ran.is(&s.changes[0].path, &NEW));
            assert!(installed, "{case:?} {fates:?}");
        }
    }
}

#[test]
fn without_a_way_back_nobody_is_put_back_and_a_failure_within_the_budget_ends_nothing() {
    for case in cases() {
        let case = Case {
            way_back: false,
            ..case
        };
        for fates in fates(case, &BACK[..1])
            .into_iter()
            .filter(|fates| fates.len() < 2)
        {
            let ran = case
                .run(|script| script.ends.extend(fates.iter().copied()))
                .hold(|| format!("{fates:?}"));
            assert!(
                ran.script.signals.iter().all(|(_, undo)| !undo),
                "{case:?} {fates:?}"
            );
            if fates.len() <= case.limit() {
                assert!(
                    ran.states().iter().all(|s| *s != Outcome::Untouched),
                    "{case:?} {fates:?}"
                );
            }
        }
    }
}

#[test]
fn the_budget_counts_over_the_whole_run() {
    // One in each wave fails: each wave alone would be within it.
    let case = Case {
        waves: 3,
        budget: Share::Count(2),
        ..ONE
    };
    let one_each = |script: &mut ScriptHost| {
        script
            .ends
            .extend([0, 2, 4].map(|pid| (pid, (Outcome::TimedOut, Outcome::Reverted))))
    };
    let ran = case.run(one_each).hold(|| "one each".into());
    assert_eq!(
        (ran.said, ran.states()),
        (Ok(Verdict::Reverted), vec![Outcome::Reverted; 6])
    );
    let ran = Case {
        budget: Share::Count(3),
        ..case
    }
    .run(one_each)
    .hold(|| "one each, borne".into());
    assert_eq!(ran.said, Ok(Verdict::Partial));
    let ran = Case {
        budget: Share::Count(1),
        ..case
    }
    .run(one_each)
    .hold(|| "one each, past it in the second wave".into());
    assert_eq!(
        (ran.said, &ran.states()[4..]),
        (Ok(Verdict::Reverted), &[Outcome::Untouched; 2][..])
    );
}

#[test]
fn who_runs_it_already_is_no_part_that_may_fail() {
    let case = Case {
        waves: 2,
        budget: Share::Part(5_000),
        ..ONE
    };
    let (mut plan, _) = case.begin();
    for member in plan
        .waves
        .iter_mut()
        .flat_map(|w| &mut w.steps)
        .flat_map(|s| &mut s.instances)
        .skip(1)
    {
        member.instance.outcome = Outcome::Unchanged;
    }
    plan.waves[0].steps[0].instances[0].instance.outcome = Outcome::TimedOut;
    assert!(
        Budget::of(&plan).update(&plan).then.is_some(),
        "half of one is nobody"
    );
}

#[test]
fn a_file_that_cannot_be_installed_or_put_back_is_told_and_everything_else_goes_where_it_should() {
    for case in cases().filter(|case| case.own) {
        for (stuck, sides) in case
            .pids()
            .flat_map(|pid| [(true, false), (false, true), (true, true)].map(|sides| (pid, sides)))
        {
            for bad in std::iter::once(None).chain(case.pids().map(Some)) {
                let context = || format!("file of {stuck} is stuck {sides:?}, {bad:?} times out");
                let ran = case.run(|script| {
                    script.stuck.insert(case.path(stuck), sides);
                    script
                        .ends
                        .extend(bad.map(|pid| (pid, (Outcome::TimedOut, Outcome::Reverted))));
                });
                let ran = ran.hold(context);
                // Only who reads it may be left unproven.
                let unproven = ran
                    .plan
                    .instances()
                    .filter(|i| matches!(i.outcome, Outcome::TimedOut | Outcome::RevertFailed));
                assert!(
                    unproven.into_iter().all(|i| i.pid == stuck),
                    "{}\n{case:?} {:?} {:?}",
                    context(),
                    ran.said,
                    ran.states()
                );
            }
        }
    }
}

#[test]
fn a_shared_file_that_is_not_there_again_is_no_good_end() {
    for case in cases().filter(|case| !case.own && case.waves > 1) {
        for bad in case.pids() {
            let ran = case.run(|script| {
                script.once.insert("/c".into());
                script
                    .ends
                    .insert(bad, (Outcome::TimedOut, Outcome::Reverted));
            });
            let ran =
                ran.hold(|| format!("{bad} times out, and the file cannot be installed again"));
            // Who is proven on it reads another by now: the run ends, and says so, unless it takes
            // everybody back.
            let wanted = if case.then == OnFailure::Revert {
                Verdict::Reverted
            } else {
                Verdict::Mixed
            };
            assert_eq!(ran.said, Ok(wanted), "{case:?} {bad}");
        }
    }
}

#[test]
fn a_file_that_was_the_new_one_before_the_run_stays_where_nobody_was_signalled_for_it() {
    // Adopted: everybody runs the old config, and the disk is the new one already.
    for (then, verdict) in [
        (OnFailure::Revert, Verdict::Reverted),
        (OnFailure::Stop, Verdict::Reverted),
        (OnFailure::Continue, Verdict::Partial),
    ] {
        let case = Case {
            waves: 2,
            own: true,
            then,
            ..ONE
        };
        let ran = case.run(|script| {
            script
                .files
                .values_mut()
                .for_each(|file| file.clone_from(&NEW.sha256));
            script
                .ends
                .extend([0, 1].map(|pid| (pid, (Outcome::TimedOut, Outcome::Reverted))));
        });
        let later = if then == OnFailure::Continue {
            Outcome::Confirmed
        } else {
            Outcome::Untouched
        };
        assert_eq!(
            (ran.said, &ran.states()[..2], &ran.states()[2..]),
            (Ok(verdict), &[Outcome::Reverted; 2][..], &[later; 2][..]),
            "{then:?}"
        );
        assert!(
            [0, 1].into_iter().all(|pid| ran.is(&case.path(pid), &OLD))
                && [2, 3].into_iter().all(|pid| ran.is(&case.path(pid), &NEW)),
            "{then:?}"
        );
    }
}
