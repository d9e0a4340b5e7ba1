#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::sync::Arc;

use super::*;
use crate::{
    assertion::{Access, Extract, HttpRequest, Source},
    event::Direction,
    fleet::Fleet,
    step::Content,
};

/// Returns why an `equals` does not hold, for the reading `now` and the content `from` on disk.
fn why_unheld(equals: &str, now: &str, from: Option<&str>, secret: bool) -> Option<String> {
    unheld(&instance(equals, now, None), &[change(from, secret)])
}

/// Returns the same for an instance that reports the digest `before`.
fn why_unheld_of(equals: &str, now: &str, from: &str, before: Option<&str>) -> Option<String> {
    unheld(&instance(equals, now, before), &[change(Some(from), false)])
}

fn instance(equals: &str, now: &str, before: Option<&str>) -> PlannedInstance {
    let mut group = Fleet::of_kind("hello").unwrap().groups.remove(0);
    group.confirm = vec![Assertion {
        source: Source::Exec(vec!["ask".into()]),
        read: Extract::Stdout,
        expectation: Expectation::Equals(equals.into()),
        any: None,
    }];
    let mut instance =
        PlannedInstance::new(Instance::new("web", 7, 1), Arc::new(group), Vec::new());
    instance.baseline = vec![Some(now.into())];
    instance.instance.before = before.map(str::to_owned);
    instance
}

/// Returns the instance with its assertion changed.
fn with_assertion(
    mut instance: PlannedInstance,
    change: impl Fn(&mut Assertion),
) -> PlannedInstance {
    let mut group = (*instance.group).clone();
    change(&mut group.confirm[0]);
    instance.group = Arc::new(group);
    instance
}

fn change(from: Option<&str>, secret: bool) -> TargetChange {
    let content = |text: &str| Content::new(text.as_bytes().to_vec());
    TargetChange {
        rev: None,
        path: "/etc/web.toml".into(),
        from: from.map(content),
        to: content("v = 'two'"),
        source: None,
        secret,
    }
}

#[test]
fn a_value_of_the_running_config_must_hold_before() {
    let old = Some("v = 'one'");
    assert_eq!(why_unheld("{candidate.v}", "one", old, false), None);
    assert_eq!(why_unheld("<{candidate.v}>", "<one>", old, false), None);
    for now in ["two", "", "one "] {
        let why = why_unheld("{candidate.v}", now, old, false).unwrap();
        assert!(why.contains("`one`"), "{why}");
        assert!(why.contains("{candidate.v}"), "{why}");
        assert!(why.contains("/etc/web.toml"), "{why}");
    }
    let why = why_unheld("{candidate.v}", "two", old, true).unwrap();
    assert!(!why.contains("`one`"), "{why}");
    assert!(!why.contains("`two`"), "{why}");
}

#[test]
fn the_check_is_skipped_for_drift_and_for_adoption() {
    let file = "v = 'one'";
    assert!(why_unheld_of("{candidate.v}", "two", file, None).is_some());
    let drifted = why_unheld_of("{candidate.v}", "two", file, Some("another"));
    assert_eq!(drifted, None);
    let adopted = why_unheld_of("{candidate.v}", "one", "v = 'two'", None);
    assert_eq!(adopted, None);
}

#[test]
fn values_that_cannot_be_known_before_refuse_no_instance() {
    // A literal is the value of the new config. The others cannot be resolved.
    for (equals, from) in [
        ("two", Some("v = 'one'")),
        ("{candidate.v}", None),
        ("{candidate.w}", Some("v = 'one'")),
        ("{candidate.v}", Some("[")),
    ] {
        let why = why_unheld(equals, "one", from, false);
        assert_eq!(why, None, "{equals} {from:?}");
    }
}

/// Returns the events of a step as text: pid, number of instances, and reason.
fn literal_events(instances: Vec<PlannedInstance>, secret: bool) -> Vec<String> {
    let step = Step {
        changes: vec![change(Some("v = 'one'"), secret)],
        instances,
        direction: Direction::Forward,
    };
    literals(std::iter::once(&step))
        .into_iter()
        .map(|event| match event {
            Event::NotHeldBefore {
                pid,
                instances,
                why,
                ..
            } => format!("{pid} {instances} {why}"),
            other => unreachable!("{other:?}"),
        })
        .collect()
}

/// Returns the events of two instances with this expectation and reading.
fn events_of_two(expectation: &Expectation, now: &str, secret: bool) -> Vec<String> {
    let instance = || {
        with_assertion(instance("", now, None), |assertion| {
            assertion.expectation = expectation.clone();
        })
    };
    literal_events(vec![instance(), instance()], secret)
}

#[test]
fn a_literal_that_does_not_hold_before_is_reported_once_for_its_group() {
    let equals = Expectation::Equals("ok".into());
    assert_eq!(
        events_of_two(&equals, "no", false),
        ["7 2 `ask` reads `no`, and wanted is `ok`"]
    );
    let contains = Expectation::Contains("ok".into());
    assert_eq!(events_of_two(&contains, "no", false).len(), 1);
    for (expectation, now) in [
        (equals, "ok"),
        (contains, "it is ok"),
        (Expectation::Equals("{candidate.v}".into()), "no"),
        (Expectation::Changed, "no"),
    ] {
        assert_eq!(events_of_two(&expectation, now, false), [""; 0]);
    }
}

#[test]
fn a_literal_that_does_not_hold_is_reported_without_secrets() {
    let with_token = with_assertion(instance("ok", "Bearer geheim", None), |assertion| {
        assertion.source = Source::Http(HttpRequest {
            url: "http://{listen}/".into(),
            access: Access {
                bearer_file: Some("/t".into()),
                ..Access::default()
            },
            ..HttpRequest::default()
        });
    });
    let events = literal_events(vec![with_token], false);
    assert!(events[0].contains("reads something else, and wanted is `ok`"));
    assert!(!events[0].contains("geheim"), "{events:?}");
    let secret = events_of_two(&Expectation::Equals("ok".into()), "geheim", true);
    assert!(!secret.concat().contains("geheim"), "{secret:?}");
}
