//! Waves that `apart` has cut into rounds.

use super::*;

/// The first two hosts are of one wave, which has two rounds.
const TWO_ROUNDS: HostsCase = HostsCase {
    rounds: Some((1, 2)),
    bake: true,
    gate: true,
    ..ONE_BY_ONE
};

#[test]
fn the_rounds_of_a_wave_have_one_bake_after_the_last() {
    let ran = TWO_ROUNDS.run(|_, _| {}).hold(|| "rounds".into());
    let baked = ran.events.iter().filter_map(|(_, event)| match event {
        Event::Baked { wave, .. } => Some(*wave),
        _ => None,
    });
    assert_eq!(baked.collect::<Vec<_>>(), [2, 3]);
    assert_eq!(ran.verdict, Ok(Verdict::Converged));
}

#[test]
fn the_gate_of_a_wave_gets_the_instances_of_all_its_rounds() {
    let ran = TWO_ROUNDS.run(|_, _| {}).hold(|| "rounds".into());
    assert_eq!(ran.gates, [(2, vec![0, 1, 10, 11]), (3, vec![20, 21])]);
}

#[test]
fn the_bake_and_the_gate_follow_a_wave_whose_last_round_was_lost() {
    let case = HostsCase {
        fault: Some((1, 1, Fault::LostUnsent)),
        reach: 1,
        ..TWO_ROUNDS
    };
    let ran = case.run(|_, _| {}).hold(|| "a lost round".into());
    assert_eq!(ran.gates, [(2, vec![0, 1]), (3, vec![20, 21])]);
    assert!(ran.has_event(|e| matches!(e, Event::Baked { wave: 2, .. })));
}
