//! A broadcast over the hosts of a fleet file.

use std::collections::BTreeMap;

use super::options::Options;
use crate::{
    change::{Change, Changes},
    event::{Abort, Event, Interrupts, Verdict},
    execute::{Candidates, HostsOrder, execute_over_hosts},
    fleet::Hosts,
    hosts::claimed_operator,
    inventory::HostName,
    protocol::{ChangeOrder, CountedGroups, MAX_BLOB, SurveyOrder, TakeOver},
    report::RunReport,
    runs,
};

/// Carries out the command on every host that it selects.
pub(super) async fn attempt(
    options: &Options,
    hosts: &Hosts,
    interrupts: &mut Interrupts,
    on_event: &mut dyn FnMut(&HostName, &Event),
) -> Result<RunReport, Abort> {
    let changes = Changes::read(&options.change)?;
    let mut candidates = Candidates::default();
    let mut named = BTreeMap::new();
    let mut others = ChangeOrder::Adopt;
    for (group, change) in changes.all() {
        let order = change_order(change, &mut candidates)?;
        match group {
            Some(group) => drop(named.insert(group.to_owned(), order)),
            None => others = order,
        }
    }
    let shared = &options.shared;
    let session = shared.of_session(&runs::new_id());
    let selection = &options.selection;
    let order = HostsOrder {
        fleet: &options.fleet,
        hosts,
        on: &selection.on,
        except: &selection.except,
        max_unreachable: selection.max_unreachable,
        count: options.count,
        confirm_within: selection.confirm_within,
        take_over: selection.take_over.then(|| TakeOver {
            groups: Some(selection.groups.clone()),
            operator: claimed_operator(),
            ..TakeOver::default()
        }),
        verb: options.verb,
        order: SurveyOrder {
            groups: selection.groups.clone(),
            every: selection.every,
            named,
            others,
            prune: changes.prune,
            overwrite: options.overwrite,
            validate: shared.validate,
            include_unresponsive: shared.include_unresponsive,
            counted: CountedGroups::of(&options.fleet),
            now: options.now,
            dry_run: shared.dry_run,
            timeout: shared.timeout,
            lock_timeout: shared.lock_timeout,
            of: None,
            reason: shared.reason.clone(),
            command: session.command.clone(),
        },
        candidates,
        earlier: None,
        options: session,
    };
    let ended = execute_over_hosts(&order, interrupts, on_event).await;
    ended.map_err(|abort| with_next_step(abort, options))
}

/// Adds the commands that end an open run over the same targets, or the command that says of each
/// host what repairs it, where hosts were not reached.
fn with_next_step(abort: Abort, options: &Options) -> Abort {
    if let Some(open) = &abort.goes_first {
        let args = format!("{}{}", options.fleet.arguments(), options.shared.state_args);
        let resume = ["resume", "revert"].map(|verb| format!("hello {verb} {open} {args}"));
        let doctor = format!("hello doctor {}", options.fleet.arguments());
        let commands = std::iter::once(doctor).chain(resume).collect();
        return abort.with_hint(
            "nothing was touched; why, what to do about it, and what ends the open run:",
            commands,
        );
    }
    if abort.verdict != Verdict::Unreachable || abort.hint.is_some() {
        return abort;
    }
    abort.with_hint(
        "nothing was touched; what repairs each host, if `--max-unreachable N` is not to go \
         without them:",
        vec![format!("hello hosts {}", options.fleet.arguments())],
    )
}

/// Returns a change as hosts are told of it, and adds its bytes to the candidates.
fn change_order(change: &Change, candidates: &mut Candidates) -> Result<ChangeOrder, Abort> {
    let (named, kind, content) = match change {
        Change::Adopt => return Ok(ChangeOrder::Adopt),
        Change::Set(edits) => return Ok(ChangeOrder::Set(edits.clone())),
        Change::Put {
            named,
            kind,
            content,
        } => (named, kind, content),
    };
    let invalid = |why: String| {
        let why = format!("`{}` cannot be used: {why}", named.display());
        Abort::new(Verdict::Invalid, why)
    };
    let content = content.as_ref().map_err(|why| invalid(why.to_string()))?;
    if content.bytes.len() > MAX_BLOB {
        let limit = MAX_BLOB >> 20;
        return Err(invalid(format!("it has more than {limit} MiB")));
    }
    let (sha256, bytes) = (content.sha256.clone(), content.bytes.clone());
    candidates.0.insert(sha256.clone(), bytes);
    Ok(ChangeOrder::Put {
        named: named.display().to_string(),
        form: *kind,
        sha256,
        len: content.bytes.len(),
    })
}
