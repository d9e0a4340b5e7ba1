#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use super::*;
use crate::{
    event::{Failure, TargetKind, Verdict},
    inventory::HostName,
    report::{CommandContext, Look, RunReport},
};

fn instance(pid: i32, wave: usize, target: &str) -> Instance {
    Instance {
        wave,
        targets: vec![target.into()],
        validated: true,
        ..Instance::new("web", pid, 1)
    }
}

/// Returns the text of a dry run over `/a`, which changes, and `/b`, which is adopted.
fn text_of(instances: Vec<Instance>, verbose: bool) -> String {
    text_over(&[HostName::local()], instances, verbose)
}

/// Returns the text of a dry run over `/a` and `/b` of each host.
fn text_over(hosts: &[HostName], instances: Vec<Instance>, verbose: bool) -> String {
    let target = |host: &HostName, path: &str, to: &str| TargetReport {
        key: None,
        host: host.clone(),
        path: path.into(),
        kind: TargetKind::File,
        from: Some("old".into()),
        to: to.into(),
        disk: Some("old".into()),
        secret: Some(false),
        source: None,
        entries: Vec::new(),
        diff: None,
    };
    let last = instances.iter().map(|i| i.wave).max().unwrap_or(0);
    let signalled = |wave| {
        instances
            .iter()
            .filter(|i| i.wave == wave && i.outcome != Outcome::Unchanged)
            .count()
    };
    let wave = |wave| WaveReport {
        wave,
        instances: signalled(wave),
        bake_seconds: if wave == 1 { 0.5 } else { 0.0 },
        gates: match wave {
            1 => vec![vec!["check".to_owned(), "web".into()], vec!["other".into()]],
            _ => Vec::new(),
        },
    };
    let waves = (1..=last).map(wave).collect();
    let of_host = |host| [target(host, "/a", "new"), target(host, "/b", "old")];
    let targets = hosts.iter().flat_map(of_host).collect();
    let report = RunReport {
        waves,
        ..RunReport::new(Verdict::Converged, String::new(), targets, instances)
    };
    let context = CommandContext {
        look: Look::Status(String::new()),
        command: "hello broadcast",
        doctor: None,
        short_run: String::new(),
        state_args: String::new(),
        dry_run: true,
    };
    text(&Summary::new(report, &context), verbose)
}

#[test]
fn a_dry_run_shows_each_wave_with_what_follows_it() {
    let unchanged = Instance {
        outcome: Outcome::Unchanged,
        ..instance(2, 1, "/a")
    };
    let failure = Some(Failure {
        kind: FailureKind::Unresponsive,
        text: "no answer".into(),
    });
    let skipped = Instance {
        failure,
        ..instance(4, 0, "/a")
    };
    let unresponsive = Instance {
        failure: skipped.failure.clone(),
        ..instance(6, 2, "/b")
    };
    let unvalidated = Instance {
        validated: false,
        endpoint: "http://x/".into(),
        ..instance(3, 2, "/b")
    };
    assert_eq!(
        text_of(
            vec![
                instance(1, 1, "/a"),
                unchanged,
                unvalidated,
                instance(5, 2, "/b"),
                unresponsive,
                skipped
            ],
            false
        ),
        "/a: sha256:old -> sha256:new; a failure rolls it back to sha256:old\n\
         /b: sha256:old is on the disk already\n\
         wave 1/2: 1 instance, then 0.5s of bake, then the gate `check web`, then the gate \
         `other`\n\
         \x20 web pid 1 reads /a: would be signalled, validated\n\
         \x20 web pid 2 reads /a: runs it already, no signal, validated\n\
         wave 2/2: 3 instances\n\
         \x20 web pid 3 http://x/ reads /b: would be signalled, not validated\n\
         \x20 web pid 5 reads /b: would be signalled, validated\n\
         \x20 web pid 6 reads /b: is unresponsive and would be signalled, validated\n\
         skipped: web pid 4: no answer; its config changes for the others, so it would start on \
         the new one\n"
    );
}

#[test]
fn a_file_that_several_waves_read_is_noted_unless_it_is_adopted() {
    let shared = |target: &str| {
        text_of(
            [1, 2, 4]
                .map(|wave| instance(wave, wave as usize, target))
                .to_vec(),
            false,
        )
    };
    assert!(
        shared("/a").contains(
            "rolls it back to sha256:old\n  is installed with wave 1 and read in waves 2, 4 \
                               too: an instance of these that starts again"
        ),
        "{}",
        shared("/a")
    );
    assert!(!shared("/b").contains("is installed"), "{}", shared("/b"));
    assert!(
        !text_of(
            vec![
                instance(1, 1, "/a"),
                instance(2, 1, "/a"),
                instance(3, 2, "/b")
            ],
            false
        )
        .contains("is installed")
    );
    // An instance that needs no signal waits for no wave.
    let unchanged = Instance {
        outcome: Outcome::Unchanged,
        ..instance(2, 2, "/a")
    };
    assert!(
        !text_of(
            vec![instance(1, 1, "/a"), unchanged, instance(3, 2, "/b")],
            false
        )
        .contains("is installed")
    );
}

#[test]
fn a_large_wave_is_counted_and_unvalidated_instances_are_named() {
    let mut all: Vec<Instance> = (1..=34)
        .map(|pid| instance(pid, if pid == 1 { 1 } else { 2 }, "/a"))
        .collect();
    all[1..13].iter_mut().for_each(|i| i.validated = false);
    all[33].group = "other".into();
    let text = text_of(all.clone(), false);
    let (_, waves) = text.split_once("wave 1/2").unwrap_or_default();
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
        text_of(all, true)
            .lines()
            .filter(|line| line.contains(" pid "))
            .count(),
        34
    );
}

fn hosts(all: usize) -> Vec<HostName> {
    let host = |n| HostName::new(&format!("edge-{n:03}")).unwrap();
    (1..=all).map(host).collect()
}

#[test]
fn a_target_is_read_by_the_instances_of_its_own_host_alone() {
    let hosts = hosts(2);
    let at = |host: usize, pid, wave| Instance {
        host: hosts[host].clone(),
        ..instance(pid, wave, "/a")
    };
    let text = text_over(&hosts, vec![at(0, 1, 1), at(1, 1, 2)], false);
    assert!(!text.contains("is installed with wave"), "{text}");
    let text = text_over(&hosts, vec![at(0, 1, 1), at(0, 2, 2)], false);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("edge-001: /a: "), "{text}");
    assert!(lines[1].contains("is installed with wave 1"), "{text}");
}

#[test]
fn a_target_that_400_hosts_have_is_one_line_that_names_ten() {
    let hosts = hosts(400);
    let instances = hosts.iter().zip(1..).map(|(host, pid)| Instance {
        host: host.clone(),
        validated: false,
        ..instance(pid, 1, "/a")
    });
    let text = text_over(&hosts, instances.collect(), false);
    assert!(text.lines().count() < 10, "{text}");
    assert!(text.contains("400 hosts (edge-001, edge-002, "), "{text}");
    assert!(text.contains(" and 390 more): /a: sha256:old"), "{text}");
    assert!(
        text.contains("not validated: edge-001 pid 1, edge-002 pid 2, "),
        "{text}"
    );
}
