//! `hello status` over hosts: each agent answers for its own, and the coordinator joins the answers.

use serde_json::{Map, Value};

use super::{
    answer::{AbsentHost, Answer, OpenRun, Rows, no_rows},
    hosts_listing::listing,
    options::Options,
    snapshot::Snapshot,
};
use crate::{
    event::Verdict,
    fleet::Hosts,
    hosts::{Answered, SelectFault, claimed_operator, for_each_host, select},
    inventory::HostEntry,
    names,
    protocol::Request,
    report::Output,
    screen,
};

/// The answers of all hosts, joined.
struct Joined {
    rows: Rows,
    /// How many hosts were asked.
    asked: usize,
    /// For each host without an answer, how the command ends by it.
    absent: Vec<Verdict>,
    /// The verdict of each host that answered, with its reason.
    ends: Vec<(Verdict, String)>,
}

/// Why a host has no answer, and how the command ends by it.
struct Absence {
    verdict: Verdict,
    why: String,
}

impl Absence {
    fn refused(why: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Refused,
            why: why.into(),
        }
    }
}

/// Asks every selected host once.
pub(super) async fn take(options: &Options, hosts: &Hosts) -> Snapshot {
    let terms = &options.hosts;
    let selected = match select(hosts, &terms.on, &terms.except).await {
        Ok(selected) => selected,
        Err(why) => return failed(&why),
    };
    let request = Request::Status {
        groups: terms.groups.clone(),
    };
    let operator = claimed_operator();
    let mut answers: Vec<Option<Result<Answered, Absence>>> =
        selected.iter().map(|_| None).collect();
    for_each_host(
        hosts,
        &selected,
        (&operator, Some(&request)),
        |index, answer| {
            answers[index] = Some(match answer {
                Ok((_, Some(answered))) => Ok(answered),
                Ok((_, None)) => Err(Absence::refused("it sent no answer")),
                Err(why) => Err(Absence {
                    verdict: why.verdict(),
                    why: why.text(),
                }),
            });
        },
    )
    .await;
    let mut joined = Joined {
        rows: Rows::default(),
        asked: selected.len(),
        absent: Vec::new(),
        ends: Vec::new(),
    };
    for (host, answer) in selected.iter().zip(answers.into_iter().flatten()) {
        if let Err(Absence { verdict, why }) = answer.and_then(|found| joined.add(host, found)) {
            let host = host.name.clone();
            joined.absent.push(verdict);
            joined.rows.hosts.push(AbsentHost { host, why });
        }
    }
    joined.snapshot(options)
}

fn failed(why: &SelectFault) -> Snapshot {
    let verdict = why.verdict();
    let mut snapshot = Snapshot::failed(why.to_string(), no_rows());
    snapshot.json = crate::report::refused(verdict, &why.to_string(), &[], no_rows());
    snapshot.exit = verdict.exit();
    snapshot
}

impl Joined {
    /// Adds the answer of one host; every row gets its name.
    ///
    /// # Errors
    /// Fails if the answer is not one of this version.
    fn add(&mut self, host: &HostEntry, answered: Answered) -> Result<(), Absence> {
        let Answered { rows, result } = answered;
        let verdict: Verdict = member(&result, "verdict")?;
        let reason: Option<String> = member(&result, "reason")?;
        let mut lists = result;
        lists.insert("instances".into(), Value::Array(rows));
        let rows: Rows = parsed(Value::Object(lists))?;
        if verdict == Verdict::Failed {
            let why = reason.unwrap_or_else(|| "its processes cannot be read".to_owned());
            return Err(Absence { verdict, why });
        }
        let name = &host.name;
        let named = |reason: String| format!("{name}: {reason}");
        self.ends
            .push((verdict, reason.map(named).unwrap_or_default()));
        let all = &mut self.rows;
        all.instances
            .extend(rows.instances.into_iter().map(|mut row| {
                row.host = name.clone();
                row
            }));
        all.groups.extend(rows.groups.into_iter().map(|mut row| {
            row.host = name.clone();
            row
        }));
        all.skipped.extend(rows.skipped.into_iter().map(|mut row| {
            row.host = name.clone();
            row
        }));
        all.open.extend(rows.open.into_iter().map(|mut row| {
            row.host = name.clone();
            row
        }));
        all.running.extend(rows.running.into_iter().map(|mut row| {
            row.host = name.clone();
            row
        }));
        Ok(())
    }

    /// Returns the worst verdict, and its reason: a host without an answer, a run under way, a
    /// fault. Nothing was found only if no host found anything.
    fn verdict(&self) -> (Verdict, String) {
        if let Some(worst) = self.worst_absence() {
            let absent = &self.rows.hosts[worst];
            let more = names::and_more(self.rows.hosts.len() - 1);
            let reason = format!("{}{more}: {}", absent.host, absent.why);
            return (self.absent[worst], reason);
        }
        let of = |wanted| self.ends.iter().find(|(verdict, _)| *verdict == wanted);
        let end = of(Verdict::Busy).or_else(|| of(Verdict::Mixed));
        if let Some((verdict, reason)) = end {
            return (*verdict, reason.clone());
        }
        match of(Verdict::NoMatch) {
            // A host has none of the instances that its own file demands.
            Some((verdict, reason)) => (*verdict, reason.clone()),
            None => (Verdict::Converged, String::new()),
        }
    }

    /// Returns the host whose absence decides: one that was not reached, else the first.
    fn worst_absence(&self) -> Option<usize> {
        let unreachable = |verdict: &Verdict| *verdict == Verdict::Unreachable;
        let first = self.absent.iter().position(unreachable);
        first.or((!self.absent.is_empty()).then_some(0))
    }

    fn snapshot(self, options: &Options) -> Snapshot {
        let (verdict, reason) = self.verdict();
        let is_failure = verdict == Verdict::NoMatch && options.output == Output::Screen;
        Snapshot {
            notes: self.notes(options.quiet),
            listing: listing(&self.rows, self.asked, options.quiet),
            failure: is_failure.then(|| reason.clone()),
            json: Answer::json(verdict, &reason, &[], &self.rows),
            exit: verdict.exit(),
        }
    }

    /// Returns the lines about hosts without an answer, skipped processes and runs.
    fn notes(&self, is_quiet: bool) -> Vec<String> {
        let absent = self.rows.hosts.iter();
        let absent =
            absent.map(|host| screen::worded("No answer", &format!("{}: {}", host.host, host.why)));
        let skipped = self.rows.skipped.iter().filter(|_| !is_quiet);
        let skipped = skipped.map(|row| {
            screen::worded(
                "Skipped",
                &format!("{} pid {} {}", row.host, row.pid, row.why),
            )
        });
        let open = self.rows.open.iter().flat_map(open_lines);
        let running = self
            .rows
            .running
            .iter()
            .map(|run| screen::worded("Under way", &format!("{}: {}", run.host, run.owner)));
        absent.chain(skipped).chain(open).chain(running).collect()
    }
}

fn open_lines(open: &OpenRun) -> Vec<String> {
    let mut lines = vec![screen::worded(
        "Open run",
        &format!("{}: {}", open.host, open.run),
    )];
    if !open.next.is_empty() {
        let what = format!("to finish it, on `{}`:", open.host);
        lines.push(screen::hint(&what, &open.next));
    }
    lines
}

fn member<T: serde::de::DeserializeOwned>(
    result: &Map<String, Value>,
    key: &str,
) -> Result<T, Absence> {
    parsed(result.get(key).cloned().unwrap_or_default())
}

fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Absence> {
    serde_json::from_value(value)
        .map_err(|why| Absence::refused(format!("its answer is not understood: {why}")))
}
