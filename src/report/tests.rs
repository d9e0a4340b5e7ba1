#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use super::*;
use crate::event::{Failure, Instance, TargetKind, TargetReport, Verdict};

/// What is written to it stays.
#[derive(Debug, Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that people read of these events and this end, at a clock that stands still.
fn shown(events: &[Event], end: &Summary) -> String {
    let paper = Paper::default();
    let people = paper.clone();
    let mut reporter = Reporter {
        past: Some((String::new(), Duration::from_millis(1500))),
        people: Sink::new(move || people, false),
        ..Reporter::new(Output::Screen, false, false)
    };
    events.iter().for_each(|event| reporter.event(event));
    reporter.finish(end);
    let bytes = paper.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn instance(pid: i32, state: Outcome, trouble: Option<&str>) -> Instance {
    let trouble = trouble.map(|text| Failure {
        kind: Outcome::TimedOut.into(),
        text: text.into(),
    });
    let endpoint = format!("http://127.0.0.1:{pid}/");
    Instance {
        outcome: state,
        failure: trouble,
        endpoint,
        targets: vec!["/c".into()],
        ..Instance::new("web", pid, 1)
    }
}

fn end(verdict: Verdict, instances: Vec<Instance>) -> Summary {
    let target = TargetReport {
        host: "local",
        path: "/c".into(),
        kind: TargetKind::File,
        from: Some("aa".into()),
        to: "bb".into(),
        disk: Some("bb".into()),
        entries: Vec::new(),
        diff: None,
    };
    Summary {
        state_args: " --state /s".into(),
        ..Summary::new(
            "r1".into(),
            verdict,
            "why it is so".into(),
            vec![target],
            instances,
        )
    }
}

fn intent(undo: bool, wave: usize, pids: &[i32]) -> Event {
    Event::Intent {
        undo,
        wave,
        targets: Vec::new(),
        pids: pids.iter().map(|pid| (*pid, 1)).collect(),
    }
}

fn installed(sha256: &str) -> Event {
    Event::Installed {
        path: PathBuf::from("/c"),
        sha256: sha256.into(),
    }
}

#[test]
fn a_failure_that_is_put_back_alone_reads_like_what_it_is() {
    let silent = "no answer within 1s after 5s";
    let events = [
        Event::Waves {
            instances: vec![1, 2],
        },
        intent(false, 1, &[1]),
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
        Event::Gate {
            wave: 1,
            command: vec!["errors".into(), "web".into()],
            exit: Some(0),
            output: "0.1 %\n".into(),
        },
        intent(false, 2, &[2, 3]),
        Event::of(&instance(2, Outcome::Confirmed, None)),
        Event::of(&instance(3, Outcome::TimedOut, Some(silent))),
        Event::RolledBack {
            pids: vec![3],
            why: format!("pid 3: {silent}"),
        },
        intent(true, 2, &[3]),
        installed("aa"),
        Event::of(&instance(3, Outcome::Reverted, Some(silent))),
        intent(false, 2, &[]),
        installed("bb"),
    ];
    let all = vec![
        instance(1, Outcome::Confirmed, None),
        instance(2, Outcome::Confirmed, None),
        instance(3, Outcome::Reverted, Some(silent)),
    ];
    let wanted = "
         Wave 1/2: 1 instance
    Installed /c sha256:bb
    Confirmed [   1.500s] (1/1) web pid 1 http://127.0.0.1:1/
       Baking wave 1 is left alone for 30s
         Held [   1.500s] 1 instance of wave 1 still on the new config
         Gate [   1.500s] gate of wave 1: `errors web` says yes
              | 0.1 %
         Wave 2/2: 2 instances
    Confirmed [   1.500s] (1/2) web pid 2 http://127.0.0.1:2/
       FAILED [   1.500s] (2/2) web pid 3 http://127.0.0.1:3/: no answer within 1s after 5s
   Undo alone pid 3: no answer within 1s after 5s
     Put back /c sha256:aa
     Reverted [   1.500s] (1/1) web pid 3 http://127.0.0.1:3/ (first: no answer within 1s after 5s)
    Installed /c sha256:bb
      Summary [   1.500s] 3 instances: partial (2 confirmed, 1 reverted)

error: why it is so

hint: every touched instance is proven, but not all on the new config: pid 3 is reverted; the \
next broadcast takes them along; what each runs now, and then to put the old config back everywhere:
  hello status
  hello revert r1 --state /s
";
    assert_eq!(
        shown(&events, &end(Verdict::Partial, all)),
        wanted.trim_start_matches('\n')
    );
}

#[test]
fn a_gate_that_says_no_and_a_run_that_is_stopped_say_why() {
    let output: String = (0..12).map(|n| format!("\x1b[31m{n}\n")).collect();
    let events = [
        Event::Gate {
            wave: 2,
            command: vec!["errors".into()],
            exit: Some(3),
            output,
        },
        Event::Gate {
            wave: 2,
            command: vec!["/nowhere".into()],
            exit: None,
            output: "`/nowhere` could not be run".into(),
        },
        Event::RolledBack {
            pids: Vec::new(),
            why: "stuck".into(),
        },
        Event::RolledBack {
            pids: vec![3, 4],
            why: "pid 3: silent; and 1 more".into(),
        },
        Event::Stopped {
            why: "the gate says no".into(),
        },
        // Who fails once more, or came meanwhile, is one of no batch.
        Event::of(&instance(
            5,
            Outcome::TimedOut,
            Some("no longer proven: silent"),
        )),
    ];
    let text = shown(
        &events,
        &end(
            Verdict::Partial,
            vec![instance(1, Outcome::Confirmed, None)],
        ),
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "        FAILED [   1.500s] gate of wave 2: `errors` says no (exit status 3)"
            .get(1..)
            .unwrap()
    );
    assert!(
        lines[1].ends_with(" | \\x1b[31m0")
            && lines[11].ends_with(".. and 2 more lines")
            && !text.contains('\x1b'),
        "{text}"
    );
    assert!(
        lines[12].ends_with("`/nowhere` has not judged it, which is no")
            && lines[13].ends_with("`/nowhere` could not be run"),
        "{text}"
    );
    assert!(
        lines[14].ends_with("Undo alone nobody was signalled, so only files go back: stuck"),
        "{text}"
    );
    assert!(
        lines[15].ends_with("Undo alone pid 3, 4 (pid 3: silent; and 1 more)"),
        "{text}"
    );
    assert!(
        lines[16].ends_with("Stopped nobody else is signalled: the gate says no"),
        "{text}"
    );
    assert!(
        lines[17].ends_with(
            "FAILED [   1.500s] web pid 5 http://127.0.0.1:5/: no longer proven: silent"
        ),
        "{text}"
    );
    assert!(
        text.contains(
            "hint: every instance is proven on the new config, and the run was not to its end"
        ),
        "{text}"
    );
}

#[test]
fn the_commands_that_read_come_before_those_that_write() {
    let last = |verdict: Verdict, instances: Vec<Instance>| {
        end(verdict, instances)
            .hint()
            .unwrap()
            .commands
            .pop()
            .unwrap()
    };
    let dead = || Instance {
        start: Some("systemctl start web".into()),
        ..instance(1, Outcome::Died, Some("gone"))
    };
    assert_eq!(
        last(
            Verdict::Mixed,
            vec![instance(1, Outcome::TimedOut, Some("silent"))]
        ),
        "hello revert r1 --state /s"
    );
    assert_eq!(
        end(Verdict::Mixed, vec![dead()]).hint().unwrap().commands[1],
        "systemctl start web"
    );
    assert_eq!(
        last(
            Verdict::Reverted,
            vec![instance(1, Outcome::Reverted, None)]
        ),
        "hello status"
    );
    let mut no_way_back = end(
        Verdict::Mixed,
        vec![instance(1, Outcome::TimedOut, Some("silent"))],
    );
    no_way_back.targets[0].from = None;
    assert_eq!(
        no_way_back.hint().unwrap().commands,
        ["hello status", "hello resume r1 --state /s"]
    );
    let many: Vec<Instance> = (0..12)
        .map(|pid| instance(pid, Outcome::TimedOut, None))
        .collect();
    assert!(
        end(Verdict::Mixed, many)
            .hint()
            .unwrap()
            .what
            .contains("pid 9 timed out and 2 more;")
    );
}

#[test]
fn many_that_fail_once_more_are_named_together() {
    let again: Vec<Event> = (0..30)
        .map(|pid| {
            Event::of(&instance(
                pid,
                Outcome::TimedOut,
                Some("no longer proven: silent"),
            ))
        })
        .collect();
    let text = shown(&again, &end(Verdict::Mixed, Vec::new()));
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
