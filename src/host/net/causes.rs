//! The causes of an error.

/// Returns an error with its causes: the last cause says what a peer did.
pub(crate) fn with_causes(e: &(dyn std::error::Error + 'static)) -> String {
    let causes: Vec<String> = std::iter::successors(Some(e), |e| e.source())
        .map(ToString::to_string)
        .collect();
    let mut text = causes.first().cloned().unwrap_or_default();
    for cause in causes
        .iter()
        .skip(1)
        .filter(|cause| !causes[0].contains(cause.as_str()))
    {
        text = format!("{text}: {cause}");
    }
    text
}
