//! `hello status`: which processes do not run the config on their disk, and which would not survive their next reload. Reads only.

use std::{collections::HashMap, io::Write, os::unix::fs::MetadataExt, path::PathBuf};

use serde::Serialize;
use tokio::sync::Mutex;

use crate::{
    fleet::{Fleet, Group, Reloads, Speaks},
    host::{
        discover::{self, Found, Scan},
        guard,
        http::{Lanes, told},
        judge::{Candidate, Case, Key},
        sockets::Listeners,
        validate::NotPassed,
    },
    report::Output,
    step::{Blob, short},
};

/// Checked options.
#[derive(Debug, Clone)]
pub struct Options {
    /// The fleet, read and selected.
    pub fleet: Fleet,
    /// What stdout carries; `Screen` is a line for each instance.
    pub output: Output,
    /// Nothing on stdout but what does not agree.
    pub quiet: bool,
}

/// One instance, as it is now.
#[derive(Debug, Serialize)]
struct Row {
    group: String,
    pid: i32,
    started: u64,
    endpoint: Option<String>,
    path: Option<PathBuf>,
    runs: Option<String>,
    generation: Option<u64>,
    age_s: Option<i64>,
    disk: Option<String>,
    /// Everything that a person should look at; empty when all agrees.
    faults: Vec<String>,
}

/// Looks at every instance; answers the exit code: 0 all agree, 7 not, 3 nothing was found.
pub async fn run(options: Options) -> u8 {
    // Without the kernel's tables each endpoint is told as missing.
    let (scan, listeners, lanes) = (Scan::take(), Listeners::read().unwrap_or_default(), Lanes::default());
    let judged = Judged::default();
    let mut rows = Vec::new();
    for group in &options.fleet.groups {
        let seen = scan.find(group).await;
        rows.extend(futures_util::future::join_all(seen.found.iter().map(|f| look(group, f, &listeners, &lanes, &judged))).await);
        // Who is not in the fleet cannot disagree with it; people are told, so that nobody thinks it was looked at.
        for (pid, why) in seen.left_out.iter().filter(|_| !options.quiet) {
            let _ = writeln!(std::io::stderr(), "    Left out pid {pid} {why}");
        }
        let refused = seen.refused.into_iter().map(|(f, why)| (f.pid, f.started, why));
        for (pid, started, why) in refused.chain(seen.missing.into_iter().map(|(pid, why)| (pid, 0, why))) {
            let mut row = Row::new(group, pid, started);
            row.faults.push(why);
            rows.push(row);
        }
    }
    let mut out = std::io::stdout().lock();
    if options.output == Output::Screen {
        for row in rows.iter().filter(|r| !options.quiet || !r.faults.is_empty()) {
            let runs = row.runs.as_deref().map_or("-", short);
            let said = if row.faults.is_empty() { "ok".to_owned() } else { row.faults.join("; ") };
            // A reader that went away changes nothing.
            let _ = writeln!(
                out,
                "{} pid {} {} sha256:{runs} generation {} {said}",
                row.group,
                row.pid,
                row.endpoint.as_deref().unwrap_or("-"),
                row.generation.unwrap_or(0)
            );
        }
    } else {
        let _ = writeln!(out, "{}", serde_json::json!({ "v": 1, "instances": rows }));
    }
    match rows.as_slice() {
        [] => 3,
        rows if rows.iter().all(|r| r.faults.is_empty()) => 0,
        _ => 7,
    }
}

impl Row {
    fn new(group: &Group, pid: i32, started: u64) -> Self {
        let group = group.name.clone();
        Self { group, pid, started, endpoint: None, path: None, runs: None, generation: None, age_s: None, disk: None, faults: Vec::new() }
    }
}

/// What was said already of what stands on the disk: once for all who would be asked the same, not once for each instance.
type Judged = Mutex<HashMap<Key, Option<String>>>;

/// Why the next reload or restart would not take what is on disk now: paths, each with its digest.
async fn waiting_to_fail(group: &Group, found: &Found, paths: &[(PathBuf, Option<String>)], judged: &Judged) -> Option<String> {
    if group.validate.is_empty() {
        return None;
    }
    let live = |(path, sha256): &(PathBuf, Option<String>)| {
        let public = path.metadata().is_ok_and(|m| m.mode() & 0o004 != 0);
        Candidate { live: path.clone(), staged: path.clone(), sha256: sha256.clone().unwrap_or_default(), secret: group.secret.unwrap_or(!public) }
    };
    let candidates: Vec<Candidate> = paths.iter().map(live).collect();
    let case = Case { instance: &found.instance(&group.name), group, args: &found.args, candidates: &candidates };
    let key = case.key();
    let mut judged = judged.lock().await;
    if let Some(known) = judged.get(&key) {
        return known.clone();
    }
    let said = match case.passes().await.0 {
        Err(NotPassed::Refused(why)) => Some(why),
        // One that could not be run has not refused.
        Ok(()) | Err(NotPassed::NotRun(_)) => None,
    };
    judged.insert(key, said.clone());
    said
}

async fn look(group: &Group, found: &Found, listeners: &Listeners, lanes: &Lanes, judged: &Judged) -> Row {
    let mut row = Row::new(group, found.pid, found.started);
    if group.reloads == Reloads::No {
        row.faults.push(format!("nobody says that it reloads on {}", group.signal.name()));
    }
    if let Some(why) = guard::not_taking(found.pid, group.signal, group.reloads) {
        row.faults.push(format!("would not take the signal: it {why}"));
    }
    if guard::is_stopped(found.pid) {
        row.faults.push("is stopped".into());
    }
    match discover::configs_of(found, group) {
        Ok(paths) => {
            let read = |path: PathBuf| (Blob::read(&path).ok().map(|blob| blob.sha256), path);
            let paths: Vec<(PathBuf, Option<String>)> = paths.into_iter().map(read).map(|(disk, path)| (path, disk)).collect();
            if let Some(why) = waiting_to_fail(group, found, &paths, judged).await {
                row.faults.push(format!("waiting to fail: {why}"));
            }
            // Of several, what a process tells is the digest of the first.
            if let Some((path, disk)) = paths.into_iter().next() {
                (row.path, row.disk) = (Some(path), disk);
            }
        }
        Err(why) => row.faults.push(why),
    }
    if group.speaks == Speaks::None {
        // It cannot tell what it runs: only what the kernel knows of it is reported.
        return row;
    }
    match found.endpoint.clone().map_or_else(|| listeners.endpoint(found.pid, &found.args, group), Ok) {
        Err(why) => row.faults.push(why),
        Ok(endpoint) => {
            match told(&endpoint, lanes).await {
                Err(why) => row.faults.push(why),
                Ok(told) if (told.instance.pid, told.instance.started) != (found.pid, found.started) => {
                    row.faults.push(format!("its endpoint is answered by pid {}", told.instance.pid));
                }
                Ok(told) => {
                    if row.disk.as_ref().is_some_and(|d| *d != told.effective.sha256) {
                        row.faults.push("does not run the config on its disk".into());
                    }
                    row.age_s = Some(jiff::Timestamp::now().as_second() - told.effective.loaded_at.as_second());
                    row.generation = Some(told.effective.generation);
                    row.runs = Some(told.effective.sha256);
                }
            }
            row.endpoint = Some(endpoint);
        }
    }
    row
}
