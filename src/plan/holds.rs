//! Whether what an assertion takes from the candidate would hold now, filled from the config that
//! runs: one that does not is mistaken, or the instance runs another config than its file, and it
//! would prove nothing.

use std::collections::BTreeMap;

use crate::{
    assertion::{Assertion, Expectation, Showing},
    event::{Event, Failure, Instance, Outcome},
    step::{PlannedInstance, Step, TargetChange},
};

/// The longest value that is shown, in characters.
const SHOWN: usize = 80;

/// Refuses every one of `members` for which an `equals` that is taken from the config does not hold
/// with what `shifts` replace.
pub(super) fn refuse(
    members: &mut [PlannedInstance],
    shifts: &[TargetChange],
    refused: &mut Vec<Instance>,
) {
    for member in members
        .iter_mut()
        .filter(|m| !m.unresponsive && m.instance.outcome != Outcome::Unchanged)
    {
        let Some(text) = unheld(member, shifts) else {
            continue;
        };
        member.fail(
            Outcome::Refused,
            Failure {
                kind: Outcome::Refused.into(),
                text,
            },
        );
        refused.push(member.instance.clone());
    }
}

/// Why an assertion of `member` does not hold before the run; none where each does, or cannot be
/// known.
fn unheld(member: &PlannedInstance, shifts: &[TargetChange]) -> Option<String> {
    let first = shifts.first()?;
    let from = first.from.as_ref()?;
    let tells_another = member
        .instance
        .before
        .as_ref()
        .is_some_and(|before| *before != from.sha256);
    // What stands there already is adopted because the instance may run something else.
    if tells_another
        || shifts.iter().all(|shift| {
            shift
                .from
                .as_ref()
                .is_some_and(|from| from.sha256 == shift.to.sha256)
        })
    {
        return None;
    }
    let runs = from.file()?;
    let facts = member.group.confirm.iter().zip(&member.baseline);
    facts
        .filter_map(|(fact, now)| Some((fact, now.as_deref()?)))
        .find_map(|(fact, now)| {
            let (filled, text) = taken(fact, runs)?;
            if now == text {
                return None;
            }
            let source = fact.source.describe(&member.instance.endpoint);
            let now = if fact.source.shows_credentials() {
                "another value".into()
            } else {
                shown(now)
            };
            let (now, text) = if first.secret {
                (
                    "another value".into(),
                    "the value of its \
            config"
                        .into(),
                )
            } else {
                (now, shown(&text))
            };
            Some(format!(
                "{source} reads {now} before the run, and by the config that it runs {} should be \
             {text}: the assertion is wrong, or it runs another config than `{}`; correct the \
             assertion, adopt that file first, or say --include-sick to skip this check",
                asked(&filled),
                first.path.display()
            ))
        })
}

/// An `equals` with a part of the config in it, as it is written, and filled from `runs`.
fn taken(fact: &Assertion, runs: &[u8]) -> Option<(Assertion, String)> {
    match fact.resolved(Some(runs)).ok()?.expectation {
        Expectation::Equals(text) if Expectation::Equals(text.clone()) != fact.expectation => {
            Some((fact.clone(), text))
        }
        _ => None,
    }
}

/// The literals of all assertions that did not hold at the survey, each once for its group.
pub(super) fn literals<'a>(steps: impl Iterator<Item = &'a Step>) -> Vec<Event> {
    let mut all: BTreeMap<(&str, usize), (i32, usize, String)> = BTreeMap::new();
    for step in steps {
        let showing = if step.changes.iter().any(|shift| shift.secret) {
            Showing::Secret
        } else {
            Showing::Open
        };
        for member in step
            .instances
            .iter()
            .filter(|m| !m.unresponsive && m.instance.outcome != Outcome::Unchanged)
        {
            for (place, (fact, now)) in member
                .group
                .confirm
                .iter()
                .zip(&member.baseline)
                .enumerate()
            {
                let Some(now) = now.as_deref().filter(|now| is_unheld(fact, now)) else {
                    continue;
                };
                let i = &member.instance;
                let showing = showing.of(&fact.source);
                let why = || {
                    format!(
                        "{} {}",
                        fact.source.describe(&i.endpoint),
                        fact.unmet(Some(now), showing)
                    )
                };
                all.entry((&i.group, place))
                    .or_insert_with(|| (i.pid, 0, why()))
                    .1 += 1;
            }
        }
    }
    all.into_iter()
        .map(|((group, _), (pid, instances, why))| Event::NotHeldBefore {
            group: group.into(),
            pid,
            instances,
            why,
        })
        .collect()
}

/// Whether a literal does not hold.
fn is_unheld(fact: &Assertion, now: &str) -> bool {
    let is_literal = match &fact.expectation {
        Expectation::Equals(_) | Expectation::Contains(_) => fact
            .resolved(None)
            .is_ok_and(|filled| filled.expectation == fact.expectation),
        _ => false,
    };
    is_literal && !fact.holds_alone(now)
}

fn asked(fact: &Assertion) -> String {
    match &fact.expectation {
        Expectation::Equals(text) => format!("`equals = {text:?}`"),
        _ => "it".into(),
    }
}

fn shown(text: &str) -> String {
    let text = text.trim_end();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("`{} ..`", text[..end].escape_debug()),
        None => format!("`{}`", text.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::sync::Arc;

    use super::*;
    use crate::{
        assertion::{Access, Extract, HttpRequest, Source},
        fleet::Fleet,
        step::Content,
    };

    fn said_by(equals: &str, now: &str, from: &str, before: Option<&str>) -> Option<String> {
        unheld(&member(equals, now, before), &[shift(Some(from), false)])
    }

    fn said(equals: &str, now: &str, from: Option<&str>, secret: bool) -> Option<String> {
        unheld(&member(equals, now, None), &[shift(from, secret)])
    }

    fn member(equals: &str, now: &str, before: Option<&str>) -> PlannedInstance {
        let mut group = Fleet::of_kind("hello").unwrap().groups.remove(0);
        let source = Source::Exec(vec!["ask".into()]);
        group.confirm = vec![Assertion {
            source,
            read: Extract::Stdout,
            expectation: Expectation::Equals(equals.into()),
        }];
        let mut member =
            PlannedInstance::new(Instance::new("web", 7, 1), Arc::new(group), Vec::new());
        member.baseline = vec![Some(now.into())];
        member.instance.before = before.map(str::to_owned);
        member
    }

    fn shift(from: Option<&str>, secret: bool) -> TargetChange {
        let blob = |text: &str| Content::new(text.as_bytes().to_vec());
        TargetChange {
            path: "/etc/web.toml".into(),
            from: from.map(blob),
            to: blob("v = 'two'"),
            secret,
        }
    }

    #[test]
    fn what_the_running_config_says_must_hold_before() {
        let old = Some("v = 'one'");
        assert_eq!(said("{candidate.v}", "one", old, false), None);
        assert_eq!(said("<{candidate.v}>", "<one>", old, false), None);
        for now in ["two", "", "one "] {
            let why = said("{candidate.v}", now, old, false).unwrap();
            assert!(
                why.contains("`one`")
                    && why.contains("{candidate.v}")
                    && why.contains("/etc/web.toml"),
                "{why}"
            );
        }
        let why = said("{candidate.v}", "two", old, true).unwrap();
        assert!(!why.contains("`one`") && !why.contains("`two`"), "{why}");
    }

    #[test]
    fn what_the_file_says_is_not_what_one_runs_that_tells_another_digest_or_adopts_it() {
        assert!(said_by("{candidate.v}", "two", "v = 'one'", None).is_some());
        assert_eq!(
            said_by("{candidate.v}", "two", "v = 'one'", Some("another")),
            None
        );
        assert_eq!(said_by("{candidate.v}", "one", "v = 'two'", None), None);
    }

    #[test]
    fn a_literal_that_does_not_hold_before_is_told_once_for_its_group() {
        let told = |wants: Expectation, now: &str, secret: bool| {
            let mut all = [member("", now, None), member("", now, None)];
            for member in &mut all {
                let mut group = (*member.group).clone();
                group.confirm[0].expectation = wants.clone();
                member.group = Arc::new(group);
            }
            let step = Step {
                changes: vec![shift(Some("v = 'one'"), secret)],
                instances: all.into(),
                undo: false,
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
                    _ => String::new(),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told(Expectation::Equals("ok".into()), "no", false),
            ["7 2 `ask` reads `no`, and wanted is `ok`"]
        );
        assert_eq!(
            told(Expectation::Contains("ok".into()), "no", false).len(),
            1
        );
        let mut member = member("ok", "Bearer geheim", None);
        let mut group = (*member.group).clone();
        let access = Access {
            bearer_file: Some("/t".into()),
            ..Access::default()
        };
        group.confirm[0].source = Source::Http(HttpRequest {
            url: "http://{listen}/".into(),
            access,
            ..HttpRequest::default()
        });
        member.group = Arc::new(group);
        let step = Step {
            changes: vec![shift(Some("v = 'one'"), false)],
            instances: [member].into(),
            undo: false,
        };
        let events = literals(std::iter::once(&step));
        let Some(Event::NotHeldBefore { why, .. }) = events.first() else {
            unreachable!("{events:?}")
        };
        assert!(
            why.contains("reads something else, and wanted is `ok`") && !why.contains("geheim"),
            "{why}"
        );
        assert!(
            told(Expectation::Equals("ok".into()), "geheim", true)
                .iter()
                .all(|why| !why.contains("geheim"))
        );
        for (wants, now) in [
            (Expectation::Equals("ok".into()), "ok"),
            (Expectation::Contains("ok".into()), "it is ok"),
            (Expectation::Equals("{candidate.v}".into()), "no"),
            (Expectation::Changed, "no"),
        ] {
            assert_eq!(told(wants, now, false), [""; 0]);
        }
    }

    #[test]
    fn what_cannot_be_known_before_refuses_nothing() {
        // A literal is what the new config is to show; the others have nothing that they could be
        // filled from.
        for (equals, from) in [
            ("two", Some("v = 'one'")),
            ("{candidate.v}", None),
            ("{candidate.w}", Some("v = 'one'")),
            ("{candidate.v}", Some("[")),
        ] {
            assert_eq!(said(equals, "one", from, false), None, "{equals} {from:?}");
        }
    }
}
