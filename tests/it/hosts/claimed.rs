//! Claims about hosts that are lost at the end of a run, and about runs of which this machine has
//! only some of the indexes.

use super::bed::{Bed, expect, outcomes, rule, rule_after};
use crate::support::{CommandEnd, run_to_end};

const ROLLOUT: &str = "[rollout]\nwaves = [\"1\", \"100%\"]\nbake = \"0s\"\n";

fn bed() -> Bed {
    let bed = Bed::start(&[1, 1, 1]);
    bed.fleet(ROLLOUT);
    bed
}

fn run_of(end: &CommandEnd) -> String {
    end.json["run"].as_str().unwrap().to_owned()
}

/// Runs a command on a coordinator that has no index of the runs before.
fn elsewhere(bed: &Bed, args: &[&str]) -> CommandEnd {
    let end = run_to_end(&mut bed.command_of("other", args));
    bed.wait_for_agents();
    end
}

#[test]
fn a_revert_of_a_second_revert_goes_back_also_without_the_index_of_the_first() {
    let bed = bed();
    let first = bed.broadcast("two", &[]);
    expect(&first, 0);
    let back = bed.run(&["revert", &run_of(&first)]);
    expect(&back, 0);
    bed.between(2, &[rule("cut", ">", r#""verb":"commit""#)]);
    let again = elsewhere(&bed, &["revert", &run_of(&back)]);
    expect(&again, 7);
    bed.connect_directly(2);
    let end = elsewhere(&bed, &["revert", &run_of(&again)]);
    expect(&end, 0);
    assert!(bed.all_serve("one"), "{}", end.stderr);
}

#[test]
fn the_part_that_a_resume_continues_is_not_taken_for_the_whole_without_an_index() {
    let bed = bed();
    bed.between(0, &[rule_after("kill", ">", r#""verb":"commit""#)]);
    assert_eq!(bed.broadcast("two", &[]).code, None);
    bed.connect_directly(0);
    let part = bed.run(&["resume", "--on", "h2"]);
    expect(&part, 8);
    let served: Vec<_> = (0..3).map(|host| bed.served(host)).collect();
    let end = elsewhere(&bed, &["revert", &run_of(&part)]);
    expect(&end, 5);
    let now: Vec<_> = (0..3).map(|host| bed.served(host)).collect();
    assert_eq!(now, served);
}

#[test]
fn an_instance_whose_host_is_lost_in_the_last_bake_is_not_confirmed() {
    let bed = bed();
    bed.fleet("[rollout]\nwaves = [\"100%\"]\nbake = \"100ms\"\n");
    bed.between(1, &[rule("cut", ">", r#""verb":"recheck""#)]);
    let end = bed.broadcast("two", &[]);
    expect(&end, 7);
    assert_eq!(outcomes(&end.json, "h1"), ["timed_out"]);
    assert_eq!(outcomes(&end.json, "h2"), ["confirmed"]);
    let reason = end.json["reason"].as_str().unwrap();
    assert!(reason.contains("h1"), "{reason}");
}

#[test]
fn a_revert_without_a_name_reverts_a_run_whose_resume_had_nothing_to_install() {
    let bed = bed();
    expect(&bed.broadcast("before", &["--on", "h2"]), 0);
    bed.between(1, &[rule("cut", ">", r#""q":"finish""#)]);
    expect(&bed.broadcast("two", &["--on", "h0,h1"]), 0);
    bed.connect_directly(1);
    expect(&bed.run(&["resume"]), 0);
    let end = bed.run(&["revert", "-y"]);
    expect(&end, 0);
    assert!(
        bed.serves(0, "one") && bed.serves(1, "one"),
        "{}",
        end.stderr
    );
    assert!(bed.serves(2, "before"), "{}", end.stderr);
}
