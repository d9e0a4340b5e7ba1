//! Hosts that are lost, and there again before the run ends.

use super::{lost::lose_first_at, *};

/// Both instances of a host may fail, and the run goes on.
const TOLERANT: HostsCase = HostsCase {
    budget: Share::Count(2),
    then: OnFailure::Continue,
    ..ONE_BY_ONE
};

/// An instance of the last host times out.
fn last_times_out(place: Place, script: &mut ScriptHost) {
    if place == 2 {
        let ends = (Outcome::TimedOut, Outcome::Reverted);
        script.ends.insert(pid_of(2, 0), ends);
    }
}

#[test]
fn the_answer_of_a_host_that_is_there_again_replaces_the_guess() {
    for fault in [Fault::Back, Fault::BackLater] {
        let ran = lose_first_at(TOLERANT, "commit", fault, |_, _| {});
        assert_eq!(
            ran.hosts[0].outcomes(),
            [Outcome::Confirmed; 2],
            "{fault:?}"
        );
        assert_eq!(ran.hosts[0].lost, None, "{fault:?}");
        assert_eq!(ran.verdict, Ok(Verdict::Converged), "{fault:?}");
    }
}

#[test]
fn a_host_that_is_there_again_gives_its_failures_back_to_the_budget() {
    let tight = HostsCase {
        budget: Share::Count(2),
        ..ONE_BY_ONE
    };
    // The two instances of the first host are no failures any more when that of the last one is.
    let ran = lose_first_at(tight, "commit", Fault::Back, last_times_out);
    assert_eq!(ran.hosts[0].outcomes(), [Outcome::Confirmed; 2]);
    assert_eq!(ran.hosts[1].outcomes(), [Outcome::Confirmed; 2]);
    assert_eq!(ran.hosts[2].outcomes()[0], Outcome::Reverted);
    assert_eq!(ran.verdict, Ok(Verdict::Partial));
}

#[test]
fn a_host_that_is_there_again_is_rolled_back_with_the_others() {
    let ran = lose_first_at(ONE_BY_ONE, "commit", Fault::Back, |_, _| {});
    assert!(ran.hosts[0].is_old());
    assert_eq!(ran.hosts[0].outcomes(), [Outcome::Reverted; 2]);
    assert_eq!(ran.verdict, Ok(Verdict::Reverted));
}

#[test]
fn a_rollback_that_has_begun_goes_on_at_a_host_that_is_there_again() {
    for fault in [Fault::Back, Fault::BackLater] {
        let ran = lose_first_at(ONE_BY_ONE, "roll back all", fault, last_times_out);
        assert!(ran.hosts[0].is_old(), "{fault:?}");
        assert_eq!(ran.hosts[0].outcomes(), [Outcome::Reverted; 2], "{fault:?}");
        assert_eq!(ran.verdict, Ok(Verdict::Reverted), "{fault:?}");
    }
}

#[test]
fn a_host_that_is_there_again_is_checked_at_the_end_like_any_other() {
    let ran = lose_first_at(TOLERANT, "conclude", Fault::Back, |_, _| {});
    // Nothing looks for it after the last request: what it runs now is not known.
    assert_eq!(ran.verdict, Ok(Verdict::Mixed));
}
