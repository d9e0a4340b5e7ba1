#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use jiff::Timestamp;

use super::*;

const ID: &str = "019ad11100007000a000000000000001";
const LATER: &str = "019ad11122227000a000000000000002";
const LAST: &str = "019ad11133337000a000000000000003";

fn finished(verdict: &str) -> RunEnded {
    RunEnded::Finished {
        at: Timestamp::UNIX_EPOCH,
        verdict: verdict.into(),
        reason: "why".into(),
        counts: BTreeMap::from([("confirmed".into(), 2)]),
    }
}

fn superseded(run: &str) -> RunEnded {
    RunEnded::SupersededBy {
        at: Timestamp::UNIX_EPOCH,
        run: run.into(),
    }
}

/// Closes an index that has these ends, and returns its end.
async fn closed(ends: &[RunEnded]) -> Option<RunEnded> {
    let recorded = ends.iter().cloned().map(HostEnd::Recorded);
    closed_by(&recorded.collect::<Vec<_>>()).await
}

async fn closed_by(ends: &[HostEnd]) -> Option<RunEnded> {
    let state = tempfile::tempdir().unwrap();
    let run = state.path().join("runs").join(ID);
    std::fs::create_dir_all(&run).unwrap();
    std::fs::create_dir(state.path().join("open")).unwrap();
    std::fs::write(state.path().join("open").join(ID), "{}").unwrap();
    std::fs::write(run.join("events.jsonl"), "").unwrap();
    let name = |n: usize| HostName::new(&format!("h{n}")).unwrap();
    let ends = ends.iter().cloned().enumerate();
    let ends: Vec<_> = ends.map(|(n, end)| (name(n), end)).collect();
    let why = close_index(state.path(), ID, &ends, std::future::pending()).await;
    let info = RunInfo::of(state.path(), ID);
    assert_eq!(info.open, why.is_none());
    info.end
}

async fn verdict(ends: &[RunEnded]) -> Option<String> {
    match closed(ends).await? {
        RunEnded::Finished { verdict, .. } => Some(verdict),
        RunEnded::SupersededBy { run, .. } => Some(run),
    }
}

#[tokio::test]
async fn the_end_of_an_index_is_the_one_that_every_host_has_recorded() {
    let end = closed(&[finished("converged"), finished("converged")]).await;
    let Some(RunEnded::Finished {
        verdict,
        reason,
        counts,
        ..
    }) = end
    else {
        panic!("{end:?}");
    };
    assert_eq!(verdict, "converged");
    assert_eq!(reason, "converged: h0, h1");
    assert_eq!(counts, BTreeMap::from([("confirmed".into(), 4)]));
}

#[tokio::test]
async fn the_worst_end_of_a_host_is_that_of_the_index() {
    let ends = ["converged", "reverted", "failed"].map(finished);
    assert_eq!(verdict(&ends).await.as_deref(), Some("reverted"));
}

#[tokio::test]
async fn an_index_names_the_run_that_took_its_place_on_most_hosts() {
    let ends = [
        finished("converged"),
        superseded(LAST),
        superseded(LATER),
        superseded(LATER),
    ];
    assert_eq!(verdict(&ends).await.as_deref(), Some(LATER));
}

#[tokio::test]
async fn an_index_stays_open_where_a_host_has_no_end_that_is_known() {
    for end in ["mixed", "another"] {
        let ends = [finished("converged"), finished(end)];
        assert_eq!(closed(&ends).await, None, "{end}");
    }
    assert_eq!(closed(&[]).await, None);
}

#[tokio::test]
async fn a_host_on_which_the_run_never_began_makes_a_good_end_partial() {
    for (recorded, whole) in [
        ("converged", "partial"),
        ("unproven", "partial"),
        ("reverted", "reverted"),
    ] {
        let ends = [HostEnd::Recorded(finished(recorded)), HostEnd::NeverBegan];
        let Some(RunEnded::Finished {
            verdict, reason, ..
        }) = closed_by(&ends).await
        else {
            panic!("{recorded}");
        };
        assert_eq!(verdict, whole);
        assert!(reason.contains("never began: h1"), "{reason}");
    }
}

#[tokio::test]
async fn an_index_of_a_run_that_began_on_no_host_stays_open() {
    assert_eq!(closed_by(&[HostEnd::NeverBegan]).await, None);
}
