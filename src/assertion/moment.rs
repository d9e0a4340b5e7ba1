//! Moments as programs print them: Unix seconds or RFC 3339.

/// Returns the seconds since 1970, and the units per second of the text: 1 for whole seconds, 1000
/// for three digits after the point.
pub(super) fn parse_moment(text: &str) -> Option<(f64, f64)> {
    let text = text.trim();
    let seconds = match text.parse::<f64>() {
        Ok(seconds) => seconds,
        Err(_) => text
            .parse::<jiff::Timestamp>()
            .ok()?
            .as_duration()
            .as_secs_f64(),
    };
    let decimals = text.split_once('.').map_or(0, |(_, rest)| {
        rest.chars().take_while(char::is_ascii_digit).count()
    });
    // `1.7e9` is a whole number in spite of its digits after the point.
    let exponent = text
        .split_once(['e', 'E'])
        .and_then(|(_, rest)| rest.parse().ok())
        .unwrap_or(0);
    let digits = i32::try_from(decimals)
        .unwrap_or(i32::MAX)
        .saturating_sub(exponent)
        .clamp(0, 6);
    Some((seconds, 10_f64.powi(digits)))
}

/// How far ahead of the present a stamp may be, in seconds. Programs of one host share its clock,
/// and a minute allows for one that stamps through another host.
const MAX_CLOCK_SKEW: f64 = 60.0;

/// Returns why `reading` can never be a moment after a signal: it is not a moment, or lies in the
/// future already.
#[must_use]
pub(crate) fn why_no_moment(reading: &str) -> Option<&'static str> {
    let now = jiff::Timestamp::now().as_duration().as_secs_f64();
    match parse_moment(reading) {
        // A word such as `never` stands for no reload so far; the first reload replaces it.
        None if !reading.contains(|c: char| c.is_ascii_digit()) => None,
        None => Some("does not read as a number of seconds or an ISO 8601 date"),
        Some((stamp, _)) if stamp > now + MAX_CLOCK_SKEW => Some("reads as a moment in the future"),
        Some(_) => None,
    }
}
