//! Single values of a group.

use std::{path::PathBuf, time::Duration};

use toml::{Spanned, Value};

use crate::{
    diagnostic::suggest,
    fleet::{
        Count, ListenAt, ListenAtError, PathBase, Reading, Reloads, Signal, parse_count,
        parse_duration,
        spanned::{SpannedError, spanned},
        title_parts, value_of, variable_of,
    },
};

/// Returns a string or a list of strings as a list; none if the value is neither.
pub(super) fn as_strings(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text.as_str()]),
        Value::Array(list) if !list.is_empty() => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

fn strings(raw: &Spanned<Value>) -> Result<Vec<&str>, SpannedError> {
    as_strings(raw.get_ref())
        .ok_or_else(|| spanned(raw.span(), "neither a string nor a list of strings"))
}

/// Reads a string, or a list of strings.
pub(super) fn words(raw: &Spanned<Value>) -> Result<Vec<String>, SpannedError> {
    Ok(strings(raw)?.into_iter().map(str::to_owned).collect())
}

pub(super) fn count(raw: &Spanned<Value>) -> Result<Count, SpannedError> {
    let known = match raw.get_ref() {
        Value::Integer(n) => usize::try_from(*n).ok(),
        Value::String(text) => {
            return parse_count(text).map_err(|why| spanned(raw.span(), why));
        }
        _ => None,
    };
    let count = known.map(|n| Count { min: n, max: n });
    count.ok_or_else(|| spanned(raw.span(), "a count is 3, \"3..\", \"..5\" or \"3..5\""))
}

/// Reads one absolute path, or a list of them.
pub(super) fn paths(raw: &Spanned<Value>) -> Result<Vec<PathBuf>, SpannedError> {
    let texts = strings(raw)?;
    match texts.iter().find(|path| !path.starts_with('/')) {
        Some(path) => Err(spanned(
            raw.span(),
            format!("{path:?} is not an absolute path"),
        )),
        None => Ok(texts.into_iter().map(PathBuf::from).collect()),
    }
}

/// Reads one path with placeholders, or a list of them.
pub(super) fn path_bases(raw: &Spanned<Value>) -> Result<Vec<PathBase>, SpannedError> {
    strings(raw)?
        .into_iter()
        .map(|text| path_base(text).map_err(|why| spanned(raw.span(), why)))
        .collect()
}

/// Reads one path, a list of paths of which the first that exists counts, or a list of such lists:
/// several targets.
pub(super) fn targets(raw: &Spanned<Value>) -> Result<Vec<Vec<PathBase>>, SpannedError> {
    match raw.get_ref() {
        Value::Array(list) if list.iter().any(Value::is_array) => list
            .iter()
            .map(|inner| path_bases(&Spanned::new(raw.span(), inner.clone())))
            .collect(),
        _ => Ok(vec![path_bases(raw)?]),
    }
}

fn path_base(text: &str) -> Result<PathBase, String> {
    let below = |rest: &str| match rest.strip_prefix('/') {
        Some(rest) => Some(PathBuf::from(rest)),
        None => rest.is_empty().then(PathBuf::new),
    };
    let found = match text.strip_prefix('{').and_then(|t| t.split_once('}')) {
        Some((name, rest)) => match (name, name.split_once(':')) {
            ("cwd", _) => below(rest).map(PathBase::Cwd),
            ("base", _) => below(rest).map(PathBase::Base),
            (_, Some(("arg", option))) if value_of(&format!("arg:{option}")).is_some() => {
                below(rest).map(|rest| PathBase::Arg(option.into(), rest))
            }
            (_, Some(("built", text))) if !text.is_empty() => {
                below(rest).map(|rest| PathBase::Built(text.into(), rest))
            }
            (_, Some(("env", variable))) if variable_of(name).is_some() => {
                below(rest).map(|rest| PathBase::Env(variable.into(), rest))
            }
            (_, Some(("title", pattern))) if title_parts(pattern).is_some() => {
                below(rest).map(|rest| PathBase::Title(pattern.into(), rest))
            }
            _ => None,
        },
        None => text.starts_with('/').then(|| PathBase::Path(text.into())),
    };
    if text.contains("://") {
        return Err(format!(
            "{text:?} is a key, which is the only target of its group: `config = {text:?}`"
        ));
    }
    // Any other path would depend on the directory that `hello` is started in.
    found.ok_or_else(|| {
        format!(
            "{text:?} is neither {{arg:--option}}, {{arg:1}}, {{cwd}}/FILE, {{base}}/FILE, \
             {{built:TEXT}}, {{env:NAME}}, {{title:TEXT *}} nor an absolute path"
        )
    })
}

pub(super) fn duration(raw: Spanned<String>) -> Result<Duration, SpannedError> {
    parse_duration(raw.get_ref()).map_err(|why| spanned(raw.span(), why))
}

pub(super) fn title(raw: Spanned<String>) -> Result<String, SpannedError> {
    Reading::title_parts(raw.get_ref()).map_err(|why| spanned(raw.span(), why))?;
    Ok(raw.into_inner())
}

pub(super) fn source(raw: Spanned<String>) -> Result<String, SpannedError> {
    let text = raw.get_ref();
    if text.contains("{config}") && (text.starts_with('/') || text.starts_with("{config}")) {
        return Ok(raw.into_inner());
    }
    Err(spanned(
        raw.span(),
        format!(
            "source = {text:?} does not say where each target's new content is, such as \
             \"{{config}}.new\" or \"https://HOST/KEY\""
        ),
    ))
}

pub(super) fn reloads(raw: Spanned<Value>) -> Result<Reloads, SpannedError> {
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

pub(super) fn listen(raw: &Spanned<Value>) -> Result<Vec<ListenAt>, SpannedError> {
    strings(raw)?
        .into_iter()
        .map(|text| {
            text.parse()
                .map_err(|why: ListenAtError| spanned(raw.span(), why))
        })
        .collect()
}

pub(super) fn signal(raw: Spanned<String>) -> Result<Signal, SpannedError> {
    let signals = [Signal::Hup, Signal::Usr1, Signal::Usr2];
    let found = signals
        .into_iter()
        .find(|signal| signal.name() == raw.get_ref());
    found.ok_or_else(|| SpannedError {
        hint: suggest(raw.get_ref(), signals.into_iter().map(Signal::name)),
        ..spanned(raw.span(), "no signal that a program reloads on")
    })
}
