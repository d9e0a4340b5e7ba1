#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::future::pending;

use super::*;
use crate::kernel::Stat;

fn targets(sha256: &str) -> BTreeMap<PathBuf, ProvenTarget> {
    BTreeMap::from([(
        PathBuf::from("/a"),
        ProvenTarget {
            sha256: sha256.into(),
            ctime: 5,
            behind: None,
        },
    )])
}

fn proof(
    pid: i32,
    started: u64,
    targets: BTreeMap<PathBuf, ProvenTarget>,
    reload: Reload,
) -> ProvenInstance {
    ProvenInstance {
        pid,
        started,
        targets,
        reload,
    }
}

fn sha256(proven: &ProofCache, pid: i32, started: u64) -> Option<&str> {
    let target = proven.of(pid, started, Path::new("/a"))?;
    Some(&target.sha256)
}

#[tokio::test]
async fn the_last_proof_of_a_living_process_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let me = i32::try_from(std::process::id()).unwrap();
    let now = Stat::of(me).unwrap().started;
    let over = || Reload::Over(Timestamp::now());
    let proofs = [
        proof(me, now, targets("one"), over()),
        // An earlier process had the same pid.
        proof(me, 7, targets("dead"), Reload::Open),
        proof(i32::MAX, 7, targets("dead"), over()),
    ];
    ProofCache::keep(dir.path(), "own", Vec::from(proofs), pending())
        .await
        .unwrap();
    let proven = ProofCache::load(dir.path());
    assert_eq!(sha256(&proven, me, now), Some("one"));
    assert_eq!(sha256(&proven, me, 7), None);
    assert_eq!(sha256(&proven, i32::MAX, 7), None);
    assert!(!proven.is_open(me, now, &[]));
    assert!(!proven.is_open(me, 7, &[]), "that process has ended");
    let unproven = proof(me, now, BTreeMap::new(), Reload::Open);
    ProofCache::keep(dir.path(), "own", vec![unproven], pending())
        .await
        .unwrap();
    let proven = ProofCache::load(dir.path());
    assert_eq!(sha256(&proven, me, now), None);
    assert!(proven.is_open(me, now, &[]));
}

#[tokio::test]
async fn proofs_of_another_boot_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let me = i32::try_from(std::process::id()).unwrap();
    let now = Stat::of(me).unwrap().started;
    let proof = proof(me, now, targets("one"), Reload::Open);
    ProofCache::keep(dir.path(), "own", vec![proof], pending())
        .await
        .unwrap();
    let file = dir.path().join("proven.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let kept: Records = serde_json::from_str(&text).unwrap();
    assert_eq!(
        kept,
        ProofCache::load(dir.path()).records,
        "it is read back as it was"
    );
    std::fs::write(file, text.replace(&boot_id(), "another")).unwrap();
    let other_boot = ProofCache::load(dir.path());
    assert!(other_boot.records.instances.is_empty());
    assert!(other_boot.records.open.is_empty());
}
