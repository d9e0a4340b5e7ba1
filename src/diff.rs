//! `hello diff`: the configs on the disk against those that the instances run, or against a
//! candidate. Reads only.

use std::path::PathBuf;

use self::difference::{Compared, against_candidate, against_running};
use crate::{
    change::{ChangeRequest, Changes},
    event::{Abort, VERSION, Verdict},
    fleet::{Fleet, Group},
    host::local::sources::Sources,
    report::{Output, fail},
    screen,
    status::{self, Ask, Readings},
};

mod difference;

/// Checked options.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The fleet, read and selected.
    pub fleet: Fleet,
    /// The candidate; none to compare with what the instances run.
    pub change: Option<ChangeRequest>,
    /// The state directory, with the proofs and the contents of earlier runs.
    pub state: Option<PathBuf>,
    /// The ` --state DIR` to append to suggested commands; empty for the default directory.
    pub state_args: String,
    /// What stdout carries; `Screen` is a unified diff.
    pub output: Output,
}

/// Prints the differences. Returns the exit code: 0 if there is none, 7 if there is one, 3 if
/// nothing was found, 4 if the candidate does not fit.
pub(crate) async fn run(options: Options) -> u8 {
    match attempt(&options).await {
        Ok(code) => code,
        Err(abort) => failed(&options, &abort),
    }
}

async fn attempt(options: &Options) -> Result<u8, Abort> {
    let changes = options.change.as_ref().map(Changes::read).transpose()?;
    let ask = match changes {
        Some(_) => Ask::Disk,
        None => Ask::Running,
    };
    let state = options.state.as_deref();
    let readings = status::read_targets(&options.fleet, state, &options.state_args, ask)
        .await
        .map_err(|why| Abort::new(Verdict::Failed, why.to_string()))?;
    let groups = &options.fleet.groups;
    let compared = match &changes {
        Some(changes) => {
            let sources = read_sources(groups, changes).await;
            against_candidate(&readings, groups, changes, &sources)?
        }
        None => against_running(&readings, groups, state),
    };
    for line in status::skipped_lines(&readings.skipped) {
        screen::tell(&line);
    }
    if readings.instances.is_empty() {
        let why = "nothing was found".to_owned();
        return Err(Abort::new(Verdict::NoMatch, why));
    }
    Ok(show(options, &readings, &compared))
}

/// Reads the `source` of every group whose change it is, and names each key.
async fn read_sources(groups: &[Group], changes: &Changes) -> Sources {
    let groups = groups.iter().filter(|group| changes.adopts(&group.name));
    let sources = Sources::read(groups).await;
    for key in sources.keys() {
        screen::tell(&screen::worded("Read", &key.to_string()));
    }
    sources
}

fn show(options: &Options, readings: &Readings, compared: &Compared) -> u8 {
    let verdict = if compared.targets.is_empty() {
        Verdict::Converged
    } else {
        Verdict::Mixed
    };
    for unknown in &compared.unknown {
        screen::tell(&screen::worded("Not known", &unknown.text()));
    }
    if options.output == Output::Screen {
        for difference in &compared.targets {
            screen::answer(difference.lines());
        }
        return verdict.exit();
    }
    let count = compared.targets.len();
    let differ = if count == 1 { "differs" } else { "differ" };
    let reason = format!("{} {differ}", screen::counted(count, "target"));
    let skipped = readings.skipped.iter();
    let skipped = skipped.map(|(pid, why)| serde_json::json!({ "pid": pid, "why": why }));
    screen::data([serde_json::json!({
        "v": VERSION,
        "dry_run": false,
        "verdict": verdict,
        "exit": verdict.exit(),
        "reason": Some(reason).filter(|_| count > 0),
        "next": [],
        "targets": compared.targets,
        "unknown": compared.unknown,
        "skipped": skipped.collect::<Vec<_>>(),
    })]);
    verdict.exit()
}

/// Reports why nothing could be compared. Returns the exit code.
fn failed(options: &Options, abort: &Abort) -> u8 {
    let keys = ["targets", "unknown", "skipped"];
    let rest = keys.map(|key| (key.to_owned(), serde_json::json!([])));
    let rest = serde_json::Map::from_iter(rest);
    fail(options.output, abort.verdict, &abort.reason, &[], rest)
}
