//! Instances whose endpoint did not respond before the run: include them, skip them, or refuse them
//! because there are too many.

use crate::{
    event::{Abort, Instance, Outcome},
    fleet::Group,
    step::{PlannedInstance, Survey},
};

/// Decides about every unresponsive instance of a survey. Returns those that the run skips, and
/// what to add to a refusal of the others.
///
/// With `include` they join the instances. Without it, a group's are skipped if they fit its
/// `max_unresponsive`, one other instance at least responds, and none of them is `bound` to the
/// run. Otherwise they are refused. Those of a group that a coordinator counts are skipped unless
/// one is bound.
pub(super) fn resolve(
    survey: &mut Survey,
    groups: &[Group],
    include: bool,
    bound: impl Fn(&PlannedInstance) -> bool,
) -> (Vec<PlannedInstance>, String) {
    let mut skipped = Vec::new();
    let mut too_many = String::new();
    if include {
        survey.instances.append(&mut survey.unresponsive);
        return (skipped, too_many);
    }
    for group in groups {
        let in_group = |m: &PlannedInstance| m.instance.group == group.name;
        let (unresponsive, others): (Vec<PlannedInstance>, Vec<PlannedInstance>) =
            survey.unresponsive.drain(..).partition(in_group);
        survey.unresponsive = others;
        if unresponsive.is_empty() {
            continue;
        }
        let responsive = survey.instances.iter().filter(|m| in_group(m)).count();
        let refused = survey
            .refused
            .iter()
            .filter(|i| i.group == group.name)
            .count();
        let total = responsive + unresponsive.len() + refused;
        let max = group.rollout.max_unresponsive;
        let touched = unresponsive.iter().filter(|m| bound(m)).count();
        let fits = responsive > 0 && unresponsive.len() <= max.rounded_down(total);
        if touched == 0 && (fits || group.rollout.skips_unresponsive) {
            skipped.extend(unresponsive.into_iter().map(|mut instance| {
                instance.instance.wave = 0;
                instance
            }));
            continue;
        }
        too_many += &why_refused(group, responsive, unresponsive.len(), total, touched);
        survey
            .refused
            .extend(unresponsive.into_iter().map(|mut instance| {
                instance.instance.outcome = Outcome::Refused;
                instance.instance
            }));
    }
    (skipped, too_many)
}

/// Explains why the unresponsive instances of a group, of which it has `total`, are not skipped.
fn why_refused(
    group: &Group,
    responsive: usize,
    unresponsive: usize,
    total: usize,
    touched: usize,
) -> String {
    let name = &group.name;
    let max = group.rollout.max_unresponsive;
    match (responsive, touched) {
        (_, 1..) => format!(
            "; {touched} of group `{name}` may have been signalled already, so they cannot be \
             skipped; --include-unresponsive includes them"
        ),
        (0, _) => format!(
            "; no instance of group `{name}` responds, so `max_unresponsive` does not apply; \
             --include-unresponsive includes them"
        ),
        _ => format!(
            "; {unresponsive} of {total} of group `{name}` are unresponsive, and its \
             `max_unresponsive` is {max}; --include-unresponsive includes them"
        ),
    }
}

/// Ends a run with its refused instances; `too_many` is the addition that [`resolve`] returned.
pub(super) fn refusal(refused: Vec<Instance>, too_many: &str) -> Abort {
    let abort = Abort::refused(refused);
    Abort {
        reason: abort.reason + too_many,
        ..abort
    }
}
