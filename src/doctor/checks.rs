//! The checks of a process that a group matches.

use crate::{
    fleet::{Fleet, Group, Trigger},
    host::{
        discover::{Membership, found::Found},
        local::{
            examine::{Examiner, Finding, Topic},
            reload_command,
        },
    },
};

/// The workers of a process that takes the signal for them, or why it takes none.
pub(super) type Role = Result<Vec<i32>, Finding>;

/// Returns the finding that a group matches the process.
pub(super) fn group_finding(group: &Group, fleet: &Fleet) -> Finding {
    let name = &group.name;
    let Some(path) = &fleet.path else {
        return Finding::good(
            Topic::Group,
            format!("kind `{name}` matches it (no fleet.toml is in use)"),
        );
    };
    let kind = group
        .kind
        .as_ref()
        .map_or(String::new(), |kind| format!(" (kind `{kind}`)"));
    Finding::good(
        Topic::Group,
        format!("group `{name}`{kind} of {} matches it", path.display()),
    )
}

/// Adds the role of a process to its findings, and the findings of all checks. A process that is
/// never signalled is not checked further.
pub(super) async fn check_group_member(
    found: &Found,
    (group, instances): (&Group, usize),
    role: Role,
    mut findings: Vec<Finding>,
    examiner: &Examiner,
) -> Vec<Finding> {
    match role {
        Ok(_) if group.never_reloads().is_some() => {
            findings.extend(examiner.examine(found, Some(group)).await);
        }
        Ok(workers) => {
            let workers: Vec<String> = workers.iter().map(i32::to_string).collect();
            let workers = if workers.is_empty() {
                String::new()
            } else {
                format!(", for its workers too: pid {}", workers.join(", "))
            };
            let role = match group.trigger() {
                Trigger::Signal(_) => "takes the signal",
                Trigger::Command(_) => "is asked by the command",
            };
            findings.push(Finding::good(Topic::Role, format!("{role}{workers}")));
            if instances > 1 && reload_command::is_same_for_all(group) {
                findings.push(indistinct(group, instances));
            }
            findings.extend(examiner.examine(found, Some(group)).await);
        }
        Err(finding) => findings.push(finding),
    }
    findings
}

/// Returns the finding for a command that does not tell the instances of its group apart.
fn indistinct(group: &Group, instances: usize) -> Finding {
    let text = format!(
        "{} is the same command for its {instances} instances",
        group.trigger()
    );
    Finding::bad(Topic::Reloads, text)
        .then("write a placeholder into it that tells them apart, such as {config}")
}

/// Returns the workers of a leader, or why the process takes no signal.
pub(super) fn role(membership: Membership, found: Found) -> (Found, Role) {
    match membership {
        Membership::Leads(found, workers) => (found, Ok(workers)),
        Membership::Works(leader) => {
            let why = format!("is a worker of pid {leader}, which takes the signal for it");
            let command = format!("hello doctor {leader}");
            let finding = Finding::bad(Topic::Role, why);
            (
                found,
                Err(finding.then_run("check that one:", vec![command])),
            )
        }
        Membership::Refused(why) | Membership::Skipped(why) | Membership::NoMatch { why, .. } => {
            (found, Err(Finding::refused(Topic::Role, &why)))
        }
    }
}
