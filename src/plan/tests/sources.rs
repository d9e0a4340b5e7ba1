//! Contents that another program staged, and contents that are secret.

use super::*;
use crate::{fleet::ContentSource, step::StagedSource};

type Staged = Option<Result<Content, (Verdict, String)>>;

/// Plans a group of two targets, of which each has this staged content.
fn plan_staged(staged: [Staged; 2], request: &ChangeRequest) -> Result<Plan, Abort> {
    let group = Arc::new(Group {
        source: Some(ContentSource::Path("{config}.new".into())),
        ..(*group("web", 2, true)).clone()
    });
    let targets = paths(&["/e/a", "/e/b"]);
    let mut survey = survey(
        vec![instance(&group, 1, &targets)],
        targets.iter().map(|p| (p.clone(), file("old"))),
    );
    for ((path, target), content) in survey.targets.iter_mut().zip(staged) {
        let source = StagedSource {
            named: PathBuf::from(format!("{}.new", path.display())),
            content,
            key: None,
        };
        target.staged.insert("web".into(), source);
    }
    planned(survey, &[group], request)
}

fn new_contents(plan: Result<Plan, Abort>) -> Vec<Content> {
    plan.unwrap().waves[0].steps[0]
        .changes
        .iter()
        .map(|change| change.to.clone())
        .collect()
}

#[test]
fn a_staged_content_is_taken_if_nothing_was_requested() {
    let none = ChangeRequest::default();
    assert_eq!(
        new_contents(plan_staged([Some(Ok(file("new"))), None], &none)),
        [file("new"), file("old")],
        "a target without a staged content stays"
    );
    assert_fails(
        plan_staged([None, None], &none),
        Verdict::Failed,
        "`/e/a.new`",
    );
    for verdict in [Verdict::Failed, Verdict::Refused, Verdict::Invalid] {
        let failed = Some(Err((verdict, "why".into())));
        assert_fails(plan_staged([failed, None], &none), verdict, "why");
    }
    let other_kind = Some(Ok(directory(&[("x", "1")])));
    assert_fails(plan_staged([None, other_kind], &none), Verdict::Invalid, "");
}

#[test]
fn a_requested_content_replaces_a_staged_one() {
    let dir = folder(&[("b", "named")]);
    let request = ChangeRequest {
        config: Some(dir.path().into()),
        ..ChangeRequest::default()
    };
    assert_eq!(
        new_contents(plan_staged([Some(Ok(file("new"))), None], &request)),
        [file("old"), file("named")]
    );
    assert_eq!(
        new_contents(plan_staged([None, None], &request)),
        [file("old"), file("named")],
        "a source that does not exist does not matter"
    );
}

#[test]
fn a_directory_with_a_new_private_file_is_secret() {
    let dir = folder(&[("key", "new")]);
    std::fs::set_permissions(
        dir.path().join("key"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    for (secret, wanted) in [(None, true), (Some(false), false)] {
        let group = Arc::new(Group {
            secret,
            ..(*group("web", 1, true)).clone()
        });
        let instances = vec![instance(&group, 1, &paths(&["/e"]))];
        let request = ChangeRequest {
            config: Some(dir.path().into()),
            ..ChangeRequest::default()
        };
        let survey = survey(instances, [("/e".into(), directory(&[("a", "1")]))]);
        let plan = planned(survey, &[group], &request).unwrap();
        assert_eq!(plan.waves[0].steps[0].changes[0].secret, wanted);
    }
}
