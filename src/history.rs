//! `hello history`: the runs that were, from the beginning and the end of their journals; of one,
//! everything that happened. Reads only.

use std::{path::PathBuf, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use crate::{
    event::{Event, VERSION, Verdict},
    names,
    report::{Output, Reporter, refused},
    runs::{self, Operator, RunBegan, RunEnded, RunInfo},
    screen,
    step::short,
};

/// The most run ids in the error for an ambiguous prefix.
const NAMED: usize = 5;

/// Checked options.
#[derive(Debug, Clone)]
pub struct Options {
    /// One run, by the first digits of its id.
    pub run: Option<String>,
    /// Without one, so many, newest first.
    pub last: usize,
    /// Where runs are kept.
    pub state: PathBuf,
    /// What commands need besides, so that they look there.
    pub flag: String,
    /// What stdout carries; `Screen` is lines for people.
    pub output: Output,
}

/// Shows them; answers the exit code: 0, 3 there is no such run, 2 several are meant, 1 the state
/// directory cannot be read.
#[must_use]
pub fn run(options: &Options) -> u8 {
    let said = match &options.run {
        None => list(options),
        Some(prefix) => one(options, prefix),
    };
    said.unwrap_or_else(|e| {
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

fn failed(options: &Options, verdict: Verdict, why: &str) -> u8 {
    screen::tell(&screen::failure(why));
    if options.output != Output::Screen {
        let next = [format!("hello history{}", options.flag)];
        screen::data([refused(
            verdict,
            why,
            &next,
            serde_json::Map::from_iter([("runs".to_owned(), json!([]))]),
        )]);
    }
    verdict.exit()
}

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
        Output::Screen => runs.for_each(|past| {
            let next = past.next(&options.flag).into_iter().flatten();
            screen::answer(
                [line(&past)]
                    .into_iter()
                    .chain(next.map(|next| format!("    {}", screen::line(&next)))),
            );
        }),
        Output::Json => {
            let all: Vec<Value> = runs.map(|past| object(&past, &options.flag)).collect();
            screen::data([
                json!({ "v": VERSION, "dry_run": false, "exit": 0, "next": [], "runs": all }),
            ]);
        }
        Output::Jsonl => screen::data(runs.map(|past| object(&past, &options.flag))),
    }
    Ok(0)
}

fn one(options: &Options, prefix: &str) -> std::io::Result<u8> {
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
                    names::list(found.iter().rev(), ", ", NAMED)
                ),
            ),
        });
    };
    let past = RunInfo::of(&options.state, id);
    // A run that never began may have no journal.
    let events: Box<dyn Iterator<Item = Value>> = match runs::events(&options.state, id) {
        Ok(events) => Box::new(events),
        Err(e) if past.began.is_some() => return Err(e),
        Err(_) => Box::new(std::iter::empty()),
    };
    match options.output {
        Output::Screen => tell(&past, events, &options.flag),
        Output::Json => {
            let mut whole = object(&past, &options.flag);
            whole["v"] = VERSION.into();
            whole["events"] = events.collect();
            screen::data([whole]);
        }
        Output::Jsonl => screen::data(events),
    }
    Ok(0)
}

/// A run as JSON tells it.
fn object(past: &RunInfo, flag: &str) -> Value {
    let next = past.next(flag).unwrap_or_default();
    let next: Vec<&String> = next.iter().filter(|command| !command.is_empty()).collect();
    json!({
        "run": past.id,
        "at": past.at,
        "verdict": past.verdict(),
        "open": past.open,
        "running": past.running,
        "began": past.began,
        "end": past.end,
        "next": next,
    })
}

/// A run on one line, for people.
fn line(past: &RunInfo) -> String {
    let at = past
        .at
        .map_or_else(String::new, |at| shown(at, "%Y-%m-%d %H:%M:%S"));
    let (what, by) = past.began.as_ref().map_or_else(
        || ("?".into(), String::new()),
        |began| (verb(began), by(began)),
    );
    screen::line(&format!("{} {at} {what}: {}{by}", past.id, stands(past))).into_owned()
}

fn shown(at: Timestamp, format: &str) -> String {
    at.to_zoned(TimeZone::system()).strftime(format).to_string()
}

/// "revert of 0198.. of web, api".
fn verb(began: &RunBegan) -> String {
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

fn by(began: &RunBegan) -> String {
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

/// "converged (3 confirmed)".
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

/// Where a run stands, for people.
fn stands(past: &RunInfo) -> String {
    match &past.end {
        _ if past.running => "it runs now".into(),
        Some(end) => ended(end) + if past.open { ", open" } else { "" },
        None => past.verdict().replace('_', " "),
    }
}

/// The first lines of a run.
fn tell_beginning(past: &RunInfo, began: &RunBegan, reporter: &mut Reporter) {
    let RunBegan {
        instances,
        targets,
        waves,
        ..
    } = began;
    reporter.line("Began", &format!("{}{}", verb(began), by(began)));
    reporter.line(
        "",
        &format!(
            "on {}: {}, {}, {}",
            past.at.map_or_else(String::new, |at| shown(at, "%F")),
            screen::counted(*instances, "instance"),
            screen::counted(*targets, "target"),
            screen::counted(*waves, "wave")
        ),
    );
    reporter.line("Command", &began.command.join(" "));
}

/// What a wave was about to do.
fn tell_intent(past: &RunInfo, event: Event, reporter: &mut Reporter) {
    if let Event::Intent {
        undo,
        wave,
        targets,
        pids,
    } = event
    {
        let waves = past.began.as_ref().map_or(wave, |began| began.waves);
        reporter.line(
            if undo { "Back" } else { "Wave" },
            &format!(
                "{wave}/{waves}: {} to be signalled",
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

/// Everything that happened, in time, as the run itself had shown it.
fn tell(past: &RunInfo, events: impl Iterator<Item = Value>, flag: &str) {
    let mut reporter = Reporter::for_replay();
    let mut first = None;
    for mut value in events {
        let at = value["at"]
            .as_str()
            .and_then(|at| at.parse::<Timestamp>().ok());
        let first = first.get_or_insert(at);
        let elapsed = at.zip(*first).map_or(Duration::ZERO, |(at, first)| {
            at.duration_since(first).try_into().unwrap_or_default()
        });
        reporter.set_time(
            at.map_or_else(String::new, |at| shown(at, "%H:%M:%S%.3f")),
            elapsed,
        );
        if let Some(began) = past.began.as_ref().filter(|_| value["event"] == "began") {
            tell_beginning(past, began, &mut reporter);
            continue;
        }
        let end = RunEnded::of(value.clone());
        if let Some(end) = end {
            let why = value["reason"]
                .as_str()
                .map_or_else(String::new, |why| format!(": {why}"));
            reporter.line("End", &format!("{}{why}", ended(&end)));
            continue;
        }
        let event: Event = match serde_json::from_value(value.clone()) {
            Ok(event) => event,
            // Of another version of this program.
            Err(_) => {
                let word = value["event"].as_str().unwrap_or("?").to_owned();
                value.as_object_mut().into_iter().for_each(|object| {
                    object.retain(|key, _| !["event", "v", "at"].contains(&key.as_str()))
                });
                reporter.line(&word, &value.to_string());
                continue;
            }
        };
        reporter.event(&event);
        tell_intent(past, event, &mut reporter);
    }
    reporter.set_time(String::new(), Duration::ZERO);
    if past.end.is_none() {
        reporter.line("No end", &stands(past));
    }
    for command in past.next(flag).into_iter().flatten() {
        reporter.line("Next", &command);
    }
    reporter.close();
}
