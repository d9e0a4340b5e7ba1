#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::collections::BTreeMap;

use super::*;
use crate::{
    fleet::Fleet,
    inventory::HostName,
    status::row::{KnownBy, RowTarget},
    tests::check_snapshots,
};

const DISK: &str = "348367ea9a2935d8a1d2f0c1b6a4c7e90f5a2b1c3d4e5f60718293a4b5c6d7e8";

fn target(path: &str, known: KnownBy) -> RowTarget {
    RowTarget {
        rev: None,
        path: path.into(),
        disk: Some(DISK.into()),
        runs: (known != KnownBy::No).then(|| DISK.into()),
        known,
    }
}

fn row(group: &str, pid: i32, targets: Vec<RowTarget>, faults: &[&str]) -> Row {
    let of = &Fleet::of_kind("hello").unwrap().groups[0];
    Row {
        group: group.into(),
        endpoint: Some(format!("http://127.0.0.1:{}/", 40_000 + pid % 1000)),
        generation: Some(3),
        targets,
        faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
        ..Row::new(of, pid, 1)
    }
}

fn rows() -> Vec<Row> {
    let long = format!("/srv{}/config.toml", "/a-long-name".repeat(12));
    let one = |known| vec![target("/etc/web.toml", known)];
    let mut unvalidated = row("日本", 4715, one(KnownBy::Started), &[]);
    unvalidated.unvalidated = Some("`/usr/bin/check` could not be run: no such file".into());
    unvalidated.endpoint = None;
    vec![
        row("web", 4711, one(KnownBy::SelfReport), &[]),
        row("web", 4712, one(KnownBy::No), &[]),
        row(
            "web",
            4_194_304,
            one(KnownBy::Proven),
            &[
                &format!("`{long}` on disk was changed after it was proven"),
                "the next reload would fail: `nginx -t` refused it\nline 3: \u{1b}[2Junknown\n\
                 FAULT  forged",
            ],
        ),
        row(
            "a\u{202e}\nb\t",
            4714,
            vec![
                target(&long, KnownBy::Proven),
                target("/etc/d", KnownBy::No),
            ],
            &[],
        ),
        unvalidated,
        row("listed", 0, Vec::new(), &["has no process"]),
    ]
}

fn groups() -> Vec<GroupRow> {
    let group = |name: &str, faults: &[&str]| GroupRow {
        host: HostName::local(),
        group: name.into(),
        count: "1 or more".into(),
        instances: 0,
        ended: Vec::new(),
        faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
    };
    vec![group("web", &[]), group("api", &["has 0 instances, not 1"])]
}

/// Returns the listing as it is printed on a terminal of `columns`.
fn text(listing: &Listing, columns: Option<usize>) -> String {
    let mut lines = listing.table.lines(columns);
    let feet = std::iter::once(&*listing.totals).chain(listing.legend);
    lines.extend(feet.flat_map(|foot| Table::foot(foot, columns)));
    lines.join("\n") + "\n"
}

#[test]
fn the_table_is_its_snapshot_at_every_width() {
    let all = Listing::new(&rows(), &groups(), 2, false);
    let faults = Listing::new(&rows(), &groups(), 2, true);
    let texts = [
        ("all.80.txt", text(&all, Some(80))),
        ("all.200.txt", text(&all, Some(200))),
        ("all.plain.txt", text(&all, None)),
        ("quiet.plain.txt", text(&faults, None)),
        ("watch.plain.txt", all.lines().join("\n") + "\n"),
    ];
    let texts: BTreeMap<String, String> = texts.map(|(name, text)| (name.into(), text)).into();
    check_snapshots("src/status/listing/tests/snapshots", &texts);
}

#[test]
fn an_instance_whose_config_is_not_known_is_not_called_ok() {
    let known = row("web", 1, vec![target("/a", KnownBy::Proven)], &[]);
    let unknown = row("web", 2, vec![target("/a", KnownBy::No)], &[]);
    assert_eq!(known.state(), State::Ok);
    assert_eq!(unknown.state(), State::NoFault);
    assert_eq!(row("web", 3, Vec::new(), &[]).state(), State::NoFault);
    let both = vec![target("/a", KnownBy::Proven), target("/b", KnownBy::No)];
    assert_eq!(row("web", 4, both, &[]).state(), State::NoFault);
    assert_eq!(
        row("web", 5, Vec::new(), &["is stopped"]).state(),
        State::Fault
    );
}

#[test]
fn the_legend_is_there_only_where_it_is_needed() {
    let known = [row("web", 1, vec![target("/a", KnownBy::Proven)], &[])];
    assert_eq!(Listing::new(&known, &[], 0, false).legend, None);
    let listing = Listing::new(&rows(), &[], 0, false);
    assert_eq!(listing.legend, Some(LEGEND));
}

#[test]
fn nothing_is_listed_where_nothing_disagrees_and_only_that_is_wanted() {
    let known = [row("web", 1, vec![target("/a", KnownBy::Proven)], &[])];
    let listing = Listing::new(&known, &[], 0, true);
    assert_eq!(listing.lines(), Vec::<String>::new());
}

#[test]
fn the_totals_count_five_thousand_instances_that_are_not_shown() {
    let rows: Vec<Row> = (1..=5000)
        .map(|pid| row("web", pid, vec![target("/a", KnownBy::Proven)], &[]))
        .collect();
    let listing = Listing::new(&rows, &groups(), 1, true);
    assert_eq!(
        listing.lines()[0],
        "5000 instances: 5000 ok; 2 groups: 1 FAULT; 1 process skipped"
    );
    assert_eq!(Listing::new(&rows, &[], 0, false).lines().len(), 5002);
}
