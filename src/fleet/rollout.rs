//! How a run goes over a fleet: in which waves, with how many failures, and what happens past them.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use toml::{Spanned, Value};

use super::{
    argv, parse_duration,
    spanned::{SpannedError, spanned},
};

/// A part of some instances: a number of them, or hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Share {
    /// So many.
    Count(usize),
    /// So many of 10,000.
    Part(u32),
}

impl Share {
    /// How many of `all` these are at least: a wave that is named is never smaller than its name.
    #[must_use]
    pub fn rounded_up(self, all: usize) -> usize {
        match self {
            Self::Count(n) => n.min(all),
            Self::Part(part) => (all * part as usize).div_ceil(10_000),
        }
    }

    /// How many of `all` these are at most: a limit is never larger than its name.
    #[must_use]
    pub fn rounded_down(self, all: usize) -> usize {
        match self {
            Self::Count(n) => n.min(all),
            Self::Part(part) => all * part as usize / 10_000,
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no = || {
            format!(
                "{text:?} is neither a number such as 1 nor a percentage from 0% to 100% such as \
                 25% or 0.5%"
            )
        };
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        let Some(percent) = text.strip_suffix('%') else {
            return text
                .parse()
                .ok()
                .filter(|_| digits(text))
                .map(Self::Count)
                .ok_or_else(no);
        };
        let (whole, rest) = percent.split_once('.').unwrap_or((percent, "0"));
        if !digits(whole) || !digits(rest) || rest.len() > 2 {
            return Err(no());
        }
        let part = whole.parse::<u32>().ok().and_then(|w| {
            w.checked_mul(100)?
                .checked_add(format!("{rest:0<2}").parse().ok()?)
        });
        part.filter(|part| *part <= 10_000)
            .map(Self::Part)
            .ok_or_else(no)
    }
}

impl TryFrom<String> for Share {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n}"),
            Self::Part(part) if part % 100 == 0 => write!(f, "{}%", part / 100),
            Self::Part(part) => write!(f, "{}.{:02}%", part / 100, part % 100),
        }
    }
}

/// What happens when more instances failed than may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The run goes on; who failed is put back alone.
    Continue,
    /// Nobody else is signalled; who is proven on the new config stays on it, and who failed is put
    /// back alone.
    Stop,
    /// Everything goes back.
    Revert,
}

/// How a run goes over the instances of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Cumulative; a last 100% is implied.
    pub waves: Vec<Share>,
    /// So many may fail without more than that: they are put back alone.
    pub max_failures: Share,
    /// Whether that is counted over this group alone; else over all groups of the run that say
    /// nothing of their own.
    pub alone: bool,
    /// So many of the group may have a silent endpoint before the run: they are left out.
    pub max_unresponsive: Share,
    /// How long a wave is left alone before every proven instance is looked at again.
    pub bake: Duration,
    /// A command of the operator's that must exit 0 after each wave; empty for none.
    pub gate: Vec<String>,
    /// Past `max_failures`.
    pub on_failure: OnFailure,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            waves: vec![Share::Count(1), Share::Part(10_000)],
            max_failures: Share::Count(0),
            alone: false,
            max_unresponsive: Share::Count(0),
            bake: Duration::ZERO,
            gate: Vec::new(),
            on_failure: OnFailure::Revert,
        }
    }
}

/// `[rollout]` and `[group.rollout]` as they are written.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRollout {
    waves: Option<Spanned<Value>>,
    max_failures: Option<Spanned<Value>>,
    max_unresponsive: Option<Spanned<Value>>,
    bake: Option<Spanned<String>>,
    gate: Option<Vec<Spanned<String>>>,
    on_failure: Option<OnFailure>,
}

impl RawRollout {
    /// Takes what is written here over what `base` says.
    pub(super) fn over(self, base: &Rollout) -> Result<Rollout, SpannedError> {
        let one = |raw: Option<Spanned<Value>>| {
            raw.map(|raw| share(raw.get_ref()).map_err(|why| spanned(raw.span(), why)))
                .transpose()
        };
        let max_failures = one(self.max_failures)?;
        Ok(Rollout {
            waves: match self.waves {
                Some(raw) => waves(raw.get_ref()).map_err(|why| spanned(raw.span(), why))?,
                None => base.waves.clone(),
            },
            alone: base.alone || max_failures.is_some(),
            max_failures: max_failures.unwrap_or(base.max_failures),
            max_unresponsive: one(self.max_unresponsive)?.unwrap_or(base.max_unresponsive),
            bake: match self.bake {
                Some(text) => {
                    parse_duration(text.get_ref()).map_err(|why| spanned(text.span(), why))?
                }
                None => base.bake,
            },
            gate: self.gate.map_or_else(|| Ok(base.gate.clone()), gate)?,
            on_failure: self.on_failure.unwrap_or(base.on_failure),
        })
    }
}

fn share(value: &Value) -> Result<Share, String> {
    match value {
        Value::String(text) => text.parse(),
        Value::Integer(n) => n.to_string().parse(),
        other => Err(format!(
            "{other} is neither a number such as 1 nor a percentage such as \"25%\""
        )),
    }
}

/// One, or a list.
fn waves(value: &Value) -> Result<Vec<Share>, String> {
    let all = match value {
        Value::Array(all) if all.is_empty() => {
            return Err("no wave in it: [\"100%\"] is all at once".into());
        }
        Value::Array(all) => all.iter().map(share).collect::<Result<_, _>>()?,
        one => vec![share(one)?],
    };
    check_waves(&all).map(|()| all)
}

/// An argv; it speaks of a wave and not of a process, so nothing stands for anything in it.
fn gate(raw: Vec<Spanned<String>>) -> Result<Vec<String>, SpannedError> {
    if let Some(nothing) = raw.first().filter(|program| program.get_ref().is_empty()) {
        return Err(spanned(
            nothing.span(),
            "a gate is a program and its arguments, without a shell; `gate = []` is none",
        ));
    }
    match raw
        .iter()
        .find_map(|arg| argv::known(arg.get_ref()).map(|name| (name, arg.span())))
    {
        Some((name, at)) => Err(spanned(
            at,
            format!("`{{{name}}}`: a gate judges a wave, not a process, so it has no placeholders"),
        )),
        None => Ok(raw.into_iter().map(Spanned::into_inner).collect()),
    }
}

/// Waves are cumulative, so none is nothing and none is smaller than one before it.
///
/// # Errors
/// A sentence that names the wave.
pub fn check_waves(waves: &[Share]) -> Result<(), String> {
    for (at, wave) in waves.iter().enumerate() {
        let nobody_left = |before: &Share| match (before, wave) {
            (Share::Count(before), Share::Count(wave)) => wave <= before,
            (Share::Part(before), Share::Part(wave)) => wave <= before,
            (before, _) => *before == Share::Part(10_000),
        };
        if matches!(wave, Share::Count(0) | Share::Part(0)) {
            return Err(format!("a wave of {wave} is nobody"));
        }
        if let Some(before) = waves[..at].iter().find(|before| nobody_left(before)) {
            return Err(format!(
                "waves are cumulative: {wave} after {before} adds nobody"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
