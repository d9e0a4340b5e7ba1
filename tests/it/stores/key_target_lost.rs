//! Writes that are lost, delayed or overtaken, and coordinators that are killed meanwhile.

use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Stdio},
};

use super::{
    etcd::Etcd,
    get,
    key_target::{OLD, Testbed, in_etcd},
    overwrite,
    proxy::{Mode, Proxy},
};
use crate::support::{CommandResult, until};

const NEW: &str = "message = \"new\"\n";

/// Servers that reach their etcd through a proxy.
struct Behind {
    etcd: Etcd,
    proxy: Proxy,
    testbed: Testbed,
}

impl Behind {
    fn start(count: usize) -> Option<Self> {
        let etcd = Etcd::start()?;
        let proxy = Proxy::start(etcd.port);
        let url = format!("etcd+http://127.0.0.1:{}/web", proxy.port);
        Some(Self {
            testbed: Testbed::start(url, etcd.key("web"), count),
            etcd,
            proxy,
        })
    }

    /// Begins a broadcast of the new value.
    fn begin(&self) -> Child {
        self.begin_in("state")
    }

    /// Begins one in this state directory.
    fn begin_in(&self, state: &str) -> Child {
        let fleet = &self.testbed.fleet;
        std::process::Command::new(fleet.exe())
            .args(["broadcast", "-o", "json", "--config"])
            .arg(self.testbed.candidate(NEW))
            .arg("--fleet")
            .arg(fleet.path("fleet.toml"))
            .arg("--state")
            .arg(fleet.path(state))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Waits for one more write than `before`.
    fn write_came(&self, before: usize) {
        until("the write comes", || self.proxy.writes() > before);
    }
}

/// Makes a program of the operator.
fn script(testbed: &Testbed, name: &str, text: &str) -> PathBuf {
    let path = testbed.fleet.write(name, &format!("#!/bin/sh\n{text}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Gives the group a gate, after each of two waves.
fn gate(testbed: &Testbed, text: &str) {
    gate_after(testbed, "[\"1\", \"100%\"]", text);
}

fn gate_after(testbed: &Testbed, waves: &str, text: &str) {
    let gate = script(testbed, "gate", text);
    testbed.group(
        &format!(
            "timeout = \"3s\"\n[group.rollout]\nwaves = {waves}\ngate = [{:?}]",
            gate.to_str().unwrap()
        ),
        "",
    );
}

#[test]
fn an_answer_that_is_lost_is_read_again() {
    let Some(behind) = Behind::start(2) else {
        return;
    };
    behind.proxy.set(Mode::LosesAnswers(1));
    let result = behind.testbed.broadcast().expect(0);
    assert_eq!(behind.proxy.writes(), 1, "it is not written again");
    behind.testbed.is_all(NEW, "new");
    let own = get(&behind.testbed.key).unwrap().rev;
    assert_eq!(result.json["targets"][0]["key"]["own"], own.as_str());
}

#[test]
fn a_write_that_is_lost_is_repeated() {
    let Some(behind) = Behind::start(2) else {
        return;
    };
    behind.proxy.set(Mode::LosesWrites(1));
    behind.testbed.broadcast().expect(0);
    assert_eq!(behind.proxy.writes(), 2);
    behind.testbed.is_all(NEW, "new");
}

#[test]
fn writes_that_are_all_lost_lead_to_a_rollback_that_shuts_them_out() {
    let Some(behind) = Behind::start(2) else {
        return;
    };
    let surveyed = get(&behind.testbed.key).unwrap().rev;
    let attempts = behind.testbed.fleet.attempts();
    behind.proxy.set(Mode::LosesWrites(2));
    let result = behind.testbed.broadcast().expect(6);
    assert_eq!(behind.testbed.value(), OLD);
    let now = get(&behind.testbed.key).unwrap().rev;
    assert_ne!(now, surveyed, "a late write would take effect");
    assert_eq!(result.json["targets"][0]["key"]["own"], now.as_str());
    assert_eq!(behind.testbed.fleet.attempts(), attempts);
}

#[test]
fn a_write_without_an_answer_at_a_store_that_died_is_not_claimed() {
    let Some(behind) = Behind::start(2) else {
        return;
    };
    behind.proxy.set(Mode::DiesAfterWrite);
    let result = behind.testbed.broadcast().expect(7);
    assert!(
        result.stderr.contains("it is not known whether"),
        "{}",
        result.stderr
    );
    assert!(result.json["targets"][0]["disk"].is_null());
    behind.proxy.set(Mode::Passes);
    let run = result.json["run"].as_str().unwrap();
    assert_eq!(behind.testbed.value(), NEW);
    behind
        .testbed
        .fleet
        .continue_run("resume", &[run])
        .expect(0);
    behind.testbed.is_all(NEW, "new");
}

#[test]
fn a_writer_before_the_put_ends_the_run_with_5_and_nothing_is_signalled() {
    let Some(behind) = Behind::start(2) else {
        return;
    };
    let attempts = behind.testbed.fleet.attempts();
    behind.proxy.set(Mode::HoldsWrite);
    let run = behind.begin();
    behind.write_came(0);
    overwrite(&behind.testbed.key, "message = \"other\"\n");
    behind.proxy.set(Mode::Passes);
    let result = CommandResult::wait_for(run).expect(5);
    assert!(
        result.stderr.contains("another process"),
        "{}",
        result.stderr
    );
    assert_eq!(behind.testbed.value(), "message = \"other\"\n");
    assert_eq!(behind.testbed.fleet.attempts(), attempts);
}

#[test]
fn the_same_bytes_at_another_revision_are_another_write() {
    let Some(behind) = Behind::start(1) else {
        return;
    };
    behind.proxy.set(Mode::HoldsWrite);
    let run = behind.begin();
    behind.write_came(0);
    overwrite(&behind.testbed.key, OLD);
    behind.proxy.set(Mode::Passes);
    CommandResult::wait_for(run).expect(5);
    behind.testbed.is_all(OLD, "old");
}

#[test]
fn a_writer_during_the_validation_ends_the_run_with_5_whatever_it_writes() {
    let Some((etcd, testbed)) = in_etcd(1) else {
        return;
    };
    for value in ["message = \"other\"", OLD.trim_end()] {
        overwrite(&testbed.key, OLD.trim_end());
        testbed.fleet.broadcast(&[]).expect(0);
        let script = script(
            &testbed,
            "validator",
            &format!(
                "ETCDCTL_API=3 exec etcdctl --endpoints 127.0.0.1:{} put web '{value}'",
                etcd.port
            ),
        );
        testbed.group(
            &format!(
                "validate = [{:?}, \"{{candidate}}\"]",
                script.to_str().unwrap()
            ),
            "",
        );
        let seen = testbed.fleet.attempts();
        let result = testbed.broadcast().expect(5);
        assert!(
            result.stderr.contains("another process"),
            "{}",
            result.stderr
        );
        assert_eq!(testbed.value(), value);
        assert_eq!(testbed.fleet.attempts(), seen);
        testbed.group("", "");
        testbed.fleet.broadcast(&[]).expect(0);
    }
}

#[test]
fn of_two_coordinators_one_wins_and_the_other_touches_nothing() {
    let Some(behind) = Behind::start(2) else {
        return;
    };
    behind.proxy.set(Mode::HoldsWrite);
    let loser = behind.begin_in("other");
    behind.write_came(0);
    let set = ["--set", "message=set"];
    behind.testbed.fleet.broadcast(&set).expect(0);
    let attempts = behind.testbed.fleet.attempts();
    behind.proxy.set(Mode::Passes);
    CommandResult::wait_for(loser).expect(5);
    behind.testbed.is_all("message = \"set\"\n", "set");
    assert_eq!(behind.testbed.fleet.attempts(), attempts);
}

#[test]
fn a_writer_before_the_rollback_is_left_alone_and_named() {
    // The same bytes are another program's as well, once they have another revision.
    for value in ["message = \"other\"", NEW.trim_end()] {
        let Some((etcd, testbed)) = in_etcd(2) else {
            return;
        };
        gate(
            &testbed,
            &format!(
                "ETCDCTL_API=3 etcdctl --endpoints 127.0.0.1:{} put web '{value}'\nexit 1",
                etcd.port
            ),
        );
        let new = testbed.candidate(NEW.trim_end());
        let result = testbed
            .fleet
            .broadcast(&["--config", new.to_str().unwrap()])
            .expect(7);
        assert_eq!(testbed.value(), value);
        assert!(
            result.stderr.contains(&testbed.url) && result.stderr.contains("another process"),
            "{}",
            result.stderr
        );
    }
}

#[test]
fn a_store_that_is_killed_before_the_rollback_leaves_a_run_to_resume() {
    let Some((mut etcd, testbed)) = in_etcd(2) else {
        return;
    };
    let killed = testbed.fleet.path("killed");
    gate(
        &testbed,
        &format!(
            "[ ! -e {killed:?} ] || exit 0\ntouch {killed:?}\nkill -KILL {}\nexit 1",
            etcd.pid()
        ),
    );
    let result = testbed.broadcast().expect(7);
    assert!(result.stderr.contains(&testbed.url), "{}", result.stderr);
    assert!(result.json["targets"][0]["disk"].is_null());
    etcd.start_again();
    let run = result.json["run"].as_str().unwrap();
    assert_eq!(testbed.value(), NEW);
    testbed.fleet.continue_run("resume", &[run]).expect(0);
    testbed.is_all(NEW, "new");
}

#[test]
fn a_store_that_does_not_answer_ends_the_survey_with_1() {
    let Some(behind) = Behind::start(2) else {
        return;
    };
    let attempts = behind.testbed.fleet.attempts();
    behind.proxy.set(Mode::Dead);
    behind.testbed.broadcast().expect(1);
    behind.proxy.set(Mode::Passes);
    assert_eq!(behind.testbed.value(), OLD);
    assert_eq!(behind.testbed.fleet.attempts(), attempts);
}

#[test]
fn status_and_doctor_say_that_a_store_does_not_answer_and_judge_nothing() {
    let Some(behind) = Behind::start(1) else {
        return;
    };
    behind.proxy.set(Mode::Dead);
    let status = behind.testbed.fleet.status();
    assert_eq!(status.code, 7, "{:#}", status.json);
    let instance = &status.json["instances"][0];
    let faults = instance["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].as_str().unwrap().contains(&behind.testbed.url));
    assert_eq!(instance["unvalidated"], "its key could not be read");
    let doctor = behind.testbed.fleet.doctor(&[]).json.to_string();
    assert!(doctor.contains(&behind.testbed.url), "{doctor}");
    assert!(!doctor.contains("refused it"), "{doctor}");
}

#[test]
fn a_store_that_dies_after_the_proof_leaves_a_run_that_says_so() {
    let Some((mut etcd, testbed)) = in_etcd(2) else {
        return;
    };
    let killed = testbed.fleet.path("killed");
    gate_after(
        &testbed,
        "[\"100%\"]",
        &format!(
            "[ ! -e {killed:?} ] || exit 0\ntouch {killed:?}\nexec kill -KILL {}",
            etcd.pid()
        ),
    );
    let result = testbed.broadcast().expect(7);
    assert!(
        result.stderr.contains("it is not known what it holds"),
        "{}",
        result.stderr
    );
    etcd.start_again();
    let run = result.json["run"].as_str().unwrap();
    testbed.fleet.continue_run("revert", &[run]).expect(0);
    testbed.is_all(OLD, "old");
}

#[test]
fn a_key_that_does_not_exist_ends_the_survey_with_1() {
    let Some((etcd, testbed)) = in_etcd(1) else {
        return;
    };
    etcd.remove("web");
    let result = testbed.broadcast().expect(1);
    assert!(
        result.stderr.contains("there is no such key"),
        "{}",
        result.stderr
    );
    assert_eq!(get(&testbed.key), None);
}

/// A moment of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The store has not seen the write.
    BeforePut,
    /// The store has written, and the coordinator does not know.
    AfterPut,
    /// The first wave is proven.
    Confirmed,
    /// The store has written the old value again, and the coordinator does not know.
    RolledBack,
}

/// Kills a coordinator in this phase.
fn killed_in(phase: Phase) -> Option<Behind> {
    let behind = Behind::start(3)?;
    let there = behind.testbed.fleet.path("gate-began");
    let go = behind.testbed.fleet.path("gate-goes-on");
    match phase {
        Phase::Confirmed => gate(
            &behind.testbed,
            &format!("[ ! -e {there:?} ] || exit 0\ntouch {there:?}\nexec sleep 30"),
        ),
        Phase::RolledBack => gate(
            &behind.testbed,
            &format!(
                "[ ! -e {there:?} ] || exit 0\ntouch {there:?}\n\
                 until [ -e {go:?} ]; do sleep 0.05; done\nexit 1"
            ),
        ),
        _ => {}
    }
    match phase {
        Phase::BeforePut => behind.proxy.set(Mode::HoldsWrite),
        Phase::AfterPut => behind.proxy.set(Mode::HoldsAnswer),
        _ => {}
    }
    let mut run = behind.begin();
    match phase {
        Phase::BeforePut | Phase::AfterPut => behind.write_came(0),
        Phase::Confirmed => until("the gate runs", || there.exists()),
        Phase::RolledBack => {
            until("the gate runs", || there.exists());
            behind.proxy.set(Mode::HoldsAnswer);
            behind.testbed.fleet.write("gate-goes-on", "");
            behind.write_came(1);
        }
    }
    let is_written = |text: &str| behind.testbed.value() == text;
    match phase {
        Phase::AfterPut => until("it is written", || is_written(NEW)),
        Phase::RolledBack => until("it is written", || is_written(OLD)),
        _ => {}
    }
    run.kill().unwrap();
    run.wait().unwrap();
    behind.proxy.set(Mode::Passes);
    Some(behind)
}

#[test]
fn a_killed_run_is_resumed_from_each_phase() {
    for phase in [
        Phase::BeforePut,
        Phase::AfterPut,
        Phase::Confirmed,
        Phase::RolledBack,
    ] {
        let Some(behind) = killed_in(phase) else {
            return;
        };
        let result = behind.testbed.fleet.continue_run("resume", &[]);
        assert_eq!(result.code, 0, "{phase:?}: {}", result.stderr);
        behind.testbed.is_all(NEW, "new");
    }
}

#[test]
fn a_killed_run_is_reverted_from_each_phase() {
    for phase in [
        Phase::BeforePut,
        Phase::AfterPut,
        Phase::Confirmed,
        Phase::RolledBack,
    ] {
        let Some(behind) = killed_in(phase) else {
            return;
        };
        let result = behind.testbed.fleet.continue_run("revert", &[]);
        assert_eq!(result.code, 0, "{phase:?}: {}", result.stderr);
        behind.testbed.is_all(OLD, "old");
    }
}

#[test]
fn a_killed_run_over_a_key_that_was_written_since_is_refused() {
    let Some(behind) = killed_in(Phase::AfterPut) else {
        return;
    };
    overwrite(&behind.testbed.key, "message = \"other\"\n");
    for verb in ["resume", "revert"] {
        let result = behind.testbed.fleet.continue_run(verb, &[]).expect(5);
        assert!(
            result.stderr.contains(&behind.testbed.url),
            "{}",
            result.stderr
        );
    }
    assert_eq!(behind.testbed.value(), "message = \"other\"\n");
    drop(behind.etcd);
}
