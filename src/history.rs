//! `hello history`: lists the runs that are kept, or shows all events of one run. It reads only,
//! and for the list only the first and the last line of each journal.

use std::{path::PathBuf, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use crate::{
    event::{Event, VERSION, Verdict},
    names,
    report::{Output, Reporter, fail},
    runs::{self, Operator, RunBegan, RunEnded, RunInfo},
    screen,
    step::short,
};

/// The most ids that an error names if several runs match; more do not fit a line.
const LISTED: usize = 5;

/// Checked options.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The first digits of the id of one run; none to list runs.
    pub run: Option<String>,
    /// The most runs that are listed, newest first.
    pub last: usize,
    /// The state directory.
    pub state: PathBuf,
    /// ` --state DIR` to append to suggested commands; empty for the default directory.
    pub state_args: String,
    /// What stdout carries; `Screen` is text.
    pub output: Output,
}

/// Prints the runs or the events of one, and returns the exit code.
///
/// 0: printed. 1: the state directory cannot be read. 2: several runs match. 3: no run matches.
#[must_use]
pub(crate) fn run(options: &Options) -> u8 {
    let result = match &options.run {
        None => list(options),
        Some(prefix) => show(options, prefix),
    };
    result.unwrap_or_else(|e| {
        failed(
            options,
            Verdict::Failed,
            &format!(
                "the state directory `{}` cannot be read: {e}",
                options.state.display()
            ),
        )
    })
}

/// Prints why there is nothing to show, and returns the exit code.
fn failed(options: &Options, verdict: Verdict, why: &str) -> u8 {
    let next = [format!("hello history{}", options.state_args)];
    let rest = serde_json::Map::from_iter([("runs".to_owned(), json!([]))]);
    fail(options.output, verdict, why, &next, rest)
}

/// Lists the newest runs.
fn list(options: &Options) -> std::io::Result<u8> {
    let mut ids = runs::run_ids(&options.state)?;
    ids.reverse();
    if ids.is_empty() {
        screen::tell(&screen::line(&format!(
            "no run is kept in `{}`",
            options.state.display()
        )));
    }
    let runs = ids
        .iter()
        .take(options.last)
        .map(|id| RunInfo::of(&options.state, id));
    match options.output {
        Output::Screen => runs.for_each(|info| {
            let next = info.next(&options.state_args).into_iter().flatten();
            let next = next.chain(info.old_version_note(&options.state_args));
            screen::answer(
                [line(&info)]
                    .into_iter()
                    .chain(next.map(|next| format!("    {}", screen::line(&next)))),
            );
        }),
        Output::Json => {
            let runs: Vec<Value> = runs
                .map(|info| object(&info, &options.state_args))
                .collect();
            screen::data([
                json!({ "v": VERSION, "dry_run": false, "exit": 0, "next": [], "runs": runs }),
            ]);
        }
        Output::Jsonl => screen::data(runs.map(|info| object(&info, &options.state_args))),
    }
    Ok(0)
}

/// Shows all events of the run whose id begins with `prefix`.
fn show(options: &Options, prefix: &str) -> std::io::Result<u8> {
    let found = runs::find(&options.state, prefix)?;
    let [id] = found.as_slice() else {
        return Ok(match found.as_slice() {
            [] => failed(
                options,
                Verdict::NoMatch,
                &format!(
                    "no run in `{}` begins with {prefix:?}",
                    options.state.display()
                ),
            ),
            _ => failed(
                options,
                Verdict::Usage,
                &format!(
                    "{} runs begin with {prefix:?}: {}",
                    found.len(),
                    names::list(found.iter().rev(), ", ", LISTED)
                ),
            ),
        });
    };
    let info = RunInfo::of(&options.state, id);
    // A run that ended before its first record has no journal.
    let events: Box<dyn Iterator<Item = Value>> = match runs::events(&options.state, id) {
        Ok(events) => Box::new(events),
        Err(e) if info.began.is_some() => return Err(e),
        Err(_) => Box::new(std::iter::empty()),
    };
    match options.output {
        Output::Screen => replay(&info, events, &options.state_args),
        Output::Json => {
            let mut run = object(&info, &options.state_args);
            run["v"] = VERSION.into();
            run["events"] = events.collect();
            screen::data([run]);
        }
        Output::Jsonl => screen::data(events),
    }
    Ok(0)
}

/// Returns the JSON object of a run.
fn object(info: &RunInfo, state_args: &str) -> Value {
    let next = info.next(state_args).unwrap_or_default();
    let next: Vec<&String> = next.iter().filter(|command| !command.is_empty()).collect();
    json!({
        "run": info.id,
        "at": info.at,
        "verdict": info.verdict(),
        "open": info.open,
        "running": info.running,
        "began": info.began,
        "end": info.end,
        "next": next,
    })
}

/// Returns the line of a run in the list.
fn line(info: &RunInfo) -> String {
    let at = info
        .at
        .map_or_else(String::new, |at| local_time(at, "%Y-%m-%d %H:%M:%S"));
    let (what, operator) = info.began.as_ref().map_or_else(
        || ("?".into(), String::new()),
        |began| (action(began), operator(began)),
    );
    screen::line(&format!(
        "{} {at} {what}: {}{operator}",
        info.id,
        result(info)
    ))
    .into_owned()
}

fn local_time(at: Timestamp, format: &str) -> String {
    at.to_zoned(TimeZone::system()).strftime(format).to_string()
}

/// Returns what a run did: "revert of run 0198.. of web, api".
fn action(began: &RunBegan) -> String {
    let verb = serde_json::to_value(began.verb).unwrap_or_default();
    let of = began
        .of
        .as_ref()
        .map_or_else(String::new, |of| format!(" of run {of}"));
    format!(
        "{}{of} of {}",
        verb.as_str().unwrap_or_default(),
        began.groups.join(", ")
    )
}

/// Returns the operator of a run, and the reason if there is one: ", by uid 0 (alice): urgent".
fn operator(began: &RunBegan) -> String {
    let Operator {
        uid,
        login_uid,
        sudo_user,
        ci_job,
    } = &began.operator;
    let login = login_uid
        .filter(|login| login != uid)
        .map(|login| format!("logged in as uid {login}"));
    let more: Vec<String> = [login, sudo_user.clone(), ci_job.clone()]
        .into_iter()
        .flatten()
        .collect();
    let more = if more.is_empty() {
        String::new()
    } else {
        format!(" ({})", more.join(", "))
    };
    format!(
        ", by uid {uid}{more}{}",
        began
            .reason
            .as_ref()
            .map_or_else(String::new, |reason| format!(": {reason}"))
    )
}

/// Returns the end of a run: "converged (3 confirmed)".
fn ended(end: &RunEnded) -> String {
    match end {
        RunEnded::Finished {
            verdict, counts, ..
        } => {
            let counts: Vec<String> = counts
                .iter()
                .map(|(state, n)| format!("{n} {state}"))
                .collect();
            let counts = if counts.is_empty() {
                String::new()
            } else {
                format!(" ({})", counts.join(", "))
            };
            format!("{verdict}{counts}").replace('_', " ")
        }
        RunEnded::SupersededBy { run, .. } => format!("superseded by run {run}"),
    }
}

/// Returns how a run ended, or that it did not.
fn result(info: &RunInfo) -> String {
    match &info.end {
        _ if info.running => "it runs now".into(),
        Some(end) => ended(end) + if info.open { ", open" } else { "" },
        None => info.verdict().replace('_', " "),
    }
}

/// Shows the first lines of a run.
fn show_beginning(info: &RunInfo, began: &RunBegan, reporter: &mut Reporter) {
    let RunBegan {
        instances,
        targets,
        waves,
        ..
    } = began;
    reporter.line("Began", &format!("{}{}", action(began), operator(began)));
    reporter.line(
        "",
        &format!(
            "on {}: {}, {}, {}",
            info.at.map_or_else(String::new, |at| local_time(at, "%F")),
            screen::counted(*instances, "instance"),
            screen::counted(*targets, "target"),
            screen::counted(*waves, "wave")
        ),
    );
    reporter.line("Command", &began.command.join(" "));
}

/// Shows what a wave was about to do.
fn show_intent(info: &RunInfo, event: Event, reporter: &mut Reporter) {
    if let Event::Intent {
        direction,
        wave,
        targets,
        pids,
    } = event
    {
        let waves = info.began.as_ref().map_or(wave, |began| began.waves);
        reporter.line(
            if direction.is_back() {
                "Roll back"
            } else {
                "Wave"
            },
            &format!(
                "{wave}/{waves}: signalling {}",
                screen::counted(pids.len(), "instance")
            ),
        );
        for target in targets {
            let from = target.from.as_deref().map_or("?", short);
            reporter.line(
                "",
                &format!(
                    "{} sha256:{from} -> sha256:{}",
                    target.path.display(),
                    short(&target.to)
                ),
            );
        }
    }
}

/// Shows all events with their times, as the run itself showed them.
fn replay(info: &RunInfo, events: impl Iterator<Item = Value>, state_args: &str) {
    let mut reporter = Reporter::for_replay();
    let mut first = None;
    for value in events {
        let at = value["at"]
            .as_str()
            .and_then(|at| at.parse::<Timestamp>().ok());
        let first = first.get_or_insert(at);
        let elapsed = at.zip(*first).map_or(Duration::ZERO, |(at, first)| {
            at.duration_since(first).try_into().unwrap_or_default()
        });
        reporter.set_time(
            at.map_or_else(String::new, |at| local_time(at, "%H:%M:%S%.3f")),
            elapsed,
        );
        if let Some(began) = info.began.as_ref().filter(|_| value["event"] == "began") {
            show_beginning(info, began, &mut reporter);
            continue;
        }
        if let Some(end) = RunEnded::of(value.clone()) {
            let why = value["reason"]
                .as_str()
                .map_or_else(String::new, |why| format!(": {why}"));
            reporter.line("End", &format!("{}{why}", ended(&end)));
            continue;
        }
        let event: Event = match serde_json::from_value(value.clone()) {
            Ok(event) => event,
            // An event of another version of this program.
            Err(_) => {
                show_unknown(value, &reporter);
                continue;
            }
        };
        reporter.event(&event);
        show_intent(info, event, &mut reporter);
    }
    reporter.set_time(String::new(), Duration::ZERO);
    if info.end.is_none() {
        reporter.line("No end", &result(info));
    }
    for command in info.next(state_args).into_iter().flatten() {
        reporter.line("Next", &command);
    }
    if let Some(note) = info.old_version_note(state_args) {
        reporter.line("Next", &note);
    }
    reporter.close();
}

/// Shows an event as the keys and values that the journal has.
fn show_unknown(mut value: Value, reporter: &Reporter) {
    let name = value["event"].as_str().unwrap_or("?").to_owned();
    if let Some(object) = value.as_object_mut() {
        object.retain(|key, _| !["event", "v", "at"].contains(&key.as_str()));
    }
    reporter.line(&name, &value.to_string());
}
