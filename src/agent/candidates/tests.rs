#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use std::collections::BTreeMap;

use super::*;
use crate::{
    event::TargetKind,
    protocol::{CountedGroups, Validate},
};

fn put(sha256: &str, form: TargetKind, len: usize) -> ChangeOrder {
    ChangeOrder::Put {
        named: "/etc/web.toml".into(),
        form,
        sha256: sha256.into(),
        len,
    }
}

fn order(others: ChangeOrder) -> SurveyOrder {
    SurveyOrder {
        groups: Vec::new(),
        every: true,
        named: BTreeMap::new(),
        others,
        prune: false,
        overwrite: false,
        validate: Validate::Auto,
        include_unresponsive: false,
        counted: CountedGroups::default(),
        now: false,
        dry_run: false,
        timeout: None,
        lock_timeout: std::time::Duration::ZERO,
        of: None,
        reason: None,
        command: Vec::new(),
    }
}

fn encoded(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// Returns an order of a file, and its digest.
fn order_of(bytes: &[u8]) -> (SurveyOrder, String) {
    let sha256 = config::digest(bytes);
    (order(put(&sha256, TargetKind::File, bytes.len())), sha256)
}

#[test]
fn a_candidate_that_came_in_pieces_is_used_whole() {
    let (order, sha256) = order_of(b"one two");
    let mut candidates = Candidates::default();
    candidates.add(&sha256, 0, &encoded(b"one ")).unwrap();
    assert_eq!(candidates.missing(&order), std::slice::from_ref(&sha256));
    candidates.add(&sha256, 4, &encoded(b"two")).unwrap();
    assert!(candidates.missing(&order).is_empty());
    assert!(candidates.changes(&order).is_ok());
}

#[test]
fn an_empty_candidate_is_missing_until_it_comes() {
    let (order, sha256) = order_of(b"");
    let mut candidates = Candidates::default();
    assert_eq!(candidates.missing(&order), std::slice::from_ref(&sha256));
    candidates.add(&sha256, 0, "").unwrap();
    assert!(candidates.missing(&order).is_empty());
    assert!(candidates.changes(&order).is_ok());
}

#[test]
fn a_piece_that_does_not_follow_changes_nothing() {
    let (_, sha256) = order_of(b"one two");
    let mut candidates = Candidates::default();
    candidates.add(&sha256, 0, &encoded(b"one ")).unwrap();
    for at in [0, 3, 5, usize::MAX] {
        candidates.add(&sha256, at, &encoded(b"two")).unwrap();
    }
    candidates.add(&sha256, 4, &encoded(b"two")).unwrap();
    assert_eq!(candidates.pieces[&sha256], b"one two");
}

#[test]
fn a_piece_without_the_one_before_leaves_nothing_behind() {
    let mut candidates = Candidates::default();
    candidates.add("a", 9, &encoded(b"two")).unwrap();
    assert!(candidates.pieces.is_empty());
}

#[test]
fn bytes_that_are_no_base64_are_refused() {
    let added = Candidates::default().add("a", 0, "!");
    assert!(matches!(added, Err(CandidateError::Base64)));
}

#[test]
fn a_candidate_over_its_limit_is_refused() {
    let mut candidates = Candidates::default();
    let whole = vec![b'x'; MAX_BLOB];
    candidates.pieces.insert("a".into(), whole);
    let added = candidates.add("a", MAX_BLOB, &encoded(b"x"));
    assert!(matches!(added, Err(CandidateError::TooLarge)));
}

#[test]
fn candidates_over_the_limit_of_a_run_are_refused() {
    let mut candidates = Candidates::default();
    for name in ["a", "b", "c", "d"] {
        candidates
            .pieces
            .insert(name.into(), vec![0; MAX_OF_RUN / 4]);
    }
    let added = candidates.add("e", 0, &encoded(b"x"));
    assert!(matches!(added, Err(CandidateError::TooLarge)));
}

#[test]
fn bytes_with_another_digest_are_no_candidate() {
    let (order, sha256) = order_of(b"one");
    let mut candidates = Candidates::default();
    candidates.add(&sha256, 0, &encoded(b"two")).unwrap();
    assert!(candidates.missing(&order).is_empty());
    let changes = candidates.changes(&order);
    assert!(matches!(changes, Err(CandidateError::Digest(_))));
}

#[test]
fn a_file_is_no_directory() {
    let bytes = b"no archive";
    let sha256 = config::digest(bytes);
    let mut candidates = Candidates::default();
    candidates.add(&sha256, 0, &encoded(bytes)).unwrap();
    let order = order(put(&sha256, TargetKind::Directory, bytes.len()));
    let changes = candidates.changes(&order);
    assert!(matches!(changes, Err(CandidateError::Form(_))));
}

#[test]
fn a_candidate_that_has_not_come_is_missing() {
    let (order, _) = order_of(b"one");
    let changes = Candidates::default().changes(&order);
    assert!(matches!(changes, Err(CandidateError::Missing(_))));
}

#[test]
fn a_candidate_of_several_groups_is_missing_once() {
    let (mut order, sha256) = order_of(b"one");
    order.named.insert("web".into(), order.others.clone());
    assert_eq!(Candidates::default().missing(&order), [sha256]);
}
