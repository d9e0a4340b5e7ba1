//! Groups with several targets, and directories as targets.

use super::*;

/// A group with a file and a directory as targets.
struct TwoTargets {
    group: Arc<Group>,
    new: tempfile::TempDir,
}

impl TwoTargets {
    /// Creates the group, and a directory for `--config` with a new entry for `conf.d/a`.
    fn new() -> Self {
        let new = folder(&[]);
        std::fs::create_dir(new.path().join("conf.d")).unwrap();
        std::fs::write(new.path().join("conf.d/a"), "new").unwrap();
        Self {
            group: group("web", 2, true),
            new,
        }
    }

    fn plan(&self, request: &ChangeRequest) -> Result<Plan, Abort> {
        let paths = paths(&["/e/main.conf", "/e/conf.d"]);
        let on_disk = [
            (paths[0].clone(), file("old")),
            (paths[1].clone(), directory(&[("a", "1"), ("b", "2")])),
        ];
        planned(
            survey(vec![instance(&self.group, 1, &paths)], on_disk),
            std::slice::from_ref(&self.group),
            request,
        )
    }

    fn put(&self, config: &Path, prune: bool) -> Result<Plan, Abort> {
        self.plan(&ChangeRequest {
            config: Some(config.into()),
            prune,
            ..ChangeRequest::default()
        })
    }
}

#[test]
fn each_of_several_targets_takes_the_entry_of_its_name_or_stays() {
    let two = TwoTargets::new();
    let plan = two.put(two.new.path(), false).unwrap();
    let [main, conf] = plan.waves[0].steps[0].changes.as_slice() else {
        unreachable!("two changes")
    };
    assert_eq!(main.from, Some(file("old")));
    assert_eq!(main.to, file("old"), "the file stays");
    assert_eq!(conf.from, Some(directory(&[("a", "1"), ("b", "2")])));
    assert_eq!(conf.to, directory(&[("a", "new"), ("b", "2")]));
    let pruned = two.put(two.new.path(), true).unwrap();
    assert_eq!(
        pruned.waves[0].steps[0].changes[1].to,
        directory(&[("a", "new")])
    );
}

#[test]
fn an_entry_that_fits_no_target_is_invalid() {
    let two = TwoTargets::new();
    let put = |config: &Path| two.put(config, false);
    let hidden = two.new.path().join(".hidden");
    std::fs::write(&hidden, "").unwrap();
    assert_fails(
        put(two.new.path()),
        Verdict::Invalid,
        ".hidden`: group `web` has no target of that name; it has `conf.d`, `main.conf`",
    );
    std::fs::remove_file(&hidden).unwrap();
    let main = two.new.path().join("main.conf");
    std::fs::create_dir(&main).unwrap();
    assert_fails(
        put(two.new.path()),
        Verdict::Invalid,
        "main.conf`: it is no regular file but a directory",
    );
    std::fs::remove_dir(&main).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", &main).unwrap();
    assert_fails(
        put(two.new.path()),
        Verdict::Invalid,
        "main.conf`: it is a link",
    );
    assert_fails(
        put(folder(&[]).path()),
        Verdict::Invalid,
        "nothing is in it",
    );
    assert_fails(
        put(&two.new.path().join("conf.d/a")),
        Verdict::Invalid,
        "several targets",
    );
    let set = ChangeRequest {
        set: vec![("a".into(), "b".into())],
        ..ChangeRequest::default()
    };
    assert_fails(two.plan(&set), Verdict::Invalid, "--set edits one file");
}

#[test]
fn two_targets_of_the_same_name_are_invalid() {
    let group = group("web", 2, true);
    let twice = paths(&["/e/main.conf", "/f/main.conf"]);
    let dir = folder(&[("main.conf", "x")]);
    let request = ChangeRequest {
        config: Some(dir.path().into()),
        ..ChangeRequest::default()
    };
    let on_disk: Vec<(PathBuf, Content)> = twice.iter().map(|p| (p.clone(), file("old"))).collect();
    let survey = survey(vec![instance(&group, 1, &twice)], on_disk);
    assert_fails(
        planned(survey, &[group], &request),
        Verdict::Invalid,
        "the same name",
    );
}

#[test]
fn a_file_and_a_directory_do_not_become_each_other() {
    let group = group("web", 1, true);
    let dir = folder(&[("a", "new")]);
    let plan = |disk: Content, request: &ChangeRequest| {
        let instances = vec![instance(&group, 1, &paths(&["/e/x"]))];
        planned(
            survey(instances, [("/e/x".into(), disk)]),
            std::slice::from_ref(&group),
            request,
        )
    };
    let put = |config: PathBuf| ChangeRequest {
        config: Some(config),
        ..ChangeRequest::default()
    };
    assert_fails(
        plan(file("old"), &put(dir.path().into())),
        Verdict::Invalid,
        "no regular file but a directory",
    );
    assert_fails(
        plan(directory(&[]), &put(dir.path().join("a"))),
        Verdict::Invalid,
        "it is no directory",
    );
    let set = ChangeRequest {
        set: vec![("a".into(), "b".into())],
        ..ChangeRequest::default()
    };
    assert_fails(
        plan(directory(&[]), &set),
        Verdict::Invalid,
        "--set edits one file",
    );
}

#[test]
fn a_target_inside_another_is_refused_if_one_changes() {
    let groups = [group("outer", 1, true), group("inner", 1, true)];
    let dir = folder(&[("a", "new")]);
    let plan = |configs: BTreeMap<String, PathBuf>| {
        let instances = vec![
            instance(&groups[0], 1, &paths(&["/e"])),
            instance(&groups[1], 2, &paths(&["/e/a"])),
        ];
        let on_disk = [
            ("/e".into(), directory(&[("a", "1")])),
            ("/e/a".into(), file("1")),
        ];
        let request = ChangeRequest {
            configs,
            ..ChangeRequest::default()
        };
        planned(survey(instances, on_disk), &groups, &request)
    };
    for (group, config) in [
        ("outer", dir.path().to_owned()),
        ("inner", dir.path().join("a")),
    ] {
        assert_fails(
            plan([(group.into(), config)].into()),
            Verdict::Refused,
            "`/e/a` lies in `/e`",
        );
    }
    assert!(plan(BTreeMap::new()).is_ok(), "nothing is exchanged");
}

#[test]
fn only_targets_with_an_entry_must_be_equal_now() {
    let group = group("web", 2, true);
    let lists = [
        paths(&["/1/main.conf", "/1/conf.d"]),
        paths(&["/2/main.conf", "/2/conf.d"]),
    ];
    let plan = |entry: &str| {
        let dir = folder(&[]);
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        std::fs::write(dir.path().join(entry), "new").unwrap();
        let instances = vec![
            instance(&group, 1, &lists[0]),
            instance(&group, 2, &lists[1]),
        ];
        let on_disk = lists.iter().flat_map(|list| {
            [
                (list[0].clone(), file(list[0].to_str().unwrap())),
                (list[1].clone(), directory(&[("a", "1")])),
            ]
        });
        let request = ChangeRequest {
            config: Some(dir.path().into()),
            ..ChangeRequest::default()
        };
        planned_over(
            survey(instances, on_disk),
            std::slice::from_ref(&group),
            &request,
            false,
        )
    };
    assert!(plan("conf.d/a").is_ok(), "the files differ, and stay");
    assert_fails(
        plan("main.conf"),
        Verdict::Refused,
        "`/1/main.conf` and `/2/main.conf` differ",
    );
}
