//! A `match` table as it is written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::{Spanned, Value};

use super::values::as_strings;
use crate::fleet::{
    ListenAtError, Match,
    shapes::Words,
    spanned::{SpannedError, spanned},
    unit_name,
};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Match")]
pub(super) struct RawMatch {
    /// File name of the executable, a glob; its path where the glob has a `/`.
    #[schemars(with = "Option<Words>")]
    exe: Option<Value>,
    /// The script that an interpreter runs, also `-m MODULE`.
    #[schemars(with = "Option<Words>")]
    script: Option<Value>,
    /// Each entry must fit an argument.
    #[serde(default)]
    #[schemars(with = "Vec<Words>")]
    args: Vec<Value>,
    /// The user, by name or number.
    user: Option<String>,
    /// Path in the unified control group hierarchy, a glob.
    cgroup: Option<String>,
    /// The systemd unit, `.service` where there is no suffix.
    unit: Option<String>,
    /// An absolute path: the file has the number of the process.
    pid_file: Option<PathBuf>,
    /// The process, or a child of it, listens on this TCP port.
    port: Option<u16>,
    /// The process, or a child of it, listens here; as `listen`.
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
