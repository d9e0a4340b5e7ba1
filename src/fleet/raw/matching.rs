//! A `match` table as it is written.

use std::path::PathBuf;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::values::as_strings;
use crate::fleet::{
    ListenAtError, Match,
    spanned::{SpannedError, spanned},
    unit_name,
};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMatch {
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

pub(super) fn resolve_match(raw: Spanned<RawMatch>) -> Result<Match, SpannedError> {
    let span = raw.span();
    let raw = raw.into_inner();
    let fault = |why: String| spanned(span.clone(), why);
    let pattern = |key: &str, text: &str| {
        glob::Pattern::new(text).map_err(|e| fault(format!("{key} = {text:?}: {e}")))
    };
    let any_of = |key: &str, value: &Value| -> Result<Vec<glob::Pattern>, SpannedError> {
        let texts = as_strings(value).ok_or_else(|| {
            fault(format!(
                "{key}: neither a string nor a list of strings of which one must fit"
            ))
        })?;
        texts.into_iter().map(|text| pattern(key, text)).collect()
    };
    if let Some(path) = raw.pid_file.as_ref().filter(|path| !path.is_absolute()) {
        return Err(fault(format!(
            "pid_file = {path:?} is not an absolute path"
        )));
    }
    let listens = raw.listens.map(|text| {
        text.parse()
            .map_err(|e: ListenAtError| fault(e.to_string()))
    });
    let cgroup = raw.cgroup.map(|text| pattern("cgroup", &text));
    let matching = Match {
        exe: raw.exe.map_or(Ok(Vec::new()), |v| any_of("exe", &v))?,
        script: raw
            .script
            .map_or(Ok(Vec::new()), |v| any_of("script", &v))?,
        args: raw
            .args
            .iter()
            .map(|v| any_of("args", v))
            .collect::<Result<_, _>>()?,
        user: raw.user,
        cgroup: cgroup.transpose()?,
        unit: raw.unit.as_deref().map(unit_name),
        pid_file: raw.pid_file,
        port: raw.port,
        listens: listens.transpose()?,
    };
    if matching.is_empty() {
        return Err(spanned(
            span,
            "nothing to match by: set `exe`, `script`, `args`, `user`, `cgroup`, `unit`, \
             `pid_file`, `port` or `listens`",
        ));
    }
    Ok(matching)
}
