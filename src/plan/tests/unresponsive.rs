//! Instances whose endpoint did not respond before the run.

use std::future::pending;

use proptest::prelude::*;

use super::*;
use crate::{fleet::Share, runs};

const ANY_COUNT: Count = Count {
    min: 0,
    max: usize::MAX,
};

/// Instances of one group that read one file.
struct Scenario {
    responsive: i32,
    unresponsive: i32,
    max: Share,
    include: bool,
    count: Count,
    /// A coordinator counts them.
    is_counted: bool,
}

impl Scenario {
    fn total(&self) -> usize {
        usize::try_from(self.responsive + self.unresponsive).unwrap()
    }

    fn plan(&self) -> Result<Plan, Abort> {
        let mut group = (*group("web", 1, true)).clone();
        group.rollout.max_unresponsive = self.max;
        group.rollout.skips_unresponsive = self.is_counted;
        group.rollout.waves = vec![Share::Count(1).into()];
        let group = Arc::new(group);
        let targets = paths(&["/e"]);
        let unresponsive = |pid| {
            let mut instance = instance(&group, pid, &targets);
            instance.mark_unresponsive("is silent".into());
            instance
        };
        // The unresponsive instances have the lowest pids.
        let first = self.unresponsive + 1;
        let responsive = (first..first + self.responsive)
            .map(|pid| instance(&group, pid, &targets))
            .collect();
        let survey = Survey {
            unresponsive: (1..first).map(unresponsive).collect(),
            ..survey(responsive, [("/e".into(), file("old"))])
        };
        plan(
            survey,
            &group,
            self.include,
            Some(self.count),
            &ProofCache::default(),
        )
    }
}

#[test]
fn the_unresponsive_instances_of_a_group_that_a_coordinator_counts_are_all_skipped() {
    for (responsive, unresponsive) in [(0, 1), (1, 3), (2, 1)] {
        let mut scenario = Scenario {
            responsive,
            unresponsive,
            max: Share::Count(0),
            include: false,
            count: ANY_COUNT,
            is_counted: false,
        };
        assert_eq!(scenario.plan().unwrap_err().verdict, Verdict::Refused);
        scenario.is_counted = true;
        let plan = scenario.plan().unwrap();
        assert_eq!(plan.skipped.len(), usize::try_from(unresponsive).unwrap());
        assert_eq!(plan.members().count(), usize::try_from(responsive).unwrap());
    }
}

/// Adopts the content on disk, if the survey found instances of `group` only.
fn plan(
    survey: Survey,
    group: &Group,
    include_unresponsive: bool,
    count: Option<Count>,
    proven: &ProofCache,
) -> Result<Plan, Abort> {
    let fleet = Fleet {
        groups: vec![group.clone()],
        ..Fleet::default()
    };
    let request = PlanRequest {
        fleet: &fleet,
        changes: &Changes::read(&ChangeRequest::default()).unwrap(),
        count,
        overwrite: true,
        include_unresponsive,
        proven,
    };
    Plan::new(survey, &request, |sha256| {
        let old = hello_config("old");
        (sha256 == old.sha256).then(|| old.bytes.to_vec())
    })
}

fn hello_config(message: &str) -> Content {
    file(&format!("message = \"{message}\"\n"))
}

/// Checks the plan of a scenario whose unresponsive instances are all included or all skipped.
fn check_plan(scenario: &Scenario, plan: &Plan) -> Result<(), TestCaseError> {
    prop_assert_eq!(plan.instances().count(), scenario.total());
    let skipped = if scenario.include {
        0
    } else {
        usize::try_from(scenario.unresponsive).unwrap()
    };
    prop_assert_eq!(plan.skipped.len(), skipped);
    for instance in plan.skipped.iter().map(|m| &m.instance) {
        prop_assert_eq!(instance.outcome, Outcome::Untouched);
        prop_assert_eq!(instance.wave, 0);
        let kind = instance.failure.as_ref().map(|failure| failure.kind);
        prop_assert_eq!(kind, Some(crate::event::FailureKind::Unresponsive));
    }
    let instances = || plan.steps().flat_map(|s| &s.instances);
    let last_responsive = instances()
        .filter(|m| !m.unresponsive)
        .map(|m| m.instance.wave)
        .max()
        .unwrap_or(0);
    for instance in instances().filter(|m| m.unresponsive) {
        prop_assert!(instance.instance.wave >= last_responsive);
    }
    Ok(())
}

proptest! {
    #[test]
    fn unresponsive_instances_are_skipped_if_they_fit_and_another_responds(
        responsive in 0..8i32,
        unresponsive in 0..8i32,
        max in prop_oneof!["[0-9]", "[0-9]{1,2}%"],
        include: bool,
    ) {
        let scenario = Scenario {
            responsive,
            unresponsive,
            max: max.parse().unwrap(),
            include,
            count: ANY_COUNT,
            is_counted: false,
        };
        let number = usize::try_from(unresponsive).unwrap();
        let fits = responsive > 0 && number <= scenario.max.rounded_down(scenario.total());
        match scenario.plan() {
            Ok(plan) => {
                prop_assert!(include || unresponsive == 0 || fits);
                check_plan(&scenario, &plan)?;
            }
            Err(abort) => {
                prop_assert!(!include && unresponsive > 0 && !fits);
                prop_assert_eq!(abort.verdict, Verdict::Refused);
                prop_assert_eq!(abort.instances.len(), number);
                prop_assert!(abort.instances.iter().all(|i| i.outcome == Outcome::Refused));
                prop_assert!(abort.reason.contains("--include-unresponsive"));
                prop_assert!(abort.reason.contains("max_unresponsive"));
            }
        }
    }
}

#[test]
fn unresponsive_instances_count() {
    let plan = |count| {
        let scenario = Scenario {
            responsive: 2,
            unresponsive: 1,
            max: Share::Count(1),
            include: false,
            count: Count {
                min: count,
                max: count,
            },
            is_counted: false,
        };
        scenario.plan()
    };
    assert!(plan(3).is_ok());
    for wrong in [2, 4] {
        assert_eq!(plan(wrong).unwrap_err().verdict, Verdict::NoMatch);
    }
}

/// A proof of this process, which is alive, on the file `/e`.
async fn proof_of_this_process(started: u64) -> (tempfile::TempDir, ProofCache) {
    let dir = tempfile::tempdir().unwrap();
    let proven = runs::ProvenTarget {
        sha256: file("old").sha256,
        ctime: 5,
        behind: Some(String::new()),
    };
    let instance = runs::ProvenInstance {
        pid: i32::try_from(std::process::id()).unwrap(),
        started,
        targets: BTreeMap::from([(PathBuf::from("/e"), proven)]),
        reload: runs::Reload::Over(jiff::Timestamp::now()),
    };
    ProofCache::keep(dir.path(), "own", vec![instance], pending())
        .await
        .unwrap();
    let cache = ProofCache::load(dir.path());
    (dir, cache)
}

#[tokio::test]
async fn an_included_unresponsive_instance_is_signalled_even_if_it_was_proven() {
    let started = procfs::process::Process::myself()
        .unwrap()
        .stat()
        .unwrap()
        .starttime;
    let (_dir, proven) = proof_of_this_process(started).await;
    let mut group = (*group("web", 1, true)).clone();
    group.confirm.clear();
    let group = Arc::new(group);
    let outcome = |unresponsive| {
        let pid = i32::try_from(std::process::id()).unwrap();
        let reported = Instance {
            targets: paths(&["/e"]),
            ..Instance::new("web", pid, started)
        };
        let mut instance = PlannedInstance::new(reported, group.clone(), Vec::new());
        instance.unresponsive = unresponsive;
        let survey = survey(vec![instance], [("/e".into(), file("old"))]);
        let plan = plan(survey, &group, true, None, &proven).unwrap();
        plan.instances().map(|i| i.outcome).collect::<Vec<_>>()
    };
    assert_eq!(outcome(false), [Outcome::Unchanged]);
    assert_eq!(outcome(true), [Outcome::Untouched]);
}

#[test]
fn unresponsive_instances_are_taken_to_run_what_the_others_run() {
    let mut group = Fleet::of_kind("hello").unwrap().groups.remove(0);
    group.name = "web".into();
    let group = Arc::new(group);
    // Each instance by the message that it runs; none if it is unresponsive.
    let plan = |running: &[Option<&str>]| {
        let instance = |(pid, runs): (i32, &Option<&str>)| {
            let mut instance = instance(&group, pid, &paths(&["/e"]));
            instance.unresponsive = runs.is_none();
            instance.instance.before = runs.map(|message| hello_config(message).sha256);
            instance
        };
        let survey = survey(
            (1..).zip(running).map(instance).collect(),
            [("/e".into(), hello_config("new"))],
        );
        let plan = plan(survey, &group, true, None, &ProofCache::default()).unwrap();
        let outcomes: BTreeMap<i32, Outcome> =
            plan.instances().map(|i| (i.pid, i.outcome)).collect();
        let from = plan.targets()[0].from.clone();
        (from, outcomes.into_values().collect::<Vec<_>>())
    };
    let (old, new) = (Some(hello_config("old")), Some(hello_config("new")));
    let signalled = Outcome::Untouched;
    let unchanged = Outcome::Unchanged;
    assert_eq!(
        plan(&[Some("old"), None]),
        (old.clone(), vec![signalled; 2])
    );
    assert_eq!(
        plan(&[Some("new"), None]),
        (new, vec![unchanged, signalled])
    );
    assert_eq!(
        plan(&[None, None]),
        (None, vec![signalled; 2]),
        "no instance reports the rollback content"
    );
    assert_eq!(
        plan(&[Some("old"), Some("new"), None]),
        (old, vec![signalled, unchanged, signalled])
    );
}
