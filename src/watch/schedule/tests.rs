use super::*;

const DEBOUNCE: Duration = Duration::from_secs(1);

fn content(text: &str) -> Observed {
    Observed::of_text(text)
}

/// A schedule that has converged on `one`, and the time of that.
fn settled() -> (Schedule, Instant) {
    let now = Instant::now();
    let mut schedule = Schedule::new(DEBOUNCE);
    schedule.see(content("one"), now);
    schedule.begin();
    schedule.end(Verdict::Converged, now, 0.5);
    (schedule, now)
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn the_start_is_due_at_once() {
    let schedule = Schedule::new(DEBOUNCE);
    assert_eq!(schedule.due(Instant::now()), Some(Cause::Start));
}

#[test]
fn a_change_is_due_after_the_debounce() {
    let (mut schedule, now) = settled();
    schedule.see(content("two"), now);
    assert_eq!(schedule.due(now + ms(999)), None);
    assert_eq!(schedule.due(now + ms(1000)), Some(Cause::Change));
}

#[test]
fn each_further_change_begins_the_debounce_again() {
    let (mut schedule, now) = settled();
    schedule.see(content("two"), now);
    schedule.see(content("three"), now + ms(900));
    assert_eq!(schedule.due(now + ms(1899)), None);
    assert_eq!(schedule.due(now + ms(1900)), Some(Cause::Change));
}

#[test]
fn steady_changes_are_due_after_ten_debounce_times() {
    let (mut schedule, now) = settled();
    for step in 0..100 {
        schedule.see(content(&format!("{step}")), now + ms(step * 100));
    }
    assert_eq!(schedule.due(now + ms(9_999)), None);
    assert_eq!(schedule.due(now + ms(10_000)), Some(Cause::Change));
}

#[test]
fn a_change_that_settles_on_the_attempted_content_is_no_change() {
    let (mut schedule, now) = settled();
    schedule.see(content("two"), now);
    schedule.see(content("one"), now + ms(500));
    assert_eq!(schedule.due(now + ms(1500)), None);
    schedule.settle(now + ms(1500));
    assert_eq!(schedule.next(), None);
}

#[test]
fn the_content_before_a_failed_one_is_a_change() {
    let (mut schedule, now) = settled();
    schedule.see(content("bad"), now);
    schedule.begin();
    schedule.end(Verdict::Reverted, now, 0.5);
    schedule.see(content("one"), now);
    assert_eq!(schedule.due(now + DEBOUNCE), Some(Cause::Change));
}

#[test]
fn a_failure_that_touched_nothing_is_tried_again_later_and_later() {
    let (mut schedule, mut now) = settled();
    let mut waits = Vec::new();
    for _ in 0..12 {
        schedule.begin();
        schedule.end(Verdict::Busy, now, 0.5);
        let wait = schedule.retries_in(now).unwrap_or_default();
        waits.push(wait.as_secs());
        now += wait;
        assert_eq!(schedule.due(now), Some(Cause::Retry));
    }
    assert_eq!(waits[..4], [1, 2, 4, 8]);
    assert_eq!(waits[11], 300);
}

#[test]
fn the_jitter_is_a_quarter_in_both_directions() {
    for (jitter, wait) in [(0.0, 750), (1.0, 1250)] {
        let (mut schedule, now) = settled();
        schedule.begin();
        schedule.end(Verdict::Refused, now, jitter);
        assert_eq!(schedule.retries_in(now), Some(ms(wait)));
    }
}

#[test]
fn a_failure_that_touched_something_is_not_tried_again() {
    for verdict in Verdict::ALL.into_iter().filter(|v| touches(*v)) {
        let (mut schedule, now) = settled();
        schedule.begin();
        schedule.end(verdict, now, 0.5);
        assert_eq!(schedule.next(), None, "{verdict:?}");
        assert!(schedule.has_failed());
    }
}

#[test]
fn after_a_failure_other_instances_are_a_cause() {
    let (mut schedule, now) = settled();
    schedule.instances_changed(now);
    assert_eq!(schedule.next(), None, "it has not failed");
    schedule.begin();
    schedule.end(Verdict::Mixed, now, 0.5);
    schedule.instances_changed(now + ms(1));
    assert_eq!(schedule.due(now + ms(4_999)), None);
    assert_eq!(schedule.due(now + ms(5_000)), Some(Cause::Instances));
}

#[test]
fn a_retry_waits_until_a_change_has_settled() {
    let (mut schedule, now) = settled();
    schedule.begin();
    schedule.end(Verdict::Invalid, now, 0.0);
    schedule.see(content("two"), now + ms(700));
    assert_eq!(schedule.due(now + ms(800)), None);
    assert_eq!(schedule.due(now + ms(1_700)), Some(Cause::Change));
}

#[test]
fn a_demand_is_due_at_once() {
    let (mut schedule, now) = settled();
    schedule.demand(now);
    assert_eq!(schedule.due(now), Some(Cause::Reload));
}

#[test]
fn changes_during_a_run_are_one_further_change() {
    let (mut schedule, now) = settled();
    schedule.see(content("two"), now);
    schedule.begin();
    for text in ["three", "four", "five"] {
        schedule.see(content(text), now + ms(10));
    }
    schedule.end(Verdict::Converged, now + ms(20), 0.5);
    assert_eq!(schedule.due(now + ms(1_010)), Some(Cause::Change));
    schedule.begin();
    schedule.end(Verdict::Converged, now + ms(1_020), 0.5);
    assert_eq!(schedule.next(), None);
}
