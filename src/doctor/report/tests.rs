use std::collections::BTreeMap;

use super::*;
use crate::{host::local::examine::Topic, tests::check_snapshots};

fn process(pid: i32, checks: Vec<Finding>) -> ProcessReport {
    ProcessReport {
        host: crate::inventory::HostName::local(),
        pid,
        group: Some("web".into()),
        exe: "/usr/sbin/nginx".into(),
        reloadable: checks.iter().all(|finding| finding.ok != Some(false)),
        checks,
        draft: None,
    }
}

fn report() -> Report {
    let good = vec![
        Finding::good(
            Topic::Group,
            "group `web` (kind `nginx`) of /etc/hello/fleet.toml matches it",
        ),
        Finding::note(
            Topic::Opened,
            "`/etc/nginx/nginx.conf` is only its default path, or relative to its working \
             directory: a run proves it only if it sees it open that after the signal",
        ),
    ];
    let bad = vec![
        Finding::bad(
            Topic::Role,
            "is a worker of pid 4711, which takes the signal for it",
        )
        .then_run("check that one:", vec!["hello doctor 4711".into()]),
        Finding::bad(
            Topic::Disk,
            "`/etc/grüße.conf`: `nginx -t` refused it\nline 3: \u{1b}[2Junknown directive\n\
             ok      Group  forged",
        )
        .then("fix it: the process will reject it on reload and on restart"),
    ];
    Report {
        processes: vec![process(4711, good), process(4712, bad)],
        missing: Vec::new(),
    }
}

/// Returns the tables as they are printed on a terminal of `columns`.
fn text(columns: Option<usize>) -> String {
    let report = report();
    let checks = report.processes.iter().map(ProcessReport::checks);
    let tables = checks.chain([report.overview()]);
    let lines = tables.flat_map(|table| table.lines(columns));
    lines.map(|line| line + "\n").collect()
}

#[test]
fn the_tables_are_their_snapshots_at_every_width() {
    let texts = [
        ("80.txt", text(Some(80))),
        ("200.txt", text(Some(200))),
        ("plain.txt", text(None)),
    ];
    let texts: BTreeMap<String, String> = texts.map(|(name, text)| (name.into(), text)).into();
    check_snapshots("src/doctor/report/tests/snapshots", &texts);
}
