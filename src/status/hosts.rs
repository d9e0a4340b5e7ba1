//! `hello status` over hosts: each agent answers for its own, and the coordinator joins the
//! answers.

use std::{collections::BTreeSet, path::Path};

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
    hosts::{
        Absence, Answered, ClosedIndex, Gathered, SelectFault, close_indexes, gather_answers,
        of_host, select,
    },
    inventory::{HostEntry, HostName},
    names,
    protocol::Request,
    report::Output,
    runs, screen,
};

/// The answers of all hosts, joined.
struct Joined {
    rows: Rows,
    /// How many hosts were asked.
    asked: usize,
    gathered: Gathered,
    /// The verdict of each host that answered, with its reason.
    ends: Vec<(Verdict, String)>,
    /// The open indexes whose runs are over on each of their hosts.
    closed: Vec<ClosedIndex>,
}

/// Asks every selected host once.
pub(super) async fn take(options: &Options, hosts: &Hosts) -> Snapshot {
    let terms = &options.hosts;
    let selected = match select(hosts, (&terms.on, &terms.except), options.state.as_deref()).await {
        Ok(selected) => selected,
        Err(why) => return failed(&why),
    };
    let request = Request::Status {
        groups: terms.groups.clone(),
    };
    let mut gathered = gather_answers(hosts, &selected, &request, &terms.groups).await;
    let answers = std::mem::take(&mut gathered.answers);
    let mut joined = Joined {
        rows: Rows::default(),
        asked: selected.len(),
        gathered,
        ends: Vec::new(),
        closed: Vec::new(),
    };
    for (host, answered) in answers {
        if let Err((verdict, why)) = joined.add(&host, answered) {
            joined.gathered.absent.push(Absence { host, verdict, why });
        }
    }
    if let Some(state) = &options.state {
        // A run that one of them names as open needs no second question.
        let is_not_open = |run: &str| joined.rows.open.iter().all(|open| open.run != run);
        joined.closed = close_indexes(state, hosts, &selected, is_not_open).await;
        joined.add_indexes(state, options, &selected);
    }
    let absent = joined.gathered.absent.iter().map(|absence| AbsentHost {
        host: absence.host.clone(),
        why: absence.why.clone(),
    });
    joined.rows.hosts = absent.collect();
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
    fn add(&mut self, name: &HostName, answered: Answered) -> Result<(), (Verdict, String)> {
        let Answered { rows, result } = answered;
        let verdict: Verdict = member(&result, "verdict")?;
        let reason: Option<String> = member(&result, "reason")?;
        let mut lists = result;
        lists.insert("instances".into(), Value::Array(rows));
        let rows: Rows = parsed(Value::Object(lists))?;
        if verdict == Verdict::Failed {
            let why = reason.unwrap_or_else(|| "its processes cannot be read".to_owned());
            return Err((verdict, why));
        }
        let named = |reason: String| format!("{name}: {reason}");
        self.ends
            .push((verdict, reason.map(named).unwrap_or_default()));
        let all = &mut self.rows;
        all.instances
            .extend(of_host(rows.instances, name, |row| &mut row.host));
        all.groups
            .extend(of_host(rows.groups, name, |row| &mut row.host));
        all.skipped
            .extend(of_host(rows.skipped, name, |row| &mut row.host));
        all.open
            .extend(of_host(rows.open, name, |row| &mut row.host));
        all.running
            .extend(of_host(rows.running, name, |row| &mut row.host));
        Ok(())
    }

    /// Adds the runs over these hosts whose index here is open.
    fn add_indexes(&mut self, state: &Path, options: &Options, selected: &[HostEntry]) {
        let selected: BTreeSet<&HostName> = selected.iter().map(|entry| &entry.name).collect();
        for info in runs::open_runs(state) {
            let over = runs::over_hosts(state, Some(&info.id));
            let is_here =
                over.is_some_and(|over| over.hosts.iter().any(|host| selected.contains(host)));
            if is_here {
                self.rows.open.push(OpenRun {
                    host: HostName::local(),
                    verdict: info.verdict().to_owned(),
                    next: runs::next(state, &info, &options.state_args),
                    part_of: None,
                    run: info.id,
                });
            }
        }
    }

    /// Returns the lines of each open run. Those of a run over hosts stand there once, with the
    /// commands to type here.
    fn open_lines(&self, options: &Options) -> Vec<String> {
        let mut runs: Vec<&str> = Vec::new();
        let mut lines = Vec::new();
        for open in &self.rows.open {
            let is_over_hosts = open.part_of.is_some() || open.host.is_local();
            if !is_over_hosts {
                lines.extend(open_lines(&open.host, open));
            } else if !runs.contains(&open.run.as_str()) {
                runs.push(&open.run);
                lines.extend(self.lines_over_hosts(&open.run, options));
            }
        }
        lines
    }

    fn lines_over_hosts(&self, run: &str, options: &Options) -> Vec<String> {
        let rows = || self.rows.open.iter().filter(|open| open.run == run);
        let hosts = rows()
            .map(|open| &open.host)
            .filter(|host| !host.is_local());
        let hosts = names::list(hosts, ", ", names::MOST);
        let text = if hosts.is_empty() {
            run.to_owned()
        } else {
            format!("{run} on {hosts}")
        };
        let index = rows().find(|open| open.host.is_local());
        let commands = index.map_or_else(
            || {
                let args = format!("{}{}", options.fleet.arguments(), options.state_args);
                ["resume", "revert"]
                    .map(|verb| format!("hello {verb} {run} {args}"))
                    .to_vec()
            },
            |index| index.next.clone(),
        );
        let what = "to finish it on every host, or to restore the old config:";
        vec![
            screen::worded("Open run", &text),
            screen::hint(what, &commands),
        ]
    }

    /// Returns the worst verdict, and its reason: a host without an answer, a run under way, a
    /// fault. Nothing was found only if no host found anything.
    fn verdict(&self) -> (Verdict, String) {
        if let Some(worst) = self.gathered.worst() {
            let more = names::and_more(self.gathered.absent.len() - 1);
            let reason = format!("{}{more}: {}", worst.host, worst.why);
            return (worst.verdict, reason);
        }
        if let Some(group) = &self.gathered.no_group {
            return (Verdict::Usage, format!("no host has the group `{group}`"));
        }
        let index = |run: &&OpenRun| run.host.is_local();
        let open = self.rows.open.iter().find(index);
        let of = |wanted| self.ends.iter().find(|(verdict, _)| *verdict == wanted);
        let end = of(Verdict::Busy).or_else(|| of(Verdict::Mixed));
        if let Some((verdict, reason)) = end {
            return (*verdict, reason.clone());
        }
        if let Some(open) = open {
            return (Verdict::Mixed, format!("run {} was left open", open.run));
        }
        match of(Verdict::NoMatch) {
            // A host has none of the instances that its own file demands.
            Some((verdict, reason)) => (*verdict, reason.clone()),
            None => (Verdict::Converged, String::new()),
        }
    }

    fn snapshot(self, options: &Options) -> Snapshot {
        let (verdict, reason) = self.verdict();
        let is_failure = matches!(verdict, Verdict::NoMatch | Verdict::Usage)
            && options.output == Output::Screen;
        Snapshot {
            notes: self.notes(options),
            listing: listing(&self.rows, self.asked, options.quiet),
            failure: is_failure.then(|| reason.clone()),
            json: Answer::json(verdict, &reason, &[], &self.rows),
            exit: verdict.exit(),
        }
    }

    /// Returns the lines about hosts without an answer, skipped processes and runs.
    fn notes(&self, options: &Options) -> Vec<String> {
        let absent = self.rows.hosts.iter();
        let absent =
            absent.map(|host| screen::worded("No answer", &format!("{}: {}", host.host, host.why)));
        let skipped = self.rows.skipped.iter().filter(|_| !options.quiet);
        let skipped = skipped.map(|row| {
            screen::worded(
                "Skipped",
                &format!("{} pid {} {}", row.host, row.pid, row.why),
            )
        });
        let open = self.open_lines(options);
        let running = self
            .rows
            .running
            .iter()
            .map(|run| screen::worded("Under way", &format!("{}: {}", run.host, run.owner)));
        let closed = self.closed.iter().map(ClosedIndex::line);
        absent
            .chain(skipped)
            .chain(closed)
            .chain(open)
            .chain(running)
            .collect()
    }
}

fn open_lines(host: &HostName, open: &OpenRun) -> Vec<String> {
    let mut lines = vec![screen::worded("Open run", &format!("{host}: {}", open.run))];
    if !open.next.is_empty() {
        let what = format!("to finish it, on `{host}`:");
        lines.push(screen::hint(&what, &open.next));
    }
    lines
}

fn member<T: serde::de::DeserializeOwned>(
    result: &Map<String, Value>,
    key: &str,
) -> Result<T, (Verdict, String)> {
    parsed(result.get(key).cloned().unwrap_or_default())
}

fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, (Verdict, String)> {
    serde_json::from_value(value).map_err(|why| {
        (
            Verdict::Refused,
            format!("its answer is not understood: {why}"),
        )
    })
}
