//! Every output of runs over 1, 3 and 400 hosts, from fixed events.

use std::collections::BTreeMap;

use super::{
    snapshots::{Case, as_json, as_junit, on_screen},
    *,
};
use crate::{
    event::{At, HostState, Phase},
    inventory::HostName,
    tests::check_snapshots,
};

/// The folder of the snapshots.
const FOLDER: &str = "src/report/tests/host_snapshots";

const WORKERS: &str = "workers not replaced after 10s";

const NO_ROUTE: &str = "ssh: connect to host 10.1.7.17 port 22: No route to host";

fn host(number: usize) -> HostName {
    HostName::new(&format!("edge-{number:03}")).unwrap()
}

fn at(host: &HostName, event: Event) -> At<Event> {
    At {
        host: host.clone(),
        event,
    }
}

fn state(host: &HostName, state: HostState, why: Option<&str>) -> At<Event> {
    let why = why.map(str::to_owned);
    let event = Event::Host {
        host: host.clone(),
        state,
        why,
    };
    At::local(event)
}

/// Returns one instance of a host. Every hundredth host has one that fails, and so has the second
/// of few.
fn instance_of(number: usize, all: usize) -> Instance {
    let pid = i32::try_from(700 + number).unwrap();
    let fails = number.is_multiple_of(100) || (all < 10 && number == 2);
    let outcome = if fails {
        Outcome::TimedOut
    } else {
        Outcome::Confirmed
    };
    Instance {
        host: host(number),
        ..instance(pid, outcome, fails.then_some(WORKERS))
    }
}

fn target_of(number: usize) -> TargetReport {
    TargetReport {
        host: host(number),
        ..report(Verdict::Mixed, Vec::new()).targets.swap_remove(0)
    }
}

/// Returns a run over this many hosts, the last of which is unreachable unless it is the only one.
fn run_over(all: usize) -> (Vec<At<Event>>, RunReport) {
    let away = (all > 1).then_some(all);
    let ready: Vec<usize> = (1..=all).filter(|n| Some(*n) != away).collect();
    let mut events = vec![At::local(Event::Phase {
        phase: Phase::Connecting,
        done: 0,
        all,
        limit: None,
    })];
    events.extend(away.map(|away| state(&host(away), HostState::Unreachable, Some(NO_ROUTE))));
    events.extend(
        ready
            .iter()
            .map(|n| state(&host(*n), HostState::Ready, None)),
    );
    for n in &ready {
        let skipped = Event::Skipped {
            pid: i32::try_from(90 + n).unwrap(),
            why: "is of uid 1000, and group `web` takes processes of root alone".into(),
        };
        events.push(at(&host(*n), skipped));
    }
    let instances: Vec<Instance> = ready.iter().map(|n| instance_of(*n, all)).collect();
    events.push(At::local(Event::Survey {
        instances: instances.len(),
        fleet: Some("/etc/hello/fleet.toml".into()),
    }));
    let first = ready.len().min(1);
    let waves = [first, ready.len() - first];
    events.push(At::local(Event::Waves {
        instances: waves.into_iter().filter(|wave| *wave > 0).collect(),
    }));
    for (wave, numbers) in [(1, &ready[..first]), (2, &ready[first..])] {
        for n in numbers {
            let pid = i32::try_from(700 + n).unwrap();
            events.push(at(&host(*n), intent(Direction::Forward, wave, &[pid])));
            events.push(at(&host(*n), installed("bb")));
        }
        for n in numbers {
            events.push(at(&host(*n), Event::of(&instance_of(*n, all))));
        }
    }
    let report_of = |n: &usize| HostReport {
        name: host(*n),
        state: HostState::Done,
        why: None,
        version: Some("0.2.0".into()),
        instances: 1,
    };
    let mut hosts: Vec<HostReport> = ready.iter().map(report_of).collect();
    hosts.extend(away.map(|away| HostReport {
        name: host(away),
        state: HostState::Unreachable,
        why: Some(NO_ROUTE.into()),
        version: None,
        instances: 0,
    }));
    let verdict = if all == 1 {
        Verdict::Converged
    } else {
        Verdict::Mixed
    };
    let failed: Vec<Instance> = instances
        .iter()
        .filter(|i| i.failure.is_some())
        .cloned()
        .collect();
    let reason = if all == 1 {
        "every instance proved the new config".to_owned()
    } else {
        crate::event::failures(&failed)
    };
    let report = RunReport {
        run: "01a21bb5e159745f83da5a81f5a5dc8f".into(),
        hosts,
        ..RunReport::new(
            verdict,
            reason,
            ready.iter().map(|n| target_of(*n)).collect(),
            instances,
        )
    };
    (events, report)
}

fn case(all: usize) -> Case {
    let (events, report) = run_over(all);
    Case {
        verdict: report.verdict,
        events,
        report,
    }
}

#[test]
fn every_output_over_hosts_is_its_snapshot() {
    let mut texts = BTreeMap::new();
    for all in [1, 3, 400] {
        let (_, summary) = case(all).summary();
        let forms = [
            ("80.txt", on_screen(case(all), || Some(80))),
            ("plain.txt", on_screen(case(all), || None)),
            (
                "github.txt",
                github::annotations(&summary).join("\n") + "\n",
            ),
            ("github.md", github::step_summary(&summary)),
        ];
        // Every instance is in these: those of 400 hosts are no text to read.
        let long = [
            ("json", as_json(case(all))),
            ("junit.xml", as_junit(&summary)),
        ];
        let long = long.into_iter().filter(|_| all < 10);
        for (form, text) in forms.into_iter().chain(long) {
            texts.insert(format!("{all}.{form}"), text);
        }
    }
    check_snapshots(FOLDER, &texts);
}

#[test]
fn a_run_over_400_hosts_fits_on_a_screen() {
    let text = on_screen(case(400), || None);
    let lines = text.lines().count();
    assert!(lines <= 24, "{lines} lines:\n{text}");
}

#[test]
fn the_hosts_that_are_not_done_and_the_counts_are_data() {
    let json: serde_json::Value = serde_json::from_str(&as_json(case(400))).unwrap();
    assert_eq!(
        json["host_counts"],
        serde_json::json!({ "done": 399, "unreachable": 1 })
    );
    let names: Vec<&str> = json["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|host| host["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["edge-400"]);
}

#[test]
fn a_run_over_this_machine_alone_has_no_hosts_as_data() {
    let end = end(
        Verdict::Converged,
        vec![instance(1, Outcome::Confirmed, None)],
    );
    let json = serde_json::to_value(end).unwrap();
    assert_eq!((json.get("hosts"), json.get("host_counts")), (None, None));
}

#[test]
fn a_host_with_a_fault_is_a_failed_case_and_an_excluded_one_is_skipped() {
    let (_, mut report) = run_over(3);
    let of = |state| HostReport {
        name: host(9),
        state,
        why: Some("why".into()),
        version: None,
        instances: 0,
    };
    report.hosts = vec![
        of(HostState::Lost),
        of(HostState::Excluded),
        of(HostState::Ready),
    ];
    let document = as_junit(&summary(report));
    let suite = document.split("<testsuite name=\"hosts\"").nth(1).unwrap();
    let head = suite.lines().next().unwrap();
    assert!(
        head.contains("tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"1\""),
        "{head}"
    );
}

#[test]
fn equal_pids_of_two_hosts_are_two_instances_of_a_batch() {
    let one = HostName::new("a").unwrap();
    let other = HostName::new("b").unwrap();
    let mut batch = Batch::of_wave(Direction::Forward, 1, 2);
    batch.add([(one.clone(), 7)]);
    batch.add([(other, 7)]);
    batch.end(&(one, 7));
    let awaited = batch.progress().unwrap().awaited.unwrap();
    assert_eq!((awaited.slowest.as_str(), awaited.others), ("b pid 7", 0));
}

#[test]
fn a_host_is_counted_in_its_last_state() {
    let mut tally = HostTally::default();
    tally.all = 3;
    tally.set(&host(1), HostState::Ready, false);
    tally.set(&host(2), HostState::Unreachable, false);
    tally.set(&host(2), HostState::Ready, false);
    let progress = tally.progress();
    assert_eq!((progress.done, progress.all), (2, 3));
    assert_eq!(progress.text, "2 ready");
    assert_eq!(tally.end_text().as_deref(), Some("2 of 3: 2 ready"));
    assert_eq!(tally.end_text(), None, "it is shown once");
}

#[test]
fn of_many_hosts_in_one_state_the_first_have_a_line() {
    let mut tally = HostTally::default();
    let lines = (1..=400).filter(|n| tally.set(&host(*n), HostState::Lost, false));
    assert_eq!(lines.count(), text::LISTED);
    assert!(tally.set(&host(1), HostState::Lost, true), "-v shows each");
}

#[test]
fn the_command_that_starts_a_process_is_typed_on_its_own_host() {
    let died = Instance {
        start: Some("systemctl start web".into()),
        host: host(7),
        ..instance(1, Outcome::Died, Some("gone"))
    };
    let hint = hint(report(Verdict::Mixed, vec![died]));
    assert!(
        hint.what.contains(
            "edge-007 pid 1 died; `systemctl start web` on edge-007 starts it again there"
        ),
        "{}",
        hint.what
    );
    assert_eq!(hint.commands[1], "hello resume r1 --state /s");
}

#[test]
fn a_refused_instance_of_a_host_is_examined_there() {
    let refused = Instance {
        host: host(7),
        ..instance(1, Outcome::Refused, Some("is stopped"))
    };
    let hint = hint(report(Verdict::Refused, vec![refused]));
    assert_eq!(hint.commands, ["hello doctor edge-007:1"]);
}
