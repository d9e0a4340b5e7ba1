//! Instances of the earlier run that have ended since.

use super::*;
use crate::event::Event;

const THREE: Count = Count { min: 3, max: 3 };

/// The pids of the first event about ended instances, and its text.
fn gone_event(left: &InterruptedRun, survey: &Survey) -> Option<(Vec<i32>, String)> {
    absent(survey, left)
        .into_iter()
        .find_map(|event| match event {
            Event::Gone { pids, why, .. } => Some((pids, why)),
            _ => None,
        })
}

#[test]
fn a_run_whose_instances_all_live_has_none_that_ended() {
    let left = left(&[], THREE);
    let survey = survey(&left, &[(1, 5, "old"), (2, 5, "old"), (3, 5, "old")], "new");
    assert_eq!(gone_event(&left, &survey), None);
    assert_eq!(unreplaced(&survey, &left), None);
}

#[test]
fn another_process_with_the_same_pid_replaces_an_instance() {
    let left = left(&[], THREE);
    let survey = survey(&left, &[(1, 5, "old"), (2, 5, "old"), (3, 6, "new")], "new");
    let (pids, why) = gone_event(&left, &survey).unwrap();
    assert_eq!(pids, [3]);
    assert_eq!(why, "ended since run 1; replaced by other processes");
    assert_eq!(unreplaced(&survey, &left), None);
    let plan = recover(&left, survey, Direction::Forward).unwrap();
    assert!(
        states(&plan)[&3].may_run_new,
        "a new process has read what is on disk"
    );
}

#[test]
fn a_missing_instance_prevents_only_the_new_config() {
    let left = left(&[], THREE);
    let lost = || survey(&left, &[(1, 5, "old"), (2, 5, "old")], "new");
    let (_, why) = gone_event(&left, &lost()).unwrap();
    assert_eq!(why, "ended since run 1; not replaced");
    assert!(unreplaced(&lost(), &left).is_some());
    assert_eq!(
        recover(&left, lost(), Direction::Forward)
            .unwrap_err()
            .verdict,
        Verdict::NoMatch
    );
    let plan = recover(&left, lost(), Direction::Back).unwrap();
    let skipped: Vec<(i32, Outcome)> = plan
        .skipped
        .iter()
        .map(|m| (m.instance.pid, m.instance.outcome))
        .collect();
    assert_eq!(skipped, [(3, Outcome::Died)]);
}

#[test]
fn after_a_reboot_every_process_is_another() {
    let three = left(&[], THREE);
    let rebooted = InterruptedRun {
        same_boot: false,
        touched: [((1, 5), FORWARD)].into(),
        ..three.clone()
    };
    let survey = survey(
        &three,
        &[(1, 5, "new"), (2, 5, "new"), (3, 5, "new")],
        "new",
    );
    let plan = recover(&rebooted, survey, Direction::Forward).unwrap();
    let current = State {
        outcome: Outcome::Unchanged,
        signal_may_be_pending: false,
        may_run_new: true,
    };
    assert!(states(&plan).values().all(|state| *state == current));
}
