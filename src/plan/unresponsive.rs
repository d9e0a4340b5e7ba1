//! Whose endpoint is silent before the run: who goes along, who is left out, and who is one too
//! many.

use crate::{
    event::Outcome,
    fleet::Group,
    step::{PlannedInstance, Survey},
};

/// Puts every silent instance where it belongs: with `include` to the members; else, while all of
/// its group fit `max_sick` and one at least answers, to those that are left out, who are answered;
/// else to the refused. Nobody is left out who is `bound` to the run. Answers also what people are
/// told of the refused.
pub(super) fn judge(
    seen: &mut Survey,
    groups: &[Group],
    include: bool,
    bound: impl Fn(&PlannedInstance) -> bool,
) -> (Vec<PlannedInstance>, String) {
    let (mut skipped, mut too_many) = (Vec::new(), String::new());
    if include {
        seen.instances.append(&mut seen.unresponsive);
        return (skipped, too_many);
    }
    for group in groups {
        let mine = |m: &PlannedInstance| m.instance.group == group.name;
        let (sick, others): (Vec<PlannedInstance>, Vec<PlannedInstance>) =
            seen.unresponsive.drain(..).partition(mine);
        seen.unresponsive = others;
        if sick.is_empty() {
            continue;
        }
        let healthy = seen.instances.iter().filter(|m| mine(m)).count();
        let all = healthy
            + sick.len()
            + seen
                .refused
                .iter()
                .filter(|i| i.group == group.name)
                .count();
        let (max, name) = (group.rollout.max_unresponsive, &group.name);
        let touched = sick.iter().filter(|m| bound(m)).count();
        if healthy > 0 && touched == 0 && sick.len() <= max.rounded_down(all) {
            skipped.extend(sick.into_iter().map(|mut member| {
                member.instance.wave = 0;
                member
            }));
            continue;
        }
        too_many += &match (healthy, touched) {
            (_, 1..) => format!(
                "; {touched} of group `{name}` may have been signalled already, so they cannot be \
                 left out; --include-sick takes them along"
            ),
            (0, _) => format!(
                "; nobody of group `{name}` would be left, whatever its `max_sick` is; \
                 --include-sick takes them along"
            ),
            _ => format!(
                "; {} of {all} of group `{name}` are silent, and its `max_sick` is {max}; \
                 --include-sick takes them along",
                sick.len()
            ),
        };
        seen.refused.extend(sick.into_iter().map(|mut member| {
            member.instance.outcome = Outcome::Refused;
            member.instance
        }));
    }
    (skipped, too_many)
}
