//! One round: a fleet, its commands under faults, and the judgement of each.

use std::{io, path::Path, thread, time::Duration};

use crate::{
    check::Judge,
    command::run,
    live::Live,
    plan::{Change, Plan, Step, Verb},
    tally::{Finding, Tally},
    world::{lives, now, processes_of},
};

/// The longest time, in seconds, that processes of a command may take to end. A busy machine needs
/// seconds.
const GRACE: f64 = 5.0;

/// Runs the round of this seed in `dir`.
pub(crate) fn round(seed: u64, dir: &Path, hello: &Path) -> Tally {
    let mut tally = Tally::default();
    let plan = Plan::new(seed);
    let _ = std::fs::write(dir.join("plan.txt"), format!("{plan:#?}\n"));
    if let Err(e) = steps(&plan, dir, hello, &mut tally) {
        tally.found.push(Finding {
            kind: "tester",
            claim: "the round could be run",
            text: e.to_string(),
        });
    }
    let lines = tally
        .found
        .iter()
        .map(|f| format!("{}: {} ({})\n", f.kind, f.text, f.claim));
    let _ = std::fs::write(dir.join("found.txt"), lines.collect::<String>());
    tally
}

fn steps(plan: &Plan, dir: &Path, hello: &Path, tally: &mut Tally) -> io::Result<()> {
    let mut live = Live::start(plan, dir, hello)?;
    // The last command has no fault and removes what killed commands left.
    let closing = Step {
        verb: Verb::Broadcast(Change::Config),
        flags: vec!["--overwrite", "--include-unresponsive", "--validate=off"],
        word: "",
        first_group_only: false,
        faults: Vec::new(),
        twin: None,
        descriptors: None,
        first_group_stays: false,
    };
    for (number, step) in plan.commands.iter().chain([&closing]).enumerate() {
        let settled = live.settle();
        tally.claim(
            "the instances come to rest",
            settled,
            || "tester",
            || "not within the limit".into(),
        );
        if matches!(step.verb, Verb::Broadcast(_)) {
            for at in 0..live.slots.len() {
                if !live.slots[at].lives() {
                    live.restart(at);
                }
            }
        }
        run_command(&mut live, step, number, tally)?;
        if !tally.found.is_empty() {
            // Nothing after a false claim is judged: it would report the same fault again.
            break;
        }
    }
    live.end();
    Ok(())
}

fn run_command(live: &mut Live, step: &Step, number: usize, tally: &mut Tally) -> io::Result<()> {
    let (before, all) = run(live, step, number)?;
    for done in &all[0].done {
        *tally.faults.entry(done.what.name()).or_default() += 1;
    }
    if step.twin.is_some() {
        *tally.faults.entry("TwoCoordinators".into()).or_default() += 1;
    }
    if step.descriptors.is_some() {
        *tally.faults.entry("FewDescriptors".into()).or_default() += 1;
    }
    let text: String = all[0]
        .done
        .iter()
        .map(|d| format!("{:.3} {:?}\n", d.began - all[0].began, d.what))
        .collect();
    std::fs::write(live.dir.join(format!("faults-{number}.txt")), text)?;
    let judges: Vec<Judge> = all
        .iter()
        .map(|ran| Judge::new(live, &before, ran))
        .collect();
    let mut held = Vec::new();
    for judge in &judges {
        let code = judge
            .ran
            .code
            .map_or("killed".into(), |code| code.to_string());
        *tally.exits.entry(code).or_default() += 1;
        held.push(judge.now(tally));
        judge.leftovers(tally);
    }
    processes(live, all.iter().any(|ran| ran.cut), tally);
    let settled = live.settle();
    tally.claim(
        "the instances come to rest",
        settled,
        || "tester",
        || "not within the limit".into(),
    );
    for (judge, held) in judges.iter().zip(&held) {
        judge.later(held, tally);
    }
    Ok(())
}

/// Ends every process that a command started.
fn processes(live: &Live, killed: bool, tally: &mut Tally) {
    let exes = live.dir.join("bin");
    let own = |line: &str| {
        line.starts_with(&exes.display().to_string())
            && (line.contains(" rogue ") || line.contains(" serve "))
            || line.contains(" thief ")
    };
    let left = || {
        processes_of(&live.dir)
            .into_iter()
            .filter(|(pid, started, line)| !own(line) && lives(*pid, *started))
            .collect::<Vec<_>>()
    };
    let (limit, mut all) = (now() + if killed { 2.0 * GRACE } else { GRACE }, left());
    while !all.is_empty() && now() < limit {
        thread::sleep(Duration::from_millis(20));
        all = left();
    }
    tally.claim(
        "no process of a command stays",
        all.is_empty(),
        || "leftover",
        || format!("{all:?}"),
    );
}
