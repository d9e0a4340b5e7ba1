//! The hosts that `hello forget` is about.

use std::{collections::BTreeSet, path::PathBuf};

use super::{options::Options, refusal::Refusal};
use crate::{
    event::Verdict,
    fleet::{Fleet, Hosts},
    hosts::{SelectFault, select},
    inventory::{Expression, HostEntry, HostName},
    runs::RunOverHosts,
};

/// The hosts of one command.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// Those that are asked.
    pub(super) entries: Vec<HostEntry>,
    /// Hosts of the run that the fleet file does not have any more.
    pub(super) missing: Vec<HostName>,
    /// Hosts of the run that the operator did not select.
    pub(super) excluded: Vec<HostName>,
}

/// Loads the file that names the hosts: the one of the command, of the run, or the usual one.
pub(super) fn load(options: &Options, run: Option<&RunOverHosts>) -> Result<Fleet, Refusal> {
    let of_run = run.map(|run| &run.fleet);
    let of_run = of_run.filter(|path| !path.as_os_str().is_empty());
    let choice = &options.hosts;
    let path: Option<&PathBuf> = choice.fleet.as_ref().or(of_run).or(choice.usual.as_ref());
    let Some(path) = path else {
        let why = "no fleet file names the hosts: name it with --fleet";
        return Err(Refusal::new(Verdict::Usage, why.into()));
    };
    let hint = "name the file of the hosts with --fleet, or forget with --here only what this \
                machine keeps";
    let fleet =
        Fleet::load(path).map_err(|why| Refusal::new(Verdict::Usage, format!("{why}; {hint}")))?;
    if fleet.hosts.is_none() {
        let why = format!("no [hosts] in `{}`; {hint}", path.display());
        return Err(Refusal::new(Verdict::Usage, why));
    }
    Ok(fleet)
}

/// Returns the hosts of the run that the command means; without an index, the selected ones.
///
/// # Errors
/// Fails if the inventory cannot be read, or if a term fits no host.
pub(super) async fn choose(
    options: &Options,
    hosts: &Hosts,
    run: Option<&RunOverHosts>,
) -> Result<Chosen, SelectFault> {
    let (on, except) = (&options.hosts.on, &options.hosts.except);
    let state = Some(options.state.as_path());
    let selected = select(hosts, (on, except), state).await?;
    let Some(run) = run else {
        return Ok(Chosen {
            entries: selected,
            ..Chosen::default()
        });
    };
    let of_run: BTreeSet<&HostName> = run.hosts.iter().collect();
    let is_part = |entry: &HostEntry| of_run.contains(&entry.name);
    let entries: Vec<HostEntry> = selected.into_iter().filter(is_part).collect();
    let asked: BTreeSet<&HostName> = entries.iter().map(|entry| &entry.name).collect();
    let others = run.hosts.iter().filter(|host| !asked.contains(host));
    let others: Vec<HostName> = others.cloned().collect();
    let (excluded, missing) = if !on.is_empty() {
        (others, Vec::new())
    } else if except.is_empty() {
        (Vec::new(), others)
    } else {
        let all = Expression::default();
        let known = select(hosts, (&all, &all), state).await?;
        let is_in_fleet = |host: &HostName| known.iter().any(|entry| entry.name == *host);
        others.into_iter().partition(is_in_fleet)
    };
    Ok(Chosen {
        entries,
        missing,
        excluded,
    })
}
