//! `hello history`: lists the runs that are kept, or shows all events of one run. It reads only,
//! and for the list only the first and the last line of each journal.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    event::{At, Event, VERSION, Verdict},
    inventory::HostName,
    report::{
        Output, Reporter, action, ended, local_time, operator, result, run_object, unreached,
    },
    runs::{self, OldRun, RunBegan, RunElsewhere, RunEnded, RunError, RunInfo, ShortIds},
    screen,
    step::short,
};

mod answer;
mod of_host;
mod options;
mod over_hosts;
mod table;

use self::answer::failed;
pub(crate) use self::{
    answer::no_rows,
    of_host::runs_of_host,
    options::Options,
    over_hosts::{HostSelection, run_over_hosts},
};

/// Prints the runs or the events of one, and returns the exit code.
///
/// 0: printed. 1: the state directory cannot be read. 2: several runs match. 3: no run matches.
#[must_use]
pub(crate) fn run(options: &Options) -> u8 {
    let result = match &options.run {
        None => list(options),
        Some(name) => show(options, name),
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
        Output::Screen => {
            let short = ShortIds::of(&options.state);
            table::print(runs, ids.len(), &short, options);
        }
        Output::Json => {
            let runs: Vec<Value> = runs
                .map(|info| run_object(&info, &options.state_args))
                .collect();
            screen::data([json!({
                "v": VERSION,
                "dry_run": false,
                "verdict": Verdict::Converged,
                "exit": 0,
                "reason": null,
                "next": [],
                "runs": runs,
                "hosts": [],
            })]);
        }
        Output::Jsonl => screen::data(runs.map(|info| run_object(&info, &options.state_args))),
    }
    Ok(0)
}

/// Shows all events of the run that `name` means.
fn show(options: &Options, name: &str) -> std::io::Result<u8> {
    let id = match runs::find(&options.state, name) {
        Ok(id) => id,
        Err(RunError::State(_, e)) => return Err(e),
        Err(e) => return Ok(failed(options, e.verdict(), &e.to_string())),
    };
    let id = id.as_str();
    let info = RunInfo::of(&options.state, id);
    // A run that ended before its first record has no journal.
    let events: Box<dyn Iterator<Item = Value>> = match runs::events(&options.state, id) {
        Ok(events) => Box::new(events),
        Err(e) if info.began.is_some() => return Err(e),
        Err(_) => Box::new(std::iter::empty()),
    };
    match options.output {
        Output::Screen => replay(&info, events, options),
        Output::Json => {
            let mut run = run_object(&info, &options.state_args);
            run["v"] = VERSION.into();
            run["events"] = events.collect();
            screen::data([run]);
        }
        Output::Jsonl => screen::data(events),
    }
    Ok(0)
}

/// Shows the first lines of a run.
fn show_beginning(info: &RunInfo, began: &RunBegan, ids: &ShortIds, reporter: &mut Reporter) {
    let RunBegan {
        instances,
        targets,
        waves,
        over_hosts,
        ..
    } = began;
    reporter.line(
        "Began",
        &format!("{}{}", action(began, ids), operator(began)),
    );
    reporter.line(
        "",
        &format!(
            "on {}: {}{}, {}",
            info.at.map_or_else(String::new, |at| local_time(at, "%F")),
            screen::counted(*instances, "instance"),
            // Only the hosts know the targets of a run over hosts.
            if over_hosts.is_some() {
                String::new()
            } else {
                format!(", {}", screen::counted(*targets, "target"))
            },
            screen::counted(*waves, "wave")
        ),
    );
    reporter.line("Command", &began.command.join(" "));
}

/// Shows what a wave was about to do on its host.
fn show_intent(info: &RunInfo, host: &HostName, event: Event, reporter: &mut Reporter) {
    let on = on_host(host);
    if let Event::Intent {
        direction,
        wave,
        targets,
        pids,
        ..
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
                "{on}{wave}/{waves}: signalling {}",
                screen::counted(pids.len(), "instance")
            ),
        );
        for target in targets {
            let from = target.from.as_deref().map_or("?", short);
            reporter.line(
                "",
                &format!(
                    "{on}{} sha256:{from} -> sha256:{}",
                    target.path.display(),
                    short(&target.to)
                ),
            );
        }
    }
}

/// Returns the beginning of a text about another host; empty for this machine.
fn on_host(host: &HostName) -> String {
    if host.is_local() {
        String::new()
    } else {
        format!("{host}: ")
    }
}

/// Shows all events with their times, as the run itself showed them, and the commands that follow.
fn replay(info: &RunInfo, events: impl Iterator<Item = Value>, options: &Options) {
    let state_args = &options.state_args;
    let ids = ShortIds::of(&options.state);
    let mut reporter = replayed(info, events, &ids);
    if let Some(text) = unreached(&options.state, info, &ids) {
        reporter.line("", &text);
    }
    for command in info.next(state_args) {
        reporter.line("Next", &command);
    }
    if let Some(RunElsewhere { note, commands }) = info.elsewhere() {
        reporter.line("Open run", &note);
        for command in commands {
            reporter.line("Next", &command);
        }
    }
    if let Some(OldRun { note, command }) = info.old_version(state_args) {
        reporter.line("Open run", note);
        reporter.line("Next", &command);
    }
    reporter.close();
}

/// Shows events with their times, as the run itself showed them.
fn replayed(info: &RunInfo, events: impl Iterator<Item = Value>, ids: &ShortIds) -> Reporter {
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
            show_beginning(info, began, ids, &mut reporter);
            continue;
        }
        if let Some(end) = RunEnded::of(value.clone()) {
            let why = value["reason"]
                .as_str()
                .map_or_else(String::new, |why| format!(": {why}"));
            let host = serde_json::from_value(value["host"].clone());
            let on = on_host(&host.unwrap_or_else(|_| HostName::local()));
            reporter.line("End", &format!("{on}{}{why}", ended(&end, ids)));
            continue;
        }
        let At { host, event } = match serde_json::from_value::<At<Event>>(value.clone()) {
            Ok(event) => event,
            // An event of another version of this program.
            Err(_) => {
                show_unknown(value, &reporter);
                continue;
            }
        };
        reporter.event_of(&host, &event);
        show_intent(info, &host, event, &mut reporter);
    }
    reporter.set_time(String::new(), Duration::ZERO);
    if info.end.is_none() {
        reporter.line("No end", &result(info, ids));
    }
    reporter
}

/// Shows an event as the keys and values that the journal has.
fn show_unknown(mut value: Value, reporter: &Reporter) {
    let name = value["event"].as_str().unwrap_or("?").to_owned();
    if let Some(object) = value.as_object_mut() {
        object.retain(|key, _| !["event", "v", "at"].contains(&key.as_str()));
    }
    reporter.line(&name, &value.to_string());
}
