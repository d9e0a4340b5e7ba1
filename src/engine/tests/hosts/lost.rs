//! Hosts that are lost in each of the requests of a run.

use super::*;

/// The first instance of the last host times out.
fn last_times_out(place: Place, script: &mut ScriptHost) {
    if place == 2 {
        let ends = (Outcome::TimedOut, Outcome::Reverted);
        script.ends.insert(pid_of(2, 0), ends);
    }
}

/// Loses the first host at the request that has this verb.
fn lose_first_at(
    case: HostsCase,
    wanted: &str,
    fault: Fault,
    write: impl Fn(Place, &mut ScriptHost),
) -> HostsRan {
    let whole = case.run(&write);
    let asked = whole.moments.iter().filter_map(|moment| match moment {
        Moment::Asked(0, verb, _) => Some(*verb),
        _ => None,
    });
    let at = asked.into_iter().position(|verb| verb == wanted);
    let case = HostsCase {
        fault: Some((0, at.unwrap() + 1, fault)),
        ..case
    };
    case.run(write).hold(|| format!("{fault:?} at {wanted}"))
}

#[test]
fn a_host_lost_in_a_full_rollback_is_not_proven_on_any_config() {
    for fault in [Fault::LostBefore, Fault::LostAfter] {
        let ran = lose_first_at(ONE_BY_ONE, "roll back all", fault, last_times_out);
        assert_eq!(ran.hosts[0].outcomes(), [Outcome::RevertFailed; 2]);
        let failure = ran.hosts[0].instances[1].failure.as_ref().unwrap();
        assert!(failure.text.starts_with("lost: "), "{}", failure.text);
        assert_eq!(ran.verdict, Ok(Verdict::Mixed));
        assert!(ran.hosts[1].is_old() && ran.hosts[2].is_old(), "{fault:?}");
    }
}

#[test]
fn a_failed_instance_whose_host_is_lost_in_its_rollback_is_not_proven() {
    let case = HostsCase {
        budget: Share::Count(1),
        ..ONE_BY_ONE
    };
    let first_times_out = |place: Place, script: &mut ScriptHost| {
        if place == 0 {
            let ends = (Outcome::TimedOut, Outcome::Reverted);
            script.ends.insert(pid_of(0, 0), ends);
        }
    };
    let ran = lose_first_at(case, "roll back", Fault::LostAfter, first_times_out);
    let outcomes = [Outcome::RevertFailed, Outcome::Confirmed];
    assert_eq!(ran.hosts[0].outcomes(), outcomes);
}

#[test]
fn a_host_lost_in_a_check_keeps_its_last_outcomes_and_the_run_is_mixed() {
    for verb in ["recheck", "conclude"] {
        for fault in [Fault::LostBefore, Fault::LostAfter] {
            let ran = lose_first_at(ONE_BY_ONE, verb, fault, |_, _| {});
            assert_eq!(ran.hosts[0].outcomes(), [Outcome::Confirmed; 2], "{verb}");
            assert_eq!(ran.verdict, Ok(Verdict::Mixed), "{verb}");
        }
    }
}

#[test]
fn a_wave_whose_only_host_is_lost_uses_up_the_budget() {
    for then in [OnFailure::Revert, OnFailure::Stop] {
        let case = HostsCase { then, ..ONE_BY_ONE };
        let ran = lose_first_at(case, "commit", Fault::LostBefore, |_, _| {});
        assert_eq!(ran.hosts[0].outcomes(), [Outcome::TimedOut; 2], "{then:?}");
        assert_eq!(ran.hosts[1].outcomes(), [Outcome::Untouched; 2], "{then:?}");
        assert_eq!(ran.verdict, Ok(Verdict::Mixed), "{then:?}");
    }
}

#[test]
fn an_instance_that_fails_with_its_host_is_reported() {
    let ran = lose_first_at(ONE_BY_ONE, "commit", Fault::LostBefore, |_, _| {});
    let failed = ran.events.iter().filter(|(host, event)| {
        *host == host_name(0)
            && matches!(event, Event::Instance { outcome, .. } if *outcome == Outcome::TimedOut)
    });
    assert_eq!(failed.count(), 2);
}

#[test]
fn the_next_wave_waits_for_a_slow_host() {
    let case = HostsCase {
        waves: [[1, 2], [1, 2], [1, 2]],
        ..ONE_BY_ONE
    };
    let ran = lose_first_at(case, "commit", Fault::Late, |_, _| {});
    let at = |moment: Moment| ran.moments.iter().position(|m| *m == moment).unwrap();
    let answered = at(Moment::Answered(0, "commit", 1));
    assert!(at(Moment::Answered(1, "commit", 1)) < answered);
    assert!(answered < at(Moment::Asked(1, "commit", 2)));
    assert_eq!(ran.verdict, Ok(Verdict::Converged));
}
