use super::*;
use crate::event::{Failure, TargetKind};

fn instance(pid: i32, wave: usize, target: &str) -> Instance {
    Instance {
        wave,
        targets: vec![target.into()],
        validated: true,
        ..Instance::new("web", pid, 1)
    }
}

/// What people read of a dry run over `/a`, which changes, and `/b`, which is what it should
/// be.
fn text(instances: Vec<Instance>, all: bool) -> String {
    let target = |path: &str, to: &str| TargetReport {
        host: "local",
        path: path.into(),
        kind: TargetKind::File,
        from: Some("old".into()),
        to: to.into(),
        disk: Some("old".into()),
        entries: Vec::new(),
        diff: None,
    };
    let last = instances.iter().map(|i| i.wave).max().unwrap_or(0);
    let of = |wave| {
        instances
            .iter()
            .filter(|i| i.wave == wave && i.outcome != Outcome::Unchanged)
            .count()
    };
    let (bake_seconds, gates) = (
        0.5,
        vec![vec!["check".to_owned(), "web".into()], vec!["other".into()]],
    );
    let mut waves: Vec<_> = (1..=last)
        .map(|wave| WaveReport {
            wave,
            instances: of(wave),
            bake_seconds: 0.0,
            gates: Vec::new(),
        })
        .collect();
    if let Some(first) = waves.first_mut() {
        (first.bake_seconds, first.gates) = (bake_seconds, gates);
    }
    let targets = vec![target("/a", "new"), target("/b", "old")];
    Summary {
        waves,
        ..Summary::new(
            String::new(),
            Verdict::Converged,
            String::new(),
            targets,
            instances,
        )
    }
    .rehearsal(all)
}

#[test]
fn a_dry_run_shows_each_wave_with_what_follows_it() {
    let unchanged = Instance {
        outcome: Outcome::Unchanged,
        ..instance(2, 1, "/a")
    };
    let trouble = Some(Failure {
        kind: FailureKind::Unresponsive,
        text: "no answer".into(),
    });
    let left_out = Instance {
        failure: trouble,
        ..instance(4, 0, "/a")
    };
    let silent = Instance {
        failure: left_out.failure.clone(),
        ..instance(6, 2, "/b")
    };
    let unsure = Instance {
        validated: false,
        endpoint: "http://x/".into(),
        ..instance(3, 2, "/b")
    };
    assert_eq!(
        text(
            vec![
                instance(1, 1, "/a"),
                unchanged,
                unsure,
                instance(5, 2, "/b"),
                silent,
                left_out
            ],
            false
        ),
        "/a: sha256:old -> sha256:new; on a failure it is put back\n\
         /b: sha256:old -> sha256:old; adopted as it is; on a failure the config of before is \
         put back\n\
         wave 1/2: 1 instance, then 0.5s of bake, then the gate `check web`, then the gate \
         `other`\n\
         \x20 web pid 1 reads /a: would be signalled, validated\n\
         \x20 web pid 2 reads /a: runs it already, no signal, validated\n\
         wave 2/2: 3 instances\n\
         \x20 web pid 3 http://x/ reads /b: would be signalled, not validated\n\
         \x20 web pid 5 reads /b: would be signalled, validated\n\
         \x20 web pid 6 reads /b: is silent and would be signalled, validated\n\
         left out: web pid 4: no answer; what it reads changes for the others, so it would \
         start on the new config\n"
    );
}

#[test]
fn a_file_that_several_waves_read_is_told_unless_it_stands_there_already() {
    let of = |target: &str| {
        text(
            [1, 2, 4]
                .map(|wave| instance(wave, wave as usize, target))
                .to_vec(),
            false,
        )
    };
    assert!(
        of("/a").contains(
            "put back\n  is installed with wave 1 and read in waves 2, 4 \
                               too: an instance of these that starts again"
        ),
        "{}",
        of("/a")
    );
    assert!(!of("/b").contains("is installed"), "{}", of("/b"));
    assert!(
        !text(
            vec![
                instance(1, 1, "/a"),
                instance(2, 1, "/a"),
                instance(3, 2, "/b")
            ],
            false
        )
        .contains("is installed")
    );
    // Who needs no signal does not wait for one.
    let unchanged = Instance {
        outcome: Outcome::Unchanged,
        ..instance(2, 2, "/a")
    };
    assert!(
        !text(
            vec![instance(1, 1, "/a"), unchanged, instance(3, 2, "/b")],
            false
        )
        .contains("is installed")
    );
}

#[test]
fn a_large_wave_is_counted_and_who_is_unvalidated_is_named() {
    let mut all: Vec<Instance> = (1..=34)
        .map(|pid| instance(pid, if pid == 1 { 1 } else { 2 }, "/a"))
        .collect();
    all[1..13].iter_mut().for_each(|i| i.validated = false);
    all[33].group = "other".into();
    let said = text(all.clone(), false);
    let (_, waves) = said.split_once("wave 1/2").unwrap_or_default();
    assert_eq!(
        waves.split_once('\n').unwrap_or_default().1,
        "\x20 web pid 1 reads /a: would be signalled, validated\n\
         wave 2/2: 33 instances\n\
         \x20 other: 1 would be signalled, validated\n\
         \x20 web: 12 would be signalled, not validated: pid 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 \
         and 2 more\n\
         \x20 web: 20 would be signalled, validated\n"
    );
    assert_eq!(
        text(all, true)
            .lines()
            .filter(|line| line.contains(" pid "))
            .count(),
        34
    );
}
