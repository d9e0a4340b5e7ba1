//! `hello forget` over hosts: a run is removed on each host, or it is said where it stays.

use super::bed::{Bed, rule};
use crate::support::{CommandEnd, run_to_end, until};

const NOTHING: [String; 0] = [];

fn after_a_run(hosts: usize) -> Bed {
    let bed = Bed::start(&vec![1; hosts]);
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    bed
}

/// Runs the command on a machine with this state directory, with the fleet file named.
fn with_fleet(bed: &Bed, state: &str, args: &[&str]) -> CommandEnd {
    let fleet = bed.path("fleet.toml");
    let more = ["--fleet", fleet.to_str().unwrap()];
    bed.tell(state, &[&["forget"], args, &more].concat())
}

#[test]
fn a_run_is_removed_on_its_hosts_and_here() {
    let bed = after_a_run(2);
    let run = bed.runs_here()[0].clone();
    let end = bed.tell("state", &["forget", "@"]);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert!(end.stderr.contains("h0, h1"), "{}", end.stderr);
    assert!(end.stderr.contains(&run), "{}", end.stderr);
    (0..2).for_each(|host| assert_eq!(bed.runs(host), NOTHING, "h{host}"));
    assert_eq!(bed.runs_here(), NOTHING);
}

#[test]
fn an_open_run_is_kept_everywhere_until_it_is_given_up() {
    let bed = after_a_run(2);
    let run = bed.killed("other", "three", &[]);
    for (state, args) in [
        ("other", &["forget", &run][..]),
        ("third", &["forget", &run, "--on", "h*"]),
    ] {
        let fleet = bed.path("fleet.toml");
        let fleet = ["--fleet", fleet.to_str().unwrap()];
        let args = [args, if state == "third" { &fleet[..] } else { &[] }].concat();
        let end = bed.tell(state, &args);
        assert_eq!(end.code, Some(5), "{state}: {}", end.stderr);
        assert!(end.stderr.contains("--abandon"), "{}", end.stderr);
        (0..2).for_each(|host| assert!(bed.runs(host).contains(&run), "{state}: h{host}"));
    }
    let end = bed.tell("other", &["forget", &run, "--abandon"]);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    for host in 0..2 {
        assert!(!bed.runs(host).contains(&run), "h{host}");
        assert_eq!(bed.open_runs(host), NOTHING, "h{host}");
    }
    assert_eq!(bed.tell("other", &["history"]).code, Some(0));
}

#[test]
fn a_run_that_is_open_on_one_host_alone_is_removed_on_none() {
    let bed = Bed::start(&[1, 1]);
    // One host is lost at the end, when the other ones have recorded theirs.
    bed.between(1, &[rule("cut", ">", r#""q":"finish""#)]);
    let end = bed.broadcast("two", &[]);
    let run = end.json["run"].as_str().unwrap().to_owned();
    bed.connect_directly(1);
    bed.wait_for_agents();
    assert_eq!(bed.open_runs(0), NOTHING);
    assert_eq!(bed.open_runs(1), std::slice::from_ref(&run));
    let end = with_fleet(&bed, "third", &[&run]);
    assert_eq!(end.code, Some(5), "{}", end.stderr);
    assert!(end.stderr.contains("h1: run"), "{}", end.stderr);
    (0..2).for_each(|host| assert_eq!(bed.runs(host), std::slice::from_ref(&run), "h{host}"));
}

#[test]
fn a_host_that_is_not_reached_is_named_and_keeps_its_part() {
    let bed = after_a_run(2);
    let run = bed.runs_here()[0].clone();
    bed.unreachable(1);
    let end = bed.tell("state", &["forget", "@"]);
    assert_eq!(end.code, Some(11), "{}", end.stderr);
    let forgotten = end.stderr.lines().find(|line| line.contains("Forgotten"));
    let forgotten = forgotten.unwrap();
    assert!(
        forgotten.contains("h0") && !forgotten.contains("h1"),
        "{forgotten}"
    );
    assert!(end.stderr.contains("h1: "), "{}", end.stderr);
    assert_eq!(bed.runs(0), NOTHING);
    assert_eq!(bed.runs(1), std::slice::from_ref(&run));
    assert_eq!(bed.runs_here(), [run]);
    bed.connect_directly(1);
    let end = bed.tell("state", &["forget", "@"]);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert_eq!(bed.runs(1), NOTHING);
    assert_eq!(bed.runs_here(), NOTHING);
}

#[test]
fn a_host_that_is_lost_before_its_answer_is_not_called_forgotten() {
    let bed = after_a_run(2);
    bed.between(1, &[rule("cut", "<", r#""contents":[1-9]"#)]);
    let end = bed.tell("state", &["forget", "@"]);
    assert_eq!(end.code, Some(11), "{}", end.stderr);
    assert!(end.stderr.contains("may be kept there"), "{}", end.stderr);
    let forgotten = end.stderr.lines().find(|line| line.contains("Forgotten"));
    assert!(!forgotten.unwrap().contains("h1"), "{}", end.stderr);
    assert_eq!(bed.runs_here().len(), 1, "the index stays");
}

#[test]
fn a_host_whose_runs_cannot_be_read_lets_no_host_forget() {
    let bed = after_a_run(2);
    let folder = bed.hosts[1].path("state/runs");
    std::fs::rename(&folder, bed.hosts[1].path("state/moved")).unwrap();
    std::fs::write(&folder, "").unwrap();
    let end = bed.tell("state", &["forget", "@"]);
    assert_eq!(end.code, Some(1), "{}", end.stderr);
    assert!(
        end.stderr.contains("h1: the state directory"),
        "{}",
        end.stderr
    );
    assert_eq!(bed.runs(0).len(), 1);
    assert_eq!(bed.runs_here().len(), 1);
}

#[test]
fn terms_restrict_it_and_the_index_stays_until_no_host_has_a_part() {
    let bed = after_a_run(3);
    let end = bed.tell("state", &["forget", "@", "--on", "h0"]);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert!(
        end.stderr.contains("a part may stay on h1, h2"),
        "{}",
        end.stderr
    );
    let kept = |host| bed.runs(host).len();
    assert_eq!((kept(0), kept(1), kept(2)), (0, 1, 1));
    let end = bed.tell("state", &["forget", "@", "--except", "h2"]);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert_eq!((kept(1), kept(2), bed.runs_here().len()), (0, 1, 1));
    let end = bed.tell("state", &["forget", "@"]);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert_eq!((kept(2), bed.runs_here().len()), (0, 0));
}

#[test]
fn the_index_alone_can_be_removed() {
    let bed = after_a_run(1);
    bed.unreachable(0);
    let end = bed.tell("state", &["forget", "@", "--here"]);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert_eq!(bed.runs_here(), NOTHING);
    assert_eq!(bed.runs(0).len(), 1);
}

#[test]
fn a_run_that_only_hosts_know_is_removed_by_its_whole_id() {
    let bed = after_a_run(2);
    let run = bed.runs_here()[0].clone();
    assert_eq!(with_fleet(&bed, "third", &[&run[..14]]).code, Some(2));
    let end = with_fleet(&bed, "third", &[&run, "--on", "h1"]);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert_eq!((bed.runs(0).len(), bed.runs(1).len()), (1, 0));
    let end = with_fleet(&bed, "third", &[&run, "--on", "h1"]);
    assert_eq!(end.code, Some(3), "{}", end.stderr);
}

#[test]
fn a_content_is_removed_on_the_selected_hosts() {
    let bed = after_a_run(2);
    let bytes = |host: usize| {
        let folder = bed.hosts[host].path("state/bytes");
        let names = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let all = bytes(0);
    assert_eq!(all.len(), 2);
    assert_eq!(with_fleet(&bed, "state", &[&all[0][..20]]).code, Some(2));
    let end = with_fleet(&bed, "state", &[&all[0], "--on", "h0"]);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert!(end.stderr.contains("of 1 run"), "{}", end.stderr);
    assert_eq!(bytes(0), all[1..]);
    assert_eq!(bytes(1).len(), 2);
}

#[test]
fn a_run_under_way_is_not_given_up() {
    let bed = Bed::start(&[1, 1]);
    let (waits, go) = (bed.path("waits"), bed.path("go"));
    bed.gate(&waits, &go);
    let mut first = bed.command(&["broadcast", "--set", "message=two"]);
    let mut first = first.spawn().unwrap();
    until("the gate runs", || waits.exists());
    let run = bed.open_runs(0)[0].clone();
    let fleet = bed.path("fleet.toml");
    let fleet = fleet.to_str().unwrap();
    let args = ["forget", &run, "--abandon", "--fleet", fleet];
    let end = run_to_end(&mut bed.plain(&bed.path("third"), &args));
    std::fs::write(&go, "").unwrap();
    assert!(first.wait().unwrap().success());
    bed.wait_for_agents();
    assert_eq!(end.code, Some(5), "{}", end.stderr);
    assert!(end.stderr.contains("runs now"), "{}", end.stderr);
    assert_eq!(bed.runs(0), [run]);
}
