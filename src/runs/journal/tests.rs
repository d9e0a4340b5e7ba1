#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use super::*;

#[test]
fn what_could_not_be_written_to_its_end_spoils_no_other_line() {
    let dir = tempfile::tempdir().unwrap();
    let id = super::super::new_id();
    let record = Record {
        id: &id,
        verb: Verb::Revert,
        of: Some("another"),
        reason: Some("why"),
        command: vec!["x".repeat(5000), "hello".into()],
        groups: &[],
        order: Order::new(),
        targets: Vec::new(),
        instances: Vec::new(),
        readings: Vec::new(),
        waves: 1,
        blobs: Vec::new(),
    };
    let mut run = Journal::begin(dir.path(), &record).unwrap();
    let held = super::super::info::RunInfo::of(dir.path(), &id);
    assert!(held.running && held.open && held.began.unwrap().command == [".."]);
    let stopped = |why: &str| Event::Stopped { why: why.into() };
    let full = File::options().write(true).open("/dev/full").unwrap();
    let file = std::mem::replace(&mut run.events, full);
    assert!(run.record(&stopped("a full disk")).is_err());
    run.events = file;
    run.events.write_all(b"{\"event\":\"stop").unwrap();
    run.record(&stopped("later")).unwrap();
    run.record(&stopped("last")).unwrap();
    let events: Vec<_> = super::super::info::events(dir.path(), &id)
        .unwrap()
        .collect();
    assert_eq!(
        events
            .iter()
            .map(|e| e["why"].as_str().unwrap_or("-"))
            .collect::<Vec<_>>(),
        ["-", "later", "last"]
    );
    // A mixed end keeps it open; without its owner it is nobody's.
    let end = |verdict| Event::Finished {
        verdict,
        reason: String::new(),
        counts: BTreeMap::new(),
    };
    run.record(&end(Verdict::Mixed)).unwrap();
    run.close(&end(Verdict::Mixed));
    let left = super::super::open_runs(dir.path());
    assert_eq!(
        left.iter()
            .map(|p| (p.id.as_str(), p.verdict()))
            .collect::<Vec<_>>(),
        [(id.as_str(), "mixed")]
    );
    // The next takes its place, though it shares no target, since it goes on with it.
    let next = super::super::new_id();
    let run = Journal::begin(
        dir.path(),
        &Record {
            id: &next,
            of: Some(&id),
            order: Order::new(),
            command: Vec::new(),
            targets: Vec::new(),
            instances: Vec::new(),
            readings: Vec::new(),
            blobs: Vec::new(),
            ..record
        },
    )
    .unwrap();
    let closed = super::super::supersede::supersede(dir.path(), &next, Some(&id), &[], &[]);
    assert_eq!(
        (
            closed,
            super::super::info::RunInfo::of(dir.path(), &id).verdict()
        ),
        (vec![id.clone()], "superseded")
    );
    drop(run);
    assert_eq!(super::super::open_runs(dir.path()).len(), 1);
}
