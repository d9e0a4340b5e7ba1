//! The frames of a run: each is read as it was written, and any other is refused.

use std::time::{Duration, Instant};

use super::*;
use crate::{
    event::{Direction, Event, Outcome, TargetKind, Verdict},
    fleet::Unproven,
};

fn numbers() -> impl Strategy<Value = Numbers> {
    let each = prop_oneof![0_u32..50, any::<u32>()];
    prop::collection::vec(each, 0..40).prop_map(Numbers)
}

fn text() -> impl Strategy<Value = String> + Clone {
    prop::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

fn seconds() -> impl Strategy<Value = Duration> {
    (0_u64..1 << 40, 0_u32..1_000_000_000).prop_map(|(s, ns)| Duration::new(s, ns))
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Forward), Just(Direction::Back)]
}

/// Returns requests without a moment: that is another one when it is read.
fn requests() -> impl Strategy<Value = SessionRequest> {
    let scope = prop_oneof![
        numbers().prop_map(|numbers| Scope::Named(numbers.0)),
        Just(Scope::All),
    ];
    prop_oneof![
        (any::<usize>(), any::<bool>())
            .prop_map(|(wave, goes_on)| SessionRequest::Commit { wave, goes_on }),
        (any::<usize>(), scope, text()).prop_map(|(until, scope, why)| SessionRequest::RollBack {
            until,
            scope,
            why
        }),
        any::<usize>().prop_map(|until| SessionRequest::Recheck { until, fresh: None }),
        any::<usize>().prop_map(|wave| SessionRequest::Describe { wave }),
    ]
}

fn changes() -> impl Strategy<Value = ChangeOrder> {
    let form = prop_oneof![Just(TargetKind::File), Just(TargetKind::Directory)];
    prop_oneof![
        Just(ChangeOrder::Adopt),
        prop::collection::vec((text(), text()), 0..3).prop_map(ChangeOrder::Set),
        (text(), form, text(), any::<usize>()).prop_map(|(named, form, sha256, len)| {
            ChangeOrder::Put {
                named,
                form,
                sha256,
                len,
            }
        }),
    ]
}

fn surveys() -> impl Strategy<Value = SurveyOrder> {
    let validate = prop_oneof![
        Just(Validate::Auto),
        Just(Validate::Strict),
        Just(Validate::Off),
    ];
    let flags = prop::array::uniform6(any::<bool>());
    let times = (prop::option::of(seconds()), seconds());
    let of = prop::option::of((text(), any::<bool>()));
    let named = prop::collection::btree_map(text(), changes(), 0..3);
    let texts = prop::collection::vec(text(), 0..3);
    let first = (texts.clone(), flags, named, changes(), validate);
    (first, times, of, prop::option::of(text()), texts).prop_map(
        |((groups, flags, named, others, validate), times, of, reason, command)| SurveyOrder {
            groups,
            every: flags[0],
            named,
            others,
            prune: flags[1],
            overwrite: flags[2],
            validate,
            include_unresponsive: flags[3],
            counted: CountedGroups {
                every: flags[3],
                named: vec!["web".into()],
            },
            now: flags[4],
            dry_run: flags[5],
            timeout: times.0,
            lock_timeout: times.1,
            of: of.map(|(run, revert)| ContinuedRun {
                run,
                revert,
                may_skip: revert,
            }),
            reason,
            command,
        },
    )
}

fn verbs() -> impl Strategy<Value = RunVerb> {
    let waves = prop::collection::vec((any::<u16>(), numbers()), 0..4);
    let verdict = prop::sample::select(Verdict::ALL.to_vec());
    prop_oneof![
        surveys().prop_map(|order| RunVerb::Survey(Box::new(order))),
        waves.prop_map(|waves| RunVerb::Plan {
            waves,
            part_of: None,
            confirm_within_s: Some(60),
        }),
        Just(RunVerb::Unchanged),
        requests().prop_map(|request| RunVerb::Do { request }),
        Just(RunVerb::CloseUp),
        (verdict, text(), any::<bool>()).prop_map(|(verdict, reason, supersedes)| {
            RunVerb::Finish(Finish {
                verdict,
                reason,
                supersedes,
            })
        }),
    ]
}

fn notes() -> impl Strategy<Value = Vec<Event>> {
    let note = prop_oneof![
        text().prop_map(|why| Event::Stopped { why }),
        (any::<usize>(), any::<usize>())
            .prop_map(|(wave, instances)| Event::Baked { wave, instances }),
        Just(Event::FinalCheck),
    ];
    prop::collection::vec(note, 0..3)
}

fn frames() -> impl Strategy<Value = RunFrame> {
    let epoch = prop::option::of(any::<u64>());
    (text(), any::<u64>(), epoch, notes(), verbs()).prop_map(|(run, n, epoch, notes, verb)| {
        RunFrame {
            run,
            n,
            epoch,
            notes,
            verb,
        }
    })
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    prop::sample::select(vec![
        Outcome::Untouched,
        Outcome::Unchanged,
        Outcome::Confirmed,
        Outcome::Unconfirmed,
        Outcome::Refused,
        Outcome::Rejected,
        Outcome::TimedOut,
        Outcome::Died,
        Outcome::Reverted,
        Outcome::RevertFailed,
    ])
}

fn entries() -> impl Strategy<Value = InstanceEntry> {
    let ids = (any::<u64>(), any::<i32>(), any::<u16>(), any::<u16>());
    (ids, outcomes(), any::<bool>()).prop_map(
        |((started, pid, group, wave), outcome, unresponsive)| InstanceEntry {
            started,
            pid,
            group,
            wave,
            outcome,
            unresponsive,
        },
    )
}

fn host_plans() -> impl Strategy<Value = HostPlan> {
    let texts = prop::collection::vec(text(), 0..3);
    let entries = prop::collection::vec(entries(), 0..5);
    let flags = prop::array::uniform3(any::<bool>());
    (texts.clone(), entries, texts, any::<usize>(), flags).prop_map(
        |(groups, entries, keys, skipped, flags)| HostPlan {
            groups,
            entries,
            keys,
            skipped,
            unresponsive: std::iter::once(("web".to_owned(), skipped)).collect(),
            has_work: flags[0],
            must_record: flags[1],
            has_unread_targets: flags[2],
        },
    )
}

/// Writes a value as a line, and reads it as a frame is read: first as any JSON value.
fn reread<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let mut line = serde_json::to_vec(value).unwrap();
    line.push(b'\n');
    serde_json::from_value(read(&line).unwrap().unwrap()).unwrap()
}

fn ranges(text: &str) -> serde_json::Result<Numbers> {
    serde_json::from_str(text)
}

#[test]
fn consecutive_numbers_are_one_range() {
    let numbers = Numbers(vec![0, 1, 2, 7, 9, 8]);
    let text = serde_json::to_string(&numbers).unwrap();
    assert_eq!(text, "[[0,2],[7,7],[9,9],[8,8]]");
}

#[test]
fn ranges_beyond_the_most_instances_of_a_host_are_refused() {
    assert_eq!(ranges("[[0,99999]]").unwrap().0.len(), 100_000);
    assert!(ranges("[[0,100000]]").is_err());
    assert!(ranges("[[0,49999],[0,50000]]").is_err());
    assert!(ranges("[[0,99999],[5,5]]").is_err());
    assert!(ranges("[[0,4294967295]]").is_err());
}

#[test]
fn a_range_that_ends_before_it_begins_is_refused() {
    assert!(ranges("[[2,1]]").is_err());
    assert!(ranges("[[-1,1]]").is_err());
    assert_eq!(ranges("[[4294967295,4294967295]]").unwrap().0, [u32::MAX]);
}

#[test]
fn an_unknown_field_of_a_request_is_ignored() {
    for verb in [
        json!({"q": "close_up"}),
        json!({"q": "unchanged"}),
        json!({"q": "plan", "waves": [[1, [[0, 4]]]]}),
        json!({"q": "do", "request": {"verb": "describe", "wave": 2, "later": 1}}),
        json!({"q": "finish", "verdict": "converged", "reason": "", "supersedes": true}),
    ] {
        let mut frame = verb.clone();
        frame["run"] = json!("r1");
        frame["n"] = json!(3);
        frame["later"] = json!({"x": [1]});
        let read: Result<RunFrame, _> = serde_json::from_value(frame);
        assert!(read.is_ok(), "{verb}: {read:?}");
    }
}

#[test]
fn an_unknown_request_is_an_error() {
    for verb in [
        json!({"q": "reboot"}),
        json!({}),
        json!({"q": "do", "request": {"verb": "reboot"}}),
        json!({"q": "do", "request": {}}),
        json!({"q": "plan", "waves": [[1, [[5, 4]]]]}),
        json!({"q": "finish", "verdict": "splendid", "reason": "", "supersedes": true}),
    ] {
        let mut frame = verb.clone();
        frame["run"] = json!("r1");
        frame["n"] = json!(3);
        let read: Result<RunFrame, _> = serde_json::from_value(frame);
        assert!(read.is_err(), "{verb}: {read:?}");
    }
}

#[test]
fn an_unknown_value_of_an_answer_is_an_error() {
    let answer = |answer: Value| {
        let line = json!({"a": 3, "epoch": 7, "ok": {"done": answer}});
        serde_json::from_value::<RunLine>(line)
    };
    assert!(answer(json!({"outcomes": [["confirmed", [[0, 1]]]]})).is_ok());
    assert!(answer(json!({"outcomes": [["splendid", [[0, 1]]]]})).is_err());
    assert!(answer(json!({"abort": {"verdict": "splendid", "reason": ""}})).is_err());
    let instance = |kind: &str| {
        let mut instance = serde_json::to_value(crate::event::Instance::new("web", 7, 1)).unwrap();
        instance["failure"] = json!({"kind": kind, "text": ""});
        answer(json!({"instances": [instance]}))
    };
    assert!(instance("unresponsive").is_ok() && instance("timed_out").is_ok());
    assert!(instance("splendid").is_err());
}

#[test]
fn an_answer_that_says_less_claims_nothing() {
    let line = json!({"a": 3, "epoch": 7, "ok": {"done": {}}});
    let line: RunLine = serde_json::from_value(line).unwrap();
    let Some(RunAnswer::Done(answer)) = line.ok else {
        panic!("{line:?}")
    };
    assert!(!answer.is_journaled && !answer.can_roll_back);
    assert!(answer.concluded.is_none() && answer.outcomes.is_empty());
}

#[test]
fn a_moment_that_is_read_is_never_earlier_than_it_was() {
    for age in [0, 1, 1_000, 60_000] {
        let was = Instant::now() - Duration::from_millis(age);
        let Moment(read) = reread(&Moment(was));
        assert!(read >= was, "{age}");
        assert!(read <= Instant::now(), "a moment is no future one: {age}");
    }
    // It is from before this machine has started.
    let early: Moment = serde_json::from_value(json!(u64::MAX)).unwrap();
    assert!(early.0 <= Instant::now());
}

proptest! {
    #[test]
    fn a_request_of_a_run_is_read_as_it_was_written(frame in frames()) {
        prop_assert_eq!(reread(&frame), frame);
    }

    #[test]
    fn a_freshness_that_is_read_is_never_looser(
        age in seconds(), direction in direction(), n in any::<u64>(),
    ) {
        let since = Moment(Instant::now());
        let fresh = Freshness { since, age };
        let request = SessionRequest::Conclude { direction, fresh };
        let verb = RunVerb::Do { request };
        let frame = RunFrame { run: "r1".into(), n, epoch: None, notes: Vec::new(), verb };
        let RunVerb::Do { request: SessionRequest::Conclude { direction: read, fresh } } =
            reread(&frame).verb
        else {
            panic!("another request")
        };
        prop_assert_eq!(read, direction);
        prop_assert!(fresh.age == age && fresh.since >= since);
    }

    #[test]
    fn a_host_plan_is_read_as_it_was_written(plan in host_plans()) {
        prop_assert_eq!(reread(&plan), plan);
    }

    #[test]
    fn the_end_of_a_host_is_read_as_it_was_written(
        ends in prop::collection::vec((outcomes(), any::<bool>()), 0..4),
        flags in prop::array::uniform2(any::<bool>()),
        unseen in prop::option::of(text()),
    ) {
        let unproven = |accept| if accept { Unproven::Accept } else { Unproven::Report };
        let ends = ends.into_iter().map(|(outcome, accept)| (outcome, unproven(accept)));
        let concluded = Concluded {
            is_known: flags[0],
            unseen,
            is_new: flags[1],
            ends: ends.collect(),
        };
        prop_assert_eq!(reread(&concluded), concluded);
    }

    #[test]
    fn any_value_is_a_request_or_an_error(verb in text(), field in text(), n in any::<u64>()) {
        let frame = json!({"run": "r1", "n": n, "q": verb, field: verb});
        let _ = serde_json::from_value::<RunFrame>(frame);
    }
}
