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
pub(super) fn lose_first_at(
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
    // Later waves would have waited for the proof of the other one.
    let outcomes = [Outcome::RevertFailed, Outcome::TimedOut];
    assert_eq!(ran.hosts[0].outcomes(), outcomes);
}

#[test]
fn a_host_lost_in_the_last_check_proves_nothing_and_the_run_is_mixed() {
    for verb in ["recheck", "conclude"] {
        for fault in [Fault::LostBefore, Fault::LostAfter] {
            let ran = lose_first_at(ONE_BY_ONE, verb, fault, |_, _| {});
            assert_eq!(ran.hosts[0].outcomes(), [Outcome::TimedOut; 2], "{verb}");
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

/// Loses a host in this way at this request, in a run of which one host after another is signalled.
fn lose(fault: (Place, usize, Fault), reach: usize, then: OnFailure) -> HostsRan {
    let case = HostsCase {
        then,
        reach,
        fault: Some(fault),
        ..ONE_BY_ONE
    };
    case.run(|_, _| {})
        .hold(|| format!("{fault:?} {reach} {then:?}"))
}

#[test]
fn a_host_lost_before_its_commit_is_skipped_within_its_budget() {
    for fault in [(2, 1, Fault::LostUnsent), (2, 1, Fault::LostIdle)] {
        for then in THEN {
            let ran = lose(fault, 1, then);
            assert_eq!(ran.verdict, Ok(Verdict::Partial), "{fault:?}");
            assert_eq!(ran.hosts[1].outcomes(), [Outcome::Confirmed; 2]);
            assert_eq!(ran.hosts[2].outcomes(), [Outcome::Untouched; 2]);
            let is_skipped = |i: &Instance| i.wave == 0 && i.failure.is_none();
            assert!(ran.hosts[2].instances.iter().all(is_skipped));
        }
    }
}

#[test]
fn a_host_lost_before_any_commit_and_beyond_its_budget_ends_the_run_untouched() {
    for fault in [(0, 1, Fault::LostUnsent), (2, 1, Fault::LostIdle)] {
        for then in THEN {
            let ran = lose(fault, 0, then);
            assert_eq!(ran.verdict, Err(Verdict::Unreachable), "{fault:?}");
        }
    }
}

#[test]
fn a_host_lost_before_its_commit_and_beyond_its_budget_ends_the_run_as_on_failure_says() {
    for (then, verdict, outcome) in [
        (OnFailure::Revert, Verdict::Reverted, Outcome::Reverted),
        (OnFailure::Stop, Verdict::Partial, Outcome::Confirmed),
        (OnFailure::Continue, Verdict::Partial, Outcome::Confirmed),
    ] {
        // The host of the second wave: the third one begins only where the run continues.
        let ran = lose((1, 1, Fault::LostUnsent), 0, then);
        assert_eq!(ran.verdict, Ok(verdict), "{then:?}");
        assert_eq!(ran.hosts[0].outcomes(), [outcome; 2], "{then:?}");
        assert_eq!(ran.hosts[1].outcomes(), [Outcome::Untouched; 2], "{then:?}");
        let is_begun = ran.hosts[2].outcomes() == [Outcome::Confirmed; 2];
        assert_eq!(is_begun, then == OnFailure::Continue, "{then:?}");
    }
}

#[test]
fn a_commit_that_may_have_reached_a_lost_host_is_no_skip() {
    let ran = lose((1, 1, Fault::LostBefore), 3, OnFailure::Revert);
    assert_eq!(ran.verdict, Ok(Verdict::Mixed));
    assert_eq!(ran.hosts[1].outcomes(), [Outcome::TimedOut; 2]);
}

#[test]
fn a_host_lost_in_the_recheck_of_a_middle_wave_counts_as_failures() {
    for (budget, later, outcome) in [
        (1, Outcome::Untouched, Outcome::TimedOut),
        (2, Outcome::Confirmed, Outcome::TimedOut),
    ] {
        for fault in [Fault::LostBefore, Fault::LostAfter, Fault::LostIdle] {
            let case = HostsCase {
                budget: Share::Count(budget),
                bake: true,
                ..ONE_BY_ONE
            };
            let ran = lose_first_at(case, "recheck", fault, |_, _| {});
            assert_eq!(ran.verdict, Ok(Verdict::Mixed), "{fault:?}");
            assert_eq!(ran.hosts[0].outcomes(), [outcome; 2], "{fault:?}");
            assert_eq!(ran.hosts[1].outcomes(), [later; 2], "{fault:?}");
        }
    }
}

#[test]
fn a_host_lost_in_a_bake_ends_the_bake() {
    let case = HostsCase {
        bake: true,
        ..ONE_BY_ONE
    };
    let ran = lose_first_at(case, "recheck", Fault::LostIdle, |_, _| {});
    assert!(ran.has_event(|e| matches!(e, Event::Baking { .. })));
    assert!(!ran.has_event(|e| matches!(e, Event::Baked { .. })));
}

/// Returns a plan with one instance that no run has signalled so far, and one on the new config.
fn plan_of_two(must_record: bool) -> FleetPlan<()> {
    let entry = |outcome| InstanceEntry {
        started: 1,
        pid: 1,
        group: 0,
        wave: 1,
        outcome,
        unresponsive: false,
    };
    let plan = HostPlan {
        groups: vec!["web".into()],
        entries: vec![entry(Outcome::Untouched), entry(Outcome::Unchanged)],
        must_record,
        ..HostPlan::default()
    };
    let policy = GroupPolicy {
        name: "web".into(),
        rollout: Rollout::default(),
        rounds: Rounds::new(),
    };
    FleetPlan::new(vec![((), plan)], vec![policy])
}

#[test]
fn a_skipped_host_of_a_continued_run_may_have_been_signalled_by_the_earlier_one() {
    for (is_recovered, outcome) in [(false, Outcome::Untouched), (true, Outcome::TimedOut)] {
        let mut plan = plan_of_two(is_recovered);
        let host = &mut plan.hosts[0];
        host.skip("cut");
        let outcomes: Vec<Outcome> = host.instances().map(|(_, i)| i.outcome).collect();
        assert_eq!(outcomes, [outcome, Outcome::Untouched]);
        assert_eq!(host.is_unknown(), is_recovered);
    }
}

#[test]
fn a_host_that_did_not_greet_uses_up_the_budget_of_those_that_are_lost_later() {
    let budget = |max, unreachable| ReachBudget {
        max,
        hosts: 4,
        unreachable,
    };
    let left = |max, unreachable| budget(max, unreachable).left();
    assert_eq!(left(Share::Count(2), 0), 2);
    assert_eq!(left(Share::Count(2), 1), 1);
    assert_eq!(left(Share::Part(5_000), 1), 1);
    assert_eq!(left(Share::Count(1), 2), 0);
    let text = budget(Share::Part(2_000), 1).text();
    assert!(text.ends_with("which is 0 of 4 hosts"), "{text}");
    assert_eq!(budget(Share::Count(0), 1).text(), "");
}

#[test]
fn an_instance_of_a_skipped_host_uses_up_no_budget_of_failures() {
    for (is_skipped, failures) in [(true, 0), (false, 1)] {
        let (mut plan, _) = ONE.begin();
        let first = &mut plan.waves[0].steps[0].instances[0];
        first.instance.outcome = Outcome::TimedOut;
        let script = Host::Script(ScriptHost::default());
        let (session, entries) = HostSession::scripted((plan, script), Kept, (false, false));
        let policy = GroupPolicy {
            name: "hello".into(),
            rollout: Rollout::default(),
            rounds: Rounds::new(),
        };
        let mut plan = FleetPlan::new(vec![(session, entries)], vec![policy]);
        if is_skipped {
            plan.hosts[0].skip("cut");
        }
        let failed = Budget::of(&plan).update(&plan);
        assert_eq!(failed.ids.len(), failures, "{is_skipped}");
    }
}

/// Returns the outcome of an instance whose host is lost in this request.
fn lost_in(
    request: &SessionRequest,
    outcome: Outcome,
    (recovers, is_awaited): (bool, bool),
) -> Outcome {
    let mut plan = plan_of_two(recovers);
    let host = &mut plan.hosts[0];
    host.plan.entries[0].outcome = outcome;
    host.fail_unproven(Some(request), is_awaited, "cut");
    host.plan.entries[0].outcome
}

fn roll_back(scope: Scope) -> SessionRequest {
    SessionRequest::RollBack {
        until: 1,
        scope,
        why: "why".into(),
    }
}

#[test]
fn the_file_of_a_rejected_instance_may_go_back_with_those_that_failed() {
    let request = roll_back(Scope::Named(std::iter::empty().collect()));
    let lost = |outcome| lost_in(&request, outcome, (false, false));
    assert_eq!(lost(Outcome::Rejected), Outcome::RevertFailed);
    assert_eq!(lost(Outcome::TimedOut), Outcome::TimedOut);
}

#[test]
fn a_full_rollback_may_signal_what_an_earlier_run_may_have_signalled() {
    let request = roll_back(Scope::All);
    let lost = |recovers| lost_in(&request, Outcome::Untouched, (recovers, false));
    assert_eq!(lost(true), Outcome::RevertFailed);
    assert_eq!(lost(false), Outcome::Untouched);
}

#[test]
fn a_proof_of_a_lost_host_fails_at_once_only_where_a_later_wave_waits_for_it() {
    let request = SessionRequest::Recheck {
        until: 1,
        fresh: None,
    };
    let lost = |is_awaited| lost_in(&request, Outcome::Confirmed, (false, is_awaited));
    assert_eq!(lost(true), Outcome::TimedOut);
    assert_eq!(lost(false), Outcome::Confirmed);
}
