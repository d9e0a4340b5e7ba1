#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use super::*;
use crate::event::Instance;

fn name(text: &str) -> HostName {
    HostName::new(text).unwrap()
}

fn unready(host: &str, state: HostState, verdict: Verdict) -> UnreadyHost {
    UnreadyHost {
        name: name(host),
        state,
        never_began: false,
        version: None,
        abort: Abort::new(verdict, format!("{verdict:?}")),
    }
}

fn with_verdict(host: &str, verdict: Verdict) -> UnreadyHost {
    let state = match verdict {
        Verdict::Unreachable => HostState::Unreachable,
        Verdict::Busy => HostState::Busy,
        _ => HostState::Refused,
    };
    unready(host, state, verdict)
}

fn away(count: usize) -> Vec<UnreadyHost> {
    let hosts = (0..count).map(|n| format!("away-{n}"));
    hosts
        .map(|host| with_verdict(&host, Verdict::Unreachable))
        .collect()
}

/// The verdicts of hosts that end a run before it begins. The first one decides.
const ORDER: [Verdict; 8] = [
    Verdict::Usage,
    Verdict::Failed,
    Verdict::Unreachable,
    Verdict::NoMatch,
    Verdict::Busy,
    Verdict::Refused,
    Verdict::Invalid,
    Verdict::RestartRequired,
];

#[test]
fn the_verdict_that_comes_first_decides_whatever_the_order_of_the_hosts() {
    for (place, first) in ORDER.into_iter().enumerate() {
        for second in &ORDER[place..] {
            for verdicts in [[first, *second], [*second, first]] {
                let hosts = verdicts.map(|verdict| with_verdict("a", verdict));
                let judged = judge(1, hosts.into(), (3, Share::Count(0)));
                assert_eq!(judged.unwrap_err().verdict, first, "{verdicts:?}");
            }
        }
    }
}

#[test]
fn a_host_that_is_not_ready_ends_the_run_although_others_may_be_unreachable() {
    let mut hosts = away(1);
    hosts.push(with_verdict("b", Verdict::Invalid));
    let judged = judge(1, hosts, (3, Share::Count(1)));
    assert_eq!(judged.unwrap_err().verdict, Verdict::Invalid);
}

#[test]
fn a_run_goes_without_as_many_hosts_as_its_budget_says() {
    let part = |percent: u32| Share::Part(percent * 100);
    for (total, budget, may_be_away) in [
        (3, Share::Count(0), 0),
        (3, Share::Count(2), 2),
        (3, part(33), 0),
        (3, part(34), 1),
        (4, part(50), 2),
        (99, part(1), 0),
        (100, part(1), 1),
    ] {
        let judged = |count: usize| judge(total - count, away(count), (total, budget));
        assert!(judged(may_be_away).is_ok(), "{total} {budget}");
        let beyond = judged(may_be_away + 1).unwrap_err();
        assert_eq!(beyond.verdict, Verdict::Unreachable, "{total} {budget}");
        assert!(beyond.reason.contains("away-0: "), "{}", beyond.reason);
    }
}

#[test]
fn a_refusal_names_the_budget_that_was_not_enough() {
    let abort = judge(1, away(2), (3, Share::Count(1))).unwrap_err();
    let names_it = abort.reason.ends_with("; `max_unreachable` is 1");
    assert!(names_it, "{}", abort.reason);
}

#[test]
fn an_excluded_host_uses_up_no_budget() {
    let hosts = vec![unready("a", HostState::Excluded, Verdict::NoMatch)];
    let absent = judge(1, hosts, (2, Share::Count(0))).unwrap();
    assert_eq!(absent.worsen(Verdict::Converged), Verdict::Converged);
    assert!(!absent.leaves_hosts());
}

#[test]
fn a_run_without_a_host_has_no_match() {
    let hosts = || vec![unready("a", HostState::Excluded, Verdict::NoMatch)];
    let judged = judge(0, hosts(), (1, Share::Count(0)));
    assert_eq!(judged.unwrap_err().verdict, Verdict::NoMatch);
    let judged = judge(0, Vec::new(), (0, Share::Count(0)));
    assert_eq!(judged.unwrap_err().verdict, Verdict::NoMatch);
}

#[test]
fn a_run_whose_last_hosts_are_away_is_unreachable_although_its_budget_allows_it() {
    let mut hosts = away(1);
    hosts.push(unready("b", HostState::Excluded, Verdict::NoMatch));
    let judged = judge(0, hosts, (2, Share::Part(10_000)));
    assert_eq!(judged.unwrap_err().verdict, Verdict::Unreachable);
}

#[test]
fn a_good_run_without_an_unreachable_host_is_partial_and_any_other_stays() {
    let absent = judge(1, away(1), (2, Share::Count(1))).unwrap();
    for verdict in Verdict::ALL {
        let is_good = matches!(verdict, Verdict::Converged | Verdict::Unproven);
        let worse = if is_good { Verdict::Partial } else { verdict };
        assert_eq!(absent.worsen(verdict), worse);
    }
}

#[test]
fn a_host_of_the_earlier_run_that_is_no_part_makes_a_rollback_mixed() {
    let mut absent = judge(1, Vec::new(), (1, Share::Count(0))).unwrap();
    absent.is_continued = true;
    assert_eq!(absent.worsen(Verdict::Reverted), Verdict::Reverted);
    assert_eq!(absent.worsen(Verdict::Converged), Verdict::Converged);
    absent.leave(name("b"), "excluded".into());
    assert_eq!(absent.worsen(Verdict::Reverted), Verdict::Mixed);
    assert_eq!(absent.worsen(Verdict::Converged), Verdict::Partial);
    assert_eq!(
        absent.with_reason("good".into()),
        "good; no part of this command: b"
    );
}

#[test]
fn hosts_of_the_earlier_run_without_a_name_are_counted() {
    let absent = Absent {
        further: 2,
        ..Absent::default()
    };
    assert_eq!(absent.worsen(Verdict::Converged), Verdict::Partial);
    let reason = absent.with_reason("good".into());
    let wanted = "good; no part of this command: 2 more hosts of the earlier run";
    assert_eq!(reason, wanted);
}

#[test]
fn a_host_that_is_lost_at_the_end_leaves_the_verdict_and_is_left() {
    let mut absent = Absent::default();
    assert!(!absent.leaves_hosts() && absent.lost().is_empty());
    absent.lose(name("a"), "cut".into());
    assert_eq!(absent.worsen(Verdict::Converged), Verdict::Converged);
    assert!(absent.leaves_hosts() && !absent.lost().is_empty());
}

#[test]
fn an_unreachable_host_is_left_and_named_in_the_reason() {
    let absent = judge(1, away(1), (2, Share::Count(1))).unwrap();
    assert!(absent.leaves_hosts() && absent.lost().is_empty());
    let reason = absent.with_reason("good".into());
    assert_eq!(reason, "good; unreachable and skipped: away-0");
}

#[test]
fn hosts_with_one_reason_share_its_sentence() {
    let abort = |reason: &str| Abort::new(Verdict::Busy, reason);
    let aborts = vec![
        (name("a"), abort("locked")),
        (name("b"), abort("held")),
        (name("c"), abort("locked")),
        (name("d"), Abort::new(Verdict::Invalid, "bad")),
    ];
    let worst = worst(aborts).unwrap();
    assert_eq!(worst.reason, "a, c: locked; b: held");
}

#[test]
fn an_instance_that_is_the_reason_has_its_host() {
    let mut abort = Abort::new(Verdict::Invalid, "bad");
    abort.instances.push(Instance::new("web", 7, 1));
    let worst = worst(vec![(name("a"), abort)]).unwrap();
    assert_eq!(worst.instances[0].host, name("a"));
}

#[test]
fn the_next_step_on_a_host_is_kept_with_its_name() {
    let with_hint = |what: &str| {
        let commands = vec![format!("hello {what}")];
        Abort::new(Verdict::Refused, "why").with_hint(what, commands)
    };
    let aborts = vec![
        (name("a"), Abort::new(Verdict::Refused, "why")),
        (name("b"), with_hint("look")),
        (name("c"), with_hint("see")),
    ];
    let hint = worst(aborts).unwrap().hint.unwrap();
    assert_eq!(
        (hint.what.as_str(), hint.commands),
        ("on b: look", vec!["hello look".to_owned()])
    );
}

#[test]
fn the_run_that_goes_first_is_kept_instead_of_the_commands_of_a_host() {
    let abort = Abort {
        goes_first: Some("0198".into()),
        ..Abort::new(Verdict::Refused, "why").with_hint("first", vec!["hello resume 0198".into()])
    };
    let worst = worst(vec![(name("a"), abort)]).unwrap();
    assert_eq!(worst.goes_first.as_deref(), Some("0198"));
    assert!(worst.hint.is_none());
}

#[test]
fn failures_that_are_all_of_the_reason_of_each_host_are_all_of_the_reason() {
    let refused = |why: &str| {
        let mut instance = Instance::new("web", 7, 1);
        instance.failure = Some(crate::event::Failure {
            kind: crate::event::Outcome::Refused.into(),
            text: why.into(),
        });
        Abort::refused(vec![instance])
    };
    let both = vec![
        (name("a"), refused("is stopped")),
        (name("b"), refused("is gone")),
    ];
    let both = worst(both).unwrap();
    assert!(both.by_instances);
    assert_eq!(both.reason, "a: pid 7 is stopped; b: pid 7 is gone");
    let other = Abort::new(Verdict::Refused, "no state directory");
    let one = worst(vec![(name("a"), refused("is stopped")), (name("b"), other)]);
    assert!(!one.unwrap().by_instances);
}

#[test]
fn no_abort_has_no_worst() {
    assert!(worst(Vec::new()).is_none());
}

#[test]
fn a_report_has_each_host_once_with_its_instances() {
    let mut absent = judge(2, away(1), (3, Share::Count(1))).unwrap();
    absent.lose(name("b"), "cut".into());
    let row = |host: &str| {
        let mut row = Instance::new("web", 1, 1);
        row.host = name(host);
        row
    };
    let reports = absent.reports(&[row("a"), row("a"), row("b")], HostState::Done);
    let states: Vec<(&str, HostState, usize)> = reports
        .iter()
        .map(|host| (host.name.as_str(), host.state, host.instances))
        .collect();
    let wanted = [
        ("away-0", HostState::Unreachable, 0),
        ("b", HostState::Lost, 1),
        ("a", HostState::Done, 2),
    ];
    assert_eq!(states, wanted);
}

#[test]
fn a_host_on_which_the_earlier_run_never_began_makes_a_good_end_partial_and_no_rollback_mixed() {
    let mut host = unready("b", HostState::Excluded, Verdict::NoMatch);
    host.never_began = true;
    let mut absent = judge(1, vec![host], (2, Share::Count(0))).unwrap();
    absent.is_continued = true;
    assert_eq!(absent.worsen(Verdict::Converged), Verdict::Partial);
    assert_eq!(absent.worsen(Verdict::Reverted), Verdict::Reverted);
    assert!(!absent.leaves_hosts());
    assert_eq!(absent.without_run(), []);
    let reason = absent.with_reason("good".into());
    let wanted = "good; the run never began and touched nothing on: b";
    assert_eq!(reason, wanted);
}
