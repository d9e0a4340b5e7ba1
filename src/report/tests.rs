#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use super::*;
use crate::event::{
    Direction, Event, Failure, FailureKind, Instance, Outcome, TargetKind, TargetReport, Verdict,
};

mod hosts;
mod snapshots;

/// A writer that keeps everything.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the lines of these events and this end, with a clock that stands still.
fn shown(events: &[Event], end: &Summary) -> String {
    let kept = Kept::default();
    let stderr = kept.clone();
    let mut reporter = Reporter {
        past: Some((String::new(), Duration::from_millis(1500))),
        stderr: Sink::new(move || stderr, false),
        ..Reporter::new(Output::Screen, false, false)
    };
    events.iter().for_each(|event| reporter.event(event));
    reporter.finish(end);
    let bytes = kept.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn instance(pid: i32, outcome: Outcome, failure: Option<&str>) -> Instance {
    let failure = failure.map(|text| Failure {
        kind: Outcome::TimedOut.into(),
        text: text.into(),
    });
    let endpoint = format!("http://127.0.0.1:{pid}/");
    Instance {
        outcome,
        failure,
        endpoint,
        targets: vec!["/c".into()],
        ..Instance::new("web", pid, 1)
    }
}

fn report(verdict: Verdict, instances: Vec<Instance>) -> RunReport {
    let target = TargetReport {
        key: None,
        host: crate::inventory::HostName::local(),
        path: "/c".into(),
        kind: TargetKind::File,
        from: Some("aa".into()),
        to: "bb".into(),
        disk: Some("bb".into()),
        secret: Some(false),
        source: None,
        entries: Vec::new(),
        diff: None,
    };
    RunReport {
        run: "r1".into(),
        ..RunReport::new(verdict, "why it is so".into(), vec![target], instances)
    }
}

fn end(verdict: Verdict, instances: Vec<Instance>) -> Summary {
    summary(report(verdict, instances))
}

fn summary(report: RunReport) -> Summary {
    let context = CommandContext {
        look: Look::Status("hello status".into()),
        command: "hello broadcast",
        doctor: None,
        short_run: "r1".into(),
        state_args: " --state /s".into(),
        dry_run: false,
    };
    Summary::new(report, &context)
}

fn intent(direction: Direction, wave: usize, pids: &[i32]) -> Event {
    Event::Intent {
        direction,
        wave,
        targets: Vec::new(),
        pids: pids.iter().map(|pid| (*pid, 1)).collect(),
        armed_s: None,
    }
}

fn installed(sha256: &str) -> Event {
    Event::Installed {
        path: PathBuf::from("/c"),
        sha256: sha256.into(),
        rev: None,
    }
}

const TIMEOUT: &str = "no answer within 1s after 5s";

fn partial_run() -> Vec<Event> {
    vec![
        Event::Waves {
            instances: vec![1, 2],
        },
        intent(Direction::Forward, 1, &[1]),
        installed("bb"),
        Event::of(&instance(1, Outcome::Confirmed, None)),
        Event::Baking {
            wave: 1,
            seconds: 30.0,
        },
        Event::Baked {
            wave: 1,
            instances: 1,
        },
        gate(1, &["errors", "web"], Some(0), "0.1 %\n"),
        intent(Direction::Forward, 2, &[2, 3]),
        Event::of(&instance(2, Outcome::Confirmed, None)),
        Event::of(&instance(3, Outcome::TimedOut, Some(TIMEOUT))),
        Event::RolledBack {
            pids: vec![3],
            why: format!("pid 3: {TIMEOUT}"),
        },
        intent(Direction::Back, 2, &[3]),
        installed("aa"),
        Event::of(&instance(3, Outcome::Reverted, Some(TIMEOUT))),
        intent(Direction::Forward, 2, &[]),
        installed("bb"),
    ]
}

fn gate(wave: usize, command: &[&str], exit: Option<i32>, output: &str) -> Event {
    Event::Gate {
        wave,
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        exit,
        output: output.into(),
    }
}

#[test]
fn a_partial_rollback_is_shown_line_by_line() {
    let instances = vec![
        instance(1, Outcome::Confirmed, None),
        instance(2, Outcome::Confirmed, None),
        instance(3, Outcome::Reverted, Some(TIMEOUT)),
    ];
    let wanted = "
         Wave 1/2: 1 instance
    Installed /c sha256:bb
    Confirmed [   1.500s] (1/1) web pid 1 http://127.0.0.1:1/
       Baking wave 1 is left alone for 30s
        Baked [   1.500s] 1 instance of wave 1 still on the new config
         Gate [   1.500s] gate of wave 1: `errors web` passed
              | 0.1 %
         Wave 2/2: 2 instances
    Confirmed [   1.500s] (1/2) web pid 2 http://127.0.0.1:2/
       FAILED [   1.500s] (2/2) web pid 3 http://127.0.0.1:3/: no answer within 1s after 5s
 Rolling back 1 instance: pid 3: no answer within 1s after 5s
  Rolled back /c sha256:aa
     Reverted [   1.500s] (1/1) web pid 3 http://127.0.0.1:3/ (first: no answer within 1s after 5s)
    Installed /c sha256:bb
      Summary [   1.500s] 3 instances: partial (2 confirmed, 1 reverted)
          Run r1

error: why it is so

hint: every touched instance is proven, but not all on the new config: pid 3 is reverted; the \
next broadcast includes them; what each runs now, and then to restore the old config everywhere:
  hello status
  hello revert r1 --state /s
";
    assert_eq!(
        shown(&partial_run(), &end(Verdict::Partial, instances)),
        wanted.trim_start_matches('\n')
    );
}

#[test]
fn a_failed_gate_shows_the_first_lines_of_its_output() {
    let output: String = (0..12).map(|n| format!("\x1b[31m{n}\n")).collect();
    let text = shown(
        &[gate(2, &["errors"], Some(3), &output)],
        &end(Verdict::Partial, Vec::new()),
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "       FAILED [   1.500s] gate of wave 2: `errors` failed (exit status 3)"
    );
    assert!(lines[1].ends_with(" | \\x1b[31m0"), "{text}");
    assert!(lines[11].ends_with(".. and 2 more lines"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn a_gate_that_could_not_run_and_a_run_that_stopped_say_why() {
    let events = [
        gate(2, &["/nowhere"], None, "`/nowhere` could not be run"),
        Event::RolledBack {
            pids: Vec::new(),
            why: "stuck".into(),
        },
        Event::RolledBack {
            pids: vec![3, 4],
            why: "pid 3: silent and 1 more".into(),
        },
        Event::Stopped {
            why: "the gate failed".into(),
        },
        // An instance that fails a second time is not counted in a batch.
        Event::of(&instance(
            5,
            Outcome::TimedOut,
            Some("no longer proven: silent"),
        )),
    ];
    let instances = vec![instance(1, Outcome::Confirmed, None)];
    let text = shown(&events, &end(Verdict::Partial, instances));
    for (line, end) in text.lines().zip([
        "`/nowhere` failed (no exit status)",
        "`/nowhere` could not be run",
        "Rolling back only files, since no instance was signalled: stuck",
        "Rolling back 2 instances: pid 3: silent and 1 more",
        "Stopped no other instance is signalled: the gate failed",
        "FAILED [   1.500s] web pid 5 http://127.0.0.1:5/: no longer proven: silent",
    ]) {
        assert!(line.ends_with(end), "{text}");
    }
    let hint =
        "hint: every instance is proven on the new config, and the run stopped before its end";
    assert!(text.contains(hint), "{text}");
}

#[test]
fn a_run_that_converged_on_another_config_ends_with_its_id_and_how_to_undo_it() {
    let converged = || {
        report(
            Verdict::Converged,
            vec![instance(1, Outcome::Confirmed, None)],
        )
    };
    let text = shown(&[], &summary(converged()));
    let wanted = "
      Summary [   1.500s] 1 instance: converged (1 confirmed)
          Run r1

hint: to restore the config from before this run:
  hello revert r1 --state /s
";
    assert_eq!(text, wanted.trim_start_matches('\n'));
    let has_hint = |report| shown(&[], &summary(report)).contains("hello revert");
    let mut same = converged();
    same.targets[0].from = Some("bb".into());
    assert!(!has_hint(same), "it changed nothing");
    let mut no_old_bytes = converged();
    no_old_bytes.targets[0].from = None;
    assert!(!has_hint(no_old_bytes), "it cannot be reverted");
    let mut no_run = converged();
    no_run.run = String::new();
    assert!(!has_hint(no_run), "it was no run");
}

fn hint(report: RunReport) -> Hint {
    summary(report).hint.unwrap()
}

#[test]
fn commands_that_read_come_before_those_that_write() {
    let commands = |verdict, instance| hint(report(verdict, vec![instance])).commands;
    let timed_out = || instance(1, Outcome::TimedOut, Some("silent"));
    assert_eq!(
        commands(Verdict::Mixed, timed_out()),
        [
            "hello status",
            "hello resume r1 --state /s",
            "hello revert r1 --state /s"
        ]
    );
    let died = Instance {
        start: Some("systemctl start web".into()),
        ..instance(1, Outcome::Died, Some("gone"))
    };
    assert_eq!(commands(Verdict::Mixed, died)[1], "systemctl start web");
    let reverted = instance(1, Outcome::Reverted, None);
    assert_eq!(commands(Verdict::Reverted, reverted), ["hello status"]);
    let mut no_old_bytes = report(Verdict::Mixed, vec![timed_out()]);
    no_old_bytes.targets[0].from = None;
    assert_eq!(
        hint(no_old_bytes).commands,
        ["hello status", "hello resume r1 --state /s"]
    );
}

#[test]
fn a_hint_names_ten_instances() {
    let instances = (0..12).map(|pid| instance(pid, Outcome::TimedOut, None));
    let hint = hint(report(Verdict::Mixed, instances.collect()));
    assert!(
        hint.what.contains("pid 9 timed out and 2 more;"),
        "{}",
        hint.what
    );
}

#[test]
fn many_that_fail_a_second_time_are_named_together() {
    let events: Vec<Event> = (0..30)
        .map(|pid| {
            Event::of(&instance(
                pid,
                Outcome::TimedOut,
                Some("no longer proven: silent"),
            ))
        })
        .collect();
    let text = shown(&events, &end(Verdict::Mixed, Vec::new()));
    assert_eq!(
        text.lines().filter(|line| line.contains("FAILED")).count(),
        21,
        "{text}"
    );
    assert!(
        text.contains("10 instances: no longer proven: silent: pid 20, 21")
            && !text.contains("Confirmed"),
        "{text}"
    );
}
