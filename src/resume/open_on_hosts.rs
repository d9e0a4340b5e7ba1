//! The open run that a command without a name means, where this machine has no index of it: the
//! hosts are asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Deserialize;
use serde_json::Value;

use super::options::Options;
use crate::{
    event::{Abort, Interrupts, Verdict, interrupted},
    fleet::{Fleet, Hosts},
    hosts::{Absence, Answered, Gathered, gather_answers, select},
    inventory::HostName,
    names,
    protocol::{Request, RunQuery},
    runs::{self, RunBegan, Verb},
    screen,
};

/// The most open runs that one host is asked for.
const MOST: usize = 100;

/// A run that a host has left open, or that is under way there.
#[derive(Debug, Deserialize)]
struct HostRow {
    run: String,
    running: bool,
    began: Option<RunBegan>,
}

/// An open run, as its hosts describe it.
#[derive(Debug, Default)]
struct OpenRun {
    hosts: BTreeSet<HostName>,
    /// True if it is under way on one of them.
    running: bool,
    began: Option<RunBegan>,
}

/// The open runs of all hosts, by id.
type OpenRuns = BTreeMap<String, OpenRun>;

/// Returns the id of the one run that is open on the hosts of a fleet.
///
/// # Errors
/// Fails if no run is open there, if one is under way, if several are open, or if too many hosts
/// were not reached.
pub(super) async fn find(
    options: &Options,
    (fleet, hosts): (&Fleet, &Hosts),
    interrupts: &Interrupts,
) -> Result<String, Abort> {
    let asked = async {
        let terms = (&options.on, &options.except);
        let selected = select(hosts, terms, Some(&options.shared.state)).await;
        let selected = selected.map_err(|why| Abort::new(why.verdict(), why.to_string()))?;
        let query = RunQuery {
            last: MOST,
            open: true,
            ..RunQuery::default()
        };
        let gathered = gather_answers(hosts, &selected, &Request::History(query), &[]).await;
        Ok::<_, Abort>((gathered, selected.len()))
    };
    let (gathered, total) = tokio::select! {
        asked = asked => asked?,
        () = interrupted(interrupts, 0) => return Err(Abort::interrupted()),
    };
    let Gathered {
        answers,
        mut absent,
        ..
    } = gathered;
    let mut open = OpenRuns::new();
    for (host, answered) in answers {
        if let Err(why) = add(&mut open, &host, answered) {
            let why = format!("its answer is not understood: {why}");
            absent.push(Absence {
                host,
                verdict: Verdict::Refused,
                why,
            });
        }
    }
    let budget = options.max_unreachable.unwrap_or(hosts.max_unreachable);
    check_absent(&absent, budget.rounded_down(total))?;
    let commands = Commands { options, fleet };
    commands.choose(open, total - absent.len())
}

/// Adds the rows of one host.
fn add(open: &mut OpenRuns, host: &HostName, answered: Answered) -> Result<(), serde_json::Error> {
    let rows: Vec<HostRow> = serde_json::from_value(Value::Array(answered.rows))?;
    for row in rows {
        // A name that is no id of a run is none that a command can take.
        let Some(id) = runs::whole_id(&row.run) else {
            continue;
        };
        let run = open.entry(id).or_default();
        run.hosts.insert(host.clone());
        run.running |= row.running;
        run.began = run.began.take().or(row.began);
    }
    Ok(())
}

/// # Errors
/// Fails if it is not known which runs are open: more hosts than the budget were not reached, or
/// one was reached and did not answer.
fn check_absent(absent: &[Absence], budget: usize) -> Result<(), Abort> {
    let is_away = |absence: &&Absence| absence.verdict == Verdict::Unreachable;
    let away = absent.iter().filter(is_away);
    let refused = absent.iter().find(|absence| !is_away(absence));
    let verdict = match refused {
        _ if away.count() > budget => Verdict::Unreachable,
        Some(refused) => refused.verdict,
        None => return Ok(()),
    };
    let of_verdict = absent.iter().filter(|absence| absence.verdict == verdict);
    let texts = of_verdict.map(|absence| format!("{}: {}", absence.host, absence.why));
    Err(Abort::new(verdict, names::list(texts, "; ", names::MOST)))
}

/// Returns the runs that no other open run continues on each of their hosts: that one ends them.
fn last_of_chains(open: &OpenRuns) -> Vec<(&str, &OpenRun)> {
    let is_continued = |id: &str, run: &OpenRun| {
        open.values().any(|later| {
            let of = later.began.as_ref().and_then(|began| began.of.as_deref());
            of == Some(id) && run.hosts.is_subset(&later.hosts)
        })
    };
    let runs = open.iter().map(|(id, run)| (id.as_str(), run));
    runs.filter(|(id, run)| !is_continued(id, run)).collect()
}

/// The commands that a refusal names.
struct Commands<'a> {
    options: &'a Options,
    fleet: &'a Fleet,
}

impl Commands<'_> {
    fn choose(&self, open: OpenRuns, hosts: usize) -> Result<String, Abort> {
        let hosts = screen::counted(hosts, "host");
        if let Some((id, run)) = open.iter().find(|(_, run)| run.running) {
            let operator = run.began.as_ref().map_or_else(String::new, |began| {
                format!(", for {}", crate::report::operator_name(began))
            });
            let on = names::list(&run.hosts, ", ", names::MOST);
            let why = format!("run {id} is under way on {on}{operator}");
            let look = format!("hello history {id} --gather {}", self.arguments());
            let take_over = format!("{} --take-over", self.command(id));
            return Err(Abort::new(Verdict::Busy, why).with_hint(
                "nothing was touched; let it end, and then look at what it did; or continue it \
                 now, if its coordinator is gone:",
                vec![look, take_over],
            ));
        }
        match last_of_chains(&open).as_slice() {
            [] => {
                let here = match self.options.verb {
                    Verb::Revert => "no run of this machine alone can be reverted",
                    _ => "no run is open here",
                };
                let why = format!("{here}, and none is open on {hosts}");
                let command = format!("hello history{}", self.options.shared.state_args);
                let what = "nothing was touched; see the runs that are kept here:";
                Err(Abort::new(Verdict::NoMatch, why).with_hint(what, vec![command]))
            }
            [(id, _)] => Ok((*id).to_owned()),
            several => {
                let text = |(id, run): &(&str, &OpenRun)| {
                    let on = names::list(&run.hosts, ", ", names::MOST);
                    format!("run {id} on {on}")
                };
                let runs = names::list(several.iter().map(text), "; ", names::MOST);
                let why = format!("{} runs are open on the hosts: {runs}", several.len());
                let ids = several.iter().take(names::MOST);
                let commands = ids.map(|(id, _)| self.command(id)).collect();
                let what = "nothing was touched; name the run:";
                Err(Abort::new(Verdict::Usage, why).with_hint(what, commands))
            }
        }
    }

    fn command(&self, id: &str) -> String {
        let verb = match self.options.verb {
            Verb::Revert => "revert",
            _ => "resume",
        };
        format!("hello {verb} {id} {}", self.arguments())
    }

    fn arguments(&self) -> String {
        format!(
            "{}{}",
            self.fleet.arguments(),
            self.options.shared.state_args
        )
    }
}

/// Tells whether this machine has a run that a command without a name means: open, or under way.
pub(super) fn has_own(state: &Path) -> bool {
    let runs = runs::marked_runs(state);
    runs.iter().any(|run| run.open || run.running)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use serde_json::json;

    use super::*;

    const FIRST: &str = "019ad11100007000a000000000000001";
    const SECOND: &str = "019ad11122227000a000000000000002";

    fn began(of: Option<&str>) -> Value {
        json!({
            "verb": "broadcast", "of": of, "boot_id": "", "command": [], "reason": null,
            "groups": [], "instances": 1, "targets": 1, "waves": 1,
        })
    }

    fn open(rows: &[(&str, &str, Option<&str>)]) -> OpenRuns {
        let mut open = OpenRuns::new();
        for (host, run, of) in rows {
            let host = HostName::new(host).unwrap();
            let answered = Answered {
                rows: vec![json!({ "run": run, "running": false, "began": began(*of) })],
                ..Answered::default()
            };
            add(&mut open, &host, answered).unwrap();
        }
        open
    }

    fn ids(open: &OpenRuns) -> Vec<&str> {
        last_of_chains(open).into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn a_run_that_an_open_run_continues_everywhere_is_ended_by_it() {
        let open = open(&[
            ("h0", FIRST, None),
            ("h0", SECOND, Some(FIRST)),
            ("h1", SECOND, Some(FIRST)),
        ]);
        assert_eq!(ids(&open), [SECOND]);
    }

    #[test]
    fn a_run_that_is_open_on_a_host_without_the_run_that_continues_it_stays() {
        let open = open(&[
            ("h0", FIRST, None),
            ("h1", FIRST, None),
            ("h0", SECOND, Some(FIRST)),
        ]);
        assert_eq!(ids(&open), [FIRST, SECOND]);
    }

    #[test]
    fn a_name_that_is_no_id_is_no_run() {
        assert!(open(&[("h0", "../../etc", None)]).is_empty());
    }

    #[test]
    fn hosts_that_are_away_count_against_the_budget_and_a_refusal_ends_it() {
        let absence = |host: &str, verdict| Absence {
            host: HostName::new(host).unwrap(),
            verdict,
            why: "why".into(),
        };
        let away = [absence("a", Verdict::Unreachable)];
        assert!(check_absent(&away, 1).is_ok());
        let abort = check_absent(&away, 0).unwrap_err();
        assert_eq!(
            (abort.verdict, abort.reason.as_str()),
            (Verdict::Unreachable, "a: why")
        );
        let [away] = away;
        let both = [away, absence("b", Verdict::Refused)];
        let abort = check_absent(&both, 1).unwrap_err();
        assert_eq!(
            (abort.verdict, abort.reason.as_str()),
            (Verdict::Refused, "b: why")
        );
    }
}
