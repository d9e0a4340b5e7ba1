//! One run: what it changed, and how its instances ended.

use std::{collections::BTreeMap, io, path::PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::options::Options;
use crate::{
    event::{At, Event, Outcome, TargetReport, VERSION, process},
    inventory::HostName,
    names::{self, json_word},
    report::{Output, action, local_time, operator, result, run_object, unreached},
    runs::{self, RunEnded, RunInfo, ShortIds},
    screen,
    step::{Content, ContentDifference, Side, short},
    tree::shown,
};

/// The most instances that are named for one outcome, and the most failures that are listed.
const LISTED: usize = 20;

/// A run as its files describe it.
pub(super) struct RunView {
    info: RunInfo,
    targets: Vec<TargetView>,
    /// The last outcome of each instance, in the order of the journal.
    instances: Vec<At<Event>>,
    /// The time from its first to its last event, in microseconds.
    took_us: Option<i64>,
    /// A reminder of the hosts that it went without.
    unreached: Option<String>,
}

/// A target, and why its difference is not shown.
#[derive(Debug, Serialize)]
struct TargetView {
    #[serde(flatten)]
    report: TargetReport,
    #[serde(skip)]
    hidden: Option<String>,
}

impl RunView {
    /// Reads the run `id`.
    pub(super) fn read(options: &Options, id: &str) -> io::Result<Self> {
        let info = RunInfo::of(&options.state, id);
        let mut instances: BTreeMap<(HostName, i32, u64), (usize, At<Event>)> = BTreeMap::new();
        let mut began = None;
        let mut last = None;
        let mut elsewhere: BTreeMap<(HostName, PathBuf), TargetReport> = BTreeMap::new();
        // A run that ended before its first record has no journal.
        let events = match runs::events(&options.state, id) {
            Ok(events) => Some(events),
            Err(e) if info.began.is_some() => return Err(e),
            Err(_) => None,
        };
        for value in events.into_iter().flatten() {
            let at = value["at"].as_str().and_then(|at| at.parse().ok());
            began = began.or(at);
            last = at.filter(|_| value["event"] != "superseded_by").or(last);
            let Ok(mut event) = serde_json::from_value::<At<Event>>(value) else {
                continue;
            };
            if let Event::Intent { targets, .. } = &mut event.event
                && !event.host.is_local()
            {
                for target in targets.drain(..) {
                    let key = (event.host.clone(), target.path.clone());
                    let host = event.host.clone();
                    let target = TargetReport { host, ..target };
                    elsewhere.entry(key).or_insert(target);
                }
            }
            if let Event::Instance { pid, started, .. } = &event.event {
                let number = instances.len();
                let id = (event.host.clone(), *pid, *started);
                let number = instances.get(&id).map_or(number, |(number, _)| *number);
                instances.insert(id, (number, event));
            }
        }
        let mut instances: Vec<(usize, At<Event>)> = instances.into_values().collect();
        instances.sort_by_key(|(number, _)| *number);
        // The plan of a run over hosts has no target: each host knows its own.
        let targets = if info.hosts().is_some() {
            elsewhere.into_values().map(TargetView::elsewhere).collect()
        } else {
            let targets = runs::plan_targets(&options.state, id).into_iter();
            targets.map(|t| TargetView::read(options, t)).collect()
        };
        let ids = ShortIds::of(&options.state);
        Ok(Self {
            unreached: unreached(&options.state, &info, &ids),
            info,
            targets,
            instances: instances.into_iter().map(|(_, event)| event).collect(),
            took_us: elapsed_us(began, last),
        })
    }

    /// Prints the run.
    pub(super) fn show(&self, options: &Options) {
        if options.output != Output::Screen {
            screen::data([self.json(options)]);
            return;
        }
        let ids = ShortIds::of(&options.state);
        let mut lines = self.head(&ids);
        self.targets
            .iter()
            .for_each(|target| target.add_to(&mut lines));
        lines.extend(self.instance_lines());
        let next = self.next(options, ids.lasting(&self.info.id));
        lines.extend(next.iter().map(|command| line("Next", command)));
        screen::answer(lines);
    }

    fn head(&self, ids: &ShortIds) -> Vec<String> {
        let info = &self.info;
        let began = info.began.as_ref();
        let what = began.map_or_else(
            || "that did not begin".into(),
            |began| format!("{}{}", action(began, ids), operator(began)),
        );
        let mut lines = vec![line("Run", &info.id), line("", &what)];
        if !info.host.is_local() {
            lines.push(line("Host", info.host.as_str()));
        }
        let at = info.at.map(|at| local_time(at, "%Y-%m-%d %H:%M:%S"));
        let took = self.took_us.map_or_else(String::new, |took| {
            format!(", for {}.{:03}s", took / 1_000_000, took / 1000 % 1000)
        });
        lines.push(line("Began", &(at.unwrap_or_default() + &took)));
        if let Some(began) = began {
            lines.push(line("Command", &began.command.join(" ")));
        }
        let why = match &info.end {
            Some(RunEnded::Finished { reason, .. }) => format!(": {reason}"),
            _ => String::new(),
        };
        lines.push(line("End", &(result(info, ids) + &why)));
        lines.extend(self.unreached.as_ref().map(|text| line("", text)));
        lines
    }

    /// Returns a line for each outcome with its instances, then one for each failure.
    fn instance_lines(&self) -> Vec<String> {
        let mut outcomes: BTreeMap<Outcome, Vec<String>> = BTreeMap::new();
        let mut failures = Vec::new();
        for At { event, host } in &self.instances {
            let Event::Instance {
                group,
                pid,
                outcome,
                failure,
                ..
            } = event
            else {
                continue;
            };
            let name = format!("{group} {}", process(host, *pid));
            failures.extend(failure.as_ref().map(|f| format!("{name}: {}", f.text)));
            outcomes.entry(*outcome).or_default().push(name);
        }
        let outcomes = outcomes.into_iter().map(|(outcome, names)| {
            let text = format!(
                "{}: {}",
                screen::counted(names.len(), "instance"),
                names::list(&names, ", ", LISTED)
            );
            line(&json_word(outcome).replace('_', " "), &text)
        });
        let more = failures.len().saturating_sub(LISTED);
        let more = (more > 0).then(|| line("", &format!("and {more} more")));
        let failures = failures
            .iter()
            .take(LISTED)
            .map(|text| line("Failure", text));
        outcomes.chain(failures).chain(more).collect()
    }

    /// Returns the commands to type next: those that close an open run, or the one that reverts it.
    fn next(&self, options: &Options, id: &str) -> Vec<String> {
        let args = &options.state_args;
        let next = self.info.next(args);
        if !next.is_empty() {
            return next;
        }
        let is_change = |t: &TargetView| t.report.from.as_ref() != Some(&t.report.to);
        let is_known = |t: &TargetView| t.report.from.is_some();
        let can_be_reverted = ["converged", "partial", "unproven"].contains(&self.info.verdict())
            && self.targets.iter().all(is_known)
            && self.targets.iter().any(is_change);
        can_be_reverted
            .then(|| format!("hello revert {id}{args}"))
            .into_iter()
            .collect()
    }

    fn json(&self, options: &Options) -> Value {
        let mut run = run_object(&self.info, &options.state_args);
        run["v"] = VERSION.into();
        run["next"] = self.next(options, &self.info.id).into();
        run["took_us"] = self.took_us.into();
        run["targets"] = serde_json::to_value(&self.targets).unwrap_or_default();
        let instances = self.instances.iter().map(|event| {
            let mut value = serde_json::to_value(event).unwrap_or_default();
            if let Some(keys) = value.as_object_mut() {
                keys.remove("event");
            }
            value
        });
        run["instances"] = instances.collect();
        run
    }
}

/// Returns the time between two moments in microseconds.
fn elapsed_us(began: Option<Timestamp>, last: Option<Timestamp>) -> Option<i64> {
    let (began, last) = began.zip(last)?;
    Some(last.as_microsecond() - began.as_microsecond())
}

fn line(word: &str, text: &str) -> String {
    screen::worded(word, &screen::line(text))
}

impl TargetView {
    /// Returns a target of another host. Its contents never leave that host.
    fn elsewhere(report: TargetReport) -> Self {
        let is_change = report.from.as_ref() != Some(&report.to);
        let why = "not shown: its old and new content are only on its host";
        Self {
            hidden: is_change.then(|| why.to_owned()),
            report,
        }
    }

    /// Adds the difference that the run made, unless it is a secret or the bytes are not kept.
    fn read(options: &Options, report: TargetReport) -> Self {
        let mut view = Self {
            report,
            hidden: None,
        };
        let report = &mut view.report;
        let Some(from) = report.from.clone().filter(|from| *from != report.to) else {
            return view;
        };
        if report.secret != Some(false) && !options.reveal {
            view.hidden = Some("not shown: it is a secret; --reveal shows it".into());
            return view;
        }
        let content = |sha256: &str| {
            let bytes = runs::stored(&options.state, sha256)?;
            Content::from_stored(bytes, report.kind)
        };
        let (Some(old), Some(new)) = (content(&from), content(&report.to)) else {
            view.hidden = Some("not shown: its bytes are not kept any more".into());
            return view;
        };
        let name = shown(&report.path);
        let notes = [&from, &report.to].map(|sha256| format!("sha256:{}", short(sha256)));
        let sides = [0, 1].map(|side: usize| Side {
            name: &name,
            note: &notes[side],
        });
        let difference = ContentDifference::of(&old, &new, sides);
        if difference.diff.is_none() && difference.entries.is_empty() {
            view.hidden = Some("not shown: it is no text".into());
        }
        report.entries = difference.entries;
        report.diff = difference.diff;
        view
    }

    fn add_to(&self, lines: &mut Vec<String>) {
        let TargetReport {
            host,
            path,
            from,
            to,
            source,
            entries,
            diff,
            ..
        } = &self.report;
        let source = source
            .as_ref()
            .map_or(String::new(), |s| format!(" from {s}"));
        let text = format!(
            "{}{} sha256:{} -> sha256:{}{source}",
            if host.is_local() {
                String::new()
            } else {
                format!("{host}: ")
            },
            path.display(),
            from.as_deref().map_or("?", short),
            short(to)
        );
        lines.push(line("Target", &text));
        lines.extend(entries.iter().map(|entry| {
            let change = json_word(entry.change);
            screen::row(&format!("  {change:<7} {}", screen::line(&entry.path))).into_owned()
        }));
        lines.extend(self.hidden.iter().map(|why| line("", why)));
        if let Some(diff) = diff {
            lines.push(screen::quoted(diff).trim_end_matches('\n').to_owned());
        }
    }
}
