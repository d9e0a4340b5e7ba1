//! The runs of several hosts: each host's own journals are the truth, and the indexes of this
//! machine are listed beside them.

use std::{collections::BTreeMap, io, path::PathBuf};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    answer::failed,
    options::Options,
    replayed,
    table::{self, HostEvents, ListedRun},
};
use crate::{
    event::{VERSION, Verdict},
    fleet::{Fleet, Hosts},
    hosts::{
        Absence, Answered, ClosedIndex, Gathered, SelectFault, close_indexes, gather_answers,
        select, worst,
    },
    inventory::{Expression, HostName},
    names,
    protocol::{Request, RunQuery},
    report::{Output, run_object},
    runs::{self, RunBegan, RunEnded, RunError, RunInfo, ShortIds},
    screen,
};

/// The fewest digits of an id that hosts are asked for. A shorter one would fit many runs.
const DIGITS: usize = 8;

/// The most events of one run that each host is asked for, the last ones. A wave of one instance
/// has about five.
const EVENTS: usize = 200;
/// The most hosts whose events a screen shows.
const SHOWN: usize = 20;

/// The hosts that are asked.
#[derive(Debug)]
pub(crate) struct HostSelection {
    /// The coordinator's fleet file.
    pub fleet: Fleet,
    /// The hosts; all, and this machine, if it has no term.
    pub on: Expression,
    /// The hosts that are not meant.
    pub except: Expression,
}

/// Why no run is listed.
#[derive(Debug, thiserror::Error)]
enum NotListed {
    #[error("no [hosts] in `{}`, so this machine is the whole fleet", .0.display())]
    NoHosts(PathBuf),
    #[error(transparent)]
    Select(#[from] SelectFault),
    #[error("{0:?} is no name of a run on hosts: give {DIGITS} digits of its id or more")]
    Name(String),
    #[error(transparent)]
    Run(#[from] RunError),
}

impl NotListed {
    fn verdict(&self) -> Verdict {
        match self {
            Self::NoHosts(_) | Self::Name(_) => Verdict::Usage,
            Self::Select(why) => why.verdict(),
            Self::Run(why) => why.verdict(),
        }
    }
}

/// A run as an agent describes it.
#[derive(Debug, Deserialize)]
struct HostRow {
    run: String,
    at: Option<Timestamp>,
    open: bool,
    running: bool,
    began: Option<RunBegan>,
    end: Option<RunEnded>,
    next: Vec<String>,
}

/// The runs of all hosts, joined.
#[derive(Debug, Default)]
struct Joined {
    /// The rows of each run: that of this machine, and then those of the hosts in their order.
    runs: BTreeMap<String, Vec<ListedRun>>,
    absent: Vec<Absence>,
    /// The number of hosts that answered.
    answered: usize,
    /// True if a host or this machine keeps more runs than it has listed.
    is_cut: bool,
    /// The open indexes whose runs are over on each of their hosts.
    closed: Vec<ClosedIndex>,
}

/// Prints the runs of the selected hosts. Returns the exit code: 0 if each answered, 11 if one was
/// not reached, 5 if one was reached and did not answer, 3 if no run matches.
pub(crate) async fn run_over_hosts(options: Options, selection: HostSelection) -> u8 {
    match joined(&options, &selection).await {
        Ok(joined) => joined.show(&options),
        Err(why) => failed(&options, why.verdict(), &why.to_string()),
    }
}

async fn joined(options: &Options, selection: &HostSelection) -> Result<Joined, NotListed> {
    let HostSelection { fleet, on, except } = selection;
    let hosts: &Hosts = fleet
        .hosts
        .as_ref()
        .ok_or_else(|| NotListed::NoHosts(fleet.path.clone().unwrap_or_default()))?;
    let state = &options.state;
    let run = options.run.as_deref();
    let query = RunQuery {
        last: options.last,
        run: run.map(|name| digits_of(options, name)).transpose()?,
        open: false,
        events: if run.is_some() { EVENTS } else { 0 },
    };
    let selected = select(hosts, (on, except), Some(state)).await?;
    let mut joined = Joined {
        closed: close_indexes(state, hosts, &selected, |_| true).await,
        ..Joined::default()
    };
    if on.is_empty() && except.is_empty() {
        let unreadable = |e: io::Error| RunError::State(state.clone(), e);
        joined
            .add_this_machine(options, &query)
            .map_err(unreadable)?;
    }
    let request = Request::History(query);
    let Gathered {
        answers, absent, ..
    } = gather_answers(hosts, &selected, &request, &[]).await;
    joined.absent = absent;
    for (host, answered) in answers {
        if let Err(why) = joined.add(&host, answered) {
            joined.absent.push(Absence {
                host,
                verdict: Verdict::Refused,
                why: format!("its answer is not understood: {why}"),
            });
        }
    }
    joined.choose(options, fleet);
    Ok(joined)
}

/// Returns the digits that the hosts are asked for. A place such as `@` is one on this machine.
fn digits_of(options: &Options, name: &str) -> Result<String, NotListed> {
    let digits = runs::digits(name);
    match runs::find(&options.state, name) {
        Ok(id) => Ok(id),
        Err(RunError::Unknown(..) | RunError::Ambiguous(..)) if is_name(&digits) => Ok(digits),
        Err(RunError::Unknown(..)) if !name.starts_with('@') => {
            Err(NotListed::Name(name.to_owned()))
        }
        Err(why) => Err(why.into()),
    }
}

fn is_name(digits: &str) -> bool {
    digits.len() >= DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Joined {
    /// Adds the runs that this machine keeps, with the commands that are typed here.
    fn add_this_machine(&mut self, options: &Options, query: &RunQuery) -> io::Result<()> {
        let mut ids = runs::run_ids(&options.state)?;
        if let Some(digits) = &query.run {
            ids.retain(|id| id.starts_with(digits));
        }
        self.is_cut |= ids.len() > query.last;
        for id in ids.iter().rev().take(query.last) {
            let info = RunInfo::of(&options.state, id);
            let row = ListedRun::of_this_machine(info, options);
            self.runs.entry(id.clone()).or_default().push(row);
        }
        Ok(())
    }

    /// Adds the runs of one host.
    ///
    /// # Errors
    /// Fails if the answer is not one of this version. No run of the host is added then.
    fn add(&mut self, host: &HostName, answered: Answered) -> Result<(), serde_json::Error> {
        let is_event = |row: &Value| row.get("event").is_some();
        let (events, rows): (Vec<Value>, Vec<Value>) =
            answered.rows.into_iter().partition(is_event);
        let rows: Vec<HostRow> = serde_json::from_value(Value::Array(rows))?;
        let number = |key: &str| answered.result.get(key).and_then(Value::as_u64);
        let mut events = number("events").map(|all| HostEvents {
            more: all.saturating_sub(events.len() as u64),
            last: events
                .into_iter()
                .map(|event| of_host(event, host))
                .collect(),
        });
        if let Some(row) = rows.iter().find(|row| runs::whole_id(&row.run).is_none()) {
            let why = format!("{:?} is no id of a run", row.run);
            return Err(<serde_json::Error as serde::de::Error>::custom(why));
        }
        self.is_cut |= number("kept").is_some_and(|kept| kept > rows.len() as u64);
        self.answered += 1;
        for row in rows {
            let listed = ListedRun {
                info: RunInfo {
                    id: row.run.clone(),
                    host: host.clone(),
                    at: row.at,
                    open: row.open,
                    running: row.running,
                    began: row.began,
                    end: row.end,
                    is_old: false,
                },
                next: row.next,
                commands: Vec::new(),
                unreached: None,
                events: events.take(),
            };
            self.runs.entry(row.run).or_default().push(listed);
        }
        Ok(())
    }

    /// Keeps the newest runs, and adds the commands that end an open one from this machine.
    fn choose(&mut self, options: &Options, fleet: &Fleet) {
        while self.runs.len() > options.last {
            self.runs.pop_first();
            self.is_cut = true;
        }
        for (id, rows) in &mut self.runs {
            if rows.iter().any(|row| !row.commands.is_empty()) {
                continue;
            }
            let is_left = |row: &&mut ListedRun| row.info.open && !row.info.running;
            if let Some(row) = rows.iter_mut().find(is_left) {
                let args = format!(" {}{}", fleet.arguments(), options.state_args);
                let verbs: &[&str] = if row.info.installs_old() {
                    &["resume"]
                } else {
                    &["resume", "revert"]
                };
                let command = |verb: &&str| format!("hello {verb} {id}{args}");
                row.commands = verbs.iter().map(command).collect();
            }
        }
    }

    /// Returns how the command ends, and why that is no success.
    fn verdict(&self, options: &Options) -> (Verdict, Option<String>) {
        match (worst(&self.absent), &options.run) {
            (Some(worst), _) => {
                let more = names::and_more(self.absent.len() - 1);
                let reason = format!("{}{more}: {}", worst.host, worst.why);
                (worst.verdict, Some(reason))
            }
            (None, Some(run)) if self.runs.is_empty() => {
                let hosts = screen::counted(self.answered, "host");
                let reason = format!("no run {run} is kept on {hosts}");
                (Verdict::NoMatch, Some(reason))
            }
            _ => (Verdict::Converged, None),
        }
    }

    fn show(self, options: &Options) -> u8 {
        let (verdict, reason) = self.verdict(options);
        let absent: Vec<Value> = self
            .absent
            .iter()
            .map(|absence| json!({ "host": absence.host, "why": absence.why }))
            .collect();
        let closed = self.closed.iter().map(ClosedIndex::line);
        closed.for_each(|line| screen::tell(&line));
        for absence in &self.absent {
            let text = format!("{}: {}", absence.host, absence.why);
            screen::tell(&screen::worded("No answer", &text));
        }
        let totals = self.totals();
        let rows: Vec<ListedRun> = self.runs.into_values().rev().flatten().collect();
        match options.output {
            Output::Screen if rows.is_empty() => {
                screen::tell(&screen::line(&format!("no run: {totals}")));
            }
            Output::Screen => {
                let ids = rows.iter().map(|row| row.info.id.clone());
                let ids = ShortIds::with(&options.state, ids);
                table::print_over_hosts(&rows, &ids, totals);
                show_events(&rows, &ids);
            }
            Output::Json => screen::data([json!({
                "v": VERSION,
                "dry_run": false,
                "verdict": verdict,
                "exit": verdict.exit(),
                "reason": reason,
                "next": [],
                "runs": rows.iter().map(object).collect::<Vec<_>>(),
                "hosts": absent,
            })]),
            Output::Jsonl => screen::data(rows.iter().map(object)),
        }
        if let Some(reason) = reason {
            screen::tell(&screen::failure(&reason));
        }
        verdict.exit()
    }

    /// Returns the number of listed runs, of hosts that answered, and of open runs.
    fn totals(&self) -> String {
        let runs = screen::counted(self.runs.len(), "run");
        let runs = if self.is_cut {
            format!("the last {runs}")
        } else {
            runs
        };
        let is_open = |rows: &&Vec<ListedRun>| {
            let mut rows = rows.iter();
            rows.any(|row| row.info.open && !row.info.running)
        };
        let hosts = screen::counted(self.answered, "host");
        match self.runs.values().filter(is_open).count() {
            0 => format!("{runs} of {hosts}"),
            open => format!("{runs} of {hosts}, {open} open"),
        }
    }
}

/// Shows the events of each host behind each other, those of the first hosts of many.
fn show_events(rows: &[ListedRun], ids: &ShortIds) {
    let with_events = rows
        .iter()
        .filter_map(|row| Some((row, row.events.as_ref()?)));
    for (row, events) in with_events.clone().take(SHOWN) {
        let what = match events.more {
            0 => screen::counted(events.last.len(), "event"),
            more => format!(
                "the last {}, and {more} before",
                screen::counted(events.last.len(), "event")
            ),
        };
        screen::answer([
            String::new(),
            screen::worded("Host", &format!("{}: {what}", row.info.host)),
        ]);
        let mut reporter = replayed(&row.info, events.last.iter().cloned(), ids);
        reporter.close();
    }
    let more = with_events.count().saturating_sub(SHOWN);
    if more > 0 {
        let hosts = screen::counted(more, "more host");
        screen::answer([format!("and {hosts}, whose events --on shows")]);
    }
}

/// Returns an event with the host whose journal has it.
fn of_host(mut event: Value, host: &HostName) -> Value {
    event["host"] = json!(host);
    event
}

/// Returns the JSON object of a row. Its `next` is typed on its host.
fn object(row: &ListedRun) -> Value {
    let mut object = run_object(&row.info, "");
    object["next"] = json!(row.next);
    if let Some(events) = &row.events {
        object["events"] = json!(events.last);
        object["more_events"] = events.more.into();
    }
    object
}
