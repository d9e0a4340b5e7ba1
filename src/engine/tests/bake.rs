//! What is seen after a wave: whoever proves it no longer, and a gate that says no.

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
fn a_good_run_bakes_and_asks_after_every_wave() {
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
        assert_eq!(ran.said, Ok(Verdict::Converged));
    }
}

#[test]
fn who_proves_it_no_longer_after_a_bake_has_failed_like_any_other() {
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
                        // It has loaded the old one again.
                        script.runs.insert(pid, OLD.sha256.clone());
                    }
                });
                let i = ran.plan.instances().find(|i| i.pid == pid).unwrap();
                // One that says that it kept the old config after it was proven on the new one says
                // so of itself.
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
                assert_eq!(ran.told(is_asked), borne, "{} {case:?}", context());
                assert_eq!(
                    ran.states().iter().all(|s| *s != Outcome::Untouched),
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
fn what_was_proven_waves_ago_is_looked_at_once_more_at_the_end() {
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
            // After a gate every proof is old; without one, those of the last wave are of this
            // moment.
            let last = !gates && pid >= 2 * (case.waves - 1);
            assert_eq!(
                ran.said == Ok(Verdict::Converged),
                last,
                "one that was proven just now is not asked again: {case:?} {pid}"
            );
            // Where one went back alone, the others are looked at once more.
            assert!(
                (1..=3).contains(&ran.script.checked),
                "{case:?} {pid}: {}",
                ran.script.checked
            );
        }
    }
}

#[test]
fn a_gate_that_says_no_ends_the_run_where_its_group_says() {
    for case in cases() {
        for (at, exit) in (1..=case.waves).flat_map(|at| [(at, Some(1)), (at, None)]) {
            let context = || format!("gate {at} says {exit:?}");
            let ran = case
                .run(|script| {
                    script
                        .gates
                        .insert((usize::try_from(at).unwrap(), "gate".into()), exit);
                })
                .hold(context);
            let asked = ran
                .events
                .iter()
                .filter(|e| matches!(e, Event::Gate { .. }))
                .count();
            let (verdict, wanted) = match case.then {
                OnFailure::Revert => (Verdict::Reverted, at),
                OnFailure::Stop => (Verdict::Partial, at),
                OnFailure::Continue => (Verdict::Partial, case.waves),
            };
            assert_eq!(
                (ran.said, asked),
                (Ok(verdict), usize::try_from(wanted).unwrap()),
                "{} {case:?}",
                context()
            );
        }
    }
}

#[test]
fn a_no_that_one_group_bears_does_not_hide_the_no_of_another() {
    let case = Case {
        waves: 1,
        then: OnFailure::Continue,
        ..ALL
    };
    let (mut plan, mut script) = case.begin();
    let wave = &mut plan.waves[0];
    let mut strict = (*wave.steps[0].instances[1].group).clone();
    (strict.rollout.on_failure, strict.rollout.gate) = (OnFailure::Revert, vec!["strict".into()]);
    wave.steps[0].instances[1].group = Arc::new(strict);
    wave.gates.push(vec!["strict".into()]);
    script.gates.extend([
        ((1, "gate".into()), Some(1)),
        ((1, "strict".into()), Some(2)),
    ]);
    let mut host = Host::Script(script);
    let (_halt, mut listen) = tokio::sync::watch::channel(0);

    let said = block_on(run(
        &mut plan,
        &mut host,
        EngineOptions {
            run: "1",
            immediate: false,
            recovering: false,
        },
        &mut listen,
        &mut |_| true,
    ))
    .map_err(|stop| stop.verdict);
    let end = said.unwrap();
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
fn who_kept_the_old_config_goes_back_once_its_file_does() {
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
        // Only as long as the other one ran the new config was the file there for it.
        let ran = ran.hold(|| "the only one that was proven is so no longer".into());
        assert_eq!(ran.states()[..2], [Outcome::Reverted; 2]);
        assert_eq!(
            ran.said,
            Ok(if then == OnFailure::Stop {
                Verdict::Reverted
            } else {
                Verdict::Partial
            })
        );
    }
}
