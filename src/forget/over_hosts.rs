//! `hello forget` over hosts: each host removes its part, after all of them said that they can. The
//! index of this machine goes last, once no part stays.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    chosen::{Chosen, choose, load},
    end::{End, described},
    of_host::HostAnswer,
    options::Options,
    refusal::{Refusal, refusal},
};
use crate::{
    event::Verdict,
    fleet::Hosts,
    hosts::{Absence, Gathered, gather_answers},
    inventory::{HostEntry, HostName},
    names,
    protocol::{KeptItem, Request},
    runs::{self, OpenRuns, RunOverHosts},
    screen,
};

/// The answers of hosts, in their order, and the hosts without one.
type Answers = (Vec<(HostName, HostAnswer)>, Vec<Absence>);

/// Removes the item from its hosts, and says for each what came of it.
///
/// # Errors
/// Fails if nothing was removed: a host refuses, or none has the item.
pub(super) async fn forget(
    options: &Options,
    item: KeptItem,
    run: Option<RunOverHosts>,
) -> Result<Verdict, Refusal> {
    if let (KeptItem::Run(id), Some(_)) = (&item, &run) {
        let state = (options.state.as_path(), options.state_args.as_str());
        runs::check_run(&options.state, id, options.open).map_err(|why| refusal(why, state))?;
    }
    let fleet = load(options, run.as_ref())?;
    let Some(hosts) = &fleet.hosts else {
        return Err(Refusal::new(Verdict::Usage, "no host is named".into()));
    };
    let chosen = choose(options, hosts, run.as_ref()).await;
    let chosen = chosen.map_err(|why| Refusal::new(why.verdict(), why.to_string()))?;
    let end = remove(options, hosts, (item, run.is_some()), chosen).await?;
    end.tell();
    if run.is_some() {
        end.close_index(options).await?;
    }
    Ok(end.verdict())
}

/// Asks each host whether it can, and then removes the item wherever it is.
async fn remove(
    options: &Options,
    hosts: &Hosts,
    (item, has_index): (KeptItem, bool),
    chosen: Chosen,
) -> Result<End, Refusal> {
    let request = |check| Request::Forget {
        item: item.clone(),
        abandon: options.open == OpenRuns::Abandoned,
        check,
    };
    let (checked, mut absent) = ask(hosts, &chosen.entries, &request(true)).await;
    ensure_none_refuses(options, &item, &checked)?;
    absent.extend(chosen.missing.into_iter().map(|host| Absence {
        host,
        verdict: Verdict::Unreachable,
        why: "the fleet file does not have it any more".into(),
    }));
    let (known, unknown): (Vec<_>, Vec<_>) = checked
        .into_iter()
        .partition(|(_, answer)| answer.verdict == Verdict::Converged);
    if known.is_empty() && absent.is_empty() && !has_index {
        let hosts = screen::counted(unknown.len(), "host");
        let why = format!("{} is kept on none of {hosts}", described(&item));
        return Err(Refusal::new(Verdict::NoMatch, why));
    }
    let known: BTreeSet<HostName> = known.into_iter().map(|(host, _)| host).collect();
    let is_known = |entry: &HostEntry| known.contains(&entry.name);
    let entries: Vec<HostEntry> = chosen.entries.into_iter().filter(is_known).collect();
    let (removed, mut lost) = ask(hosts, &entries, &request(false)).await;
    let (done, failed): (Vec<_>, Vec<_>) = removed
        .into_iter()
        .partition(|(_, answer)| matches!(answer.verdict, Verdict::Converged | Verdict::NoMatch));
    lost.extend(failed.into_iter().map(|(host, answer)| Absence {
        host,
        verdict: answer.verdict,
        why: answer.reason.unwrap_or_default(),
    }));
    Ok(End {
        item,
        done,
        unknown: unknown.into_iter().map(|(host, _)| host).collect(),
        absent,
        lost,
        excluded: chosen.excluded,
    })
}

async fn ask(hosts: &Hosts, entries: &[HostEntry], request: &Request) -> Answers {
    let Gathered {
        answers,
        mut absent,
        ..
    } = gather_answers(hosts, entries, request, &[]).await;
    let mut understood = Vec::new();
    for (host, answered) in answers {
        match serde_json::from_value(answered.result.into()) {
            Ok(answer) => understood.push((host, answer)),
            Err(why) => absent.push(Absence {
                host,
                verdict: Verdict::Refused,
                why: format!("its answer is not understood: {why}"),
            }),
        }
    }
    (understood, absent)
}

/// # Errors
/// Fails if a host refuses; nothing is removed on any host then.
fn ensure_none_refuses(
    options: &Options,
    item: &KeptItem,
    checked: &[(HostName, HostAnswer)],
) -> Result<(), Refusal> {
    let mut reasons: BTreeMap<(u8, &str), (Verdict, Vec<&HostName>)> = BTreeMap::new();
    for (host, answer) in checked {
        if matches!(answer.verdict, Verdict::Converged | Verdict::NoMatch) {
            continue;
        }
        let why = answer.reason.as_deref().unwrap_or("it refuses");
        let reason = reasons.entry((answer.verdict.exit(), why));
        let (_, hosts) = reason.or_insert((answer.verdict, Vec::new()));
        hosts.push(host);
    }
    let Some((verdict, _)) = reasons.values().next() else {
        return Ok(());
    };
    let verdict = *verdict;
    let texts = reasons.iter().map(|((_, why), (_, hosts))| {
        let hosts = names::list(hosts, ", ", names::MOST);
        format!("{hosts}: {why}")
    });
    let texts = names::list(texts, "; ", names::MOST);
    let mut refusal = Refusal::new(verdict, format!("nothing was forgotten: {texts}"));
    if let (KeptItem::Run(id), Verdict::Refused) = (item, verdict) {
        let fleet = options.hosts.fleet.as_ref();
        let fleet = fleet.map_or_else(String::new, |f| format!(" --fleet {}", screen::quote(f)));
        refusal.next = vec![format!("hello resume {id}{fleet}{}", options.state_args)];
    }
    Err(refusal)
}
