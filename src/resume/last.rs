//! The run that `hello revert` without a name means.

use std::path::Path;

use crate::{
    event::{Abort, Verdict},
    names,
    report::{action, local_time, operator, result},
    runs::{self, LastChange, ShortIds},
    screen,
    step::short,
};

/// The run that a revert without a name goes back over.
#[derive(Debug)]
pub(crate) struct LastRun {
    /// Its id.
    pub id: String,
    /// The first digits of its id, which name no later run either.
    pub short: String,
    /// What it did, and what a revert would install, for the operator.
    pub text: String,
}

/// Returns the last run whose change is in force; none if a run is open or under way, which comes
/// first. Touches nothing.
///
/// # Errors
/// Fails if no run can be reverted, or if the state directory cannot be used.
pub(crate) fn last(state: &Path) -> Result<Option<LastRun>, Abort> {
    let unusable = |e: std::io::Error| runs::unusable(state, &e);
    if state.exists() {
        runs::trusted(state).map_err(unusable)?;
    }
    let marked = runs::marked_runs(state);
    if marked.iter().any(|run| run.open || run.running) {
        return Ok(None);
    }
    let last = runs::last_change(state).map_err(unusable)?.ok_or_else(|| {
        let why = format!(
            "no run in `{}` changed a config that is still in force, so there is none to revert",
            state.display()
        );
        Abort::new(Verdict::NoMatch, why)
    })?;
    let ids = ShortIds::of(state);
    // Of a run over hosts, each host knows its own old contents, and refuses where it does not.
    let here = last.targets.iter().filter(|_| last.hosts.is_none());
    let unknown = here.filter(|target| target.from.is_none());
    let unknown: Vec<_> = unknown.map(|t| format!("`{}`", t.path.display())).collect();
    if !unknown.is_empty() {
        let why = format!(
            "the last run that changed a config is {}, and it cannot be reverted: the content \
             that was served before it is not known: {}",
            last.run.id,
            names::list(unknown, ", ", names::MOST)
        );
        return Err(Abort::new(Verdict::Refused, why));
    }
    Ok(Some(LastRun {
        short: ids.lasting(&last.run.id).to_owned(),
        text: text(&last, &ids),
        id: last.run.id,
    }))
}

/// Returns the lines that describe a run, and the targets as a revert would change them.
fn text(last: &LastChange, ids: &ShortIds) -> String {
    let run = &last.run;
    let began = run.began.as_ref();
    let what = began.map_or_else(String::new, |began| {
        format!("{}{}", action(began, ids), operator(began))
    });
    let at = run.at.map_or_else(String::new, |at| {
        format!("{}, ", local_time(at, "%Y-%m-%d %H:%M:%S"))
    });
    let instances = began.map_or(0, |began| began.instances);
    let end = format!(
        "{at}{}: {}",
        screen::counted(instances, "instance"),
        result(run, ids)
    );
    let head = [
        ("Last run", format!("{} {what}", ids.of_run(&run.id))),
        ("", end),
    ];
    let targets = last.targets.iter().take(names::MOST).map(|target| {
        let old = target.from.as_deref().map_or("?", short);
        let path = target.path.display();
        if last.hosts.is_some() {
            let text = format!(
                "{path} on {}: sha256:{} -> its content from before the run",
                target.host,
                short(&target.to)
            );
            return ("Revert", text);
        }
        let text = format!("{path} sha256:{} -> sha256:{old}", short(&target.to));
        ("Revert", text)
    });
    let more = last.targets.len().saturating_sub(names::MOST);
    let more = (more > 0).then(|| ("", format!("and {}", screen::counted(more, "more target"))));
    let lines = head.into_iter().chain(targets).chain(more);
    let lines: Vec<String> = lines
        .map(|(word, text)| screen::worded(word, &screen::line(&text)))
        .collect();
    lines.join("\n")
}
