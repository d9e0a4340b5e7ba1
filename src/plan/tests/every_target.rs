//! Every target of random groups is in the plan once, with the right contents.

use proptest::prelude::*;

use super::*;

/// One group: its targets (one to three of five), the number of its instances, whether it has a
/// kind, and whether a change was requested for it.
type Part = (Vec<i32>, i32, bool, bool);

fn part() -> impl Strategy<Value = Part> {
    let targets = proptest::sample::subsequence(vec![0, 1, 2, 3, 4], 1..=3);
    (targets, 0..4i32, any::<bool>(), any::<bool>())
}

/// The input of a plan, and the contents that the groups want for each target.
#[derive(Default)]
struct Scenario {
    groups: Vec<Arc<Group>>,
    instances: Vec<PlannedInstance>,
    request: ChangeRequest,
    dirs: Vec<tempfile::TempDir>,
    wanted: BTreeMap<PathBuf, BTreeSet<String>>,
}

fn path(target: i32) -> PathBuf {
    PathBuf::from(format!("/{target}/name{target}"))
}

impl Scenario {
    fn new(parts: &[Part]) -> Self {
        let mut scenario = Self::default();
        for (index, part) in parts.iter().enumerate() {
            scenario.add(index, part);
        }
        scenario
    }

    fn add(&mut self, index: usize, (targets, instances, has_kind, changes): &Part) {
        let name = format!("group{index}");
        let group = group(&name, targets.len(), *has_kind);
        let paths: Vec<PathBuf> = targets.iter().copied().map(path).collect();
        let first_pid = 10 * i32::try_from(index).unwrap();
        self.instances
            .extend((0..*instances).map(|n| instance(&group, first_pid + n, &paths)));
        // Of several targets, the first stays as it is.
        let changed = if targets.len() > 1 {
            &targets[1..]
        } else {
            &targets[..]
        };
        if *changes {
            self.change(name, changed, targets.len() > 1);
        }
        if *instances > 0 {
            for target in targets {
                let is_changed = *changes && changed.contains(target);
                let content = if is_changed { "new" } else { "old" };
                self.wanted
                    .entry(path(*target))
                    .or_default()
                    .insert(format!("{content} {target}"));
            }
        }
        self.groups.push(group);
    }

    fn change(&mut self, group: String, targets: &[i32], has_several: bool) {
        let dir = folder(&[]);
        for target in targets {
            let file = dir.path().join(format!("name{target}"));
            std::fs::write(file, format!("new {target}")).unwrap();
        }
        let config = if has_several {
            dir.path().to_owned()
        } else {
            dir.path().join(format!("name{}", targets[0]))
        };
        self.request.configs.insert(group, config);
        self.dirs.push(dir);
    }
}

/// Checks that each instance reads exactly the targets of its step, and that instances which read
/// the same are in one step of a wave.
fn check_steps(plan: &Plan) -> Result<(), TestCaseError> {
    for wave in &plan.waves {
        let lists: BTreeSet<Vec<&Path>> = wave
            .steps
            .iter()
            .map(|s| s.changes.iter().map(|s| s.path.as_path()).collect())
            .collect();
        prop_assert_eq!(lists.len(), wave.steps.len());
    }
    for step in plan.steps() {
        let changed: Vec<&PathBuf> = step.changes.iter().map(|s| &s.path).collect();
        for instance in &step.instances {
            let read: Vec<&PathBuf> = instance.instance.targets.iter().collect();
            prop_assert_eq!(&read, &changed);
        }
    }
    Ok(())
}

/// Checks the contents of each change. What an instance runs that does not report its config is not
/// known if nothing changes, so there is no rollback content then.
fn check_changes(
    step: &Step,
    wanted: &BTreeMap<PathBuf, BTreeSet<String>>,
) -> Result<(), TestCaseError> {
    let has_effect = step.changes.iter().any(|s| s.to.bytes.starts_with(b"new"));
    for change in &step.changes {
        let target = &change.path.to_str().unwrap()[1..2];
        prop_assert_eq!(&change.to, &file(wanted[&change.path].first().unwrap()));
        let old = has_effect.then(|| file(&format!("old {target}")));
        prop_assert_eq!(&change.from, &old);
    }
    let back = step.flip();
    prop_assert_eq!(back.is_some(), has_effect);
    let reversed = back.iter().flat_map(|step| &step.changes);
    for (forward, back) in step.changes.iter().zip(reversed) {
        prop_assert_eq!(&forward.path, &back.path);
        prop_assert_eq!(forward.from.as_ref(), Some(&back.to));
        prop_assert_eq!(Some(&forward.to), back.from.as_ref());
    }
    Ok(())
}

proptest! {
    /// Every target has a content of its own, and so has every change.
    #[test]
    fn every_target_is_planned_once_from_its_old_to_its_requested_content(
        parts in proptest::collection::vec(part(), 1..4),
    ) {
        let scenario = Scenario::new(&parts);
        let on_disk = (0..5).map(|target| (path(target), file(&format!("old {target}"))));
        let survey = survey(scenario.instances.clone(), on_disk);
        let plan = planned(survey, &scenario.groups, &scenario.request);
        if scenario.wanted.values().any(|texts| texts.len() > 1) {
            prop_assert_eq!(plan.unwrap_err().verdict, Verdict::Refused);
            return Ok(());
        }
        let plan = plan.unwrap();
        let mut pids: Vec<i32> = plan.instances().map(|i| i.pid).collect();
        pids.sort_unstable();
        let found: Vec<i32> = scenario.instances.iter().map(|m| m.instance.pid).collect();
        prop_assert_eq!(pids, found, "every instance is planned once");
        check_steps(&plan)?;
        for step in plan.steps() {
            check_changes(step, &scenario.wanted)?;
        }
    }
}
