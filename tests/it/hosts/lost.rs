//! The connection of one host breaks, or its agent ends, in each phase of a run.

use serde_json::Value;

use super::bed::{AT_START, Bed, outcomes, rule, rule_after};

const ROLLOUT: &str = "[rollout]\nwaves = [\"1\", \"100%\"]\nbake = \"0s\"\n";

fn bed(rules: &[(usize, Value)]) -> Bed {
    let bed = Bed::start(&[1, 1, 1]);
    bed.fleet(ROLLOUT);
    for (host, rule) in rules {
        bed.between(*host, std::slice::from_ref(rule));
    }
    bed
}

fn assert_names_lost(json: &Value, host: &str) {
    let hosts = json["hosts"].as_array().unwrap();
    let is_lost = |row: &Value| row["name"] == host && row["state"] == "lost";
    assert!(hosts.iter().any(is_lost), "{json:#}");
}

#[test]
fn a_host_that_is_lost_in_the_survey_counts_as_unreachable() {
    for cut in [
        rule("cut", ">", r#""q":"survey""#),
        rule_after("cut", ">", r#""q":"survey""#),
        rule("cut", "<", r#""a":1,"#),
        rule("end", "<", r#""a":1,"#),
    ] {
        let bed = bed(&[(1, cut.clone())]);
        let end = bed.broadcast("two", &[]);
        if cut["act"] == "cut" {
            assert_eq!(end.code, Some(11), "{cut} {:#}", end.json);
            (0..3).for_each(|host| bed.assert_untouched(host));
            let end = bed.broadcast("two", &["--max-unreachable", "1"]);
            assert_eq!(end.code, Some(8), "{cut} {:#}", end.json);
            assert!(bed.serves(0, "two") && bed.serves(1, "one") && bed.serves(2, "two"));
        } else {
            // Its answer was sent before it ended, so it is lost where the plan comes.
            assert_eq!(end.code, Some(11), "{cut} {:#}", end.json);
            assert!(bed.all_serve("one"));
        }
    }
}

#[test]
fn a_host_that_is_lost_before_its_plan_is_accepted_ends_the_run_untouched() {
    let bed = bed(&[(1, rule("cut", "<", r#""a":2,"#))]);
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(11), "{:#}", end.json);
    assert!(bed.all_serve("one"));
    (0..3).for_each(|host| bed.assert_nothing_staged(host));
    bed.assert_untouched(0);
    bed.assert_untouched(2);
}

#[test]
fn a_host_that_is_lost_before_its_plan_is_accepted_is_skipped_within_the_budget() {
    let bed = bed(&[(1, rule("cut", "<", r#""a":2,"#))]);
    let end = bed.broadcast("two", &["--max-unreachable", "1"]);
    assert_eq!(end.code, Some(8), "{:#} {}", end.json, end.stderr);
    assert_names_lost(&end.json, "h1");
    assert_eq!(outcomes(&end.json, "h1"), ["untouched"]);
    assert!(bed.serves(0, "two") && bed.serves(1, "one") && bed.serves(2, "two"));
    bed.connect_directly(1);
    let end = bed.run(&["resume"]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    assert!(bed.all_serve("two"));
    (0..3).for_each(|host| bed.assert_clean(host));
}

/// Returns a bed in which the last host is lost after the first wave: the gate breaks its link and
/// ends its agent, and waits until nothing of it is left.
fn bed_that_loses_its_last_host(rollout: &str) -> Bed {
    let bed = Bed::start(&[1, 1, 1]);
    let pids = bed.path("h2.pids");
    let script = format!(
        "[ $HELLO_WAVE = 1 ] || exit 0\npid=$(tail -n 1 {})\n\
         echo 'echo gone >&2; exit 255' > {}\nkill -KILL $pid\n\
         while [ $(ls /proc/$pid/task 2> /dev/null | wc -l) -gt 1 ] ||\n\
         ! grep -qs ') Z ' /proc/$pid/stat && [ -e /proc/$pid ]; do sleep 0.01; done\n",
        pids.display(),
        bed.path("h2.sh").display()
    );
    crate::support::write(&bed.path("gate.sh"), &script);
    let gate = bed.path("gate.sh");
    bed.fleet(&format!(
        "{ROLLOUT}gate = [\"sh\", \"{}\"]\n{rollout}",
        gate.display()
    ));
    bed
}

#[test]
fn a_host_that_is_lost_between_the_waves_before_its_own_is_skipped_within_the_budget() {
    let bed = bed_that_loses_its_last_host("");
    let end = bed.broadcast("two", &["--max-unreachable", "1"]);
    assert_eq!(end.code, Some(8), "{:#} {}", end.json, end.stderr);
    assert_names_lost(&end.json, "h2");
    assert_eq!(outcomes(&end.json, "h2"), ["untouched"]);
    assert!(
        end.stderr.contains("skipped: h2"),
        "it is not in the reason: {}",
        end.stderr
    );
    assert!(bed.serves(0, "two") && bed.serves(1, "two") && bed.serves(2, "one"));
    bed.connect_directly(2);
    bed.fleet(ROLLOUT);
    let end = bed.run(&["resume"]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    assert!(bed.all_serve("two"));
    (0..3).for_each(|host| bed.assert_clean(host));
    assert!(bed.open_here().is_empty(), "{:?}", bed.open_here());
}

#[test]
fn a_host_that_is_lost_before_its_wave_and_beyond_the_budget_rolls_the_others_back() {
    let bed = bed_that_loses_its_last_host("");
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(6), "{:#} {}", end.json, end.stderr);
    assert_names_lost(&end.json, "h2");
    assert_eq!(outcomes(&end.json, "h0"), ["reverted"]);
    assert_eq!(outcomes(&end.json, "h1"), ["untouched"]);
    assert_eq!(outcomes(&end.json, "h2"), ["untouched"]);
    assert!(bed.all_serve("one"));
    assert_eq!(bed.hosts[2].attempts(), [AT_START]);
    bed.connect_directly(2);
    bed.fleet(ROLLOUT);
    let end = bed.run(&["revert"]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    (0..3).for_each(|host| bed.assert_clean(host));
    assert!(bed.open_here().is_empty(), "{:?}", bed.open_here());
}

#[test]
fn a_host_that_is_lost_before_its_wave_stops_the_waves_where_on_failure_says_so() {
    let bed = bed_that_loses_its_last_host("on_failure = \"stop\"\n");
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(8), "{:#} {}", end.json, end.stderr);
    assert_names_lost(&end.json, "h2");
    assert_eq!(outcomes(&end.json, "h0"), ["confirmed"]);
    assert!(bed.serves(0, "two") && bed.serves(1, "one") && bed.serves(2, "one"));
}

#[test]
fn a_host_that_is_lost_in_the_recheck_of_a_middle_wave_stops_the_later_ones() {
    let bed = bed(&[(0, rule("cut", ">", r#""verb":"recheck""#))]);
    bed.between(2, &[]);
    bed.fleet("[rollout]\nwaves = [\"1\", \"100%\"]\nbake = \"100ms\"\n");
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(7), "{:#} {}", end.json, end.stderr);
    assert_names_lost(&end.json, "h0");
    assert_eq!(outcomes(&end.json, "h0"), ["timed_out"]);
    assert!(!bed.wire(2).contains(r#""verb":"commit""#));
}

#[test]
fn a_host_that_is_lost_in_the_recheck_of_a_middle_wave_counts_as_failed_instances() {
    let bed = bed(&[(0, rule("cut", ">", r#""verb":"recheck""#))]);
    bed.fleet("[rollout]\nwaves = [\"1\", \"100%\"]\nbake = \"100ms\"\nmax_failures = 1\n");
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(7), "{:#} {}", end.json, end.stderr);
    assert_eq!(outcomes(&end.json, "h0"), ["timed_out"]);
    assert!(bed.serves(1, "two") && bed.serves(2, "two"));
}

#[test]
fn a_run_that_loses_a_host_after_its_commit_never_converges() {
    for (host, cut) in [
        (0, rule("cut", ">", r#""verb":"commit""#)),
        (0, rule_after("cut", ">", r#""verb":"commit""#)),
        (1, rule("cut", "<", r#""a":3,"#)),
        (1, rule("end", ">", r#""verb":"commit""#)),
        (1, rule("cut", ">", r#""verb":"recheck""#)),
        (2, rule("cut", ">", r#""verb":"conclude""#)),
        (1, rule_after("stop", ">", r#""verb":"commit""#)),
    ] {
        let bed = bed(&[(host, cut.clone())]);
        let end = bed.broadcast("two", &[]);
        let name = format!("h{host}");
        assert_eq!(end.code, Some(7), "{cut} {:#} {}", end.json, end.stderr);
        assert_names_lost(&end.json, &name);
        assert!(end.stderr.contains(&name), "{}", end.stderr);
        bed.connect_directly(host);
        let end = bed.run(&["resume"]);
        assert_eq!(end.code, Some(0), "{cut} {:#} {}", end.json, end.stderr);
        assert!(bed.all_serve("two"), "{cut}");
        (0..3).for_each(|host| bed.assert_clean(host));
        assert!(bed.open_here().is_empty(), "{cut}: {:?}", bed.open_here());
    }
}

#[test]
fn the_loss_of_the_only_host_of_a_wave_stops_the_waves_after_it() {
    let bed = bed(&[(0, rule_after("cut", ">", r#""verb":"commit""#))]);
    bed.between(2, &[]);
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(7), "{:#}", end.json);
    assert!(!bed.wire(2).contains(r#""verb":"commit""#));
    assert!(bed.serves(2, "one"));
    assert_eq!(outcomes(&end.json, "h0"), ["timed_out"]);
    assert_eq!(outcomes(&end.json, "h2"), ["untouched"]);
}

#[test]
fn a_run_goes_on_after_the_loss_of_a_host_within_its_budget() {
    let bed = bed(&[(0, rule("cut", ">", r#""verb":"commit""#))]);
    bed.fleet(&format!("{ROLLOUT}max_failures = 1\n"));
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(7), "{:#}", end.json);
    assert_names_lost(&end.json, "h0");
    assert!(bed.serves(0, "one") && bed.serves(1, "two") && bed.serves(2, "two"));
    bed.connect_directly(0);
    assert_eq!(bed.run(&["resume"]).code, Some(0));
    assert!(bed.all_serve("two"));
}

#[test]
fn an_instance_of_a_host_that_is_lost_in_the_rollback_has_failed_to_revert() {
    let bed = bed(&[(1, rule("cut", ">", r#""verb":"commit""#))]);
    bed.between(0, &[rule("cut", ">", r#""verb":"roll_back""#)]);
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(7), "{:#}", end.json);
    assert_eq!(outcomes(&end.json, "h0"), ["revert_failed"]);
    assert_names_lost(&end.json, "h0");
    assert!(bed.serves(2, "one"));
    bed.connect_directly(0);
    bed.connect_directly(1);
    let end = bed.run(&["revert"]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    assert!(bed.all_serve("one"));
    (0..3).for_each(|host| bed.assert_clean(host));
}

#[test]
fn the_verdict_stands_where_a_host_is_lost_at_the_end_and_its_run_stays_open() {
    for cut in [
        rule("cut", ">", r#""q":"close_up""#),
        rule("cut", ">", r#""q":"finish""#),
    ] {
        let bed = bed(&[(1, cut.clone())]);
        let end = bed.broadcast("two", &[]);
        assert_eq!(end.code, Some(0), "{cut} {:#}", end.json);
        assert!(bed.all_serve("two"));
        assert_names_lost(&end.json, "h1");
        assert_eq!(bed.open_runs(1).len(), 1, "{cut}");
        bed.connect_directly(1);
        let end = bed.run(&["resume"]);
        assert_eq!(end.code, Some(0), "{cut} {:#} {}", end.json, end.stderr);
        (0..3).for_each(|host| bed.assert_clean(host));
        assert!(bed.open_here().is_empty());
    }
}
