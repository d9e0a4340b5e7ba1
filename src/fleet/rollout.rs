//! The waves of a run, the failures that it tolerates, and its reaction to more of them.

use std::{fmt, ops::Range, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{Spanned, Value};

use super::{
    argv, parse_duration,
    shapes::{DurationText, ShareText, Waves},
    spanned::{SpannedError, label, spanned},
};
use crate::inventory::{Expression, TermError};

/// A text that is no share of a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a number such as 1 nor a percentage from 0% to 100% such as 25% or 0.5%")]
pub struct ShareError(String);

/// Why a value is no list of waves.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WavesError {
    /// A text in it is no share.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A value in it is neither a number nor a text.
    #[error("{0} is neither a number such as 1 nor a percentage such as \"25%\"")]
    Type(Value),
    /// A table in it has another form than `{ on = "TERM" }`.
    #[error("{0} is not {{ on = \"TERM\" }}, which names the hosts of a wave")]
    Table(Value),
    /// The text that names the hosts of a wave is no term.
    #[error("{{ on = {0:?} }}: {1}")]
    Term(String, TermError),
    /// The list is empty.
    #[error("no wave in it: [\"100%\"] is all at once")]
    None,
    /// A wave signals no instance.
    #[error("a wave of {0} has no instances")]
    Empty(WaveEnd),
    /// A wave does not add to the one before.
    #[error("waves are cumulative: {wave} after {before} adds no instances")]
    NotLarger {
        /// The wave.
        wave: WaveEnd,
        /// The one before it.
        before: WaveEnd,
    },
}

/// A number of instances, or a part of a group in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Share {
    /// A number of instances.
    Count(usize),
    /// A part in units of 1/10,000.
    Part(u32),
}

impl Share {
    /// Returns the number of instances of a group of `total`, rounded up: a wave is never smaller
    /// than its share.
    #[must_use]
    pub fn rounded_up(self, total: usize) -> usize {
        match self {
            Self::Count(n) => n.min(total),
            Self::Part(part) => (total * part as usize).div_ceil(10_000),
        }
    }

    /// Returns the number of instances of a group of `total`, rounded down: a limit is never larger
    /// than its share.
    #[must_use]
    pub fn rounded_down(self, total: usize) -> usize {
        match self {
            Self::Count(n) => n.min(total),
            Self::Part(part) => total * part as usize / 10_000,
        }
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let invalid = || ShareError(text.into());
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        let Some(percent) = text.strip_suffix('%') else {
            return text
                .parse()
                .ok()
                .filter(|_| digits(text))
                .map(Self::Count)
                .ok_or_else(invalid);
        };
        let (whole, rest) = percent.split_once('.').unwrap_or((percent, "0"));
        if !digits(whole) || !digits(rest) || rest.len() > 2 {
            return Err(invalid());
        }
        let part = whole.parse::<u32>().ok().and_then(|w| {
            w.checked_mul(100)?
                .checked_add(format!("{rest:0<2}").parse().ok()?)
        });
        part.filter(|part| *part <= 10_000)
            .map(Self::Part)
            .ok_or_else(invalid)
    }
}

impl TryFrom<String> for Share {
    type Error = ShareError;

    fn try_from(text: String) -> Result<Self, ShareError> {
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

/// The instances of a group that have been signalled by the end of a wave: a share of them, or all
/// of some hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WaveEnd {
    /// This many.
    Share(Share),
    /// Those of the hosts that the terms select, and all before them.
    Hosts {
        /// The terms.
        on: Expression,
    },
}

impl From<Share> for WaveEnd {
    fn from(share: Share) -> Self {
        Self::Share(share)
    }
}

impl fmt::Display for WaveEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => share.fmt(f),
            Self::Hosts { on } => write!(f, "{{ on = \"{on}\" }}"),
        }
    }
}

/// The reaction of a run to more failures than it tolerates.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The run goes on; failed instances are rolled back alone.
    Continue,
    /// No other instance is signalled. Instances that are proven on the new config keep it, and
    /// failed instances are rolled back alone.
    Stop,
    /// Every instance is rolled back.
    Revert,
}

/// The rollout over the instances of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The cumulative size of each wave; a last one of 100% is implied.
    pub waves: Vec<WaveEnd>,
    /// The label whose values alternate in the order in which hosts are taken.
    #[serde(default)]
    pub spread: Option<String>,
    /// The label of which no two hosts with the same value are signalled in one wave of a run.
    #[serde(default)]
    pub apart: Option<String>,
    /// The number of failures that the run tolerates. These instances are rolled back alone.
    pub max_failures: Share,
    /// True if failures are counted over this group alone. Otherwise they are counted over all
    /// groups of the run that do not set `max_failures`.
    pub alone: bool,
    /// The number of unresponsive instances that the run may skip.
    pub max_unresponsive: Share,
    /// True if the file sets it. A run over hosts counts them over all of its hosts then.
    #[serde(default)]
    pub limits_unresponsive: bool,
    /// True on a host whose coordinator counts them: the host skips each of them.
    #[serde(skip)]
    pub skips_unresponsive: bool,
    /// The pause after a wave, before every proven instance is probed again.
    pub bake: Duration,
    /// The operator's command that must exit with 0 after each wave; empty for none.
    pub gate: Vec<String>,
    /// The reaction to more failures than `max_failures`.
    pub on_failure: OnFailure,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            waves: vec![Share::Count(1).into(), Share::Part(10_000).into()],
            spread: None,
            apart: None,
            max_failures: Share::Count(0),
            alone: false,
            max_unresponsive: Share::Count(0),
            limits_unresponsive: false,
            skips_unresponsive: false,
            bake: Duration::ZERO,
            gate: Vec::new(),
            on_failure: OnFailure::Revert,
        }
    }
}

/// A `[rollout]` or `[group.rollout]` table as it is written.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Rollout")]
pub(super) struct RawRollout {
    /// How many are signalled by the end of each wave. Default: `["1", "100%"]`.
    #[schemars(with = "Option<Waves>")]
    waves: Option<Spanned<Value>>,
    /// The label of hosts whose values alternate, so that no early wave is of one value.
    #[schemars(with = "Option<String>")]
    spread: Option<Spanned<String>>,
    /// The label of hosts of which no two with the same value are signalled in one wave.
    #[schemars(with = "Option<String>")]
    apart: Option<Spanned<String>>,
    /// How many instances may fail; they alone are rolled back. Default: 0.
    #[schemars(with = "Option<ShareText>")]
    max_failures: Option<Spanned<Value>>,
    /// How many of a group may be unresponsive before the run. Default: 0.
    #[schemars(with = "Option<ShareText>")]
    max_unresponsive: Option<Spanned<Value>>,
    /// How long a proven wave is left alone before it is probed again. Default: `"0s"`.
    #[schemars(with = "Option<DurationText>")]
    bake: Option<Spanned<String>>,
    /// The operator's command that must exit 0 after each wave.
    #[schemars(with = "Option<Vec<String>>")]
    gate: Option<Vec<Spanned<String>>>,
    /// The reaction to more failures than `max_failures`. Default: `"revert"`.
    on_failure: Option<OnFailure>,
}

impl RawRollout {
    /// Returns the keys that are about hosts, each with its position.
    pub(super) fn host_keys(&self) -> impl Iterator<Item = (&'static str, Range<usize>)> {
        let names_hosts = |raw: &Spanned<Value>| match raw.get_ref() {
            Value::Array(list) => list.iter().any(Value::is_table),
            single => single.is_table(),
        };
        let waves = self.waves.as_ref().filter(|raw| names_hosts(raw));
        [
            ("`waves` with `{ on = .. }`", waves.map(Spanned::span)),
            ("`spread`", self.spread.as_ref().map(Spanned::span)),
            ("`apart`", self.apart.as_ref().map(Spanned::span)),
        ]
        .into_iter()
        .filter_map(|(key, span)| Some((key, span?)))
    }

    /// Takes from `base` each key that is not set here.
    pub(super) fn over(self, base: &Rollout) -> Result<Rollout, SpannedError> {
        let optional = |raw: Option<Spanned<Value>>| {
            raw.map(|raw| share(raw.get_ref()).map_err(|why| spanned(raw.span(), why)))
                .transpose()
        };
        let max_failures = optional(self.max_failures)?;
        let max_unresponsive = optional(self.max_unresponsive)?;
        Ok(Rollout {
            waves: match self.waves {
                Some(raw) => waves(raw.get_ref()).map_err(|why| spanned(raw.span(), why))?,
                None => base.waves.clone(),
            },
            spread: self.spread.map(label).transpose()?.or(base.spread.clone()),
            apart: self.apart.map(label).transpose()?.or(base.apart.clone()),
            alone: base.alone || max_failures.is_some(),
            max_failures: max_failures.unwrap_or(base.max_failures),
            limits_unresponsive: base.limits_unresponsive || max_unresponsive.is_some(),
            skips_unresponsive: false,
            max_unresponsive: max_unresponsive.unwrap_or(base.max_unresponsive),
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

/// Reads a number or a percentage.
///
/// # Errors
/// Fails if the value is neither.
pub(super) fn share(value: &Value) -> Result<Share, WavesError> {
    match value {
        Value::String(text) => Ok(text.parse()?),
        Value::Integer(n) => Ok(n.to_string().parse()?),
        other => Err(WavesError::Type(other.clone())),
    }
}

/// Reads one wave.
fn wave_end(value: &Value) -> Result<WaveEnd, WavesError> {
    let Value::Table(table) = value else {
        return share(value).map(WaveEnd::Share);
    };
    let Some(text) = table.get("on").and_then(Value::as_str) else {
        return Err(WavesError::Table(value.clone()));
    };
    if table.len() > 1 {
        return Err(WavesError::Table(value.clone()));
    }
    Expression::of_file(text)
        .map(|on| WaveEnd::Hosts { on })
        .map_err(|why| WavesError::Term(text.into(), why))
}

/// Reads one wave, or a list of them.
fn waves(value: &Value) -> Result<Vec<WaveEnd>, WavesError> {
    let waves = match value {
        Value::Array(list) if list.is_empty() => {
            return Err(WavesError::None);
        }
        Value::Array(list) => list.iter().map(wave_end).collect::<Result<_, _>>()?,
        single => vec![wave_end(single)?],
    };
    check_waves(&waves).map(|()| waves)
}

/// Reads an argv. It is about a wave and not about a process, so it has no placeholders.
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
        Some((name, span)) => Err(spanned(
            span,
            format!("`{{{name}}}`: a gate judges a wave, not a process, so it has no placeholders"),
        )),
        None => Ok(raw.into_iter().map(Spanned::into_inner).collect()),
    }
}

/// Checks that each wave is larger than the one before: waves are cumulative. Only a run knows
/// which hosts a term selects, so of two waves of hosts equal terms alone are refused.
///
/// # Errors
/// Fails with the first wave that is not.
pub fn check_waves(waves: &[WaveEnd]) -> Result<(), WavesError> {
    let adds_none = |before: &WaveEnd, wave: &WaveEnd| match (before, wave) {
        (WaveEnd::Share(Share::Part(10_000)), _) => true,
        (WaveEnd::Share(before), WaveEnd::Share(wave)) => match (before, wave) {
            (Share::Count(before), Share::Count(wave)) => wave <= before,
            (Share::Part(before), Share::Part(wave)) => wave <= before,
            _ => false,
        },
        (before, wave) => before == wave,
    };
    for (index, wave) in waves.iter().enumerate() {
        if let WaveEnd::Share(Share::Count(0) | Share::Part(0)) = wave {
            return Err(WavesError::Empty(wave.clone()));
        }
        if let Some(before) = waves[..index].iter().find(|before| adds_none(before, wave)) {
            return Err(WavesError::NotLarger {
                wave: wave.clone(),
                before: before.clone(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
