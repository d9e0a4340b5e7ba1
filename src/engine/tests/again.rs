//! Runs that go on with one that was left: what that may have done goes back with the rest, or is
//! named.

use super::*;

/// One that fails, one that an earlier run has brought there, one that it may have signalled and
/// whose turn comes later, and one that it never did; each with a file of its own. Nobody reads the
/// last file.
fn left(then: OnFailure) -> (Plan, ScriptHost) {
    let (mut plan, mut script) = Case {
        waves: 2,
        own: true,
        then,
        ..ONE
    }
    .begin();
    let group = plan.waves[0].steps[0].instances[0].group.clone();
    let case = Case { own: true, ..ONE };
    plan.waves[0].steps.push(Step {
        instances: Vec::new(),
        ..case.step(&group, &[9])
    });
    for (path, pid) in [("/c1", 1), ("/c2", 2), ("/c9", 9)] {
        script.files.insert(path.into(), NEW.sha256.clone());
        script.runs.insert(pid, NEW.sha256.clone());
    }
    script
        .ends
        .insert(0, (Outcome::Rejected, Outcome::Reverted));
    let [_, one] = plan.waves[0].steps.get_disjoint_mut([0, 1]).unwrap();
    (
        one.instances[0].instance.outcome,
        one.instances[0].may_run_new,
    ) = (Outcome::Unchanged, true);
    plan.waves[1].steps[0].instances[0].may_run_new = true;
    (plan, script)
}

fn go(
    mut plan: Plan,
    script: ScriptHost,
    now: bool,
) -> (Result<Verdict, Verdict>, Vec<Outcome>, ScriptHost) {
    let mut host = Host::Script(script);
    let (_halt, mut listen) = tokio::sync::watch::channel(0);
    let said = block_on(run(
        &mut plan,
        &mut host,
        EngineOptions {
            run: "1",
            immediate: now,
            recovering: true,
        },
        &mut listen,
        &mut |_| true,
    ))
    .map(|end| end.verdict)
    .map_err(|stop| stop.verdict);
    let Host::Script(script) = host else {
        unreachable!("it was a script")
    };
    (said, plan.instances().map(|i| i.outcome).collect(), script)
}

#[test]
fn everything_that_an_earlier_run_may_have_done_goes_back_with_the_rest() {
    let (plan, script) = left(OnFailure::Revert);
    let (said, states, script) = go(plan, script, false);
    assert_eq!(
        (said, states),
        (
            Ok(Verdict::Reverted),
            vec![
                Outcome::Reverted,
                Outcome::Reverted,
                Outcome::Reverted,
                Outcome::Untouched
            ]
        )
    );
    assert!(
        script.files.values().all(|file| *file == OLD.sha256),
        "{:?}",
        script.files
    );
    assert!(
        (0..4).all(|pid| script.runs[&pid] == OLD.sha256)
            && !script.signals.iter().any(|(pid, _)| *pid == 3),
        "{:?}",
        script.signals
    );
}

#[test]
fn whom_an_earlier_run_may_have_signalled_is_named_where_its_turn_does_not_come() {
    let (plan, script) = left(OnFailure::Stop);
    let (said, states, _) = go(plan, script, false);
    assert_eq!(
        (said, &states[2..]),
        (
            Ok(Verdict::Mixed),
            &[Outcome::TimedOut, Outcome::Untouched][..]
        )
    );
}

#[test]
fn a_file_that_nobody_needs_a_signal_for_becomes_what_it_is_to_become() {
    let (mut plan, mut script) = left(OnFailure::Revert);
    plan.waves.truncate(1);
    plan.waves[0].steps.retain(|s| !s.is_work());
    for path in ["/c1", "/c9"] {
        script.files.insert(path.into(), OLD.sha256.clone());
    }
    script.stuck.insert("/c9".into(), (true, true));
    let (said, ..) = go(plan, script, true);
    // Nothing is claimed of a file that is not there.
    assert_ne!(said, Ok(Verdict::Converged));
    let (mut plan, mut script) = left(OnFailure::Revert);
    plan.waves.truncate(1);
    plan.waves[0].steps.retain(|s| !s.is_work());
    script.files.insert("/c9".into(), OLD.sha256.clone());
    let (said, states, script) = go(plan, script, true);
    assert_eq!(
        (
            said,
            states,
            &script.files[&PathBuf::from("/c9")],
            script.signals.len()
        ),
        (
            Ok(Verdict::Converged),
            vec![Outcome::Unchanged],
            &NEW.sha256,
            0
        )
    );
}
