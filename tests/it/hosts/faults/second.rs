//! A second coordinator in each phase of a run. The proxy starts it while it holds a line of the
//! first one, and passes the line on once the second one has ended.

use serde_json::{Value, json};

use super::{
    check::{self, LAST, NEW, OLD},
    end::{Verb, settle, story},
    evidence::Evidence,
    fault::{PHASES, Phase, Side},
};
use crate::{
    hosts::bed::Bed,
    support::{CommandEnd, run_to_end},
};

const HOSTS: usize = 3;

/// The time after which a host is silent: longer than a run of the second coordinator.
const SILENCE: &str = "20s";

/// The state directory of the second coordinator.
const OTHER: &str = "other";

/// Hosts with a run of a first coordinator, and one of a second one in a phase of it.
struct Both {
    bed: Bed,
    before: Vec<Evidence>,
    first: CommandEnd,
    second: CommandEnd,
}

impl Both {
    /// Runs a broadcast, and in this phase of it a command of the second coordinator. `$RUN` in the
    /// command is the run of the first one.
    fn run(phase: Phase, command: &str) -> Self {
        let bed = Bed::start(&[1; HOSTS]);
        bed.fleet(phase.rollout());
        bed.lease(SILENCE);
        bed.silence(SILENCE);
        let place = phase.place(Side::First);
        for host in 0..HOSTS {
            bed.between(host, &[]);
        }
        let dir = bed.dir.path().display();
        let mut script = format!("cd {dir}\n");
        // The other hosts have their locks before the second coordinator comes.
        for host in (0..HOSTS).filter(|host| *host != place.host) {
            script += &format!("until grep -q '^<.*\"a\":1,' h{host}.wire; do sleep 0.02; done\n");
        }
        let open = bed.state(place.host).join("open");
        script += &format!(
            "RUN=$(ls {} 2> /dev/null | head -n 1)\n\
             {} {command} -o json --fleet fleet.toml --state {OTHER} > second.json 2> second.err\n\
             echo $? > second.code",
            open.display(),
            env!("CARGO_BIN_EXE_hello"),
        );
        let rule = place.rule(json!({ "act": "shell", "text": script, "back": true }));
        bed.between(place.host, &[rule]);
        let before = Evidence::all(&bed);
        let set = format!("message={NEW}");
        let first = run_to_end(&mut bed.command(&["broadcast", "--set", &set]));
        settle(&bed);
        let text = |name: &str| std::fs::read_to_string(bed.path(name)).unwrap_or_default();
        let second = CommandEnd {
            code: text("second.code").trim().parse().ok(),
            json: serde_json::from_str(&text("second.json")).unwrap_or_default(),
            stderr: text("second.err"),
        };
        Self {
            bed,
            before,
            first,
            second,
        }
    }

    /// Checks what holds of every pair of coordinators.
    fn check(&self) -> Vec<String> {
        let now = Evidence::all(&self.bed);
        let mut faults = Vec::new();
        // The second one touches what the first one has not touched.
        let mut proven = self.first.json.clone();
        if let Some(rows) = proven["instances"].as_array_mut() {
            rows.retain(|row| row["outcome"] != "untouched");
        }
        faults.extend(check::claims(&proven, &self.before, &now));
        let code = self.first.code.unwrap_or(-1);
        faults.extend(check::exit_code(&self.first.json, code.into()));
        faults.extend(check::intents(&now, None));
        faults.extend(check::nothing_left(&now, false));
        faults
    }

    fn story(&self, phase: Phase, faults: &[String]) -> String {
        let Self { first, second, .. } = self;
        format!(
            "{phase:?}\n{}\nfirst: {}second: {:?} {:#}\n{}",
            faults.join("\n"),
            story(&self.bed, first),
            second.code,
            second.json,
            second.stderr
        )
    }
}

/// Tries every phase in a full test, and every third one in a sample.
fn try_phases(phases: &[Phase], mut try_one: impl FnMut(Phase) -> Result<(), String>) {
    let is_full = std::env::var_os("HELLO_TEST_FULL").is_some();
    let failed: Vec<String> = phases
        .iter()
        .step_by(if is_full { 1 } else { 3 })
        .filter_map(|phase| {
            eprintln!("{phase:?}");
            try_one(*phase).err()
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// Returns a fault if a code is not one of these.
fn judge(name: &str, code: Option<i32>, expected: &[i32]) -> Option<String> {
    let fits = code.is_some_and(|code| expected.contains(&code));
    (!fits).then(|| format!("the {name} ends with {code:?}, not {expected:?}"))
}

#[test]
fn a_second_coordinator_is_refused_in_every_phase_and_changes_nothing_for_the_first() {
    try_phases(&PHASES, |phase| {
        let both = Both::run(phase, &format!("broadcast --set message={LAST}"));
        let is_back = phase == Phase::Rollback;
        let mut faults = both.check();
        faults.extend(judge(
            "first",
            both.first.code,
            &[if is_back { 6 } else { 0 }],
        ));
        faults.extend(judge("second", both.second.code, &[9]));
        let reason = both.second.json["reason"].as_str().unwrap_or_default();
        if !reason.contains("run ") {
            faults.push(format!("the holder is not named: {reason}"));
        }
        let message = if is_back { OLD } else { NEW };
        let now = Evidence::all(&both.bed);
        faults.extend(check::ended(message, &both.bed.open_here(), &now));
        if faults.is_empty() {
            return Ok(());
        }
        Err(both.story(phase, &faults))
    });
}

#[test]
fn a_coordinator_that_takes_over_before_the_first_commit_ends_the_first_one_untouched() {
    try_phases(&[Phase::Survey, Phase::Plan], |phase| {
        let command = format!("broadcast --set message={LAST} --take-over");
        let both = Both::run(phase, &command);
        let mut faults = both.check();
        faults.extend(judge("second", both.second.code, &[0]));
        faults.extend(judge("first", both.first.code, &[5, 9, 11]));
        let now = Evidence::all(&both.bed);
        faults.extend(check::ended(LAST, &[], &now));
        faults.extend(check::signals(&[1; HOSTS], &now));
        if faults.is_empty() {
            return Ok(());
        }
        Err(both.story(phase, &faults))
    });
}

#[test]
fn a_coordinator_that_takes_over_after_a_commit_ends_the_run_and_the_first_one_claims_nothing() {
    let touched = [
        Phase::BeforeInstall,
        Phase::AfterSignal,
        Phase::BetweenWaves,
        Phase::Rollback,
        Phase::Conclude,
        Phase::Finish,
    ];
    try_phases(&touched, |phase| {
        // The gate of the rollback would refuse a resume as well.
        let verb = if phase == Phase::Rollback {
            Verb::Revert
        } else {
            Verb::Resume
        };
        let both = Both::run(phase, &format!("{} $RUN --take-over", verb.name()));
        let mut faults = both.check();
        // The verdict of a run stands once its hosts are told of it.
        let expected: &[i32] = if phase == Phase::Finish { &[0] } else { &[7] };
        faults.extend(judge("first", both.first.code, expected));
        faults.extend(judge("second", both.second.code, &[0]));
        let now = Evidence::all(&both.bed);
        faults.extend(check::ended(verb.message(), &[], &now));
        let hosts = both.first.json["hosts"].as_array().cloned();
        let is_named = |host: &Value| host["state"] == "lost";
        if !hosts.unwrap_or_default().iter().any(is_named) {
            faults.push("the first one names no host".into());
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(both.story(phase, &faults))
    });
}
