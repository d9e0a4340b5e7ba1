#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{path::Path, sync::Arc};

use super::*;
use crate::{
    change::ChangeRequest,
    event::Verdict,
    fleet::PathBase,
    step::{Content, SurveyedTarget},
    tree::{Node, Tree},
};

mod every_target;
mod sources;
mod targets;
mod unresponsive;

/// Returns a group of instances that do not report their config, with this number of targets.
/// Without a kind, its first wave is one instance.
pub(super) fn group(name: &str, targets: usize, has_kind: bool) -> Arc<Group> {
    let mut group = Fleet::of_kind("nginx").unwrap().groups.remove(0);
    group.name = name.into();
    group.config = vec![vec![PathBase::Path("/".into())]; targets];
    group.kind = group.kind.filter(|_| has_kind);
    Arc::new(group)
}

pub(super) fn instance(group: &Arc<Group>, pid: i32, targets: &[PathBuf]) -> PlannedInstance {
    let reported = Instance {
        targets: targets.to_vec(),
        ..Instance::new(&group.name, pid, 1)
    };
    PlannedInstance::new(reported, group.clone(), Vec::new())
}

pub(super) fn file(text: &str) -> Content {
    Content::new(text.into())
}

fn directory(entries: &[(&str, &str)]) -> Content {
    let entries = entries
        .iter()
        .map(|(name, text)| ((*name).into(), Node::File(0o644, text.as_bytes().into())))
        .collect();
    Content::from_tree(Tree {
        mode: 0o755,
        entries,
    })
    .unwrap()
}

pub(super) fn survey(
    instances: Vec<PlannedInstance>,
    targets: impl IntoIterator<Item = (PathBuf, Content)>,
) -> Survey {
    let target = |content| SurveyedTarget {
        rev: None,
        content,
        ctime: 5,
        behind: Some(String::new()),
        secret: false,
        staged: BTreeMap::new(),
    };
    Survey {
        instances,
        targets: targets
            .into_iter()
            .map(|(path, content)| (path, target(content)))
            .collect(),
        ..Survey::default()
    }
}

pub(super) fn planned(
    survey: Survey,
    groups: &[Arc<Group>],
    request: &ChangeRequest,
) -> Result<Plan, Abort> {
    planned_over(survey, groups, request, true)
}

fn planned_over(
    survey: Survey,
    groups: &[Arc<Group>],
    request: &ChangeRequest,
    overwrite: bool,
) -> Result<Plan, Abort> {
    let fleet = Fleet {
        groups: groups.iter().map(|g| (**g).clone()).collect(),
        ..Fleet::default()
    };
    let changes = Changes::read(request).unwrap();
    let count = Some(Count {
        min: 0,
        max: usize::MAX,
    });
    Plan::new(
        survey,
        &PlanRequest {
            fleet: &fleet,
            changes: &changes,
            count,
            overwrite,
            include_unresponsive: false,
            proven: &ProofCache::default(),
        },
        |_| None,
    )
}

/// Creates a directory for `--config` with these entries.
fn folder(entries: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    entries
        .iter()
        .for_each(|(name, text)| std::fs::write(dir.path().join(name), text).unwrap());
    dir
}

fn paths(texts: &[&str]) -> Vec<PathBuf> {
    texts.iter().map(PathBuf::from).collect()
}

/// Asserts that a plan fails with this verdict and for this reason.
fn assert_fails(plan: Result<Plan, Abort>, verdict: Verdict, reason: &str) {
    let abort = plan.unwrap_err();
    assert_eq!(abort.verdict, verdict, "{}", abort.reason);
    assert!(abort.reason.contains(reason), "{}", abort.reason);
}

#[test]
fn a_reported_digest_is_that_of_the_first_target() {
    let group = group("web", 2, true);
    let targets = paths(&["/e/a", "/e/b"]);
    let plan = |runs: &Content, request: &ChangeRequest| {
        let mut instance = instance(&group, 1, &targets);
        instance.instance.before = Some(runs.sha256.clone());
        let on_disk = targets
            .iter()
            .map(|p| (p.clone(), file(p.to_str().unwrap())));
        planned(
            survey(vec![instance], on_disk),
            std::slice::from_ref(&group),
            request,
        )
    };
    let dir = folder(&[("b", "new")]);
    let request = ChangeRequest {
        config: Some(dir.path().into()),
        ..ChangeRequest::default()
    };
    assert!(plan(&file("/e/a"), &request).is_ok());
    // The second target's digest is drift.
    assert_fails(
        plan(&file("/e/b"), &request),
        Verdict::Refused,
        "neither the old nor the new config",
    );
    let adopted = plan(&file("/e/a"), &ChangeRequest::default()).unwrap();
    assert_eq!(
        adopted.instances().map(|i| i.outcome).collect::<Vec<_>>(),
        [Outcome::Untouched],
        "its content of the second target is not known"
    );
}

#[test]
fn a_directory_is_no_config_of_hello_serve() {
    let mut hello = Fleet::of_kind("hello").unwrap().groups.remove(0);
    hello.name = "web".into();
    let group = Arc::new(hello);
    let dir = folder(&[("a", "new")]);
    let request = ChangeRequest {
        config: Some(dir.path().into()),
        ..ChangeRequest::default()
    };
    let plan = planned(
        survey(
            vec![instance(&group, 1, &paths(&["/e"]))],
            [("/e".into(), directory(&[("a", "1")]))],
        ),
        &[group],
        &request,
    );
    assert_fails(plan, Verdict::Invalid, "it is a directory");
}
