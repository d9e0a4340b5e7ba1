//! Numbers of instances as inclusive ranges: a wave is mostly one of them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// The most numbers in one list: the most instances of one host.
const MAX_NUMBERS: usize = 100_000;

/// Writes the numbers as `[[first, last], ..]`.
pub(super) fn serialize<S: Serializer>(numbers: &[u32], to: S) -> Result<S::Ok, S::Error> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges.serialize(to)
}

/// Reads the numbers, in their order.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u32>, D::Error> {
    let ranges = Vec::<(u32, u32)>::deserialize(from)?;
    let mut numbers = Vec::new();
    for (first, last) in ranges {
        let count = usize::try_from(last.saturating_sub(first)).unwrap_or(usize::MAX);
        if last < first || count >= MAX_NUMBERS - numbers.len() {
            return Err(D::Error::custom("a range is empty or too long"));
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}
