//! Unresponsive instances in a run over hosts.

use super::bed::{Bed, outcomes};
use crate::unresponsive::make_unresponsive;

/// Starts three hosts with a server each. That of the second one is unresponsive.
fn bed() -> Bed {
    let bed = Bed::start(&[1, 1, 1]);
    make_unresponsive(&bed.hosts[1], 0);
    bed
}

#[test]
fn an_unresponsive_instance_is_counted_on_its_host_where_the_coordinator_sets_no_limit() {
    let bed = bed();
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(5), "{:#} {}", end.json, end.stderr);
    assert!(
        end.stderr.contains("1 of group") || end.stderr.contains("no instance of group"),
        "{}",
        end.stderr
    );
}

#[test]
fn unresponsive_instances_are_counted_over_all_hosts_where_the_coordinator_sets_the_limit() {
    let bed = bed();
    // A percentage of three rounds down.
    bed.fleet("[rollout]\nmax_unresponsive = \"33%\"\n");
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(5), "{:#} {}", end.json, end.stderr);
    let why = "1 of 3 of group `web` over all hosts are unresponsive (h1)";
    assert!(end.stderr.contains(why), "{}", end.stderr);
    bed.assert_untouched(0);
    bed.fleet("[rollout]\nmax_unresponsive = \"34%\"\n");
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(8), "{:#} {}", end.json, end.stderr);
    assert!(bed.serves(0, "two") && bed.serves(2, "two"));
    assert_eq!(outcomes(&end.json, "h1"), ["untouched"]);
    assert_eq!(bed.open_runs(0), bed.open_runs(1));
}

#[test]
fn an_unresponsive_instance_that_is_skipped_counts_for_the_number_over_all_hosts() {
    let bed = bed();
    bed.fleet(
        "[[group]]\nname = \"web\"\nkind = \"hello\"\ncount = 3\nper_host = 1\n\
         [group.rollout]\nmax_unresponsive = 1\n",
    );
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(8), "{:#} {}", end.json, end.stderr);
}
