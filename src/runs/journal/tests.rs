#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::future::pending;

use tokio::{sync::watch, time::Instant};

use super::*;
use crate::{
    fleet::Order,
    runs::{ProofsKept, RunInfo, Verb, events, new_id, open_runs as open, supersede},
};

fn record<'a>(id: &'a str, of: Option<&'a str>) -> Record<'a> {
    Record {
        id,
        host: HostName::local(),
        verb: Verb::Revert,
        of,
        back: false,
        claimed: None,
        reason: Some("why"),
        command: vec!["x".repeat(5000), "hello".into()],
        groups: &[],
        order: Order::new(),
        targets: Vec::new(),
        instances: Vec::new(),
        readings: Vec::new(),
        waves: 1,
        contents: Vec::new(),
        over: None,
        part_of: None,
    }
}

async fn begin(state: &Path, record: &Record<'_>) -> Journal {
    let (_sender, interrupts) = watch::channel(0);
    Journal::begin(state, record, &interrupts).await.unwrap()
}

fn stopped(why: &str) -> Event {
    Event::Stopped { why: why.into() }
}

fn mixed() -> Event {
    Event::Finished {
        verdict: Verdict::Mixed,
        reason: String::new(),
        counts: BTreeMap::new(),
    }
}

#[tokio::test]
async fn a_run_is_open_and_running_while_its_journal_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let id = new_id();
    let _journal = begin(dir.path(), &record(&id, Some("another"))).await;
    let info = RunInfo::of(dir.path(), &id);
    assert!(info.running);
    assert!(info.open);
    assert_eq!(info.began.unwrap().command, [".."], "it is cut");
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_run_does_not_wait_for_the_store_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store.lock");
    let held = File::create(&store).unwrap();
    held.lock().unwrap();
    let (sender, interrupts) = watch::channel(0);
    let id = new_id();
    let record = record(&id, None);
    let begins = Journal::begin(dir.path(), &record, &interrupts);
    let interrupt = async {
        // Now it waits, for seconds.
        tokio::task::yield_now().await;
        sender.send(1).unwrap();
    };
    let began = Instant::now();
    let (begun, ()) = tokio::join!(begins, interrupt);
    assert!(began.elapsed() < STORE_WAIT);
    assert!(matches!(begun, Err(NotBegun::Interrupted(_))), "{begun:?}");
    assert!(open(dir.path()).is_empty());
    assert!(!dir.path().join("runs").join(&id).exists());
}

#[tokio::test]
async fn a_torn_line_spoils_no_other_line() {
    let dir = tempfile::tempdir().unwrap();
    let id = new_id();
    let mut journal = begin(dir.path(), &record(&id, None)).await;
    let full = File::options().write(true).open("/dev/full").unwrap();
    let file = std::mem::replace(&mut journal.events, full);
    assert!(journal.record(&stopped("a full disk")).is_err());
    journal.events = file;
    journal.events.write_all(b"{\"event\":\"stop").unwrap();
    journal.record(&stopped("later")).unwrap();
    journal.record(&stopped("last")).unwrap();
    let reasons: Vec<String> = events(dir.path(), &id)
        .unwrap()
        .map(|e| e["why"].as_str().unwrap_or("-").to_owned())
        .collect();
    assert_eq!(reasons, ["-", "later", "last"]);
}

#[tokio::test]
async fn a_mixed_run_stays_open_until_a_run_that_continues_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let id = new_id();
    let mut journal = begin(dir.path(), &record(&id, None)).await;
    journal.record(&mixed()).unwrap();
    journal.close(&mixed(), ProofsKept::Yes);
    let left = open(dir.path());
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].id, id);
    assert_eq!(left[0].verdict(), "mixed");
    // They share no target.
    let next = new_id();
    let journal = begin(dir.path(), &record(&next, Some(&id))).await;
    let closed = supersede(dir.path(), &next, Some(&id), &[], &[], pending()).await;
    assert_eq!(closed, [id.as_str()]);
    assert_eq!(RunInfo::of(dir.path(), &id).verdict(), "superseded");
    drop(journal);
    assert_eq!(
        open(dir.path()).len(),
        1,
        "the coordinator of that one died"
    );
}
