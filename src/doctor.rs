//! `hello doctor`: why a process, or every match of the fleet, can or cannot be reloaded. Reads
//! only.

use std::{collections::BTreeMap, io};

pub(crate) use self::options::{Options, Shown};
use self::{
    checks::{Role, check_group_member, group_finding},
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
        local::examine::{Examiner, Finding, Topic},
    },
    inventory::HostName,
    report::{Output, fail},
    screen,
};

mod checks;
mod group;
mod hosts;
mod kinds;
mod options;
mod process;
mod report;

/// A match of the fleet with its group and role.
type Match<'a> = (&'a Group, Found, Role);

/// Checks the processes. Returns the exit code: 0 if all can be reloaded, 5 if one cannot, 3 if a
/// process or group does not exist, 1 if the processes cannot be read; over hosts also 11 if one
/// was not reached. Where the group of a process is shown, 0 means that it was written, and 5 that
/// it was not.
pub(crate) async fn run(options: Options) -> u8 {
    let report = match &options.fleet.hosts {
        Some(hosts) => match hosts::report(&options, hosts).await {
            Ok(report) => report,
            Err(why) => {
                let verdict = why.verdict();
                return fail(
                    options.output,
                    verdict,
                    &why.to_string(),
                    &[],
                    serde_json::Map::new(),
                );
            }
        },
        None => match report_here(&options).await {
            Ok(report) => (report, Verdict::Converged),
            Err(why) => return failed(options.output, &why.to_string()),
        },
    };
    let (report, of_hosts) = report;
    let verdict = match (of_hosts, options.shown) {
        (Verdict::Converged, Shown::Checks) => report.verdict(),
        (Verdict::Converged, Shown::Group) => report.written(),
        (worse, _) => worse,
    };
    let next = group::commands(&report, &options.fleet);
    match options.shown {
        Shown::Group if options.output == Output::Screen => {
            group::show(&report, &options.fleet);
        }
        _ => report.show(options.output, verdict.exit(), &next),
    }
    verdict.exit()
}

/// Checks the processes of this machine. Returns the object that `-o json` prints.
///
/// # Errors
/// Fails if the processes cannot be read.
pub(crate) async fn answer(options: Options) -> Result<serde_json::Value, Unreadable> {
    let report = report_here(&options).await?;
    Ok(report.json(report.verdict().exit(), &[]))
}

/// Why the processes of this machine cannot be checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("cannot read the listening sockets: {0}")]
    Sockets(io::Error),
    #[error("cannot read the processes of this host: {0}")]
    Processes(io::Error),
}

async fn report_here(options: &Options) -> Result<Report, Unreadable> {
    let mut examiner = Examiner::new().map_err(Unreadable::Sockets)?;
    examiner.read_sources(options.fleet.groups.iter()).await;
    let scan = Scan::take().map_err(Unreadable::Processes)?;
    match options.pid {
        Some(pid) => Ok(process::report(pid, &options.fleet, &scan, &examiner).await),
        None => fleet_report(&options.fleet, &scan, &examiner)
            .await
            .map_err(Unreadable::Processes),
    }
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
    let mut instances: BTreeMap<&str, usize> = BTreeMap::new();
    for (group, _, role) in &matches {
        *instances.entry(group.name.as_str()).or_default() += usize::from(role.is_ok());
    }
    let instances = &instances;
    let reports = matches.into_iter().map(|(group, found, role)| async move {
        let findings = vec![group_finding(group, fleet)];
        let instances = instances.get(group.name.as_str()).copied();
        let group_of = (group, instances.unwrap_or(1));
        let findings = check_group_member(&found, group_of, role, findings, examiner).await;
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
        host: HostName::local(),
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
    let mut workers: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (worker, leader) in finds.workers {
        workers.entry(leader).or_default().push(worker);
    }
    for found in finds.found {
        let workers = workers.remove(&found.pid).unwrap_or_default();
        matches.push((group, found, Ok(workers)));
    }
    let refused = finds.refused.into_iter().map(|(found, why)| {
        let finding = Finding::refused(Topic::Role, &why);
        (group, found, Err(finding))
    });
    matches.extend(refused);
    Ok(())
}
