#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{collections::BTreeMap, path::Path};

use serde_json::json;

use super::*;
use crate::{inventory::HostName, runs::RunEnded, tests::check_snapshots};

/// Returns a run whose moment is not shown: the time zone of the machine would show in it.
fn run(id: &str, reason: Option<&str>, end: Option<&str>, open: bool) -> RunInfo {
    let operator = json!({"uid": 0, "login_uid": 1000, "sudo_user": "alice", "ci_job": null});
    let began = json!({
        "verb": "broadcast",
        "of": null,
        "operator": operator,
        "boot_id": "",
        "command": ["hello", "broadcast"],
        "reason": reason,
        "groups": ["web", "größe"],
        "instances": 3,
        "targets": 1,
        "waves": 1,
    });
    let end = end.map(|verdict| {
        json!({
            "event": "finished",
            "verdict": verdict,
            "reason": "",
            "counts": {"confirmed": 2, "timed_out": 1},
            "v": 2,
            "at": "2026-01-01T00:00:00Z",
        })
    });
    RunInfo {
        host: crate::inventory::HostName::local(),
        id: id.into(),
        at: None,
        open,
        running: false,
        began: serde_json::from_value(began).ok(),
        end: end.and_then(RunEnded::of),
        is_old: false,
    }
}

fn table() -> RunTable {
    let ids = ShortIds::of(Path::new("/nowhere"));
    let mut table = RunTable::new(false);
    let never_began = RunInfo {
        began: None,
        ..run("01a21bb5e159745f83da5a81f5a5dc8f", None, None, false)
    };
    let old = RunInfo {
        is_old: true,
        ..run("01a21bb2e159745f83da5a81f5a5dc8f", None, None, true)
    };
    let why = "a new greeting\u{1b}[2J\nRUN  forged";
    for info in [
        never_began,
        run(
            "01a21bb4e159745f83da5a81f5a5dc8f",
            Some(why),
            Some("converged"),
            false,
        ),
        run(
            "01a21bb3e159745f83da5a81f5a5dc8f",
            None,
            Some("mixed"),
            true,
        ),
        old,
    ] {
        table.add(&info, &ids, " --state '/srv/my state'");
    }
    table
}

fn text(columns: Option<usize>) -> String {
    let table = table();
    let mut lines = table.table.lines(columns);
    lines.extend(Table::foot(&table.totals(4), columns));
    lines.join("\n") + "\n"
}

#[test]
fn the_list_is_its_snapshot_at_every_width() {
    let texts = [
        ("80.txt", text(Some(80))),
        ("200.txt", text(Some(200))),
        ("plain.txt", text(None)),
    ];
    let texts: BTreeMap<String, String> = texts.map(|(name, text)| (name.into(), text)).into();
    check_snapshots("src/history/table/tests/snapshots", &texts);
}

#[test]
fn a_run_of_another_host_gives_each_run_a_cell_with_its_host() {
    let ids = ShortIds::of(Path::new("/nowhere"));
    let mut table = RunTable::new(true);
    let run = RunInfo {
        host: HostName::new("edge-081").unwrap(),
        ..run("01a21bb4e159745f83da5a81f5a5dc8f", None, None, false)
    };
    table.add(&run, &ids, "");
    let lines = table.table.lines(None);
    let cells = |line: usize| lines[line].split_whitespace().nth(1);
    assert_eq!((cells(0), cells(1)), (Some("HOST"), Some("edge-081")));
}

#[test]
fn the_totals_say_how_many_runs_are_not_listed() {
    assert_eq!(table().totals(43), "4 of 43 runs, 2 open");
}
