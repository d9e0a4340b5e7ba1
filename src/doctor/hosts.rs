//! `hello doctor` over hosts: each agent examines its own, and the coordinator joins the reports.

use serde_json::{Map, Value};

use super::{
    Options,
    report::{Missing, Report},
};
use crate::{
    event::Verdict,
    fleet::Hosts,
    hosts::{Answered, SelectFault, claimed_operator, for_each_host, select},
    inventory::HostEntry,
    protocol::Request,
};

/// Asks every selected host. Returns the joined report, and how the command ends by a host without
/// an answer; else `Converged`.
///
/// # Errors
/// Fails if no host could be asked.
pub(super) async fn report(
    options: &Options,
    hosts: &Hosts,
) -> Result<(Report, Verdict), SelectFault> {
    let selected = select(hosts, &options.on, &options.except).await?;
    let request = Request::Doctor {
        groups: options.groups.clone(),
        pid: options.pid,
    };
    let operator = claimed_operator();
    let mut reports: Vec<(usize, Result<Report, (Verdict, String)>)> = Vec::new();
    for_each_host(
        hosts,
        &selected,
        (&operator, Some(&request)),
        |index, answer| {
            let report = match answer {
                Ok((_, answered)) => answered.map_or_else(|| Ok(Report::default()), parsed),
                Err(why) => Err((why.verdict(), why.text())),
            };
            reports.push((index, report));
        },
    )
    .await;
    reports.sort_by_key(|(index, _)| *index);
    let mut joined = Report::default();
    let mut worst = Verdict::Converged;
    for (index, report) in reports {
        match report {
            Ok(report) => joined.add(&selected[index], report),
            Err((verdict, why)) => {
                if worst != Verdict::Unreachable {
                    worst = verdict;
                }
                joined.missing.push(Missing {
                    host: selected[index].name.clone(),
                    pid: None,
                    group: None,
                    text: why,
                });
            }
        }
    }
    Ok((joined, worst))
}

fn parsed(answered: Answered) -> Result<Report, (Verdict, String)> {
    let Answered { rows, result } = answered;
    let mut lists: Map<String, Value> = result;
    lists.insert("processes".into(), Value::Array(rows));
    serde_json::from_value(Value::Object(lists)).map_err(|why| {
        let why = format!("its answer is not understood: {why}");
        (Verdict::Refused, why)
    })
}

impl Report {
    /// Adds the report of one host; every row gets its name.
    fn add(&mut self, host: &HostEntry, report: Self) {
        let Self { processes, missing } = report;
        self.processes.extend(processes.into_iter().map(|mut row| {
            row.host = host.name.clone();
            row
        }));
        self.missing.extend(missing.into_iter().map(|mut row| {
            row.host = host.name.clone();
            row
        }));
    }
}
