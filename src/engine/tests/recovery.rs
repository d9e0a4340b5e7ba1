//! Runs that continue an open run: everything that it may have done is rolled back too, or named.

use super::*;

/// Returns a plan with four instances, each with a file of its own. The first fails, the second
/// runs the new config since an earlier run, the third may have been signalled by it, and the
/// fourth was not. No instance reads the last file.
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
    let [_, second] = plan.waves[0].steps.get_disjoint_mut([0, 1]).unwrap();
    (
        second.instances[0].instance.outcome,
        second.instances[0].may_run_new,
    ) = (Outcome::Unchanged, true);
    plan.waves[1].steps[0].instances[0].may_run_new = true;
    (plan, script)
}

fn go(
    mut plan: Plan,
    script: ScriptHost,
    now: bool,
) -> (Result<Verdict, Verdict>, Vec<Outcome>, ScriptHost) {
    let (ended, script) = run_script(&mut plan, script, now, true);
    let verdict = ended.map(|end| end.verdict);
    (
        verdict,
        plan.instances().map(|i| i.outcome).collect(),
        script,
    )
}

#[test]
fn everything_that_an_earlier_run_may_have_done_is_rolled_back() {
    let (plan, script) = left(OnFailure::Revert);
    let (verdict, states, script) = go(plan, script, false);
    assert_eq!(
        (verdict, states),
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
fn an_instance_that_an_earlier_run_may_have_signalled_is_named_if_this_run_stops_before_it() {
    let (plan, script) = left(OnFailure::Stop);
    let (verdict, states, _) = go(plan, script, false);
    assert_eq!(
        (verdict, &states[2..]),
        (
            Ok(Verdict::Mixed),
            &[Outcome::TimedOut, Outcome::Untouched][..]
        )
    );
}

#[test]
fn a_file_is_installed_also_where_no_instance_needs_a_signal() {
    let (mut plan, mut script) = left(OnFailure::Revert);
    plan.waves.truncate(1);
    plan.waves[0].steps.retain(|s| !s.is_work());
    for path in ["/c1", "/c9"] {
        script.files.insert(path.into(), OLD.sha256.clone());
    }
    script.stuck.insert("/c9".into(), (true, true));
    let (verdict, ..) = go(plan, script, true);
    // A file that could not be installed is no success.
    assert_ne!(verdict, Ok(Verdict::Converged));
    let (mut plan, mut script) = left(OnFailure::Revert);
    plan.waves.truncate(1);
    plan.waves[0].steps.retain(|s| !s.is_work());
    script.files.insert("/c9".into(), OLD.sha256.clone());
    let (verdict, states, script) = go(plan, script, true);
    assert_eq!(
        (
            verdict,
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
