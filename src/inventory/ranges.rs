//! Ranges in names: `edge-[01-40]` stands for forty names.

use super::MAX_HOSTS;

/// Why a text with ranges stands for no names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// A bracket has no partner.
    #[error("`[` and `]` of {0:?} do not fit together")]
    Brackets(String),
    /// The text between two brackets is no list of numbers and ranges.
    #[error("[{0}] is no range; a range is [1-40], [01-40] or [1,4,7-9]")]
    Range(String),
    /// A range ends before it begins.
    #[error("[{0}] ends before it begins")]
    Backwards(String),
    /// The text stands for too many names.
    #[error("{0:?} stands for more than {MAX_HOSTS} names")]
    Many(String),
}

/// Returns the names that a text stands for, in its order. Zeros at the start of a number are kept:
/// `[08-10]` is 08, 09, 10. Several ranges are combined, and the last one changes fastest.
///
/// # Errors
/// Fails if a range is not well formed, or if the names are more than [`MAX_HOSTS`].
pub fn expand(text: &str) -> Result<Vec<String>, RangeError> {
    let mut names = vec![String::new()];
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let (range, after) = after
            .split_once(']')
            .ok_or_else(|| RangeError::Brackets(text.into()))?;
        if before.contains(']') {
            return Err(RangeError::Brackets(text.into()));
        }
        let numbers = numbers(range, text)?;
        if numbers.len().saturating_mul(names.len()) > MAX_HOSTS {
            return Err(RangeError::Many(text.into()));
        }
        names = names
            .iter()
            .flat_map(|name| numbers.iter().map(move |n| format!("{name}{before}{n}")))
            .collect();
        rest = after;
    }
    if rest.contains(']') {
        return Err(RangeError::Brackets(text.into()));
    }
    for name in &mut names {
        name.push_str(rest);
    }
    Ok(names)
}

/// Returns the numbers between two brackets, as text.
fn numbers(range: &str, whole: &str) -> Result<Vec<String>, RangeError> {
    let mut numbers = Vec::new();
    for part in range.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Some(from), Some(to)) = (number(first), number(last)) else {
            return Err(RangeError::Range(range.into()));
        };
        if to < from {
            return Err(RangeError::Backwards(range.into()));
        }
        if to - from >= MAX_HOSTS || numbers.len() > MAX_HOSTS {
            return Err(RangeError::Many(whole.into()));
        }
        let width = if first.starts_with('0') {
            first.len()
        } else {
            0
        };
        numbers.extend((from..=to).map(|n| format!("{n:0width$}")));
    }
    Ok(numbers)
}

fn number(text: &str) -> Option<usize> {
    let is_number = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}
