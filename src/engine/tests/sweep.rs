//! Every failure in every wave, under every budget and every action.

use super::*;

/// Some instances of a case, and their outcomes before and after a rollback.
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
                    .flat_map(|a| each(second).into_iter().map(move |b| vec![a, b])),
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
fn every_failure_in_every_wave_ends_in_its_verdict() {
    let mut runs = 0;
    for case in cases() {
        for fates in fates(case, if case.waves == 3 { &BACK[..2] } else { &BACK }) {
            let ran = case
                .run(|script| script.ends.extend(fates.iter().copied()))
                .hold(|| format!("{fates:?}"));
            let context = format!(
                "{fates:?}\n{case:?}: {:?} {:?}",
                ran.verdict,
                ran.outcomes()
            );
            if fates.len() <= case.limit() || case.then == OnFailure::Continue {
                assert_went_on(&ran, &context);
            }
            assert_outcomes(&ran, &fates, &context);
            runs += 1;
        }
    }
    assert!(runs > 20_000, "{runs}");
}

fn assert_went_on(ran: &Ran, context: &str) {
    assert!(
        ran.outcomes().iter().all(|o| *o != Outcome::Untouched),
        "an instance is untouched: {context}"
    );
    let stops = |e: &Event| matches!(e, Event::RollbackBegan { .. } | Event::Stopped { .. });
    assert!(!ran.has_event(stops), "it stopped: {context}");
}

fn assert_outcomes(ran: &Ran, fates: &Fates, context: &str) {
    let reverted = ran.has_event(|e| matches!(e, Event::RollbackBegan { .. }));
    let good = if reverted {
        Outcome::Reverted
    } else {
        Outcome::Confirmed
    };
    for i in ran.plan.instances() {
        let fate = fates.iter().find(|(pid, _)| *pid == i.pid);
        let old_file = ran.case.own || ran.has_on_disk(&i.targets[0], &OLD);
        match (i.outcome, fate) {
            (Outcome::Untouched, _) => {}
            // An instance of a begun wave that did not fail ends on the new config, unless
            // everything is rolled back.
            (outcome, None) => assert_eq!(outcome, good, "{context}"),
            (outcome, Some((_, (Outcome::Refused, _)))) => {
                assert_eq!(outcome, Outcome::Refused, "{context}");
            }
            (Outcome::Rejected, Some((_, (Outcome::Rejected, _)))) => {
                assert!(!old_file, "its file was rolled back without it: {context}");
            }
            // An instance that failed is rolled back where that is possible.
            (outcome, Some((_, (_, back)))) => assert_eq!(outcome, *back, "{context}"),
        }
    }
}

#[test]
fn with_now_nothing_is_rolled_back() {
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
                !ran.has_event(|e| matches!(
                    e,
                    Event::Baking { .. } | Event::Gate { .. } | Event::RolledBack { .. }
                )),
                "{case:?} {fates:?}"
            );
            let installed = ran
                .plan
                .steps()
                .filter(|s| s.instances.iter().any(PlannedInstance::is_touched))
                .all(|s| ran.has_on_disk(&s.changes[0].path, &NEW));
            assert!(installed, "{case:?} {fates:?}");
        }
    }
}

#[test]
fn without_old_bytes_nothing_is_rolled_back_and_a_tolerated_failure_ends_nothing() {
    for case in cases() {
        let case = Case {
            has_old_bytes: false,
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
                ran.script
                    .signals
                    .iter()
                    .all(|(_, direction)| !direction.is_back()),
                "{case:?} {fates:?}"
            );
            if fates.len() <= case.limit() {
                assert!(
                    ran.outcomes().iter().all(|s| *s != Outcome::Untouched),
                    "{case:?} {fates:?}"
                );
            }
        }
    }
}

#[test]
fn the_budget_counts_over_the_whole_run() {
    // One instance fails in each wave: each wave alone would be within the budget.
    let case = Case {
        waves: 3,
        budget: Share::Count(2),
        ..ONE
    };
    let one_per_wave = |script: &mut ScriptHost| {
        script
            .ends
            .extend([0, 2, 4].map(|pid| (pid, (Outcome::TimedOut, Outcome::Reverted))))
    };
    let ran = case.run(one_per_wave).hold(|| "one per wave".into());
    assert_eq!(
        (ran.verdict, ran.outcomes()),
        (Ok(Verdict::Reverted), vec![Outcome::Reverted; 6])
    );
    let ran = Case {
        budget: Share::Count(3),
        ..case
    }
    .run(one_per_wave)
    .hold(|| "one per wave, tolerated".into());
    assert_eq!(ran.verdict, Ok(Verdict::Partial));
    let ran = Case {
        budget: Share::Count(1),
        ..case
    }
    .run(one_per_wave)
    .hold(|| "one per wave, too many in the second".into());
    assert_eq!(
        (ran.verdict, &ran.outcomes()[4..]),
        (Ok(Verdict::Reverted), &[Outcome::Untouched; 2][..])
    );
}

#[test]
fn an_unchanged_instance_does_not_count_for_a_percentage() {
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
    let script = Host::Script(ScriptHost::default());
    let (session, entries) = HostSession::scripted((plan, script), Kept, (false, false));
    let rollout = Rollout {
        max_failures: case.budget,
        ..Rollout::default()
    };
    let group = GroupPolicy {
        name: "hello".into(),
        rollout,
        rounds: Rounds::new(),
    };
    let plan = FleetPlan::new(vec![(session, entries)], vec![group]);
    let failed = Budget::of(&plan).update(&plan);
    assert!(failed.action.is_some(), "half of one is none");
}

#[test]
fn a_file_that_cannot_be_installed_or_rolled_back_affects_only_its_reader() {
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
                // Only its reader may be unproven.
                let unproven = ran
                    .plan
                    .instances()
                    .filter(|i| matches!(i.outcome, Outcome::TimedOut | Outcome::RevertFailed));
                assert!(
                    unproven.into_iter().all(|i| i.pid == stuck),
                    "{}\n{case:?} {:?} {:?}",
                    context(),
                    ran.verdict,
                    ran.outcomes()
                );
            }
        }
    }
}

#[test]
fn a_shared_file_that_cannot_be_installed_again_is_no_success() {
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
            // An instance that is proven on it reads another file by now. The run ends mixed,
            // unless it rolls everything back.
            let wanted = if case.then == OnFailure::Revert {
                Verdict::Reverted
            } else {
                Verdict::Mixed
            };
            assert_eq!(ran.verdict, Ok(wanted), "{case:?} {bad}");
        }
    }
}

#[test]
fn a_file_that_was_new_before_the_run_stays_where_no_instance_was_signalled() {
    // Adopted: every instance runs the old config, and the new one is on disk already.
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
            (ran.verdict, &ran.outcomes()[..2], &ran.outcomes()[2..]),
            (Ok(verdict), &[Outcome::Reverted; 2][..], &[later; 2][..]),
            "{then:?}"
        );
        assert!(
            [0, 1]
                .into_iter()
                .all(|pid| ran.has_on_disk(&case.path(pid), &OLD))
                && [2, 3]
                    .into_iter()
                    .all(|pid| ran.has_on_disk(&case.path(pid), &NEW)),
            "{then:?}"
        );
    }
}
