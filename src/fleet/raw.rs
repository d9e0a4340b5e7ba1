//! `fleet.toml` as it is written, and how it becomes groups with every default filled in.

use std::{ops::Range, path::PathBuf};

use serde::Deserialize;
use toml::{Spanned, Value};

use super::{Count, Group, Listed, ListenAt, Match, Place, Reloads, Signal, Speaks, parse_count, parse_duration};
use crate::{
    fact::{Fact, RawFact},
    fault::{self, Fault, likely},
};

/// Embedded groups; a group of that kind takes from it what it does not say itself.
const KINDS: &[(&str, &str)] = &[("hello", include_str!("../kinds/hello.toml"))];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFleet {
    version: Spanned<u32>,
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
    user: Option<String>,
    count: Option<Spanned<Value>>,
    config: Option<Spanned<Value>>,
    config_under: Option<Spanned<Value>>,
    secret: Option<bool>,
    validate: Option<Vec<String>>,
    reloads: Option<Spanned<Value>>,
    speaks: Option<Speaks>,
    listen: Option<Spanned<String>>,
    signal: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    instances: Option<Spanned<Vec<Listed>>>,
    samples: Option<Spanned<u32>>,
    confirm: Option<Vec<Spanned<RawFact>>>,
    reject: Option<Vec<Spanned<RawFact>>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMatch {
    exe: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    user: Option<String>,
}

/// What is wrong with a value, and where.
struct Wrong {
    message: String,
    hint: Option<String>,
    at: Range<usize>,
}

fn wrong(at: Range<usize>, message: impl Into<String>) -> Wrong {
    Wrong { message: message.into(), hint: None, at }
}

/// Every group of a `fleet.toml`.
///
/// # Errors
/// The first fault, with its place.
pub(super) fn groups(bytes: &[u8]) -> Result<Vec<Group>, Fault> {
    let raw: RawFleet = fault::parse(bytes)?;
    let fault = |wrong: Wrong| Fault::new(bytes, wrong.message, wrong.hint, Some(wrong.at));
    if *raw.version.get_ref() != 1 {
        return Err(fault(wrong(raw.version.span(), format!("version {}, but this hello reads version 1", raw.version.get_ref()))));
    }
    let mut groups: Vec<Group> = Vec::new();
    for group in raw.group {
        let (at, raw) = (group.span(), group.into_inner());
        let named = raw.name.as_ref().map_or(at.clone(), Spanned::span);
        let group = resolve(raw, at).map_err(fault)?;
        if groups.iter().any(|g| g.name == group.name) {
            return Err(fault(wrong(named, format!("two groups are named `{}`", group.name))));
        }
        groups.push(group);
    }
    if groups.is_empty() {
        return Err(Fault::new(bytes, "no [[group]] in it", None, None));
    }
    Ok(groups)
}

/// The group that a kind alone describes.
///
/// # Errors
/// When there is no such kind.
pub(super) fn of_kind(kind: &str) -> Result<Group, Fault> {
    let named = || Some(Spanned::new(0..0, kind.to_owned()));
    let raw = RawGroup { name: named(), kind: named(), ..RawGroup::default() };
    resolve(raw, 0..0).map_err(|w| Fault::new(&[], w.message, w.hint, None))
}

fn defaults(kind: Option<&Spanned<String>>) -> Result<RawGroup, Wrong> {
    let Some(kind) = kind else { return Ok(RawGroup::default()) };
    let (name, at) = (kind.get_ref(), kind.span());
    match KINDS.iter().find(|(known, _)| known == name) {
        Some((_, text)) => fault::parse(text.as_bytes()).map_err(|e| wrong(at, format!("kind `{name}`: {e}"))),
        None => Err(Wrong { hint: likely(name, KINDS.iter().map(|(known, _)| *known)), ..wrong(at, format!("no kind `{name}`")) }),
    }
}

fn resolve(raw: RawGroup, at: Range<usize>) -> Result<Group, Wrong> {
    let base = defaults(raw.kind.as_ref())?;
    let name = raw.name.as_ref().or(raw.kind.as_ref()).ok_or_else(|| wrong(at.clone(), "`name` is missing"))?.get_ref().clone();
    let unproven = || wrong(at.clone(), "nothing says how a reload is proven: add [[group.confirm]], or `confirm = []` where nothing can be seen");
    let speaks = raw.speaks.or(base.speaks).unwrap_or(Speaks::None);
    let confirm = match raw.confirm.or(base.confirm) {
        Some(confirm) => facts(confirm)?,
        None if speaks == Speaks::Hello => Vec::new(),
        None => return Err(unproven()),
    };
    let samples = raw.samples.or(base.samples);
    if let Some(zero) = samples.as_ref().filter(|s| *s.get_ref() == 0) {
        return Err(wrong(zero.span(), "0 samples would prove nothing"));
    }
    let instances = raw.instances.map(|i| (i.span(), i.into_inner()));
    if let Some((at, _)) = instances.as_ref().filter(|(_, all)| all.iter().any(|i| i.pid <= 0)) {
        return Err(wrong(at.clone(), "a pid is not above 0"));
    }
    let config_under = raw.config_under.or(base.config_under).map(paths).transpose()?.unwrap_or_default();
    Ok(Group {
        name,
        matching: matching(raw.r#match.or(base.r#match).ok_or_else(|| wrong(at.clone(), "`match` is missing"))?)?,
        exclude: raw.exclude.or(base.exclude).map(matching).transpose()?,
        user: raw.user.or(base.user),
        count: raw.count.or(base.count).map_or(Ok(Count { min: 1, max: usize::MAX }), count)?,
        config: raw.config.or(base.config).map(places).transpose()?.unwrap_or_default(),
        config_under,
        secret: raw.secret.or(base.secret),
        validate: raw.validate.or(base.validate).unwrap_or_default(),
        reloads: raw.reloads.or(base.reloads).map_or(Ok(Reloads::No), reloads)?,
        listen: raw.listen.or(base.listen).map(listen).transpose()?,
        signal: raw.signal.or(base.signal).map_or(Ok(Signal::Hup), signal)?,
        timeout: match raw.timeout.or(base.timeout) {
            Some(text) => parse_duration(text.get_ref()).map_err(|why| wrong(text.span(), why))?,
            None => std::time::Duration::from_secs(5),
        },
        samples: samples.map_or(if speaks == Speaks::Hello { 1 } else { 3 }, Spanned::into_inner),
        speaks,
        confirm,
        reject: facts(raw.reject.or(base.reject).unwrap_or_default())?,
        instances: instances.map(|(_, all)| all).unwrap_or_default(),
        kind: raw.kind.map(Spanned::into_inner),
    })
}

fn facts(raw: Vec<Spanned<RawFact>>) -> Result<Vec<Fact>, Wrong> {
    raw.into_iter().map(|fact| (fact.span(), fact.into_inner())).map(|(at, fact)| Fact::try_from(fact).map_err(|why| wrong(at, why))).collect()
}

fn matching(raw: Spanned<RawMatch>) -> Result<Match, Wrong> {
    let (at, raw) = (raw.span(), raw.into_inner());
    if raw.exe.is_none() && raw.args.is_empty() && raw.user.is_none() {
        return Err(wrong(at, "nothing to match by: say `exe`, `args` or `user`"));
    }
    let exe = raw.exe.map(|exe| glob::Pattern::new(&exe).map_err(|e| wrong(at, format!("exe = {exe:?}: {e}")))).transpose()?;
    Ok(Match { exe, args: raw.args, user: raw.user })
}

fn count(raw: Spanned<Value>) -> Result<Count, Wrong> {
    let says = match raw.get_ref() {
        Value::Integer(n) => usize::try_from(*n).ok().map(|n| Ok(Count { min: n, max: n })),
        Value::String(text) => Some(parse_count(text)),
        _ => None,
    };
    says.unwrap_or_else(|| Err("a count is 3, \"3..\", \"..5\" or \"3..5\"".into())).map_err(|why| wrong(raw.span(), why))
}

/// A string, or a list of strings.
fn strings(raw: &Spanned<Value>) -> Result<Vec<&str>, Wrong> {
    let list = match raw.get_ref() {
        Value::String(one) => Some(vec![one.as_str()]),
        Value::Array(all) if !all.is_empty() => all.iter().map(Value::as_str).collect(),
        _ => None,
    };
    list.ok_or_else(|| wrong(raw.span(), "neither a string nor a list of strings"))
}

fn paths(raw: Spanned<Value>) -> Result<Vec<PathBuf>, Wrong> {
    let all = strings(&raw)?;
    match all.iter().find(|p| !p.starts_with('/')) {
        Some(path) => Err(wrong(raw.span(), format!("{path:?} is no absolute path"))),
        None => Ok(all.into_iter().map(PathBuf::from).collect()),
    }
}

fn places(raw: Spanned<Value>) -> Result<Vec<Place>, Wrong> {
    let place = |text: &str| match text.strip_prefix("{arg:").and_then(|t| t.strip_suffix('}')) {
        Some(option) if !option.is_empty() => Ok(Place::Arg(option.into())),
        None if text.starts_with('/') => Ok(Place::Path(text.into())),
        // It would depend on where `hello` is started.
        _ => Err(wrong(raw.span(), format!("{text:?} is neither {{arg:--option}} nor an absolute path"))),
    };
    strings(&raw)?.into_iter().map(place).collect()
}

fn reloads(raw: Spanned<Value>) -> Result<Reloads, Wrong> {
    match raw.get_ref() {
        Value::Boolean(true) => Ok(Reloads::Yes),
        Value::Boolean(false) => Ok(Reloads::No),
        Value::String(text) if text == "unchecked" => Ok(Reloads::Unchecked),
        _ => Err(wrong(raw.span(), "reloads is true, false or \"unchecked\"")),
    }
}

fn listen(raw: Spanned<String>) -> Result<ListenAt, Wrong> {
    let says = match raw.get_ref().split_once(':') {
        Some(("tcp", rest)) => rest.parse().map(ListenAt::TcpPort).ok().or_else(|| rest.parse().map(ListenAt::Tcp).ok()),
        Some(("unix", path)) if path.starts_with('/') => Some(ListenAt::Unix(path.into())),
        _ => None,
    };
    says.ok_or_else(|| wrong(raw.span(), "listen is tcp:PORT, tcp:ADDRESS:PORT or unix:/PATH"))
}

fn signal(raw: Spanned<String>) -> Result<Signal, Wrong> {
    let all = [Signal::Hup, Signal::Usr1, Signal::Usr2];
    let found = all.into_iter().find(|s| s.name() == raw.get_ref());
    found.ok_or_else(|| Wrong { hint: likely(raw.get_ref(), all.into_iter().map(Signal::name)), ..wrong(raw.span(), "no signal that a program reloads on") })
}
