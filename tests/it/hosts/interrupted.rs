//! Ctrl-C, once and twice, in each phase of a run over hosts.

use serde_json::{Value, json};

use super::bed::{Bed, rule, rule_after};

const ROLLOUT: &str = "[rollout]\nwaves = [\"1\", \"100%\"]\n";

#[test]
fn interrupts_in_the_survey_touch_nothing() {
    let bed = Bed::start(&[1, 1]);
    let first = rule_after("int", ">", r#""q":"survey""#);
    let second = rule_after("int", ">", r#""level":1"#);
    for rules in [vec![first.clone()], vec![first, second]] {
        bed.between(1, &rules);
        let end = bed.broadcast("two", &[]);
        assert_eq!(end.code, Some(1), "{rules:?} {:#}", end.json);
        (0..2).for_each(|host| bed.assert_untouched(host));
    }
    bed.connect_directly(1);
    assert_eq!(bed.broadcast("three", &[]).code, Some(0));
}

#[test]
fn an_interrupt_in_a_commit_rolls_every_host_back() {
    let bed = Bed::start(&[1, 1, 1]);
    bed.fleet(&format!("{ROLLOUT}bake = \"0s\"\n"));
    bed.between(1, &[rule("int", ">", r#""verb":"commit""#)]);
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(6), "{:#} {}", end.json, end.stderr);
    assert!(bed.all_serve("one"));
    (0..3).for_each(|host| bed.assert_clean(host));
}

#[test]
fn an_interrupt_in_a_bake_rolls_every_host_back() {
    let bed = Bed::start(&[1, 1]);
    // It would take longer than the limit of a test.
    bed.fleet(&format!("{ROLLOUT}bake = \"10m\"\n"));
    bed.between(0, &[rule_after("int", "<", r#""a":3,"#)]);
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(6), "{:#} {}", end.json, end.stderr);
    assert!(bed.all_serve("one"));
    (0..2).for_each(|host| bed.assert_clean(host));
}

/// Returns a rule whose line does not go on.
fn lost(mut rule: Value) -> Value {
    rule["lost"] = json!(true);
    rule
}

#[test]
fn two_interrupts_leave_at_once_and_a_resume_or_revert_ends_the_run() {
    for verb in ["resume", "revert"] {
        let bed = Bed::start(&[1, 1]);
        bed.fleet(&format!("{ROLLOUT}bake = \"0s\"\n"));
        bed.between(
            1,
            &[
                // The commit would end before the interrupt on a busy machine.
                lost(rule("int", ">", r#""verb":"commit""#)),
                rule("int", ">", r#""level":1"#),
            ],
        );
        let end = bed.broadcast("two", &[]);
        assert_eq!(end.code, Some(7), "{:#} {}", end.json, end.stderr);
        bed.connect_directly(1);
        let end = bed.run(&[verb]);
        assert_eq!(end.code, Some(0), "{verb} {:#} {}", end.json, end.stderr);
        let message = if verb == "resume" { "two" } else { "one" };
        assert!(bed.all_serve(message), "{verb}");
        (0..2).for_each(|host| bed.assert_clean(host));
    }
}

#[test]
fn two_interrupts_in_a_bake_end_it_and_a_revert_ends_what_is_left() {
    let bed = Bed::start(&[1, 1]);
    bed.fleet(&format!("{ROLLOUT}bake = \"10m\"\n"));
    // The first one ends the bake; the second one comes with the rollback that follows.
    let first = rule_after("int", "<", r#""a":3,"#);
    let second = rule("int", ">", r#""verb":"roll_back""#);
    bed.between(0, &[first, second]);
    let end = bed.broadcast("two", &[]);
    // The rollback of one instance may be over before the second interrupt reaches its host.
    let is_rolled_back = end.code == Some(6);
    assert!(
        is_rolled_back || end.code == Some(7),
        "{:?} {:#} {}",
        end.code,
        end.json,
        end.stderr
    );
    assert!(bed.serves(1, "one"));
    bed.connect_directly(0);
    if !is_rolled_back {
        let end = bed.run(&["revert"]);
        assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    }
    assert!(bed.all_serve("one"));
    (0..2).for_each(|host| bed.assert_clean(host));
}
