//! `hello doctor` over hosts: each agent examines its own, and the coordinator joins the reports.

use serde_json::Value;

use super::{
    options::Options,
    report::{Missing, Report},
};
use crate::{
    event::Verdict,
    fleet::Hosts,
    hosts::{Absence, Answered, SelectFault, gather_answers, of_host, select},
    inventory::HostName,
    protocol::Request,
};

/// Asks every selected host. Returns the joined report, and how the command ends by a host without
/// an answer, or by a group that no host has; else `Converged`.
///
/// # Errors
/// Fails if no host could be asked.
pub(super) async fn report(
    options: &Options,
    hosts: &Hosts,
) -> Result<(Report, Verdict), SelectFault> {
    let selected = select(hosts, (&options.on, &options.except), None).await?;
    let request = Request::Doctor {
        groups: options.groups.clone(),
        pid: options.pid,
    };
    let mut gathered = gather_answers(hosts, &selected, &request, &options.groups).await;
    let mut joined = Report::default();
    for (host, answered) in std::mem::take(&mut gathered.answers) {
        match parsed(answered) {
            Ok(report) => joined.add(&host, report),
            Err(why) => gathered.absent.push(Absence {
                host,
                verdict: Verdict::Refused,
                why,
            }),
        }
    }
    let absent = gathered.worst().map(|absence| absence.verdict);
    let missing = gathered.absent.into_iter().map(|absence| Missing {
        host: absence.host,
        pid: None,
        group: None,
        text: absence.why,
    });
    joined.missing.extend(missing);
    let unknown = gathered.no_group.map(|group| Missing {
        host: HostName::local(),
        pid: None,
        text: format!("no host has the group `{group}`"),
        group: Some(group),
    });
    let verdict = match (absent, &unknown) {
        (Some(absent), _) => absent,
        (None, Some(_)) => Verdict::Usage,
        (None, None) => Verdict::Converged,
    };
    joined.missing.extend(unknown);
    Ok((joined, verdict))
}

fn parsed(answered: Answered) -> Result<Report, String> {
    let Answered { rows, result } = answered;
    let mut lists = result;
    lists.insert("processes".into(), Value::Array(rows));
    serde_json::from_value(Value::Object(lists))
        .map_err(|why| format!("its answer is not understood: {why}"))
}

impl Report {
    /// Adds the report of one host; every row gets its name.
    fn add(&mut self, host: &HostName, report: Self) {
        let Self { processes, missing } = report;
        self.processes
            .extend(of_host(processes, host, |row| &mut row.host));
        self.missing
            .extend(of_host(missing, host, |row| &mut row.host));
    }
}
