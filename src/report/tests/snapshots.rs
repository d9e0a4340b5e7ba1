//! Every output of a run of each verdict, from fixed events: on a terminal of 80 and of 200
//! columns, through a pipe, as JSON and JUnit, and in GitHub Actions.

use std::collections::BTreeMap;

use super::*;
use crate::{
    event::{Abort, At},
    report::junit::{self, Origin},
    tests::check_snapshots,
};

/// The folder of the snapshots.
const FOLDER: &str = "src/report/tests/snapshots";

/// A target whose path has blanks and letters of more than one byte.
const PATH: &str = "/etc/grüße/日本 config.toml";

const OLD: &str = "348367ea9a2935d8a1d2f0c1b6a4c7e90f5a2b1c3d4e5f60718293a4b5c6d7e8";
const NEW: &str = "e75dff62d0698c1b2a3f4e5d6c7b8a9900112233445566778899aabbccddeeff";

/// A run that ended with one verdict.
pub(super) struct Case {
    pub(super) verdict: Verdict,
    pub(super) events: Vec<At<Event>>,
    pub(super) report: RunReport,
}

impl Case {
    pub(super) fn summary(self) -> (Vec<At<Event>>, Summary) {
        let fleet = screen::quote("/etc/hello/my fleet.toml");
        let state = screen::quote("/srv/état");
        let context = CommandContext {
            look: Look::Status(format!("hello status --fleet {fleet} --state {state}")),
            command: "hello broadcast",
            doctor: Some(format!("hello doctor --fleet {fleet}")),
            short_run: "01a21bb5e159".into(),
            state_args: format!(" --state {state}"),
            dry_run: false,
        };
        (self.events, Summary::new(self.report, &context))
    }
}

fn local(events: Vec<Event>) -> Vec<At<Event>> {
    events.into_iter().map(At::local).collect()
}

fn web(pid: i32, outcome: Outcome, failure: Option<(FailureKind, &str)>) -> Instance {
    let failure = failure.map(|(kind, text)| Failure {
        kind,
        text: text.into(),
    });
    Instance {
        outcome,
        failure,
        exe: "/usr/sbin/nginx".into(),
        endpoint: format!("http://127.0.0.1:{}/", 8000 + pid % 1000),
        targets: vec![PATH.into()],
        ..Instance::new("web", pid, 815)
    }
}

fn confirmed(pid: i32) -> Instance {
    Instance {
        before: Some(OLD.into()),
        after: Some(NEW.into()),
        took_us: Some(12_345),
        proof: Some(crate::event::Proof::Exact),
        ..web(pid, Outcome::Confirmed, None)
    }
}

/// What one instance read, and what was wanted.
fn wrong_answer(outcome: Outcome) -> Instance {
    let text = "http://127.0.0.1:8713/ reads `old greeting`, and wanted is `new greeting` after 5s";
    web(4713, outcome, Some((Outcome::TimedOut.into(), text)))
}

fn target(disk: &str) -> TargetReport {
    TargetReport {
        key: None,
        host: crate::inventory::HostName::local(),
        path: PATH.into(),
        kind: TargetKind::File,
        from: Some(OLD.into()),
        to: NEW.into(),
        disk: Some(disk.into()),
        secret: Some(false),
        entries: Vec::new(),
        diff: None,
        source: None,
    }
}

/// Returns the report of a run that has begun.
fn ran(verdict: Verdict, reason: &str, disk: &str, instances: Vec<Instance>) -> RunReport {
    RunReport {
        run: "01a21bb5e159745f83da5a81f5a5dc8f".into(),
        ..RunReport::new(verdict, reason.into(), vec![target(disk)], instances)
    }
}

fn survey(instances: usize) -> Vec<Event> {
    vec![
        Event::Skipped {
            pid: 99,
            why: "is of uid 1000, and group `web` takes processes of root alone".into(),
        },
        Event::Survey {
            instances,
            fleet: Some("/etc/hello/my fleet.toml".into()),
        },
    ]
}

fn at_path(sha256: &str) -> Event {
    Event::Installed {
        rev: None,
        path: PATH.into(),
        sha256: sha256.into(),
    }
}

/// Returns the events up to the signal of these instances.
fn begun(pids: &[i32]) -> Vec<Event> {
    let mut events = survey(pids.len());
    events.extend([
        Event::Valid {
            path: PATH.into(),
            sha256: NEW.into(),
            by: "`/usr/sbin/nginx -t`".into(),
        },
        Event::Waves {
            instances: vec![pids.len()],
        },
        intent(Direction::Forward, 1, pids),
        at_path(NEW),
    ]);
    events
}

fn converged() -> Case {
    let instances = vec![confirmed(4711), confirmed(4712), confirmed(4713)];
    let mut events = survey(3);
    events.extend([
        Event::Waves {
            instances: vec![1, 2],
        },
        intent(Direction::Forward, 1, &[4711]),
        at_path(NEW),
        Event::of(&instances[0]),
        Event::Baking {
            wave: 1,
            seconds: 30.0,
        },
        Event::Baked {
            wave: 1,
            instances: 1,
        },
        gate(1, &["error-rate", "web"], Some(0), "0.1 % of 5000\n"),
        intent(Direction::Forward, 2, &[4712, 4713]),
    ]);
    events.extend(instances[1..].iter().map(Event::of));
    let reason = "every instance proved the new config";
    Case {
        verdict: Verdict::Converged,
        events: local(events),
        report: ran(Verdict::Converged, reason, NEW, instances),
    }
}

/// Returns a run that ended before it touched anything.
fn aborted(verdict: Verdict, events: Vec<Event>, reason: &str) -> Case {
    Case {
        verdict,
        events: local(events),
        report: Abort::new(verdict, reason).into(),
    }
}

fn refused() -> Case {
    let stopped = "is stopped: it would take the signal only when it goes on";
    let ignores = "ignores SIGHUP: it was started by nohup, or by a parent that ignores it";
    let instances = [(4711, stopped), (4712, ignores)];
    let instances = instances
        .map(|(pid, why)| web(pid, Outcome::Refused, Some((Outcome::Refused.into(), why))));
    Case {
        verdict: Verdict::Refused,
        events: local(survey(2)),
        report: Abort::refused(instances.to_vec()).into(),
    }
}

fn reverted() -> Case {
    let mut events = begun(&[4711, 4713]);
    let why = "pid 4713: http://127.0.0.1:8713/ reads `old greeting`, and wanted is `new greeting`";
    events.extend([
        Event::of(&confirmed(4711)),
        Event::of(&wrong_answer(Outcome::TimedOut)),
        Event::RollbackBegan { why: why.into() },
        intent(Direction::Back, 1, &[4711, 4713]),
        at_path(OLD),
        Event::of(&web(4711, Outcome::Reverted, None)),
        Event::of(&wrong_answer(Outcome::Reverted)),
    ]);
    let instances = vec![
        web(4711, Outcome::Reverted, None),
        wrong_answer(Outcome::Reverted),
    ];
    Case {
        verdict: Verdict::Reverted,
        events: local(events),
        report: ran(Verdict::Reverted, why, OLD, instances),
    }
}

fn mixed() -> Case {
    let died = Instance {
        start: Some("systemctl start nginx@'a b'.service".into()),
        ..web(
            4711,
            Outcome::Died,
            Some((Outcome::Died.into(), "the process ended")),
        )
    };
    let stuck = wrong_answer(Outcome::RevertFailed);
    let mut events = begun(&[4711, 4713]);
    events.extend([
        Event::of(&died),
        Event::of(&wrong_answer(Outcome::TimedOut)),
        Event::RollbackBegan {
            why: "pid 4711: the process ended".into(),
        },
        intent(Direction::Back, 1, &[4711, 4713]),
        at_path(OLD),
        Event::of(&died),
        Event::of(&stuck),
    ]);
    let reason = "pid 4711: the process ended";
    Case {
        verdict: Verdict::Mixed,
        events: local(events),
        report: ran(Verdict::Mixed, reason, OLD, vec![died, stuck]),
    }
}

fn partial() -> Case {
    let mut events = begun(&[4711, 4713]);
    let why = "pid 4713: http://127.0.0.1:8713/ reads `old greeting`, and wanted is `new greeting`";
    events.extend([
        Event::of(&confirmed(4711)),
        Event::of(&wrong_answer(Outcome::TimedOut)),
        Event::RolledBack {
            pids: vec![4713],
            why: why.into(),
        },
        intent(Direction::Back, 1, &[4713]),
        at_path(OLD),
        Event::of(&wrong_answer(Outcome::Reverted)),
        intent(Direction::Forward, 1, &[]),
        at_path(NEW),
    ]);
    let instances = vec![confirmed(4711), wrong_answer(Outcome::Reverted)];
    Case {
        verdict: Verdict::Partial,
        events: local(events),
        report: ran(Verdict::Partial, why, NEW, instances),
    }
}

fn unproven() -> Case {
    let text = "its group has no assertion";
    let kind = Outcome::Unconfirmed.into();
    let instance = web(4711, Outcome::Unconfirmed, Some((kind, text)));
    let mut events = begun(&[4711]);
    events.push(Event::of(&instance));
    let reason = "nothing proves of pid 4711 which config it runs";
    Case {
        verdict: Verdict::Unproven,
        events: local(events),
        report: ran(Verdict::Unproven, reason, NEW, vec![instance]),
    }
}

/// A reason in which another program imitates lines of this one.
const INVALID: &str = "`/etc/grüße/日本 config.toml` is not valid: `/usr/sbin/nginx -t` refused it \
                       (exit status: 1)\nnginx: [emerg] unknown directive \"lisen\" in line 3\n\
                       error: \u{1b}[31mforged\n   Confirmed [   0.001s] forged\n";

fn cases() -> Vec<Case> {
    let run = "01a21bb5e159745f83da5a81f5a5dc8f";
    vec![
        converged(),
        aborted(
            Verdict::Failed,
            survey(3),
            "the state directory `/srv/état` cannot be used: Permission denied (os error 13)",
        ),
        aborted(
            Verdict::Usage,
            Vec::new(),
            &format!("--fleet has no group of run {run}: `web`, `api`"),
        ),
        aborted(
            Verdict::NoMatch,
            survey(0),
            "group `web` has 0 instances, not 1 or more",
        ),
        aborted(Verdict::Invalid, survey(3), INVALID.trim_end()),
        refused(),
        reverted(),
        mixed(),
        partial(),
        aborted(
            Verdict::Busy,
            survey(3),
            "`/etc/grüße` is locked by pid 77 of uid 0, since 12s: hello broadcast web",
        ),
        aborted(
            Verdict::RestartRequired,
            survey(3),
            "pid 4711 reads `listen` only at its start, and the candidate changes it: restart it",
        ),
        aborted(
            Verdict::Unreachable,
            Vec::new(),
            "edge-117: ssh: connect to host 10.1.7.17 port 22: No route to host",
        ),
        unproven(),
    ]
}

/// Replaces the times since the run began: `[   0.001s]`.
fn without_times(text: &str) -> String {
    let mut stable = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        stable.push_str(before);
        stable.push('[');
        let time = after.split_once("s]").map(|(time, _)| time);
        let is_time = |time: &&str| time.len() == 8 && time.trim_start().parse::<f64>().is_ok();
        rest = match time.filter(is_time) {
            Some(time) => {
                stable.push_str("   1.500");
                &after[time.len()..]
            }
            None => after,
        };
    }
    stable + rest
}

/// Returns what stdout and stderr get.
fn printed(case: Case, output: Output, columns: fn() -> Option<usize>) -> (String, String) {
    let kept = [Kept::default(), Kept::default()];
    let sink = |kept: &Kept| {
        let writer = kept.clone();
        Sink::new(move || writer, false).with_columns(columns)
    };
    let mut reporter = Reporter {
        stdout: sink(&kept[0]),
        stderr: sink(&kept[1]),
        ..Reporter::new(output, false, false)
    };
    let (events, summary) = case.summary();
    for At { host, event } in &events {
        reporter.event_of(host, event);
    }
    reporter.finish(&summary);
    let [stdout, stderr] = kept.map(|kept| {
        let bytes = kept.0.lock().unwrap().clone();
        without_times(&String::from_utf8(bytes).unwrap())
    });
    (stdout, stderr)
}

pub(super) fn on_screen(case: Case, columns: fn() -> Option<usize>) -> String {
    let (stdout, stderr) = printed(case, Output::Screen, columns);
    assert_eq!(stdout, "", "stdout is for data");
    stderr
}

/// Returns the object on stdout, with one key on each line.
pub(super) fn as_json(case: Case) -> String {
    let (stdout, _) = printed(case, Output::Json, || None);
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let object: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    serde_json::to_string_pretty(&object).unwrap() + "\n"
}

/// Returns the JUnit report, with one element on each line.
pub(super) fn as_junit(summary: &Summary) -> String {
    let origin = Origin {
        timestamp: "2026-01-31T12:00:00".into(),
        hostname: "host".into(),
        elapsed: Duration::from_millis(1500),
    };
    let document = junit::document(summary, &origin).unwrap();
    document.replace("><", ">\n<")
}

#[test]
fn every_output_of_each_verdict_is_its_snapshot() {
    assert_eq!(
        cases().iter().map(|case| case.verdict).collect::<Vec<_>>(),
        Verdict::ALL
    );
    let mut texts = BTreeMap::new();
    for (index, verdict) in Verdict::ALL.into_iter().enumerate() {
        let case = || cases().swap_remove(index);
        let (_, summary) = case().summary();
        let annotations = github::annotations(&summary).join("\n") + "\n";
        for (form, text) in [
            ("80.txt", on_screen(case(), || Some(80))),
            ("200.txt", on_screen(case(), || Some(200))),
            ("plain.txt", on_screen(case(), || None)),
            ("json", as_json(case())),
            ("junit.xml", as_junit(&summary)),
            ("github.txt", annotations),
            ("github.md", github::step_summary(&summary)),
        ] {
            let name = crate::names::json_word(verdict);
            texts.insert(format!("{name}.{form}"), text);
        }
    }
    check_snapshots(FOLDER, &texts);
}

#[test]
fn each_command_to_type_next_is_a_line_of_its_own_at_every_width() {
    for index in 0..Verdict::ALL.len() {
        let case = || cases().swap_remove(index);
        let (_, summary) = case().summary();
        let hint = summary.hint.as_ref().or(summary.undo.as_ref()).unwrap();
        for columns in [|| Some(80), || Some(200), || None] {
            let text = on_screen(case(), columns);
            for command in &hint.commands {
                let line = format!("  {command}");
                assert!(text.lines().any(|shown| shown == line), "{line}:\n{text}");
            }
        }
    }
}

#[test]
fn each_failure_is_on_one_line_with_what_was_read_and_wanted() {
    let text = on_screen(reverted(), || None);
    let is_failure = |line: &&str| line.trim_start().starts_with("FAILED");
    let failures: Vec<&str> = text.lines().filter(is_failure).collect();
    assert_eq!(failures.len(), 1, "{text}");
    assert!(
        failures[0].ends_with("reads `old greeting`, and wanted is `new greeting` after 5s"),
        "{text}"
    );
}

#[test]
fn at_80_columns_only_commands_and_lines_of_other_programs_are_longer() {
    for index in 0..Verdict::ALL.len() {
        let text = on_screen(cases().swap_remove(index), || Some(80));
        for line in text.lines() {
            let is_command = line.starts_with("  ") && !line.starts_with("   ");
            let is_other = line.trim_start().starts_with("| ");
            let columns = console::measure_text_width(line);
            assert!(columns <= 80 || is_command || is_other, "{columns}: {line}");
        }
    }
}

#[test]
fn many_refused_instances_are_named_and_the_rest_is_counted() {
    let refused = |pid| {
        web(
            pid,
            Outcome::Refused,
            Some((Outcome::Refused.into(), "is stopped")),
        )
    };
    let case = Case {
        verdict: Verdict::Refused,
        events: Vec::new(),
        report: Abort::refused((1..=25).map(refused).collect()).into(),
    };
    let text = on_screen(case, || None);
    let count = text.matches("     Refused web pid ").count();
    assert_eq!(count, text::LISTED, "{text}");
    assert!(text.contains(" .. and 5 more; -v names them\n"), "{text}");
    assert!(text.contains("error: 25 instances refused\n"), "{text}");
}
