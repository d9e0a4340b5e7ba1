//! `hello doctor`: why a process, or every match of the fleet, can or cannot be reloaded. Reads
//! only.

use std::io;

use self::{
    checks::{check_group_member, group_finding},
    report::{Missing, ProcessReport, Report},
};
use crate::{
    event::Verdict,
    fleet::{Fleet, Group},
    host::{
        discover::{
            Scan,
            found::{Finds, Found},
        },
        local::examine::Examiner,
    },
    refusal::Refusal,
    report::{Output, fail},
    screen,
};

mod checks;
mod kinds;
mod process;
mod report;

/// Checked options.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The process to check; none for every match of the fleet.
    pub pid: Option<i32>,
    /// The fleet, read and selected. Without any group, the process is checked by its kind.
    pub fleet: Fleet,
    /// The format on stdout; `Screen` is a line for each check.
    pub output: Output,
}

/// A match of the fleet: its group, and its workers or why it is refused.
type Match<'a> = (&'a Group, Found, Result<Vec<i32>, Refusal>);

/// Checks the processes. Returns the exit code: 0 if all can be reloaded, 5 if one cannot, 3 if a
/// process or group does not exist, 1 if the processes cannot be read.
pub(crate) async fn run(options: Options) -> u8 {
    let mut examiner = match Examiner::new() {
        Ok(examiner) => examiner,
        Err(e) => {
            let why = format!("cannot read the listening sockets: {e}");
            return failed(options.output, &why);
        }
    };
    examiner.read_sources(options.fleet.groups.iter()).await;
    let report = match Scan::take() {
        Ok(scan) => match options.pid {
            Some(pid) => Ok(process::report(pid, &options.fleet, &scan, &examiner).await),
            None => fleet_report(&options.fleet, &scan, &examiner).await,
        },
        Err(e) => Err(e),
    };
    let report = match report {
        Ok(report) => report,
        Err(e) => {
            return failed(
                options.output,
                &format!("cannot read the processes of this host: {e}"),
            );
        }
    };
    let is_missing = !report.missing.is_empty() || report.processes.is_empty();
    let verdict = if is_missing {
        Verdict::NoMatch
    } else if report.processes.iter().all(|process| process.reloadable) {
        Verdict::Converged
    } else {
        Verdict::Refused
    };
    report.show(options.output, verdict.exit());
    verdict.exit()
}

/// Reports why the processes could not be read. Returns the exit code.
fn failed(output: Output, why: &str) -> u8 {
    fail(output, Verdict::Failed, why, &[], serde_json::Map::new())
}

/// Reports about every match of the fleet.
///
/// # Errors
/// Fails if the processes cannot be read.
async fn fleet_report(fleet: &Fleet, scan: &Scan, examiner: &Examiner) -> io::Result<Report> {
    let mut report = Report::default();
    let mut matches = Vec::new();
    let finds = scan.find_all(fleet.groups.iter()).await;
    for (group, finds) in fleet.groups.iter().zip(finds) {
        add_matches(group, finds, &mut matches, &mut report)?;
    }
    examiner.know(matches.iter().map(|(_, found, _)| found));
    let reports = matches.into_iter().map(|(group, found, role)| async move {
        let findings = vec![group_finding(group, fleet)];
        let findings = check_group_member(&found, group, role, findings, examiner).await;
        ProcessReport::new(found, Some(group), findings)
    });
    report.processes = futures_util::future::join_all(reports).await;
    Ok(report)
}

/// Adds the matches of one group, and what is missing of it.
///
/// # Errors
/// Fails if the processes cannot be read.
fn add_matches<'a>(
    group: &'a Group,
    finds: Finds,
    matches: &mut Vec<Match<'a>>,
    report: &mut Report,
) -> io::Result<()> {
    if let Some(why) = finds.blind {
        return Err(why);
    }
    let missing = |pid: Option<i32>, text: String| Missing {
        pid,
        group: Some(group.name.clone()),
        text,
    };
    let sure = finds.found.len();
    let matched = sure + finds.refused.len();
    if finds.missing.is_empty() && !group.count.holds(matched, sure) {
        let text = format!(
            "group `{}` has {}, not {}",
            group.name,
            screen::counted(matched, "instance"),
            group.count
        );
        report.missing.push(missing(None, text));
    }
    for (pid, why) in finds.missing {
        let pid = (pid > 0).then_some(pid);
        report.missing.push(missing(pid, why.to_string()));
    }
    for (pid, why) in finds.skipped {
        screen::tell(&screen::worded("Skipped", &format!("pid {pid} {why}")));
    }
    for found in finds.found {
        let workers = finds.workers.iter();
        let workers = workers.filter(|(_, leader)| *leader == found.pid);
        let workers = workers.map(|(worker, _)| *worker).collect();
        matches.push((group, found, Ok(workers)));
    }
    let refused = finds.refused.into_iter();
    matches.extend(refused.map(|(found, why)| (group, found, Err(why.reported()))));
    Ok(())
}
