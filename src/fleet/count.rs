//! Numbers of instances, and durations, of `fleet.toml` and of options.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many instances a group must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The smallest number.
    pub min: usize,
    /// The largest number.
    pub max: usize,
}

impl Count {
    /// Returns the count that any number satisfies.
    #[must_use]
    pub fn any() -> Self {
        Self {
            min: 0,
            max: usize::MAX,
        }
    }

    /// Tells whether `found` instances are enough, and the `passed` of them, which no check
    /// refused, are not too many.
    #[must_use]
    pub fn holds(self, found: usize, passed: usize) -> bool {
        found >= self.min && passed <= self.max
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.min, self.max) {
            (min, usize::MAX) => write!(f, "{min} or more"),
            (min, max) if min == max => write!(f, "{min}"),
            (min, max) => write!(f, "{min} to {max}"),
        }
    }
}

/// Why a text is no number of instances.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CountError {
    /// A range with an end that is no number.
    #[error("{0:?} is not 3, 3.., ..5 or 3..5")]
    Range(String),
    /// Neither a number nor a range.
    #[error("{0:?} is not a number of instances, such as 3, 3.., ..5 or 3..5")]
    Number(String),
    /// A range that ends before it begins.
    #[error("{0:?} has its ends in the wrong order")]
    Order(String),
}

/// Why a text is no duration of an option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No number with a unit.
    #[error("{0:?} is no duration such as 5s or 500ms")]
    Unit(String),
    /// Below 0, or more than an hour.
    #[error("{0:?} is not between 0s and 1h")]
    Limit(String),
    /// It is no length of a commit-confirmed timer.
    #[error("{0:?} is not between 1s and 168h, in whole seconds")]
    Timer(String),
}

/// Parses `3`, `3..`, `..5` or `3..5`.
///
/// # Errors
/// Fails if the text is none of these.
pub fn parse_count(text: &str) -> Result<Count, CountError> {
    let number = |t: &str, default: usize| match t {
        "" => Ok(default),
        t => t.parse().map_err(|_| CountError::Range(text.into())),
    };
    let count = match text.split_once("..") {
        Some((min, max)) => Count {
            min: number(min, 1)?,
            max: number(max, usize::MAX)?,
        },
        None => {
            let exactly = text.parse().map_err(|_| CountError::Number(text.into()))?;
            Count {
                min: exactly,
                max: exactly,
            }
        }
    };
    if count.min > count.max {
        return Err(CountError::Order(text.into()));
    }
    Ok(count)
}

/// Parses a duration such as `5s`, `500ms` or `2m`, of at most an hour.
///
/// # Errors
/// Fails if the text is no such duration.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    parsed_duration(text).and_then(|parsed| {
        let limited = parsed.filter(|time| *time <= Duration::from_secs(3600));
        limited.ok_or_else(|| DurationError::Limit(text.into()))
    })
}

/// The longest commit-confirmed timer that a host can allow: a week.
pub(crate) const LONGEST_TIMER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Parses the length of a commit-confirmed timer: whole seconds, from `1s` to a week (`168h`).
///
/// # Errors
/// Fails if the text is no such duration.
pub fn parse_timer(text: &str) -> Result<Duration, DurationError> {
    let is_timer = |time: &Duration| {
        time.subsec_nanos() == 0 && (Duration::from_secs(1)..=LONGEST_TIMER).contains(time)
    };
    let parsed = parsed_duration(text)?;
    parsed
        .filter(is_timer)
        .ok_or_else(|| DurationError::Timer(text.into()))
}

/// Parses a duration; none if it is negative.
fn parsed_duration(text: &str) -> Result<Option<Duration>, DurationError> {
    let parsed: jiff::SignedDuration =
        text.parse().map_err(|_| DurationError::Unit(text.into()))?;
    Ok(Duration::try_from(parsed).ok())
}
