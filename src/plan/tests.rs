#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    change::ChangeRequest,
    event::FailureKind,
    fleet::{Group, PathBase},
    step::StagedSource,
    tree::{Node, Tree},
};

/// A group that cannot tell what it runs, with so many targets; without a kind one instance goes
/// first.
pub(super) fn group(name: &str, targets: usize, kind: bool) -> Arc<Group> {
    let mut group = Fleet::of_kind("nginx").unwrap().groups.remove(0);
    group.name = name.into();
    group.config = vec![vec![PathBase::Path("/".into())]; targets];
    group.kind = group.kind.filter(|_| kind);
    Arc::new(group)
}

pub(super) fn member(group: &Arc<Group>, pid: i32, targets: &[PathBuf]) -> PlannedInstance {
    let instance = Instance {
        targets: targets.to_vec(),
        ..Instance::new(&group.name, pid, 1)
    };
    PlannedInstance::new(instance, group.clone(), Vec::new())
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

pub(super) fn seen(
    members: Vec<PlannedInstance>,
    targets: impl IntoIterator<Item = (PathBuf, Content)>,
) -> Survey {
    let target = |disk| SurveyedTarget {
        content: disk,
        ctime: 5,
        behind: Some(String::new()),
        secret: false,
        staged: BTreeMap::new(),
    };
    Survey {
        instances: members,
        targets: targets
            .into_iter()
            .map(|(path, disk)| (path, target(disk)))
            .collect(),
        ..Survey::default()
    }
}

pub(super) fn planned(
    seen: Survey,
    groups: &[Arc<Group>],
    asked: &ChangeRequest,
) -> Result<Plan, Abort> {
    planned_over(seen, groups, asked, true)
}

fn planned_over(
    seen: Survey,
    groups: &[Arc<Group>],
    asked: &ChangeRequest,
    overwrite: bool,
) -> Result<Plan, Abort> {
    let fleet = Fleet {
        groups: groups.iter().map(|g| (**g).clone()).collect(),
        ..Fleet::default()
    };
    let changes = Changes::read(asked).unwrap();
    let count = Some(Count {
        min: 0,
        max: usize::MAX,
    });
    Plan::new(
        seen,
        &PlanRequest {
            fleet: &fleet,
            changes: &changes,
            count,
            overwrite,
            include_sick: false,
            proven: &ProofCache::default(),
        },
        |_| None,
    )
}

/// What was put into a folder for `--config`, by entry.
fn folder(entries: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    entries
        .iter()
        .for_each(|(name, text)| std::fs::write(dir.path().join(name), text).unwrap());
    dir
}

fn paths(all: &[&str]) -> Vec<PathBuf> {
    all.iter().map(PathBuf::from).collect()
}

/// One to three of five targets, a number of instances, and two choices.
fn list() -> impl proptest::strategy::Strategy<Value = (Vec<i32>, i32, bool, bool)> {
    let targets = proptest::sample::subsequence(vec![0, 1, 2, 3, 4], 1..=3);
    (targets, 0..4i32, any::<bool>(), any::<bool>())
}

proptest! {
    /// Groups with one to three of five targets each; every target has a content of its own, and
    /// every change as well.
    #[test]
    fn every_target_stands_once_for_its_readers_and_goes_from_what_it_was_to_what_was_asked(
        lists in proptest::collection::vec(list(), 1..4),
    ) {
        let path = |target: &i32| PathBuf::from(format!("/{target}/name{target}"));
        let (mut groups, mut members, mut asked, mut dirs) =
            (Vec::new(), Vec::new(), ChangeRequest::default(), Vec::new());
        let mut wanted: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
        for (at, (targets, instances, kind, changes)) in lists.iter().enumerate() {
            let name = format!("group{at}");
            let group = group(&name, targets.len(), *kind);
            let all: Vec<PathBuf> = targets.iter().map(path).collect();
            members.extend(
                (0..*instances).map(|n| member(&group, 10 * i32::try_from(at).unwrap() + n, &all)),
            );
            // Of several, the first stays as it is.
            let changed = if targets.len() > 1 {
                &targets[1..]
            } else {
                &targets[..]
            };
            let texts: Vec<(String, String)> = changed
                .iter()
                .map(|t| (format!("name{t}"), format!("new {t}")))
                .collect();
            let entries: Vec<(&str, &str)> = texts
                .iter()
                .map(|(n, t)| (n.as_str(), t.as_str()))
                .collect();
            let dir = folder(&entries);
            if *changes {
                let one = dir.path().join(&texts[0].0);
                asked.configs.insert(
                    name,
                    if targets.len() > 1 {
                        dir.path().into()
                    } else {
                        one
                    },
                );
            }
            if *instances > 0 {
                for target in targets {
                    let becomes = if *changes && changed.contains(target) {
                        "new"
                    } else {
                        "old"
                    };
                    wanted
                        .entry(path(target))
                        .or_default()
                        .insert(format!("{becomes} {target}"));
                }
            }
            dirs.push(dir);
            groups.push(group);
        }
        let on_disk = (0..5).map(|target| (path(&target), file(&format!("old {target}"))));
        let all = members.clone();
        let said = planned(seen(members, on_disk), &groups, &asked);
        if wanted.values().any(|texts| texts.len() > 1) {
            prop_assert_eq!(said.unwrap_err().verdict, Verdict::Refused);
            return Ok(());
        }
        let plan = said.unwrap();
        let mut pids: Vec<i32> = plan.instances().map(|i| i.pid).collect();
        pids.sort_unstable();
        prop_assert_eq!(
            pids,
            all.iter().map(|m| m.instance.pid).collect::<Vec<_>>(),
            "everybody \
                once"
        );
        for wave in &plan.waves {
            let lists: BTreeSet<Vec<&Path>> = wave
                .steps
                .iter()
                .map(|s| s.changes.iter().map(|s| s.path.as_path()).collect())
                .collect();
            prop_assert_eq!(
                lists.len(),
                wave.steps.len(),
                "one step for all who read the same"
            );
        }
        for step in plan.steps() {
            let lists: Vec<Vec<PathBuf>> = step
                .instances
                .iter()
                .map(|m| m.instance.targets.clone())
                .collect();
            let shifts: Vec<PathBuf> = step.changes.iter().map(|s| s.path.clone()).collect();
            prop_assert!(
                lists.iter().all(|list| *list == shifts),
                "{:?} {:?}",
                lists,
                shifts
            );
            let changes = step.changes.iter().any(|s| s.to.bytes.starts_with(b"new"));
            for shift in &step.changes {
                let target = &shift.path.to_str().unwrap()[1..2];
                prop_assert_eq!(&shift.to, &file(wanted[&shift.path].first().unwrap()));
                prop_assert_eq!(
                    shift.from.clone(),
                    changes.then(|| file(&format!(
                        "old \
                        {target}"
                    )))
                );
            }
            let back = step.flip();
            prop_assert_eq!(
                back.is_some(),
                changes,
                "who cannot tell has no way back from what \
                    is on the disk already"
            );
            for (forth, back) in step.changes.iter().zip(back.iter().flat_map(|b| &b.changes)) {
                prop_assert_eq!(
                    (&forth.path, forth.from.as_ref(), &forth.to),
                    (&back.path, Some(&back.to), back.from.as_ref().unwrap())
                );
            }
        }
    }
}

#[test]
fn of_several_targets_each_has_an_entry_of_its_name_or_stays() {
    let (one, all) = (group("web", 2, true), paths(&["/e/main.conf", "/e/conf.d"]));
    let now = || {
        [
            ("/e/main.conf".into(), file("old")),
            ("/e/conf.d".into(), directory(&[("a", "1"), ("b", "2")])),
        ]
    };
    let go = |put: &Path, prune| {
        let asked = ChangeRequest {
            config: Some(put.into()),
            prune,
            ..ChangeRequest::default()
        };
        planned(
            seen(vec![member(&one, 1, &all)], now()),
            std::slice::from_ref(&one),
            &asked,
        )
    };
    let new = folder(&[]);
    std::fs::create_dir(new.path().join("conf.d")).unwrap();
    std::fs::write(new.path().join("conf.d/a"), "new").unwrap();
    let plan = go(new.path(), false).unwrap();
    let shifts = &plan.waves[0].steps[0].changes;
    assert_eq!(
        (&shifts[0].from, &shifts[0].to),
        (&Some(file("old")), &file("old")),
        "the file stays"
    );
    assert_eq!(
        (&shifts[1].from, &shifts[1].to),
        (
            &Some(directory(&[("a", "1"), ("b", "2")])),
            &directory(&[("a", "new"), ("b", "2")])
        )
    );
    assert_eq!(
        go(new.path(), true).unwrap().waves[0].steps[0].changes[1].to,
        directory(&[("a", "new")])
    );
    let invalid = |said: Result<Plan, Abort>, says: &str| {
        let stop = said.unwrap_err();
        assert!(
            stop.verdict == Verdict::Invalid && stop.reason.contains(says),
            "{}",
            stop.reason
        );
    };
    let (hidden, main) = (new.path().join(".hidden"), new.path().join("main.conf"));
    std::fs::write(&hidden, "").unwrap();
    invalid(
        go(new.path(), false),
        ".hidden`: group `web` has no target of that name; it has `conf.d`, `main.conf`",
    );
    std::fs::remove_file(&hidden).unwrap();
    std::fs::create_dir(&main).unwrap();
    invalid(
        go(new.path(), false),
        "main.conf`: it is no regular file but a directory",
    );
    std::fs::remove_dir(&main).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", &main).unwrap();
    invalid(go(new.path(), false), "main.conf`: it is a link");
    invalid(go(folder(&[]).path(), false), "nothing is in it");
    invalid(go(&new.path().join("conf.d/a"), false), "several targets");
    let set = ChangeRequest {
        set: vec![("a".into(), "b".into())],
        ..ChangeRequest::default()
    };
    invalid(
        planned(
            seen(vec![member(&one, 1, &all)], now()),
            std::slice::from_ref(&one),
            &set,
        ),
        "--set edits one file",
    );
    let (twice, dir) = (
        paths(&["/e/main.conf", "/f/main.conf"]),
        folder(&[("main.conf", "x")]),
    );
    let on_disk = twice
        .iter()
        .map(|p| (p.clone(), file("old")))
        .collect::<Vec<_>>();
    let asked = ChangeRequest {
        config: Some(dir.path().into()),
        ..ChangeRequest::default()
    };
    invalid(
        planned(
            seen(vec![member(&one, 1, &twice)], on_disk),
            std::slice::from_ref(&one),
            &asked,
        ),
        "the same name",
    );
}

#[test]
fn a_directory_and_a_file_do_not_become_each_other_and_do_not_lie_in_each_other() {
    let (one, dir) = (group("web", 1, true), folder(&[("a", "new")]));
    let go = |disk: Content, put: PathBuf, set: bool| {
        let members = vec![member(&one, 1, &paths(&["/e/x"]))];
        let set = if set {
            vec![("a".into(), "b".into())]
        } else {
            Vec::new()
        };
        let asked = ChangeRequest {
            config: Some(put).filter(|_| set.is_empty()),
            set,
            ..ChangeRequest::default()
        };
        planned(
            seen(members, [("/e/x".into(), disk)]),
            std::slice::from_ref(&one),
            &asked,
        )
    };
    for (disk, put, set, says) in [
        (
            file("old"),
            dir.path().to_owned(),
            false,
            "no regular file but a directory",
        ),
        (
            directory(&[]),
            dir.path().join("a"),
            false,
            "it is no directory",
        ),
        (directory(&[]), PathBuf::new(), true, "--set edits one file"),
    ] {
        let stop = go(disk, put, set).unwrap_err();
        assert!(
            stop.verdict == Verdict::Invalid && stop.reason.contains(says),
            "{}",
            stop.reason
        );
    }
    let two = [group("outer", 1, true), group("inner", 1, true)];
    let nested = |configs: BTreeMap<String, PathBuf>| {
        let members = vec![
            member(&two[0], 1, &paths(&["/e"])),
            member(&two[1], 2, &paths(&["/e/a"])),
        ];
        planned(
            seen(
                members,
                [
                    ("/e".into(), directory(&[("a", "1")])),
                    ("/e/a".into(), file("1")),
                ],
            ),
            &two,
            &ChangeRequest {
                configs,
                ..ChangeRequest::default()
            },
        )
    };
    for (changes, put) in [
        ("outer", dir.path().to_owned()),
        ("inner", dir.path().join("a")),
    ] {
        let stop = nested([(changes.into(), put)].into()).unwrap_err();
        assert!(
            stop.verdict == Verdict::Refused && stop.reason.contains("`/e/a` lies in `/e`"),
            "{}",
            stop.reason
        );
    }
    assert!(nested(BTreeMap::new()).is_ok(), "nothing is exchanged");
}

#[test]
fn a_source_counts_where_nothing_else_is_asked_for() {
    let (one, all) = (
        Arc::new(Group {
            source: Some("{config}.new".into()),
            ..(*group("web", 2, true)).clone()
        }),
        paths(&["/e/a", "/e/b"]),
    );
    let go = |offered: [Option<Result<Content, (Verdict, String)>>; 2], asked: &ChangeRequest| {
        let mut seen = seen(
            vec![member(&one, 1, &all)],
            all.iter().map(|p| (p.clone(), file("old"))),
        );
        for ((path, target), content) in seen.targets.iter_mut().zip(offered) {
            let path = PathBuf::from(format!("{}.new", path.display()));
            target
                .staged
                .insert("web".into(), StagedSource { path, content });
        }
        planned(seen, std::slice::from_ref(&one), asked)
    };
    let to = |plan: Result<Plan, Abort>| {
        plan.unwrap().waves[0].steps[0]
            .changes
            .iter()
            .map(|s| s.to.clone())
            .collect::<Vec<_>>()
    };
    let none = ChangeRequest::default();
    assert_eq!(
        to(go([Some(Ok(file("new"))), None], &none)),
        [file("new"), file("old")],
        "what has none stays"
    );
    let stop = go([None, None], &none).unwrap_err();
    assert!(
        stop.verdict == Verdict::Failed && stop.reason.contains("`/e/a.new`"),
        "{}",
        stop.reason
    );
    for verdict in [Verdict::Failed, Verdict::Refused, Verdict::Invalid] {
        assert_eq!(
            go([Some(Err((verdict, "why".into()))), None], &none)
                .unwrap_err()
                .verdict,
            verdict
        );
    }
    assert_eq!(
        go([None, Some(Ok(directory(&[("x", "1")])))], &none)
            .unwrap_err()
            .verdict,
        Verdict::Invalid
    );
    let dir = folder(&[("b", "named")]);
    let named = ChangeRequest {
        config: Some(dir.path().into()),
        ..ChangeRequest::default()
    };
    assert_eq!(
        to(go([Some(Ok(file("new"))), None], &named)),
        [file("old"), file("named")]
    );
    assert_eq!(
        to(go([None, None], &named)),
        [file("old"), file("named")],
        "nobody looks for it"
    );
}

#[test]
fn a_new_secret_makes_a_directory_one() {
    let (mut one, dir) = ((*group("web", 1, true)).clone(), folder(&[("key", "new")]));
    std::fs::set_permissions(
        dir.path().join("key"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    for (said, wanted) in [(None, true), (Some(false), false)] {
        one.secret = said;
        let group = Arc::new(one.clone());
        let members = vec![member(&group, 1, &paths(&["/e"]))];
        let asked = ChangeRequest {
            config: Some(dir.path().into()),
            ..ChangeRequest::default()
        };
        let plan = planned(
            seen(members, [("/e".into(), directory(&[("a", "1")]))]),
            &[group],
            &asked,
        )
        .unwrap();
        assert_eq!(plan.waves[0].steps[0].changes[0].secret, wanted);
    }
}

#[test]
fn what_an_instance_tells_is_the_digest_of_its_first_target() {
    let (one, all) = (group("web", 2, true), paths(&["/e/a", "/e/b"]));
    let go = |runs: &Content, asked: &ChangeRequest| {
        let mut member = member(&one, 1, &all);
        member.instance.before = Some(runs.sha256.clone());
        planned(
            seen(
                vec![member],
                all.iter().map(|p| (p.clone(), file(p.to_str().unwrap()))),
            ),
            std::slice::from_ref(&one),
            asked,
        )
    };
    let dir = folder(&[("b", "new")]);
    let asked = ChangeRequest {
        config: Some(dir.path().into()),
        ..ChangeRequest::default()
    };
    assert!(go(&file("/e/a"), &asked).is_ok());
    assert!(
        go(&file("/e/b"), &asked)
            .unwrap_err()
            .reason
            .contains("runs "),
        "that is drift"
    );
    let adopted = go(&file("/e/a"), &ChangeRequest::default()).unwrap();
    assert_eq!(
        adopted.instances().map(|i| i.outcome).collect::<Vec<_>>(),
        [Outcome::Untouched],
        "nobody knows what it has of the second"
    );
}

#[test]
fn a_directory_is_no_config_of_hello_serve() {
    let mut hello = Fleet::of_kind("hello").unwrap().groups.remove(0);
    hello.name = "web".into();
    let (group, dir) = (Arc::new(hello), folder(&[("a", "new")]));
    let asked = ChangeRequest {
        config: Some(dir.path().into()),
        ..ChangeRequest::default()
    };
    let stop = planned(
        seen(
            vec![member(&group, 1, &paths(&["/e"]))],
            [("/e".into(), directory(&[("a", "1")]))],
        ),
        &[group],
        &asked,
    )
    .unwrap_err();
    assert!(
        stop.verdict == Verdict::Invalid && stop.reason.contains("it is a directory"),
        "{}",
        stop.reason
    );
}

#[test]
fn only_what_has_an_entry_must_be_equal_now() {
    let (one, lists) = (
        group("web", 2, true),
        [
            paths(&["/1/main.conf", "/1/conf.d"]),
            paths(&["/2/main.conf", "/2/conf.d"]),
        ],
    );
    let go = |entry: &str| {
        let dir = folder(&[]);
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        std::fs::write(dir.path().join(entry), "new").unwrap();
        let members = vec![member(&one, 1, &lists[0]), member(&one, 2, &lists[1])];
        let on_disk = lists.iter().flat_map(|list| {
            [
                (list[0].clone(), file(list[0].to_str().unwrap())),
                (list[1].clone(), directory(&[("a", "1")])),
            ]
        });
        planned_over(
            seen(members, on_disk),
            std::slice::from_ref(&one),
            &ChangeRequest {
                config: Some(dir.path().into()),
                ..ChangeRequest::default()
            },
            false,
        )
    };
    assert!(go("conf.d/a").is_ok(), "the files differ, and stay");
    let stop = go("main.conf").unwrap_err();
    assert!(
        stop.verdict == Verdict::Refused
            && stop
                .reason
                .contains("`/1/main.conf` and `/2/main.conf` differ"),
        "{}",
        stop.reason
    );
}

/// `healthy` and `sick` instances of one group that read one file, of whom `max` may be silent;
/// where `proven` says so, all were proven on it.
fn some_sick(
    healthy: i32,
    sick: i32,
    max: &str,
    include_sick: bool,
    proven: &ProofCache,
    count: Count,
) -> Result<Plan, Abort> {
    let mut one = (*group("web", 1, true)).clone();
    (one.rollout.max_unresponsive, one.rollout.waves) =
        (max.parse().unwrap(), vec!["1".parse().unwrap()]);
    let (one, all) = (Arc::new(one), paths(&["/e"]));
    let silent = |pid| {
        let mut member = PlannedInstance {
            unresponsive: true,
            ..member(&one, pid, &all)
        };
        member.instance.failure = Some(Failure {
            kind: FailureKind::Unresponsive,
            text: "is silent".into(),
        });
        member
    };
    // The silent ones have the lowest pids.
    let members = (sick..sick + healthy)
        .map(|pid| member(&one, pid + 1, &all))
        .collect();
    let seen = Survey {
        unresponsive: (0..sick).map(|pid| silent(pid + 1)).collect(),
        ..seen(members, [("/e".into(), file("old"))])
    };
    let fleet = Fleet {
        groups: vec![(*one).clone()],
        ..Fleet::default()
    };
    let changes = Changes::read(&ChangeRequest::default()).unwrap();
    Plan::new(
        seen,
        &PlanRequest {
            fleet: &fleet,
            changes: &changes,
            count: Some(count),
            overwrite: true,
            include_sick,
            proven,
        },
        |_| None,
    )
}

proptest! {
    #[test]
    fn the_silent_are_left_out_while_they_fit_and_somebody_answers(
        healthy in 0..8i32,
        sick in 0..8i32,
        max in prop_oneof!["[0-9]", "[0-9]{1,2}%"],
        include: bool,
    ) {
        let any = Count {
            min: 0,
            max: usize::MAX,
        };
        let said = some_sick(healthy, sick, &max, include, &ProofCache::default(), any);
        let share: crate::fleet::Share = max.parse().unwrap();
        let all = usize::try_from(healthy + sick).unwrap();
        let fits = healthy > 0 && usize::try_from(sick).unwrap() <= share.rounded_down(all);
        let Ok(plan) = said else {
            let stop = said.unwrap_err();
            prop_assert!(!include && sick > 0 && !fits && stop.verdict == Verdict::Refused);
            prop_assert!(
                stop.instances.iter().all(|i| i.outcome == Outcome::Refused)
                    && stop.instances.len() == usize::try_from(sick).unwrap()
            );
            prop_assert!(
                stop.reason.contains("--include-sick") && stop.reason.contains("max_sick"),
                "{}",
                stop.reason
            );
            return Ok(());
        };
        prop_assert!(include || sick == 0 || fits);
        prop_assert_eq!(plan.instances().count(), all, "everybody is named once");
        let left: Vec<&Instance> = plan.skipped.iter().map(|m| &m.instance).collect();
        prop_assert_eq!(
            left.len(),
            if include {
                0
            } else {
                usize::try_from(sick).unwrap()
            }
        );
        let is_sick = |i: &Instance| {
            let trouble = i.failure.as_ref();
            trouble.is_some_and(|t| t.kind == FailureKind::Unresponsive)
        };
        prop_assert!(left.iter().all(|i| i.outcome == Outcome::Untouched && i.wave == 0 && is_sick(i)));
        // Those who answer go first.
        let order: Vec<(usize, bool)> = plan
            .steps()
            .flat_map(|s| &s.instances)
            .map(|m| (m.instance.wave, m.unresponsive))
            .collect();
        let last = order
            .iter()
            .filter(|(_, sick)| !sick)
            .map(|(wave, _)| *wave)
            .max()
            .unwrap_or(0);
        prop_assert!(
            order.iter().all(|(wave, sick)| !sick || *wave >= last),
            "{order:?}"
        );
    }
}

#[test]
fn the_silent_are_counted_as_found() {
    let count = |n| Count { min: n, max: n };
    assert!(some_sick(2, 1, "1", false, &ProofCache::default(), count(3)).is_ok());
    for wrong in [2, 4] {
        assert_eq!(
            some_sick(2, 1, "1", false, &ProofCache::default(), count(wrong))
                .unwrap_err()
                .verdict,
            Verdict::NoMatch
        );
    }
}

#[test]
fn a_silent_one_that_goes_along_is_signalled_whatever_was_proven_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let me = i32::try_from(std::process::id()).unwrap();
    let started = procfs::process::Process::myself()
        .unwrap()
        .stat()
        .unwrap()
        .starttime;
    let stand = BTreeMap::from([(
        PathBuf::from("/e"),
        crate::runs::ProvenTarget {
            sha256: file("old").sha256,
            ctime: 5,
            behind: Some(String::new()),
        },
    )]);
    let remains = crate::runs::ProvenInstance {
        pid: me,
        started,
        targets: stand,
        reload: crate::runs::Reload::Over(jiff::Timestamp::now()),
    };
    ProofCache::keep(dir.path(), [remains].into_iter()).unwrap();
    let proven = ProofCache::load(dir.path());
    let mut one = (*group("web", 1, true)).clone();
    one.confirm.clear();
    let one = Arc::new(one);
    let go = |sick| {
        let instance = Instance {
            targets: paths(&["/e"]),
            ..Instance::new("web", me, started)
        };
        let member = PlannedInstance {
            unresponsive: sick,
            ..PlannedInstance::new(instance, one.clone(), Vec::new())
        };
        let fleet = Fleet {
            groups: vec![(*one).clone()],
            ..Fleet::default()
        };
        let changes = Changes::read(&ChangeRequest::default()).unwrap();
        let seen = seen(vec![member], [("/e".into(), file("old"))]);
        let plan = Plan::new(
            seen,
            &PlanRequest {
                fleet: &fleet,
                changes: &changes,
                count: None,
                overwrite: true,
                include_sick: true,
                proven: &proven,
            },
            |_| None,
        );
        plan.unwrap()
            .instances()
            .map(|i| i.outcome)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (go(false), go(true)),
        (vec![Outcome::Unchanged], vec![Outcome::Untouched])
    );
}

#[test]
fn what_silent_ones_run_is_what_the_others_do() {
    let mut hello = Fleet::of_kind("hello").unwrap().groups.remove(0);
    hello.name = "web".into();
    let (one, all) = (Arc::new(hello), paths(&["/e"]));
    let config = |message: &str| file(&format!("message = \"{message}\"\n"));
    let go = |runs: &[Option<&str>]| {
        let one_of = |(pid, runs): (i32, &Option<&str>)| {
            let mut member = PlannedInstance {
                unresponsive: runs.is_none(),
                ..member(&one, pid, &all)
            };
            member.instance.before = runs.map(|message| config(message).sha256);
            member
        };
        let fleet = Fleet {
            groups: vec![(*one).clone()],
            ..Fleet::default()
        };
        let changes = Changes::read(&ChangeRequest::default()).unwrap();
        let seen = seen(
            (1..).zip(runs).map(one_of).collect(),
            [("/e".into(), config("new"))],
        );
        let wish = PlanRequest {
            fleet: &fleet,
            changes: &changes,
            count: None,
            overwrite: true,
            include_sick: true,
            proven: &ProofCache::default(),
        };
        let plan = Plan::new(seen, &wish, |sha256| {
            (sha256 == config("old").sha256).then(|| config("old").bytes.to_vec())
        })
        .unwrap();
        let states: BTreeMap<i32, Outcome> = plan.instances().map(|i| (i.pid, i.outcome)).collect();
        (
            plan.targets()[0].from.clone(),
            states.into_values().collect::<Vec<_>>(),
        )
    };
    let (silent, same) = (Outcome::Untouched, Outcome::Unchanged);
    assert_eq!(
        go(&[Some("old"), None]),
        (Some(config("old")), vec![silent; 2])
    );
    assert_eq!(
        go(&[Some("new"), None]),
        (Some(config("new")), vec![same, silent]),
        "the same once more"
    );
    assert_eq!(
        go(&[None, None]),
        (None, vec![silent; 2]),
        "nobody says what the way back would be"
    );
    assert_eq!(
        go(&[Some("old"), Some("new"), None]),
        (Some(config("old")), vec![silent, same, silent])
    );
}
