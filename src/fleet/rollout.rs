//! The waves of a run, the failures that it tolerates, and its reaction to more of them.

use std::{fmt, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{Spanned, Value};

use super::{
    argv, parse_duration,
    shapes::{DurationText, ShareText, Waves},
    spanned::{SpannedError, spanned},
};

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
    /// The list is empty.
    #[error("no wave in it: [\"100%\"] is all at once")]
    None,
    /// A wave signals no instance.
    #[error("a wave of {0} has no instances")]
    Empty(Share),
    /// A wave does not add to the one before.
    #[error("waves are cumulative: {wave} after {before} adds no instances")]
    NotLarger {
        /// The wave.
        wave: Share,
        /// The one before it.
        before: Share,
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
    pub waves: Vec<Share>,
    /// The number of failures that the run tolerates. These instances are rolled back alone.
    pub max_failures: Share,
    /// True if failures are counted over this group alone. Otherwise they are counted over all
    /// groups of the run that do not set `max_failures`.
    pub alone: bool,
    /// The number of unresponsive instances that the run may skip.
    pub max_unresponsive: Share,
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

/// A `[rollout]` or `[group.rollout]` table as it is written.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Rollout")]
pub(super) struct RawRollout {
    /// How many are signalled by the end of each wave. Default: `["1", "100%"]`.
    #[schemars(with = "Option<Waves>")]
    waves: Option<Spanned<Value>>,
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
    /// Takes from `base` each key that is not set here.
    pub(super) fn over(self, base: &Rollout) -> Result<Rollout, SpannedError> {
        let optional = |raw: Option<Spanned<Value>>| {
            raw.map(|raw| share(raw.get_ref()).map_err(|why| spanned(raw.span(), why)))
                .transpose()
        };
        let max_failures = optional(self.max_failures)?;
        Ok(Rollout {
            waves: match self.waves {
                Some(raw) => waves(raw.get_ref()).map_err(|why| spanned(raw.span(), why))?,
                None => base.waves.clone(),
            },
            alone: base.alone || max_failures.is_some(),
            max_failures: max_failures.unwrap_or(base.max_failures),
            max_unresponsive: optional(self.max_unresponsive)?.unwrap_or(base.max_unresponsive),
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

fn share(value: &Value) -> Result<Share, WavesError> {
    match value {
        Value::String(text) => Ok(text.parse()?),
        Value::Integer(n) => Ok(n.to_string().parse()?),
        other => Err(WavesError::Type(other.clone())),
    }
}

/// Reads one wave, or a list of them.
fn waves(value: &Value) -> Result<Vec<Share>, WavesError> {
    let waves = match value {
        Value::Array(list) if list.is_empty() => {
            return Err(WavesError::None);
        }
        Value::Array(list) => list.iter().map(share).collect::<Result<_, _>>()?,
        single => vec![share(single)?],
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

/// Checks that each wave is larger than the one before: waves are cumulative.
///
/// # Errors
/// Fails with the first wave that is not.
pub fn check_waves(waves: &[Share]) -> Result<(), WavesError> {
    for (index, wave) in waves.iter().enumerate() {
        let adds_none = |before: &Share| match (before, wave) {
            (Share::Count(before), Share::Count(wave)) => wave <= before,
            (Share::Part(before), Share::Part(wave)) => wave <= before,
            (before, _) => *before == Share::Part(10_000),
        };
        if matches!(wave, Share::Count(0) | Share::Part(0)) {
            return Err(WavesError::Empty(*wave));
        }
        if let Some(before) = waves[..index].iter().find(|before| adds_none(before)) {
            return Err(WavesError::NotLarger {
                wave: *wave,
                before: *before,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
