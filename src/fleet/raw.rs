//! Reads a `fleet.toml`, and resolves its groups with every default filled in.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use toml::{Spanned, Value};

use self::{
    group::{RawGroup, defaults},
    hosts::{RawAgent, RawHosts, agent, hosts},
    matching::{RawMatch, resolve_match},
    proof::resolve_proof,
    reload::{reload, revive},
    store::{RawStore, Store, check_used, key, stores},
};
use super::{
    Agent, Count, ExecutesItself, Graph, Group, Hosts, Listed, OnBadConfig, PathBase, Reading,
    Rollout,
    key_target::check_spelling,
    rollout::RawRollout,
    source::{ContentSource, Key},
    spanned::{SpannedError, argv, spanned, terms},
    validation::validation,
};
use crate::{
    assertion::names_a_user,
    diagnostic::{self, ConfigError, suggest},
};

mod group;
mod hosts;
mod matching;
mod proof;
mod reload;
mod store;
mod values;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawFleet {
    /// Version of this format; required.
    #[schemars(with = "u32", extend("const" = 1))]
    version: Spanned<u32>,
    /// Defaults of the rollout for every group.
    #[serde(default)]
    rollout: RawRollout,
    /// The stores that a `source` may name, with what requests to them need.
    #[serde(default)]
    #[schemars(with = "Vec<RawStore>")]
    store: Vec<Spanned<RawStore>>,
    /// The groups of processes; at least one.
    #[serde(default)]
    #[schemars(with = "Vec<RawGroup>")]
    group: Vec<Spanned<RawGroup>>,
    /// The machines of the fleet. Without it, the fleet is this machine.
    #[schemars(with = "Option<RawHosts>")]
    hosts: Option<Spanned<RawHosts>>,
    /// The name and labels that this host gives itself towards a coordinator.
    agent: Option<RawAgent>,
}

/// The contents of a `fleet.toml`, with every default filled in.
pub(super) struct Contents {
    pub(super) groups: Vec<Group>,
    pub(super) rollout: Rollout,
    pub(super) hosts: Option<Hosts>,
    pub(super) agent: Option<Agent>,
}

/// Returns the schema of a `fleet.toml`.
pub(super) fn schema(mut generator: SchemaGenerator) -> Schema {
    generator.root_schema_for::<RawFleet>()
}

/// How long an instance may take from its signal to its proof, if its group does not say it.
/// Loading a config takes most daemons less than a second.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads a whole `fleet.toml`.
///
/// # Errors
/// Returns the first error, with its position.
pub(super) fn read(bytes: &[u8]) -> Result<Contents, ConfigError> {
    let raw: RawFleet = diagnostic::parse(bytes)?;
    let fault =
        |error: SpannedError| ConfigError::new(bytes, error.message, error.hint, Some(error.at));
    if *raw.version.get_ref() != 1 {
        return Err(fault(spanned(
            raw.version.span(),
            format!(
                "version {}, but this hello reads version 1",
                raw.version.get_ref()
            ),
        )));
    }
    if raw.hosts.is_none() {
        check_no_host_keys(&raw).map_err(fault)?;
    }
    // The budget of the top-level table is shared by all groups that set none of their own.
    let rollout = Rollout {
        alone: false,
        ..raw.rollout.over(&Rollout::default()).map_err(fault)?
    };
    let stores = stores(raw.store).map_err(fault)?;
    let mut groups: Vec<Group> = Vec::new();
    let mut after_spans = Vec::new();
    let mut config_spans = Vec::new();
    let mut names = BTreeSet::new();
    for group in raw.group {
        let span = group.span();
        let raw = group.into_inner();
        let name_span = raw.name.as_ref().map_or(span.clone(), Spanned::span);
        after_spans.push(raw.after.as_ref().map_or(span.clone(), Spanned::span));
        config_spans.push(raw.config.as_ref().map_or(span.clone(), Spanned::span));
        let group = resolve(raw, span, &rollout, &stores).map_err(fault)?;
        if !names.insert(group.name.clone()) {
            return Err(fault(spanned(
                name_span,
                format!("two groups are named `{}`", group.name),
            )));
        }
        groups.push(group);
    }
    let hosts = raw.hosts.map(|raw| hosts(raw, &stores));
    let hosts = hosts.transpose().map_err(fault)?;
    // Each host may know its groups alone.
    if groups.is_empty() && hosts.is_none() {
        return Err(ConfigError::new(bytes, "no [[group]] in it", None, None));
    }
    check_spelling(&groups, &config_spans).map_err(fault)?;
    check_used(&stores, &groups).map_err(fault)?;
    check_order(&mut groups, &after_spans).map_err(fault)?;
    Ok(Contents {
        groups,
        rollout,
        hosts,
        agent: raw.agent.map(agent).transpose().map_err(fault)?,
    })
}

/// Checks that a file without `[hosts]` has no key about hosts, which nothing would read.
fn check_no_host_keys(raw: &RawFleet) -> Result<(), SpannedError> {
    let of_groups = raw
        .group
        .iter()
        .flat_map(|group| group.get_ref().host_keys());
    match raw.rollout.host_keys().chain(of_groups).next() {
        None => Ok(()),
        Some((key, span)) => Err(spanned(
            span,
            format!("{key} is about hosts, and this file has no [hosts]"),
        )
        .hinted("name the hosts in [hosts], or remove the key")),
    }
}

/// Returns the key of `url`, with the access that a `[[store]]` of the file `bytes` gives it. The
/// file may have no group.
///
/// # Errors
/// Fails if the file is not valid, or if the URL names no key.
pub(super) fn key_of(url: &str, bytes: &[u8]) -> Result<Key, ConfigError> {
    // The URL stands on the command line, and not in the file.
    key(url, 0..0, &stores_of(bytes)?).map_err(|e| ConfigError::new(bytes, e.message, e.hint, None))
}

/// Returns the access that a `[[store]]` of the file `bytes` gives to the server of `url`.
///
/// # Errors
/// Fails if the file is not valid.
#[cfg(feature = "nats")]
pub(super) fn access_of(url: &str, bytes: &[u8]) -> Result<super::StoreAccess, ConfigError> {
    Ok(store::access_of(url, &stores_of(bytes)?))
}

fn stores_of(bytes: &[u8]) -> Result<Vec<Store>, ConfigError> {
    let raw: RawFleet = diagnostic::parse(bytes)?;
    let fault =
        |error: SpannedError| ConfigError::new(bytes, error.message, error.hint, Some(error.at));
    stores(raw.store).map_err(fault)
}

/// Checks that every name in an `after` is a group, and that no group waits for itself.
fn check_order(groups: &mut [Group], after_spans: &[Range<usize>]) -> Result<(), SpannedError> {
    let names: BTreeSet<String> = groups.iter().map(|g| g.name.clone()).collect();
    for (group, span) in groups.iter_mut().zip(after_spans) {
        if let Some(unknown) = group.after.iter().find(|name| !names.contains(*name)) {
            let hint = suggest(unknown, names.iter().map(String::as_str));
            return Err(SpannedError {
                hint,
                ..spanned(span.clone(), format!("after: no group `{unknown}`"))
            });
        }
        group.after.sort();
        group.after.dedup();
    }
    let nodes: Vec<(&str, &[String])> = groups
        .iter()
        .map(|g| (g.name.as_str(), g.after.as_slice()))
        .collect();
    let circle = Graph::of(&nodes).circle();
    let named: Vec<String> = circle
        .iter()
        .map(|node| format!("`{}`", nodes[*node].0))
        .collect();
    match circle.as_slice() {
        [] => Ok(()),
        [node] => Err(spanned(
            after_spans[*node].clone(),
            format!("after: {} comes after itself", named.concat()),
        )),
        [first, ..] => Err(spanned(
            after_spans[*first].clone(),
            format!("after: {} wait for each other", named.join(", ")),
        )),
    }
}

/// Returns the group that a kind alone describes.
///
/// # Errors
/// Fails if there is no such kind.
pub(super) fn of_kind(kind: &str) -> Result<Group, ConfigError> {
    let named = || Some(Spanned::new(0..0, kind.to_owned()));
    let raw = RawGroup {
        name: named(),
        kind: named(),
        ..RawGroup::default()
    };
    resolve(raw, 0..0, &Rollout::default(), &[])
        .map_err(|error| ConfigError::new(&[], error.message, error.hint, None))
}

/// Resolves one group, whose table is at `span`, with the defaults of its kind.
fn resolve(
    raw: RawGroup,
    span: Range<usize>,
    rollout: &Rollout,
    stores: &[Store],
) -> Result<Group, SpannedError> {
    let base = defaults(raw.kind.as_ref())?;
    let mut raw = raw.over(base);
    let missing = |what: &str| spanned(span.clone(), what);
    let name = raw
        .name
        .as_ref()
        .or(raw.kind.as_ref())
        .ok_or_else(|| missing("`name` is missing"))?
        .get_ref()
        .clone();
    let proof = resolve_proof(&mut raw, &span)?;
    let instances = listed(raw.instances.take())?;
    let matching = raw.r#match.take();
    let matching = matching.ok_or_else(|| missing(without_match(instances.is_some())))?;
    let revive = revive(raw.revive.take())?;
    let config_span = raw.config.as_ref().map_or(span.clone(), Spanned::span);
    let config = raw.config.take();
    let config = config.map_or(Ok(Vec::new()), |config| targets(&config, stores))?;
    let source = raw.source.take();
    let source = source.map(|source| content_source(source, config.len(), stores));
    let on_bad_config = raw.on_bad_config.unwrap_or(OnBadConfig::Keeps);
    let (validate, validation) = validation(raw.validate.take(), on_bad_config, &revive)?;
    let reload = reload(&mut raw)?;
    let group = Group {
        name,
        matching: resolve_match(matching)?,
        exclude: optional_match(raw.exclude.take())?,
        leader: optional_match(raw.leader.take())?,
        worker: optional_match(raw.worker.take())?,
        pid_file: optional_paths(raw.pid_file.take())?,
        users: optional_words(raw.user.take())?,
        count: count(raw.count.take())?,
        hosts: raw.hosts.take().map(|on| terms(&on)).transpose()?,
        per_host: raw.per_host.take().map(|n| values::count(&n)).transpose()?,
        config,
        config_under: optional(raw.config_under.take(), values::paths)?,
        reading: reading(&mut raw)?,
        source: source.transpose()?,
        needs_restart: optional_paths(raw.needs_restart.take())?,
        restart_keys: argv(raw.restart_keys.take(), &[])?,
        restart_value: argv(raw.restart_value.take(), &["key"])?,
        restart_pending: argv(raw.restart_pending.take(), &[])?,
        overridden_keys: argv(raw.overridden_keys.take(), &[])?,
        on_bad_config,
        revive,
        secret: raw.secret,
        validate,
        validation,
        validate_titled: argv(raw.validate_titled.take(), &[])?,
        reloads: reload.declared,
        no_signal: reload.no_signal,
        executes_itself: executes_itself(raw.executes_itself),
        lasting: optional_words(raw.lasting.take())?,
        listen: optional(raw.listen, values::listen)?,
        signal: reload.signal,
        reload_by: reload.command,
        timeout: raw.timeout.map_or(Ok(DEFAULT_TIMEOUT), values::duration)?,
        samples: proof.samples,
        speaks: proof.speaks,
        confirm: proof.confirm,
        reject: proof.reject,
        log: proof.log,
        instances: instances.unwrap_or_default(),
        kind: raw.kind.map(Spanned::into_inner),
        // A kind cannot know whether its operator accepts an unproven reload.
        unproven: raw.unproven.unwrap_or_default(),
        rollout: raw.rollout.unwrap_or_default().over(rollout)?,
        after: optional_words(raw.after)?,
    };
    group.with_key_target(config_span)
}

/// Reads the targets of a group: one key, or files and directories.
fn targets(raw: &Spanned<Value>, stores: &[Store]) -> Result<Vec<Vec<PathBase>>, SpannedError> {
    match raw.get_ref() {
        Value::String(url) if url.contains("://") => {
            let key = key(url, raw.span(), stores)?;
            Ok(vec![vec![PathBase::Key(Box::new(key))]])
        }
        _ => values::targets(raw),
    }
}

/// Reads the place of the new content of a group with this many targets.
fn content_source(
    raw: Spanned<String>,
    targets: usize,
    stores: &[Store],
) -> Result<ContentSource, SpannedError> {
    if !raw.get_ref().contains("://") {
        return values::source(raw).map(ContentSource::Path);
    }
    if targets != 1 {
        let why = format!("a key holds the content of one target, and this group has {targets}");
        return Err(spanned(raw.span(), why));
    }
    let span = raw.span();
    key(raw.get_ref(), span, stores).map(|key| ContentSource::Key(Box::new(key)))
}

/// Resolves a value that is empty if it is not written.
fn optional<T: Default>(
    raw: Option<Spanned<Value>>,
    resolve: impl Fn(&Spanned<Value>) -> Result<T, SpannedError>,
) -> Result<T, SpannedError> {
    raw.map_or_else(|| Ok(T::default()), |raw| resolve(&raw))
}

fn optional_words(raw: Option<Spanned<Value>>) -> Result<Vec<String>, SpannedError> {
    optional(raw, values::words)
}

fn optional_paths(raw: Option<Spanned<Value>>) -> Result<Vec<PathBase>, SpannedError> {
    optional(raw, values::path_bases)
}

fn optional_match(raw: Option<Spanned<RawMatch>>) -> Result<Option<super::Match>, SpannedError> {
    raw.map(resolve_match).transpose()
}

/// Reads the number of instances; one or more if it is not written.
fn count(raw: Option<Spanned<Value>>) -> Result<Count, SpannedError> {
    let one_or_more = Count {
        min: 1,
        max: usize::MAX,
    };
    raw.map_or(Ok(one_or_more), |raw| values::count(&raw))
}

fn executes_itself(is_set: Option<bool>) -> ExecutesItself {
    match is_set {
        Some(true) => ExecutesItself::Yes,
        Some(false) | None => ExecutesItself::No,
    }
}

/// Checks a list of processes that are named by pid; none if there is no such list.
fn listed(raw: Option<Spanned<Vec<Listed>>>) -> Result<Option<Vec<Listed>>, SpannedError> {
    let Some(raw) = raw else {
        return Ok(None);
    };
    let span = raw.span();
    let instances = raw.into_inner();
    if instances.iter().any(|listed| listed.pid <= 0) {
        return Err(spanned(span, "a pid is not above 0"));
    }
    let mut endpoints = instances.iter().filter_map(|i| i.endpoint.as_deref());
    if endpoints.any(names_a_user) {
        return Err(spanned(span, "an endpoint names no user and no password")
            .hinted("use `auth_file = PATH` in the group"));
    }
    Ok(Some(instances))
}

/// Resolves how the program reads its command line.
fn reading(raw: &mut RawGroup) -> Result<Reading, SpannedError> {
    Ok(Reading {
        getopt: raw.getopt.take(),
        repeated: raw.repeated.unwrap_or_default(),
        title: raw.title.take().map(values::title).transpose()?,
        base: optional_paths(raw.base.take())?,
        built: argv(raw.built.take(), &[])?,
        includes: optional_words(raw.includes.take())?,
        no_default: optional_words(raw.no_default.take())?,
    })
}

fn without_match(is_listed: bool) -> &'static str {
    if is_listed {
        "`match` is missing: each of `instances` must satisfy one too"
    } else {
        "`match` is missing"
    }
}
