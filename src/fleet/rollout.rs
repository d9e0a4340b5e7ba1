//! How a run goes over a fleet: in which waves, with how many failures, and what happens past them.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use toml::{Spanned, Value};

use super::{
    argv, parse_duration,
    wrong::{Wrong, wrong},
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
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        let Some(percent) = text.strip_suffix('%') else {
            return text.parse().ok().filter(|_| digits(text)).map(Self::Count).ok_or_else(no);
        };
        let (whole, rest) = percent.split_once('.').unwrap_or((percent, "0"));
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
    waves: Option<Spanned<Value>>,
    max_failures: Option<Spanned<Value>>,
    max_sick: Option<Spanned<Value>>,
    bake: Option<Spanned<String>>,
    gate: Option<Vec<Spanned<String>>>,
    on_failure: Option<OnFailure>,
}

impl RawRollout {
    /// Takes what is written here over what `base` says.
    pub(super) fn over(self, base: &Rollout) -> Result<Rollout, Wrong> {
        let one = |raw: Option<Spanned<Value>>| raw.map(|raw| share(raw.get_ref()).map_err(|why| wrong(raw.span(), why))).transpose();
        let max_failures = one(self.max_failures)?;
        Ok(Rollout {
            waves: match self.waves {
                Some(raw) => waves(raw.get_ref()).map_err(|why| wrong(raw.span(), why))?,
                None => base.waves.clone(),
            },
            alone: base.alone || max_failures.is_some(),
            max_failures: max_failures.unwrap_or(base.max_failures),
            max_sick: one(self.max_sick)?.unwrap_or(base.max_sick),
            bake: match self.bake {
                Some(text) => parse_duration(text.get_ref()).map_err(|why| wrong(text.span(), why))?,
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
        other => Err(format!("{other} is neither a number such as 1 nor a percentage such as \"25%\"")),
    }
}

/// One, or a list.
fn waves(value: &Value) -> Result<Vec<Share>, String> {
    let all = match value {
        Value::Array(all) if all.is_empty() => return Err("no wave in it: [\"100%\"] is all at once".into()),
        Value::Array(all) => all.iter().map(share).collect::<Result<_, _>>()?,
        one => vec![share(one)?],
    };
    check_waves(&all).map(|()| all)
}

/// An argv; it speaks of a wave and not of a process, so nothing stands for anything in it.
fn gate(raw: Vec<Spanned<String>>) -> Result<Vec<String>, Wrong> {
    if let Some(nothing) = raw.first().filter(|program| program.get_ref().is_empty()) {
        return Err(wrong(nothing.span(), "a gate is a program and its arguments, without a shell; `gate = []` is none"));
    }
    match raw.iter().find_map(|arg| argv::known(arg.get_ref()).map(|name| (name, arg.span()))) {
        Some((name, at)) => Err(wrong(at, format!("`{{{name}}}`: a gate judges a wave, not a process, so it has no placeholders"))),
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
            return Err(format!("waves are cumulative: {wave} after {before} adds nobody"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::fleet::{Fleet, Group};

    fn read(text: &str) -> Vec<Group> {
        Fleet::parse(text.as_bytes(), Path::new("fleet.toml")).unwrap().groups
    }

    fn any_share() -> impl Strategy<Value = Share> {
        prop_oneof![(0..100_000usize).prop_map(Share::Count), (0..=10_000u32).prop_map(Share::Part)]
    }

    proptest! {
        #[test]
        fn what_a_share_is_written_as_is_that_share(share in any_share()) {
            prop_assert_eq!(share.to_string().parse::<Share>(), Ok(share));
            prop_assert_eq!(serde_json::from_str::<Share>(&serde_json::to_string(&share).unwrap()).unwrap(), share);
        }

        /// Of the whole and in tens of thousands, so that no rounding of the test's own is in it.
        #[test]
        fn a_wave_is_never_smaller_than_its_name_and_a_limit_never_larger(share in any_share(), all in 0..100_000usize) {
            let (up, down) = (share.rounded_up(all), share.rounded_down(all));
            prop_assert!(down <= up && up <= all && up - down <= 1);
            match share {
                Share::Count(n) => prop_assert!(up == down && up == n.min(all)),
                Share::Part(part) => {
                    let exact = all * part as usize;
                    prop_assert!(up * 10_000 >= exact && down * 10_000 <= exact);
                    prop_assert!((up * 10_000 < exact + 10_000) && (down + 1) * 10_000 > exact, "not further than needed");
                }
            }
        }
    }

    #[test]
    fn a_share_is_a_number_or_a_percentage() {
        for (text, wants) in
            [("0", Share::Count(0)), ("17", Share::Count(17)), ("25%", Share::Part(2_500)), ("0.5%", Share::Part(50)), ("99.99%", Share::Part(9_999))]
        {
            assert_eq!(text.parse(), Ok(wants));
        }
        for text in [
            "",
            "%",
            "-1",
            "+1",
            "1.5",
            "+5%",
            "-5%",
            "100.01%",
            "101%",
            "1.234%",
            "1.%",
            ".5%",
            " 1",
            "1 %",
            "a",
            "5%%",
            "99999999999999999999",
            "99999999999%",
        ] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        assert_eq!((Share::Part(50).to_string(), Share::Part(2_500).to_string()), ("0.50%".into(), "25%".into()));
    }

    #[test]
    fn waves_that_add_nobody_are_none() {
        let check = |text: &str| check_waves(&text.split(',').map(|t| t.parse().unwrap()).collect::<Vec<Share>>());
        // Which of a number and a percentage is more depends on the group.
        for good in ["1", "100%", "1,100%", "1,25%,100%", "10%,5,50%", "1,2,3", "50%,2"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, says) in [
            ("0,100%", "a wave of 0 is nobody"),
            ("0%", "a wave of 0% is nobody"),
            ("1,1", "1 after 1 adds nobody"),
            ("50%,25%", "25% after 50%"),
            ("5,10%,3", "3 after 5"),
            ("100%,1", "1 after 100%"),
        ] {
            assert!(check(bad).is_err_and(|why| why.contains(says)), "{bad}");
        }
    }

    #[test]
    fn a_rollout_is_what_the_group_says_over_what_the_fleet_says() {
        let group = |name: &str, more: &str| format!("[[group]]\nname = \"{name}\"\nkind = \"hello\"\n{more}");
        let top = "version = 1\n[rollout]\nwaves = [2, \"0.5%\"]\nmax_failures = \"10%\"\nmax_sick = 1\nbake = \"1m\"\ngate = [\"/bin/g\", \"${x}\"]\non_failure = \"stop\"\n";
        let own = "[group.rollout]\nwaves = \"100%\"\nmax_failures = 0\nmax_sick = \"1%\"\nbake = \"0s\"\ngate = []\non_failure = \"continue\"\n";
        let groups = read(&format!("{top}{}{}{}", group("a", ""), group("b", own), group("c", "[group.rollout]\nbake = \"2s\"\n")));
        let [a, b, c] = [0, 1, 2].map(|at| groups[at].rollout.clone());
        let (waves, gate) = (vec![Share::Count(2), Share::Part(50)], vec!["/bin/g".to_owned(), "${x}".into()]);
        let bake = Duration::from_secs(60);
        let max_failures = Share::Part(1_000);
        assert_eq!(a, Rollout { waves, max_failures, alone: false, max_sick: Share::Count(1), bake, gate, on_failure: OnFailure::Stop });
        let (waves, max_failures, max_sick) = (vec![Share::Part(10_000)], Share::Count(0), Share::Part(100));
        let (bake, gate) = (Duration::ZERO, Vec::new());
        assert_eq!(b, Rollout { waves, max_failures, alone: true, max_sick, bake, gate, on_failure: OnFailure::Continue }, "its own budget is its own");
        assert_eq!(c, Rollout { bake: Duration::from_secs(2), ..a });
        let plain = read(&format!("version = 1\n{}", group("a", ""))).remove(0).rollout;
        assert_eq!(plain, Rollout::default());
        assert_eq!((plain.waves, plain.on_failure), (vec![Share::Count(1), Share::Part(10_000)], OnFailure::Revert));
    }

    #[test]
    fn a_group_keeps_what_it_comes_after_itself() {
        let group = |name: &str, after: &str| format!("[[group]]\nname = \"{name}\"\nkind = \"hello\"\n{after}\n");
        let text = ["version = 1\n", &group("d", "after = [\"c\"]"), &group("a", ""), &group("c", "after = [\"b\"]"), &group("b", "after = \"a\"")];
        let groups = read(&text.concat());
        let after = |at: usize| groups[at].after.clone();
        assert_eq!((after(0), after(1), after(2), after(3)), (vec!["c".into()], vec![], vec!["b".into()], vec!["a".into()]));
    }
}
