//! `fleet.toml` as it is written, and how it becomes groups with every default filled in.

use std::{collections::BTreeSet, ops::Range, path::PathBuf};

use serde::Deserialize;
use toml::{Spanned, Value};

use super::{
    Count, ExecutesItself, Graph, Group, KINDS, Listed, ListenAt, Match, OnBadConfig, PathBase,
    Reading, Reloads, Repeated, Rollout, Signal, Speaks, Unproven, parse_count, parse_duration,
    rollout::RawRollout,
    spanned::{SpannedError, argument, argv, spanned},
    unit_name,
    validation::{RawValidate, validation},
};
use crate::{
    assertion::{Access, Assertion, RawAssertion, RawAssertionError, Source, names_a_user},
    diagnostic::{self, ConfigError, suggest},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFleet {
    version: Spanned<u32>,
    #[serde(default)]
    rollout: RawRollout,
    #[serde(default)]
    group: Vec<Spanned<RawGroup>>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGroup {
    name: Option<Spanned<String>>,
    kind: Option<Spanned<String>>,
    r#match: Option<Spanned<RawMatch>>,
    exclude: Option<Spanned<RawMatch>>,
    leader: Option<Spanned<RawMatch>>,
    worker: Option<Spanned<RawMatch>>,
    pid_file: Option<Spanned<Value>>,
    user: Option<Spanned<Value>>,
    count: Option<Spanned<Value>>,
    config: Option<Spanned<Value>>,
    config_under: Option<Spanned<Value>>,
    getopt: Option<String>,
    repeated: Option<Repeated>,
    title: Option<Spanned<String>>,
    base: Option<Spanned<Value>>,
    built: Option<Vec<Spanned<String>>>,
    includes: Option<Spanned<Value>>,
    no_default: Option<Spanned<Value>>,
    source: Option<Spanned<String>>,
    needs_restart: Option<Spanned<Value>>,
    restart_keys: Option<Vec<Spanned<String>>>,
    restart_value: Option<Vec<Spanned<String>>>,
    restart_pending: Option<Vec<Spanned<String>>>,
    overridden_keys: Option<Vec<Spanned<String>>>,
    secret: Option<bool>,
    validate: Option<Spanned<RawValidate>>,
    validate_titled: Option<Vec<Spanned<String>>>,
    on_bad_config: Option<OnBadConfig>,
    revive: Option<Vec<Spanned<String>>>,
    reloads: Option<Spanned<Value>>,
    executes_itself: Option<bool>,
    speaks: Option<Speaks>,
    listen: Option<Spanned<Value>>,
    signal: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    instances: Option<Spanned<Vec<Listed>>>,
    samples: Option<Spanned<u32>>,
    confirm: Option<Vec<Spanned<RawAssertion>>>,
    reject: Option<Vec<Spanned<RawAssertion>>>,
    unproven: Option<Unproven>,
    rollout: Option<RawRollout>,
    after: Option<Spanned<Value>>,
    auth_file: Option<Spanned<PathBuf>>,
    bearer_file: Option<Spanned<PathBuf>>,
    client_cert: Option<Spanned<PathBuf>>,
    client_key: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMatch {
    exe: Option<Value>,
    script: Option<Value>,
    #[serde(default)]
    args: Vec<Value>,
    user: Option<String>,
    cgroup: Option<String>,
    unit: Option<String>,
    pid_file: Option<PathBuf>,
    port: Option<u16>,
    listens: Option<String>,
}

/// Every group of a `fleet.toml`.
///
/// # Errors
/// The first fault, with its place.
pub(super) fn groups(bytes: &[u8]) -> Result<Vec<Group>, ConfigError> {
    let raw: RawFleet = diagnostic::parse(bytes)?;
    let fault =
        |wrong: SpannedError| ConfigError::new(bytes, wrong.message, wrong.hint, Some(wrong.at));
    if *raw.version.get_ref() != 1 {
        return Err(fault(spanned(
            raw.version.span(),
            format!(
                "version {}, but this hello reads version 1",
                raw.version.get_ref()
            ),
        )));
    }
    // Written at the top, it is counted over all groups that say nothing of their own.
    let rollout = Rollout {
        alone: false,
        ..raw.rollout.over(&Rollout::default()).map_err(fault)?
    };
    let mut groups: Vec<Group> = Vec::new();
    let mut afters = Vec::new();
    let mut names = BTreeSet::new();
    for group in raw.group {
        let (at, raw) = (group.span(), group.into_inner());
        let named = raw.name.as_ref().map_or(at.clone(), Spanned::span);
        afters.push(raw.after.as_ref().map_or(at.clone(), Spanned::span));
        let group = resolve(raw, at, &rollout).map_err(fault)?;
        if !names.insert(group.name.clone()) {
            return Err(fault(spanned(
                named,
                format!("two groups are named `{}`", group.name),
            )));
        }
        groups.push(group);
    }
    if groups.is_empty() {
        return Err(ConfigError::new(bytes, "no [[group]] in it", None, None));
    }
    ordered(&mut groups, &afters).map_err(fault)?;
    Ok(groups)
}

/// Every group that another comes after is there, and none comes after itself.
fn ordered(groups: &mut [Group], afters: &[Range<usize>]) -> Result<(), SpannedError> {
    let names: BTreeSet<String> = groups.iter().map(|g| g.name.clone()).collect();
    for (group, at) in groups.iter_mut().zip(afters) {
        if let Some(unknown) = group.after.iter().find(|name| !names.contains(*name)) {
            let hint = suggest(unknown, names.iter().map(String::as_str));
            return Err(SpannedError {
                hint,
                ..spanned(at.clone(), format!("after: no group `{unknown}`"))
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
        .map(|at| format!("`{}`", nodes[*at].0))
        .collect();
    match circle.as_slice() {
        [] => Ok(()),
        [one] => Err(spanned(
            afters[*one].clone(),
            format!("after: {} comes after itself", named.concat()),
        )),
        [first, ..] => Err(spanned(
            afters[*first].clone(),
            format!("after: {} wait for each other", named.join(", ")),
        )),
    }
}

/// The group that a kind alone describes.
///
/// # Errors
/// When there is no such kind.
pub(super) fn of_kind(kind: &str) -> Result<Group, ConfigError> {
    let named = || Some(Spanned::new(0..0, kind.to_owned()));
    let raw = RawGroup {
        name: named(),
        kind: named(),
        ..RawGroup::default()
    };
    resolve(raw, 0..0, &Rollout::default())
        .map_err(|w| ConfigError::new(&[], w.message, w.hint, None))
}

fn defaults(kind: Option<&Spanned<String>>) -> Result<RawGroup, SpannedError> {
    let Some(kind) = kind else {
        return Ok(RawGroup::default());
    };
    let (name, at) = (kind.get_ref(), kind.span());
    match KINDS.iter().find(|known| known.name == name) {
        Some(known) => diagnostic::parse(known.text.as_bytes())
            .map_err(|e| spanned(at, format!("kind `{name}`: {e}"))),
        None => Err(SpannedError {
            hint: suggest(name, KINDS.iter().map(|known| known.name)),
            ..spanned(at, format!("no kind `{name}`"))
        }),
    }
}

impl RawGroup {
    /// What it says, and for the rest what its kind says.
    fn over(self, base: Self) -> Self {
        Self {
            r#match: self.r#match.or(base.r#match),
            exclude: self.exclude.or(base.exclude),
            leader: self.leader.or(base.leader),
            worker: self.worker.or(base.worker),
            pid_file: self.pid_file.or(base.pid_file),
            user: self.user.or(base.user),
            count: self.count.or(base.count),
            config: self.config.or(base.config),
            config_under: self.config_under.or(base.config_under),
            getopt: self.getopt.or(base.getopt),
            repeated: self.repeated.or(base.repeated),
            title: self.title.or(base.title),
            base: self.base.or(base.base),
            built: self.built.or(base.built),
            includes: self.includes.or(base.includes),
            no_default: self.no_default.or(base.no_default),
            source: self.source.or(base.source),
            needs_restart: self.needs_restart.or(base.needs_restart),
            restart_keys: self.restart_keys.or(base.restart_keys),
            restart_value: self.restart_value.or(base.restart_value),
            restart_pending: self.restart_pending.or(base.restart_pending),
            overridden_keys: self.overridden_keys.or(base.overridden_keys),
            secret: self.secret.or(base.secret),
            validate: self.validate.or(base.validate),
            validate_titled: self.validate_titled.or(base.validate_titled),
            on_bad_config: self.on_bad_config.or(base.on_bad_config),
            revive: self.revive.or(base.revive),
            reloads: self.reloads.or(base.reloads),
            executes_itself: self.executes_itself.or(base.executes_itself),
            speaks: self.speaks.or(base.speaks),
            listen: self.listen.or(base.listen),
            signal: self.signal.or(base.signal),
            timeout: self.timeout.or(base.timeout),
            samples: self.samples.or(base.samples),
            confirm: self.confirm.or(base.confirm),
            reject: self.reject.or(base.reject),
            ..self
        }
    }
}

fn resolve(raw: RawGroup, at: Range<usize>, rollout: &Rollout) -> Result<Group, SpannedError> {
    let base = defaults(raw.kind.as_ref())?;
    let mut raw = raw.over(base);
    let name = raw
        .name
        .as_ref()
        .or(raw.kind.as_ref())
        .ok_or_else(|| spanned(at.clone(), "`name` is missing"))?
        .get_ref()
        .clone();
    let proof = resolve_proof(&mut raw, &at)?;
    let instances = listed(raw.instances.take())?;
    let reading = reading(&mut raw)?;
    let config_under = raw.config_under.map(paths).transpose()?.unwrap_or_default();
    let one = |raw: Option<Spanned<RawMatch>>| raw.map(matching).transpose();
    let all = |raw: Option<Spanned<Value>>| {
        raw.map(|raw| places(&raw))
            .transpose()
            .map(Option::unwrap_or_default)
    };
    let revive = argv(raw.revive, &[])?;
    let on_bad_config = raw.on_bad_config.unwrap_or(OnBadConfig::Keeps);
    let (validate, validation) = validation(raw.validate, on_bad_config, &revive)?;
    Ok(Group {
        name,
        matching: matching(
            raw.r#match
                .ok_or_else(|| spanned(at.clone(), without_match(instances.is_some())))?,
        )?,
        exclude: one(raw.exclude)?,
        leader: one(raw.leader)?,
        worker: one(raw.worker)?,
        pid_file: all(raw.pid_file)?,
        users: raw.user.map_or(Ok(Vec::new()), |raw| words(&raw))?,
        count: raw.count.map_or(
            Ok(Count {
                min: 1,
                max: usize::MAX,
            }),
            count,
        )?,
        config: raw.config.map(targets).transpose()?.unwrap_or_default(),
        config_under,
        reading,
        source: raw.source.map(source).transpose()?,
        needs_restart: all(raw.needs_restart)?,
        restart_keys: argv(raw.restart_keys, &[])?,
        restart_value: argv(raw.restart_value, &["key"])?,
        restart_pending: argv(raw.restart_pending, &[])?,
        overridden_keys: argv(raw.overridden_keys, &[])?,
        on_bad_config,
        revive,
        secret: raw.secret,
        validate,
        validation,
        validate_titled: argv(raw.validate_titled, &[])?,
        reloads: raw.reloads.map_or(Ok(Reloads::No), reloads)?,
        executes_itself: match raw.executes_itself {
            Some(true) => ExecutesItself::Yes,
            Some(false) | None => ExecutesItself::No,
        },
        listen: raw.listen.map_or(Ok(Vec::new()), listen)?,
        signal: raw.signal.map_or(Ok(Signal::Hup), signal)?,
        timeout: match raw.timeout {
            Some(text) => {
                parse_duration(text.get_ref()).map_err(|why| spanned(text.span(), why))?
            }
            None => std::time::Duration::from_secs(5),
        },
        samples: proof.samples,
        speaks: proof.speaks,
        confirm: proof.confirm,
        reject: proof.reject,
        instances: instances.unwrap_or_default(),
        kind: raw.kind.map(Spanned::into_inner),
        // A kind cannot know what its operator bears.
        unproven: raw.unproven.unwrap_or_default(),
        rollout: raw.rollout.unwrap_or_default().over(rollout)?,
        after: raw.after.map_or(Ok(Vec::new()), |raw| words(&raw))?,
    })
}

/// How a reload is proven.
struct Proof {
    speaks: Speaks,
    confirm: Vec<Assertion>,
    reject: Vec<Assertion>,
    samples: u32,
}

fn resolve_proof(raw: &mut RawGroup, at: &Range<usize>) -> Result<Proof, SpannedError> {
    let unproven = || {
        spanned(
            at.clone(),
            "nothing says how a reload is proven: add [[group.confirm]], or `confirm = []` where \
             nothing can be seen",
        )
    };
    let speaks = raw.speaks.unwrap_or(Speaks::None);
    let mut confirm = match raw.confirm.take() {
        Some(confirm) => facts(confirm)?,
        None if speaks == Speaks::Hello => Vec::new(),
        None => return Err(unproven()),
    };
    let samples = raw.samples.take();
    if let Some(zero) = samples.as_ref().filter(|s| *s.get_ref() == 0) {
        return Err(spanned(zero.span(), "0 samples would prove nothing"));
    }
    let mut reject = facts(raw.reject.take().unwrap_or_default())?;
    shown_by(
        &mut [&mut confirm, &mut reject],
        [
            raw.auth_file.take(),
            raw.bearer_file.take(),
            raw.client_cert.take(),
            raw.client_key.take(),
        ],
    )?;
    let usual = if speaks == Speaks::Hello { 1 } else { 3 };
    Ok(Proof {
        speaks,
        confirm,
        reject,
        samples: samples.map_or(usual, Spanned::into_inner),
    })
}

/// Processes that are named by number; none where there is no such list.
fn listed(raw: Option<Spanned<Vec<Listed>>>) -> Result<Option<Vec<Listed>>, SpannedError> {
    let instances = raw.map(|i| (i.span(), i.into_inner()));
    if let Some((at, _)) = instances
        .as_ref()
        .filter(|(_, all)| all.iter().any(|i| i.pid <= 0))
    {
        return Err(spanned(at.clone(), "a pid is not above 0"));
    }
    if let Some((at, _)) = instances.as_ref().filter(|(_, all)| {
        all.iter()
            .filter_map(|i| i.endpoint.as_deref())
            .any(names_a_user)
    }) {
        let hint = Some("say `auth_file = PATH` in the group".into());
        return Err(SpannedError {
            hint,
            ..spanned(at.clone(), "an endpoint names no user and no password")
        });
    }
    Ok(instances.map(|(_, all)| all))
}

/// How a program reads its command line.
fn reading(raw: &mut RawGroup) -> Result<Reading, SpannedError> {
    let base = raw.base.take().map(|raw| places(&raw)).transpose()?;
    let includes = raw.includes.take().map(|raw| words(&raw)).transpose()?;
    let no_default = raw.no_default.take().map(|raw| words(&raw)).transpose()?;
    Ok(Reading {
        getopt: raw.getopt.take(),
        repeated: raw.repeated.unwrap_or_default(),
        title: raw.title.take().map(title).transpose()?,
        base: base.unwrap_or_default(),
        built: argv(raw.built.take(), &[])?,
        includes: includes.unwrap_or_default(),
        no_default: no_default.unwrap_or_default(),
    })
}

/// One text, or a list of them.
fn words(raw: &Spanned<Value>) -> Result<Vec<String>, SpannedError> {
    Ok(strings(raw)?.into_iter().map(str::to_owned).collect())
}

fn without_match(is_listed: bool) -> &'static str {
    if is_listed {
        "`match` is missing: each of `instances` must satisfy one too"
    } else {
        "`match` is missing"
    }
}

fn facts(raw: Vec<Spanned<RawAssertion>>) -> Result<Vec<Assertion>, SpannedError> {
    let one = |(at, raw): (Range<usize>, RawAssertion)| {
        let place = raw.place().unwrap_or(at.clone());
        let fact = Assertion::try_from(raw).map_err(
            |RawAssertionError {
                 message,
                 hint,
                 at: place,
             }| SpannedError {
                message,
                hint,
                at: place.unwrap_or(at.clone()),
            },
        )?;
        match &fact.source {
            Source::Exec(argv) => argv.iter().try_for_each(|arg| argument(arg, &[], &at))?,
            Source::Http(ask) => argument(&ask.url, &[], &place)?,
            Source::Workers | Source::Listener => {}
        }
        Ok(fact)
    };
    raw.into_iter()
        .map(|fact| (fact.span(), fact.into_inner()))
        .map(one)
        .collect()
}

/// Gives what a group shows to each of its assertions that asks the instance itself.
fn shown_by(
    all: &mut [&mut Vec<Assertion>],
    raw: [Option<Spanned<PathBuf>>; 4],
) -> Result<(), SpannedError> {
    let Some(at) = raw.iter().flatten().map(Spanned::span).next() else {
        return Ok(());
    };
    let [auth_file, bearer_file, client_cert, client_key] =
        raw.map(|path| path.map(Spanned::into_inner));
    let access = Access {
        auth_file,
        bearer_file,
        client_cert,
        client_key,
    };
    let mut asks = Vec::new();
    for fact in all.iter_mut().flat_map(|facts| facts.iter_mut()) {
        match &mut fact.source {
            Source::Http(ask) if ask.url.contains("{listen") => asks.push(ask),
            _ => {}
        }
    }
    let https = asks.iter().any(|ask| ask.is_https());
    if let Some(why) = access.fault(https) {
        return Err(spanned(at, why));
    }
    if asks.is_empty() {
        return Err(spanned(
            at,
            "credentials are for assertions with `http` and {listen}, and this group has none",
        ));
    }
    for ask in asks {
        let https = ask.is_https();
        ask.access.or(&access, https);
    }
    Ok(())
}

fn matching(raw: Spanned<RawMatch>) -> Result<Match, SpannedError> {
    let (at, raw) = (raw.span(), raw.into_inner());
    let pattern = |key: &str, text: &str| {
        glob::Pattern::new(text).map_err(|e| spanned(at.clone(), format!("{key} = {text:?}: {e}")))
    };
    let one = |key: &str, text: Option<String>| text.map(|text| pattern(key, &text)).transpose();
    let any = |key: &str, value: &Value| -> Result<Vec<glob::Pattern>, SpannedError> {
        let texts = match value {
            Value::String(one) => Some(vec![one.as_str()]),
            Value::Array(all) if !all.is_empty() => all.iter().map(Value::as_str).collect(),
            _ => None,
        };
        let texts = texts.ok_or_else(|| {
            spanned(
                at.clone(),
                format!("{key}: neither a string nor a list of strings of which one must fit"),
            )
        })?;
        texts.into_iter().map(|text| pattern(key, text)).collect()
    };
    if let Some(path) = raw.pid_file.as_ref().filter(|path| !path.is_absolute()) {
        return Err(spanned(
            at,
            format!("pid_file = {path:?} is no absolute path"),
        ));
    }
    let listens = raw
        .listens
        .map(|text| text.parse().map_err(|why: String| spanned(at.clone(), why)))
        .transpose()?;
    let matching = Match {
        exe: raw.exe.map_or(Ok(Vec::new()), |v| any("exe", &v))?,
        script: raw.script.map_or(Ok(Vec::new()), |v| any("script", &v))?,
        args: raw
            .args
            .iter()
            .map(|v| any("args", v))
            .collect::<Result<_, _>>()?,
        user: raw.user,
        cgroup: one("cgroup", raw.cgroup)?,
        unit: raw.unit.as_deref().map(unit_name),
        pid_file: raw.pid_file,
        port: raw.port,
        listens,
    };
    match matching.is_empty() {
        true => Err(spanned(
            at,
            "nothing to match by: say `exe`, `script`, `args`, `user`, `cgroup`, `unit`, \
             `pid_file`, `port` or `listens`",
        )),
        false => Ok(matching),
    }
}

fn count(raw: Spanned<Value>) -> Result<Count, SpannedError> {
    let says = match raw.get_ref() {
        Value::Integer(n) => usize::try_from(*n)
            .ok()
            .map(|n| Ok(Count { min: n, max: n })),
        Value::String(text) => Some(parse_count(text)),
        _ => None,
    };
    says.unwrap_or_else(|| Err("a count is 3, \"3..\", \"..5\" or \"3..5\"".into()))
        .map_err(|why| spanned(raw.span(), why))
}

/// A string, or a list of strings.
fn strings(raw: &Spanned<Value>) -> Result<Vec<&str>, SpannedError> {
    let list = match raw.get_ref() {
        Value::String(one) => Some(vec![one.as_str()]),
        Value::Array(all) if !all.is_empty() => all.iter().map(Value::as_str).collect(),
        _ => None,
    };
    list.ok_or_else(|| spanned(raw.span(), "neither a string nor a list of strings"))
}

fn paths(raw: Spanned<Value>) -> Result<Vec<PathBuf>, SpannedError> {
    let all = strings(&raw)?;
    match all.iter().find(|p| !p.starts_with('/')) {
        Some(path) => Err(spanned(raw.span(), format!("{path:?} is no absolute path"))),
        None => Ok(all.into_iter().map(PathBuf::from).collect()),
    }
}

fn places(raw: &Spanned<Value>) -> Result<Vec<PathBase>, SpannedError> {
    strings(raw)?
        .into_iter()
        .map(|text| place(text).map_err(|why| spanned(raw.span(), why)))
        .collect()
}

/// One place, a list of places of which the first that exists counts, or a list of such lists:
/// several targets.
fn targets(raw: Spanned<Value>) -> Result<Vec<Vec<PathBase>>, SpannedError> {
    match raw.get_ref() {
        Value::Array(all) if all.iter().any(Value::is_array) => all
            .iter()
            .map(|inner| places(&Spanned::new(raw.span(), inner.clone())))
            .collect(),
        _ => Ok(vec![places(&raw)?]),
    }
}

fn place(text: &str) -> Result<PathBase, String> {
    let below = |rest: &str| match rest.strip_prefix('/') {
        Some(rest) => Some(PathBuf::from(rest)),
        None => rest.is_empty().then(PathBuf::new),
    };
    let found = match text.strip_prefix('{').and_then(|t| t.split_once('}')) {
        Some((name, rest)) => match (name, name.split_once(':')) {
            ("cwd", _) => below(rest).map(PathBase::Cwd),
            ("base", _) => below(rest).map(PathBase::Base),
            (_, Some(("arg", option))) if super::value_of(&format!("arg:{option}")).is_some() => {
                below(rest).map(|rest| PathBase::Arg(option.into(), rest))
            }
            (_, Some(("built", text))) if !text.is_empty() => {
                below(rest).map(|rest| PathBase::Built(text.into(), rest))
            }
            (_, Some(("env", name))) if is_variable(name) => {
                below(rest).map(|rest| PathBase::Env(name.into(), rest))
            }
            _ => None,
        },
        None => text.starts_with('/').then(|| PathBase::Path(text.into())),
    };
    // Anything else would depend on where `hello` is started.
    found.ok_or_else(|| {
        format!(
            "{text:?} is neither {{arg:--option}}, {{arg:1}}, {{cwd}}/FILE, {{base}}/FILE, \
                 {{built:TEXT}}, {{env:NAME}} nor an absolute path"
        )
    })
}

/// Whether a text is the name of a variable as POSIX allows it.
fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn title(raw: Spanned<String>) -> Result<String, SpannedError> {
    Reading::title_parts(raw.get_ref()).map_err(|why| spanned(raw.span(), why))?;
    Ok(raw.into_inner())
}

fn source(raw: Spanned<String>) -> Result<String, SpannedError> {
    let text = raw.get_ref();
    if text.contains("{config}") && (text.starts_with('/') || text.starts_with("{config}")) {
        return Ok(raw.into_inner());
    }
    Err(spanned(
        raw.span(),
        format!(
            "source = {text:?} does not say where each target's new content is, such as \
             \"{{config}}.new\""
        ),
    ))
}

fn reloads(raw: Spanned<Value>) -> Result<Reloads, SpannedError> {
    match raw.get_ref() {
        Value::Boolean(true) => Ok(Reloads::Yes),
        Value::Boolean(false) => Ok(Reloads::No),
        Value::String(text) if text == "unchecked" => Ok(Reloads::Unchecked),
        _ => Err(spanned(
            raw.span(),
            "reloads is true, false or \"unchecked\"",
        )),
    }
}

fn listen(raw: Spanned<Value>) -> Result<Vec<ListenAt>, SpannedError> {
    strings(&raw)?
        .into_iter()
        .map(|text| text.parse().map_err(|why: String| spanned(raw.span(), why)))
        .collect()
}

fn signal(raw: Spanned<String>) -> Result<Signal, SpannedError> {
    let all = [Signal::Hup, Signal::Usr1, Signal::Usr2];
    let found = all.into_iter().find(|s| s.name() == raw.get_ref());
    found.ok_or_else(|| SpannedError {
        hint: suggest(raw.get_ref(), all.into_iter().map(Signal::name)),
        ..spanned(raw.span(), "no signal that a program reloads on")
    })
}
