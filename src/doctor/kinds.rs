//! The report about a process that no group of the fleet matches: the kind that would match it, or
//! the reasons why none does.

use super::{
    checks::{check_group_member, role},
    report::ProcessReport,
};
use crate::{
    fleet::{Fleet, Group, KINDS},
    host::{
        discover::{Membership, Scan, found::Found},
        local::{
            draft::NoDraft,
            examine::{Examiner, Finding, Topic},
        },
    },
};

/// The most groups of a fleet of which each is named with its reason. Of more groups, only those
/// that match in part are named.
const MAX_GROUPS: usize = 3;

/// The next step for a program that no group and no kind knows.
const NEW_GROUP: &str = "if it reloads on a signal, add a group that declares that, and the \
                         assertions that show a reload";

/// The kinds that match a process.
struct Matches<'a> {
    /// The name of each, in backticks.
    names: Vec<String>,
    /// The group of the first one.
    first: Option<(&'a Group, Membership)>,
}

/// Why the groups and kinds do not match a process.
struct Reasons {
    texts: Vec<String>,
    /// The number of `texts` that are about groups of other programs.
    other_programs: usize,
}

/// Reports about a process that no group of the fleet matches.
pub(super) async fn report(
    scan: &Scan,
    found: Found,
    fleet: &Fleet,
    memberships: Vec<(&Group, Membership)>,
    examiner: &Examiner,
) -> ProcessReport {
    let groups: Vec<Group> = KINDS
        .iter()
        .filter_map(|kind| Fleet::of_kind(kind.name).ok())
        .flat_map(|fleet| fleet.groups)
        .collect();
    let mut reasons = Reasons::of_groups(&memberships);
    let mut matches = Matches {
        names: Vec::new(),
        first: None,
    };
    for group in &groups {
        match scan.membership(group, found.pid).await {
            membership
            @ (Membership::Leads(..) | Membership::Refused(_) | Membership::Works(_)) => {
                matches.names.push(format!("`{}`", group.name));
                matches.first.get_or_insert((group, membership));
            }
            membership => {
                let kind = format!("kind `{}`", group.name);
                reasons.texts.extend(skip_reason(&kind, &membership, false));
            }
        }
    }
    let no_group = fleet.path.as_ref().map_or_else(
        || "no fleet.toml is in use".to_owned(),
        |path| format!("no group of {} matches it", path.display()),
    );
    let Some((group, membership)) = matches.first else {
        let (why, next) = reasons.no_match(&found);
        let text = format!("{no_group}, and no kind matches it: {why}");
        let mut findings = vec![Finding::bad(Topic::Group, text).then(next)];
        findings.extend(examiner.examine(&found, None).await);
        return with_draft(scan, found, fleet, findings, examiner).await;
    };
    let is_in_use = fleet.path.is_none() && fleet.groups.is_empty();
    let finding = if is_in_use {
        used_kind(&matches.names, group, found.pid)
    } else {
        unused_kind(&matches.names, group, &no_group, &reasons)
    };
    let (found, role) = role(membership, found);
    let all = scan.find(group).await.found;
    examiner.know(&all);
    let findings =
        check_group_member(&found, (group, all.len()), role, vec![finding], examiner).await;
    ProcessReport::new(found, is_in_use.then_some(group), findings)
}

/// Returns the report of a process that no group and no kind matches, with a group for it, or why
/// there is none.
async fn with_draft(
    scan: &Scan,
    found: Found,
    fleet: &Fleet,
    mut findings: Vec<Finding>,
    examiner: &Examiner,
) -> ProcessReport {
    let taken: Vec<&str> = fleet.groups.iter().map(|g| g.name.as_str()).collect();
    let draft = examiner.draft(&found, scan, &taken).await;
    match &draft {
        // The first finding says it already.
        Err(refusal) if matches!(refusal.why, NoDraft::Hidden) => {}
        Err(refusal) => findings.push(Finding::refused(Topic::Role, refusal)),
        Ok(_) => {}
    }
    let mut report = ProcessReport::new(found, None, findings);
    report.draft = draft.ok();
    report
}

/// Returns the finding for a kind that is used, since there is no fleet. Names the other kinds that
/// match.
fn used_kind(names: &[String], group: &Group, pid: i32) -> Finding {
    let finding = Finding::good(
        Topic::Group,
        format!(
            "kind {} matches it (no fleet.toml is in use)",
            names.join(" or ")
        ),
    );
    if names.len() <= 1 {
        return finding;
    }
    let others = names
        .iter()
        .skip(1)
        .map(|kind| format!("hello doctor {pid} {}", kind.trim_matches('`')));
    finding.then_run(
        format!("it is checked as `{}` here; as another kind:", group.name),
        others.collect(),
    )
}

/// Returns the finding for a kind that would match, and is in no group of the fleet.
fn unused_kind(names: &[String], group: &Group, no_group: &str, reasons: &Reasons) -> Finding {
    let (reasons, fix) = if reasons.texts.is_empty() {
        (String::new(), "add a group for it, as this prints one:")
    } else {
        (
            format!(" ({})", reasons.texts.join("; ")),
            "fix that group, or add one, as this prints it:",
        )
    };
    if group.never_reloads().is_some() {
        let text = format!(
            "{no_group}{reasons}; kind {} says why no signal reloads it",
            names.join(" or ")
        );
        return Finding::note(Topic::Group, text);
    }
    Finding::bad(
        Topic::Group,
        format!("{no_group}{reasons}, but kind {} would", names.join(" or ")),
    )
    .then_run(fix, vec![format!("hello kinds {}", group.name)])
}

impl Reasons {
    fn of_groups(memberships: &[(&Group, Membership)]) -> Self {
        let is_short = memberships.len() <= MAX_GROUPS;
        let texts = memberships.iter().filter_map(|(group, membership)| {
            skip_reason(&format!("group `{}`", group.name), membership, is_short)
        });
        let is_other_program = |(_, membership): &&(&Group, Membership)| {
            matches!(membership, Membership::NoMatch { near: false, .. })
        };
        Self {
            texts: texts.collect(),
            other_programs: if is_short {
                memberships.iter().filter(is_other_program).count()
            } else {
                0
            },
        }
    }

    /// Returns why no group and no kind matches a process, and what the operator can do.
    fn no_match(&self, found: &Found) -> (String, &'static str) {
        let reasons = self.texts.join("; ");
        if found.exe.as_os_str().is_empty() {
            let next = if nix::unistd::geteuid().is_root() {
                "give hello CAP_SYS_PTRACE, or run it where the process runs"
            } else {
                "run hello as root"
            };
            let why = if self.texts.is_empty() {
                "its executable cannot be seen".into()
            } else {
                reasons
            };
            return (why, next);
        }
        if self.texts.is_empty() {
            return (format!("it executes {}", found.exe.display()), NEW_GROUP);
        }
        // Groups of other programs need no fix for this process.
        let next = if self.texts.len() == self.other_programs {
            NEW_GROUP
        } else {
            "start it as the group requires, or fix the group"
        };
        (reasons, next)
    }
}

/// Returns why a group or kind does not match, if it matches in part or `is_always_named`.
fn skip_reason(name: &str, membership: &Membership, is_always_named: bool) -> Option<String> {
    match membership {
        Membership::Skipped(why) => Some(format!("{name}: it {why}")),
        Membership::NoMatch { why, near } if *near || is_always_named => {
            Some(format!("{name}: it {why}"))
        }
        _ => None,
    }
}
