//! The report about one process, which a group may or may not match.

use std::collections::BTreeMap;

use super::{
    checks::{check_group_member, group_finding, role},
    kinds,
    report::{Missing, ProcessReport, Report},
};
use crate::{
    fleet::{Fleet, Group},
    host::{
        discover::{self, Membership, Scan, found::Found},
        local::examine::{Examiner, Finding, Topic},
    },
    inventory::HostName,
    refusal::Refusal,
};

/// Reports about the process `pid`.
pub(super) async fn report(pid: i32, fleet: &Fleet, scan: &Scan, examiner: &Examiner) -> Report {
    let mut report = Report::default();
    match discover::process(pid) {
        Ok(found) => report
            .processes
            .push(process_report(found, fleet, scan, examiner).await),
        Err(e) => report.missing.push(Missing {
            host: HostName::local(),
            pid: Some(pid),
            group: None,
            text: e.to_string(),
        }),
    }
    report
}

async fn process_report(
    found: Found,
    fleet: &Fleet,
    scan: &Scan,
    examiner: &Examiner,
) -> ProcessReport {
    let finds = scan.find_all(fleet.groups.iter()).await;
    examiner.know(finds.iter().flat_map(|finds| &finds.found));
    let mut memberships = Vec::new();
    for group in &fleet.groups {
        memberships.push((group, scan.membership(group, found.pid).await));
    }
    // The sort is stable: of equal ranks, the first in the file counts.
    let instances: BTreeMap<&str, usize> = fleet
        .groups
        .iter()
        .zip(&finds)
        .map(|(group, finds)| (group.name.as_str(), finds.found.len()))
        .collect();
    memberships.sort_by_key(|(_, membership)| rank(membership));
    let is_matched = memberships
        .first()
        .is_some_and(|(_, membership)| rank(membership) < NO_MATCH);
    if !is_matched {
        return kinds::report(scan, found, fleet, memberships, examiner).await;
    }
    let (group, membership) = memberships.remove(0);
    if let Membership::Skipped(why) = membership {
        let mut findings = vec![skipped_finding(group, &why.reported())];
        findings.extend(examiner.examine(&found, Some(group)).await);
        return ProcessReport::new(found, Some(group), findings);
    }
    let (found, role) = role(membership, found);
    let findings = vec![group_finding(group, fleet)];
    let instances = instances.get(group.name.as_str()).copied();
    let group_of = (group, instances.unwrap_or(1));
    let findings = check_group_member(&found, group_of, role, findings, examiner).await;
    ProcessReport::new(found, Some(group), findings)
}

/// The rank of a process that a group does not match at all.
const NO_MATCH: u8 = 3;

/// Returns the rank of a membership; the lowest one is reported.
fn rank(membership: &Membership) -> u8 {
    match membership {
        Membership::Leads(..) | Membership::Refused(_) => 0,
        Membership::Works(_) => 1,
        Membership::Skipped(_) => 2,
        Membership::NoMatch { .. } => NO_MATCH,
    }
}

/// Returns the finding for a process that the group matches and skips.
fn skipped_finding(group: &Group, Refusal { why, hint }: &Refusal) -> Finding {
    let finding = Finding::bad(Topic::Group, format!("group `{}`: {why}", group.name));
    match hint {
        Some(hint) => finding.then(hint),
        None if group.users.is_empty() => {
            finding.then("set the user whose processes it matches: `user = ..`")
        }
        None => finding,
    }
}
