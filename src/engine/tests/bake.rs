//! After a wave: an instance that no longer proves the new config, and a gate that fails.

use super::*;

const ALL: Case = Case {
    waves: 3,
    bake: true,
    gates: true,
    ..ONE
};

fn cases() -> impl Iterator<Item = Case> {
    let budgets = [Share::Count(0), Share::Count(1)];
    let some = (1..=3).flat_map(|waves| [false, true].map(|own| Case { waves, own, ..ALL }));
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
fn a_good_run_bakes_and_runs_the_gate_after_every_wave() {
    for own in [false, true] {
        let ran = Case { own, ..ALL }.run(|_| {}).hold(|| "good".into());
        let marks = |e: &Event| match e {
            Event::Intent { wave, .. } => Some(format!("wave {wave}")),
            Event::Baking { wave, .. } => Some(format!("bake {wave}")),
            Event::Baked { wave, instances } => Some(format!("held {wave} by {instances}")),
            Event::Gate { wave, command, .. } => Some(format!("{} {wave}", command[0])),
            _ => None,
        };
        let marks: Vec<String> = ran.events.iter().filter_map(marks).collect();
        assert_eq!(
            marks,
            [
                "wave 1",
                "bake 1",
                "held 1 by 2",
                "gate 1",
                "wave 2",
                "bake 2",
                "held 2 by 4",
                "gate 2",
                "wave 3",
                "bake 3",
                "held 3 by 6",
                "gate 3"
            ]
        );
        assert_eq!(ran.verdict, Ok(Verdict::Converged));
    }
}

#[test]
fn an_instance_that_no_longer_proves_it_after_a_bake_has_failed() {
    for case in cases() {
        for (nth, pid) in (1..=case.waves).flat_map(|nth| (0..2 * nth).map(move |pid| (nth, pid))) {
            for (bad, back) in [Outcome::TimedOut, Outcome::Rejected, Outcome::Died]
                .into_iter()
                .flat_map(|bad| BACK.map(|back| (bad, back)))
            {
                let context = || format!("pid {pid} is {bad:?} after bake {nth}, then {back:?}");
                let ran = case.run(|script| {
                    script
                        .checks
                        .insert((usize::try_from(nth).unwrap(), pid), bad);
                    script.ends.insert(pid, (Outcome::Confirmed, back));
                    if bad == Outcome::Rejected {
                        // It has loaded the old config again.
                        script.runs.insert(pid, OLD.sha256.clone());
                    }
                });
                let i = ran.plan.instances().find(|i| i.pid == pid).unwrap();
                // An instance that reports the old config after it was proven on the new one does
                // run the old one.
                let ran = if i.outcome == Outcome::Rejected {
                    Ran {
                        script: ScriptHost {
                            runs: old(&ran, pid),
                            ..ran.script
                        },
                        ..ran
                    }
                } else {
                    ran
                };
                let ran = ran.hold(context);
                let borne = case.limit() > 0 || case.then == OnFailure::Continue;
                let number = usize::try_from(nth).unwrap();
                let is_asked = |e: &Event| matches!(e, Event::Gate { wave, .. } if *wave == number);
                assert_eq!(ran.has_event(is_asked), borne, "{} {case:?}", context());
                assert_eq!(
                    ran.outcomes().iter().all(|s| *s != Outcome::Untouched),
                    borne || nth == case.waves,
                    "{} {case:?}",
                    context()
                );
            }
        }
    }
}

fn old(ran: &Ran, pid: i32) -> std::collections::BTreeMap<i32, String> {
    let mut runs = ran.script.runs.clone();
    runs.insert(pid, OLD.sha256.clone());
    runs
}

#[test]
fn a_proof_of_an_earlier_wave_is_checked_again_at_the_end() {
    for (case, gates) in cases()
        .filter(|case| case.waves > 1)
        .flat_map(|case| [false, true].map(|gates| (case, gates)))
    {
        let case = Case {
            bake: false,
            gates,
            ..case
        };
        for pid in case.pids() {
            let ran = case
                .run(|script| {
                    script.checks.insert((1, pid), Outcome::Died);
                })
                .hold(|| format!("pid {pid} is gone at the end"));
            // After a gate every proof is stale. Without one, those of the last wave are fresh.
            let last = !gates && pid >= 2 * (case.waves - 1);
            assert_eq!(
                ran.verdict == Ok(Verdict::Converged),
                last,
                "a fresh proof is not checked again: {case:?} {pid}"
            );
            // After a partial rollback the others are checked once more.
            assert!(
                (1..=3).contains(&ran.script.checked),
                "{case:?} {pid}: {}",
                ran.script.checked
            );
        }
    }
}

#[test]
fn a_gate_that_fails_ends_the_run_as_its_group_says() {
    for case in cases() {
        for (wave, exit) in (1..=case.waves).flat_map(|wave| [(wave, Some(1)), (wave, None)]) {
            let context = || format!("gate {wave} exits with {exit:?}");
            let ran = case
                .run(|script| {
                    script
                        .gates
                        .insert((usize::try_from(wave).unwrap(), "gate".into()), exit);
                })
                .hold(context);
            let asked = ran
                .events
                .iter()
                .filter(|e| matches!(e, Event::Gate { .. }))
                .count();
            let (verdict, wanted) = match case.then {
                OnFailure::Revert => (Verdict::Reverted, wave),
                OnFailure::Stop => (Verdict::Partial, wave),
                OnFailure::Continue => (Verdict::Partial, case.waves),
            };
            assert_eq!(
                (ran.verdict, asked),
                (Ok(verdict), usize::try_from(wanted).unwrap()),
                "{} {case:?}",
                context()
            );
        }
    }
}

#[test]
fn a_failed_gate_of_one_group_does_not_hide_that_of_another() {
    let case = Case {
        waves: 1,
        then: OnFailure::Continue,
        ..ALL
    };
    let (mut plan, mut script) = case.begin();
    let wave = &mut plan.waves[0];
    let mut strict = (*wave.steps[0].instances[1].group).clone();
    (strict.rollout.on_failure, strict.rollout.gate) = (OnFailure::Revert, vec!["strict".into()]);
    let member = &mut wave.steps[0].instances[1];
    member.instance.group = "strict".into();
    member.group = Arc::new(strict);
    script.gates.extend([
        ((1, "gate".into()), Some(1)),
        ((1, "strict".into()), Some(2)),
    ]);
    let (ended, _) = run_script(&mut plan, script, false, false);
    let end = ended.unwrap();
    assert_eq!(end.verdict, Verdict::Reverted);
    let asked: Vec<&str> = end
        .gates
        .iter()
        .filter_map(|event| match event {
            Event::Gate { command, .. } => Some(command[0].as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(asked, ["gate", "strict"]);
    let reason = end.reason.unwrap();
    assert!(
        reason.contains("`strict` ended with exit status 2"),
        "{reason}"
    );
}

#[test]
fn an_instance_that_kept_the_old_config_is_rolled_back_with_its_file() {
    for then in [OnFailure::Stop, OnFailure::Continue] {
        let case = Case {
            then,
            budget: Share::Count(1),
            ..ALL
        };
        let ran = case.run(|script| {
            script
                .ends
                .insert(0, (Outcome::Rejected, Outcome::Reverted));
            script.checks.insert((1, 1), Outcome::TimedOut);
        });
        // The new file stayed only as long as the other instance ran it.
        let ran = ran.hold(|| "the only proven instance is no longer proven".into());
        assert_eq!(ran.outcomes()[..2], [Outcome::Reverted; 2]);
        assert_eq!(
            ran.verdict,
            Ok(if then == OnFailure::Stop {
                Verdict::Reverted
            } else {
                Verdict::Partial
            })
        );
    }
}

#[test]
fn a_wave_has_the_longest_bake_and_every_gate_of_the_instances_that_it_signals() {
    let entry = |group: u16, wave: u16, outcome: Outcome| InstanceEntry {
        started: 1,
        pid: 1,
        group,
        wave,
        outcome,
        unresponsive: false,
    };
    let policy = |name: &str, bake: u64, gate: &str| GroupPolicy {
        name: name.into(),
        rollout: Rollout {
            bake: Duration::from_secs(bake),
            gate: vec![gate.into()],
            ..Rollout::default()
        },
        rounds: Rounds::new(),
    };
    let entries = HostPlan {
        groups: ["a", "b", "late", "never"].map(String::from).into(),
        entries: vec![
            entry(0, 1, Outcome::Untouched),
            entry(1, 1, Outcome::Untouched),
            entry(2, 2, Outcome::Untouched),
            // It needs no signal, so its bake and gate do not count.
            entry(3, 2, Outcome::Unchanged),
        ],
        ..HostPlan::default()
    };
    let groups = vec![
        policy("a", 2, "g"),
        policy("b", 1, "h"),
        policy("late", 9, "i"),
        policy("never", 60, "j"),
    ];
    let plan = FleetPlan::new(vec![((), entries)], groups);
    let waves: Vec<(u64, String)> = plan
        .waves
        .iter()
        .map(|wave| (wave.bake.as_secs(), wave.gates.concat().concat()))
        .collect();
    assert_eq!(waves, [(2, "gh".into()), (9, "i".into())]);
}
