//! The number of instances of each group, against the number that it must have.

use std::collections::BTreeMap;

use crate::{
    event::{Abort, Verdict},
    fleet::{Count, Fleet},
    screen,
    step::Survey,
};

/// The most skipped processes that one message names. Each may explain a number that is too low.
const MAX_NAMED: usize = 10;

/// Checks the number of instances of each group; `count` replaces the group's own.
pub(super) fn check_counts(
    survey: &Survey,
    fleet: &Fleet,
    count: Option<Count>,
) -> Result<(), Abort> {
    if let Some((pid, why)) = survey.missing.first() {
        let process = if *pid == 0 {
            String::new()
        } else {
            format!("pid {pid} ")
        };
        return Err(Abort::new(Verdict::NoMatch, format!("{process}{why}")));
    }
    let mut passed: BTreeMap<&str, usize> = BTreeMap::new();
    for instance in survey.instances.iter().chain(&survey.unresponsive) {
        *passed.entry(&instance.instance.group).or_default() += 1;
    }
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    for instance in &survey.refused {
        *refused.entry(&instance.group).or_default() += 1;
    }
    for group in &fleet.groups {
        // A refused instance may be one too many, such as a second master of one service. The
        // refusal says that better than a number.
        let passed = passed.get(group.name.as_str()).copied().unwrap_or(0);
        let found = passed + refused.get(group.name.as_str()).copied().unwrap_or(0);
        let count = count.unwrap_or(group.count);
        if count.holds(found, passed) {
            continue;
        }
        let skipped: Vec<String> = survey
            .skipped
            .iter()
            .take(MAX_NAMED)
            .map(|(pid, why)| format!("; skipped: pid {pid} {why}"))
            .collect();
        return Err(wrong_count(&group.name, found, count, &skipped.concat()));
    }
    Ok(())
}

/// Reports a group that has another number of instances than it must have.
pub(super) fn wrong_count(group: &str, found: usize, count: Count, details: &str) -> Abort {
    Abort::new(
        Verdict::NoMatch,
        format!(
            "group `{group}` has {}, not {count}{details}",
            screen::counted(found, "instance")
        ),
    )
}
