//! How a run goes over a fleet: in which waves, with how many failures, and what happens past them.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{
    parse_duration,
    raw::{Wrong, strings_or_numbers, wrong},
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
        let no = || format!("{text:?} is neither a number such as 1 nor a percentage from 0% to 100% such as 25% or 0.5%");
        let Some(percent) = text.strip_suffix('%') else { return text.parse().map(Self::Count).map_err(|_| no()) };
        let (whole, rest) = percent.split_once('.').unwrap_or((percent, "0"));
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(rest) || rest.len() > 2 {
            return Err(no());
        }
        let part = whole.parse::<u32>().ok().and_then(|w| w.checked_mul(100)?.checked_add(format!("{rest:0<2}").parse().ok()?));
        part.filter(|part| *part <= 10_000).map(Self::Part).ok_or_else(no)
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
    /// Nobody else is signalled; who is proven on the new config stays on it, and who failed is put back alone.
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
    /// Whether that is counted over this group alone; else over all groups of the run that say nothing of their own.
    pub alone: bool,
    /// So many of the group may have a silent endpoint before the run: they are left out.
    pub max_sick: Share,
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
            max_sick: Share::Count(0),
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
    waves: Option<Spanned<toml::Value>>,
    max_failures: Option<Spanned<toml::Value>>,
    max_sick: Option<Spanned<toml::Value>>,
    bake: Option<Spanned<String>>,
    gate: Option<Vec<String>>,
    on_failure: Option<OnFailure>,
}

impl RawRollout {
    /// Takes what is written here over what `base` says.
    pub(super) fn over(self, base: &Rollout) -> Result<Rollout, Wrong> {
        let share = |raw: Option<Spanned<toml::Value>>| -> Result<Option<Share>, Wrong> {
            let Some(raw) = raw else { return Ok(None) };
            let shares = shares(&raw)?;
            match shares.as_slice() {
                [one] => Ok(Some(*one)),
                _ => Err(wrong(raw.span(), "one number or percentage, not several")),
            }
        };
        let max_failures = share(self.max_failures)?;
        Ok(Rollout {
            waves: match self.waves {
                Some(raw) => {
                    let all = shares(&raw)?;
                    check_waves(&all).map_err(|why| wrong(raw.span(), why))?;
                    all
                }
                None => base.waves.clone(),
            },
            alone: base.alone || max_failures.is_some(),
            max_failures: max_failures.unwrap_or(base.max_failures),
            max_sick: share(self.max_sick)?.unwrap_or(base.max_sick),
            bake: match self.bake {
                Some(text) => parse_duration(text.get_ref()).map_err(|why| wrong(text.span(), why))?,
                None => base.bake,
            },
            gate: self.gate.unwrap_or_else(|| base.gate.clone()),
            on_failure: self.on_failure.unwrap_or(base.on_failure),
        })
    }
}

fn shares(raw: &Spanned<toml::Value>) -> Result<Vec<Share>, Wrong> {
    strings_or_numbers(raw)?.iter().map(|text| text.parse().map_err(|why: String| wrong(raw.span(), why))).collect()
}

/// Waves are cumulative, so none is nothing and none is smaller than the one before it.
///
/// # Errors
/// A sentence that names the wave.
pub fn check_waves(waves: &[Share]) -> Result<(), String> {
    if let Some(none) = waves.iter().find(|w| matches!(w, Share::Count(0) | Share::Part(0))) {
        return Err(format!("a wave of {none} is nobody"));
    }
    let falls = |pair: &&[Share]| match pair {
        [Share::Count(a), Share::Count(b)] => b <= a,
        [Share::Part(a), Share::Part(b)] => b <= a,
        _ => false,
    };
    match waves.windows(2).find(falls) {
        Some(pair) => Err(format!("waves are cumulative: {} after {} adds nobody", pair[1], pair[0])),
        None => Ok(()),
    }
}

/// `1,25%,100%` as the command line has it.
///
/// # Errors
/// As [`check_waves`], and a sentence where one is no number and no percentage.
pub fn parse_waves(text: &str) -> Result<Vec<Share>, String> {
    let waves = text.split(',').map(|part| part.trim().parse()).collect::<Result<Vec<Share>, _>>()?;
    check_waves(&waves).map(|()| waves)
}
