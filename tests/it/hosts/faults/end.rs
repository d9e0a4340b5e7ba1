//! Ends every run that a fault has left open, and checks that it has ended everywhere.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{
    check::{self, LAST, NEW, OLD},
    evidence::{Evidence, Journal},
};
use crate::{
    hosts::bed::Bed,
    support::{CommandEnd, run_to_end},
};

/// The longest wait for the agents of a run that has lost its coordinator.
const LIMIT: Duration = Duration::from_secs(30);

/// The command that ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Resume,
    Revert,
}

impl Verb {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Revert => "revert",
        }
    }

    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Resume => NEW,
            Self::Revert => OLD,
        }
    }
}

/// Waits until no agent runs, or until the limit. The evidence names those that are left.
pub(super) fn settle(bed: &Bed) {
    let deadline = Instant::now() + LIMIT;
    let is_over = || (0..bed.hosts.len()).all(|host| bed.agents(host).is_empty());
    while !is_over() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command of the coordinator to its end, and waits for the agents.
pub(super) fn run(bed: &Bed, args: &[&str]) -> CommandEnd {
    let end = run_to_end(&mut bed.command(args));
    settle(bed);
    end
}

/// Checks what a run has claimed and left, at its end and once every agent has ended. `ends_agent`
/// tells that a fault has killed one, and `full` is a host whose journal could not take everything.
/// Returns what is there then.
pub(super) fn judge_run(
    bed: &Bed,
    (end, before): (&CommandEnd, &[Evidence]),
    (ends_agent, full): (bool, Option<usize>),
    faults: &mut Vec<String>,
) -> Vec<Evidence> {
    let at_end = Evidence::all(bed);
    if let Some(code) = end.code {
        faults.extend(check::claims(&end.json, before, &at_end));
        faults.extend(check::exit_code(&end.json, code.into()));
    }
    settle(bed);
    let settled = Evidence::all(bed);
    if end.code.is_some() {
        faults.extend(check::claims(&end.json, before, &settled));
    }
    faults.extend(check::one_config(&end.json, &bed.open_here(), &settled));
    faults.extend(check::nothing_left(&settled, ends_agent));
    faults.extend(check::intents(&settled, full));
    settled
}

/// Ends what is open by one `resume` or `revert`, and checks what is left of it. Afterwards every
/// host takes a new config. `full` is a host whose journal could not take everything.
pub(super) fn end_everything(bed: &Bed, verb: Verb, full: Option<usize>) -> Vec<String> {
    // No fault is left: a busy machine alone is no reason to lose a host.
    bed.silence("20s");
    let mut faults = end_what_is_open(bed, verb, full);
    if faults.is_empty() {
        let set = format!("message={LAST}");
        let end = run(bed, &["broadcast", "--set", &set]);
        if end.code != Some(0) {
            faults.push(format!("the last run: {:#}\n{}", end.json, end.stderr));
        }
        let now = Evidence::all(bed);
        faults.extend(check::ended(LAST, &bed.open_here(), &now));
        faults.extend(check::nothing_left(&now, false));
        faults.extend(check::intents(&now, full));
    }
    faults
}

/// The command that ends what is open.
struct Ender {
    verb: Verb,
    args: Vec<String>,
    codes: &'static [i32],
}

impl Ender {
    fn new(verb: Verb, args: &[&str], codes: &'static [i32]) -> Self {
        let words = [&[verb.name()], args].concat();
        let args = words.into_iter().map(str::to_owned).collect();
        Self { verb, args, codes }
    }

    /// Returns the command for what is open; none if nothing is.
    fn find(bed: &Bed, verb: Verb) -> Option<Self> {
        // A run that was rolled back cannot be resumed.
        let is_reverted = |event: &Value| event["verdict"] == "reverted";
        let now = Evidence::all(bed);
        let mut journals = now.iter().flat_map(|host| &host.journals);
        let verb = if journals.any(|journal| journal.named("finished").any(is_reverted)) {
            Verb::Revert
        } else {
            verb
        };
        if !bed.open_here().is_empty() {
            return Some(Self::new(verb, &[], &[0]));
        }
        let hosts = 0..bed.hosts.len();
        let open: Vec<usize> = hosts
            .filter(|host| !bed.open_runs(*host).is_empty())
            .collect();
        let runs = bed.open_runs(*open.first()?);
        let known = bed.runs_here();
        if let Some(run) = runs.iter().find(|run| known.contains(run)) {
            // The host could not record that the run has come to its end.
            return Some(Self::new(verb, &[run], &[0]));
        }
        // The coordinator ended before it had an index. Nothing is touched, and some hosts know of
        // the run.
        let names: Vec<String> = open.iter().map(|host| format!("h{host}")).collect();
        let args = [&runs[0], "--on", &names.join(",")];
        Some(Self::new(Verb::Revert, &args, &[0, 8]))
    }

    fn run(&self, bed: &Bed) -> CommandEnd {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        run(bed, &args)
    }
}

/// Returns the hosts on which the run never began.
fn not_begun(end: &CommandEnd) -> Vec<String> {
    let hosts = end.json["hosts"].as_array();
    let hosts = hosts.into_iter().flatten();
    let never_began = |host: &&Value| {
        host["why"]
            .as_str()
            .is_some_and(|why| why.ends_with("never began there"))
    };
    let names = hosts
        .filter(never_began)
        .filter_map(|host| host["name"].as_str());
    names.map(str::to_owned).collect()
}

fn end_what_is_open(bed: &Bed, verb: Verb, full: Option<usize>) -> Vec<String> {
    (0..bed.hosts.len()).for_each(|host| bed.mend(host));
    let Some(mut ender) = Ender::find(bed, verb) else {
        return nothing_is_open(bed);
    };
    let end = ender.run(bed);
    let not_begun = not_begun(&end);
    if !not_begun.is_empty() {
        ender.codes = &[8];
    }
    let mut faults = Vec::new();
    if !end.code.is_some_and(|code| ender.codes.contains(&code)) {
        let CommandEnd { code, json, stderr } = &end;
        faults.push(format!(
            "{:?} ends with {code:?}: {json:#}\n{stderr}",
            ender.args
        ));
    }
    let mut now = Evidence::all(bed);
    faults.extend(check::intents(&now, full));
    // A host that was lost in its survey is no part of the run either.
    let is_no_part = |host: &Evidence| not_begun.contains(&host.name) || host.journals.is_empty();
    now.retain(|host| !is_no_part(host) || !host.is_on(OLD));
    faults.extend(check::ended(ender.verb.message(), &bed.open_here(), &now));
    // A killed agent of a host that is no part of the command has left its files there.
    let is_of_some = ender.args.iter().any(|arg| arg == "--on");
    faults.extend(check::nothing_left(&now, is_of_some));
    faults
}

/// Checks that every host is on one config where no run is open.
fn nothing_is_open(bed: &Bed) -> Vec<String> {
    Evidence::all(bed)
        .iter()
        .filter(|host| !host.is_on(OLD) && !host.is_on(NEW))
        .map(|host| format!("nothing is open, and it is between two configs: {host:?}"))
        .collect()
}

/// Returns everything that explains a failed case.
pub(super) fn story(bed: &Bed, end: &CommandEnd) -> String {
    let mut text = format!("exit {:?}\n{:#}\n{}", end.code, end.json, end.stderr);
    let journals = |name: &str, state: &std::path::Path| -> String {
        let line = |event: &Value| format!("  {event}\n");
        let journal = |journal: &Journal| {
            let events: String = journal.events.iter().map(line).collect();
            format!("{name} {}\n{events}", journal.run)
        };
        Journal::all(state).iter().map(journal).collect()
    };
    text += &journals("coordinator", &bed.path("state"));
    for host in 0..bed.hosts.len() {
        text += &journals(&format!("h{host}"), &bed.state(host));
        for act in bed.acts(host) {
            text += &format!("h{host} {act}\n");
        }
    }
    text
}
