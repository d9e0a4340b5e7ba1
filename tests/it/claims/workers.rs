//! Workers: which of them prove a reload, and which make every other proof worth nothing.

use super::server::{CONTAINS, EQUALS, INCREASED, PATIENT, WORKERS, each, fleet, holds, outcome, set, state};

#[test]
fn children_that_do_not_listen_prove_nothing_by_coming() {
    let (fleet, servers) = fleet(&[("Helper", 0)], WORKERS);
    let said = set(&fleet, "two", &[]);
    assert!(matches!(said.code, 5 | 7), "{:#}", said.json);
    assert!(!matches!(state(&said, &servers[0]), "confirmed" | "reverted"), "{:#}", said.json);
    // With several helpers, too.
    let said = set(&fleet, "three", &[]);
    assert!(!matches!(state(&said, &servers[0]), "confirmed" | "reverted"), "{:#}", said.json);
}

#[test]
fn an_old_worker_that_goes_on_accepting_makes_no_answer_a_proof() {
    each(&[EQUALS, CONTAINS, INCREASED, WORKERS], |facts| {
        // One answer would do, so that chance alone could prove it.
        let (fleet, servers) = fleet(&[("KeepsWorker", 0)], &format!("samples = 1\n{facts}"));
        let said = set(&fleet, "two", &[]).expect(7);
        let one = outcome(&said, &servers[0]);
        assert_eq!((&one["state"], &one["proof"]), (&"revert_failed".into(), &serde_json::Value::Null), "{facts}: {one:#}");
        // What an earlier run has left accepts as well.
        let said = set(&fleet, "three", &[]).expect(7);
        assert_eq!(state(&said, &servers[0]), "revert_failed", "{facts}");
    });
}

#[test]
fn workers_that_end_once_others_serve_are_no_hindrance() {
    each(&[("true", 0), ("false", 6)], |(gate, code)| {
        let (fleet, servers) = fleet(&[("Workers", 0), ("Workers", 0)], &format!("{EQUALS}[group.rollout]\ngate = [\"{gate}\"]"));
        let said = set(&fleet, "two", PATIENT).expect(*code);
        holds(&said, &servers);
    })
}
