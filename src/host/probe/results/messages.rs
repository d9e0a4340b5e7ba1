//! Messages about the answers of an attempt, for the operator.

use super::{ProbeResult, ProbeResults, Role, is_refused};
use crate::{
    assertion::{self, Assertion, Expectation, Extract, Showing, Source, why_no_moment},
    host::probe::{log, values::showing},
    refusal::Refusal,
};

impl ProbeResults<'_> {
    /// Returns why `assertion` does not hold: what was read, and what was expected.
    pub(crate) fn why_not(&self, assertion: &Assertion, endpoint: &str) -> String {
        let source = self.described(assertion, endpoint);
        match self.result(&assertion.source) {
            Some(ProbeResult::Command(output))
                if output.code != 0 && assertion.read != Extract::Exit =>
            {
                format!("{source} ended with exit status {}", output.code)
            }
            Some(ProbeResult::Kernel(_))
                if matches!(assertion.source, Source::Workers | Source::Children(_)) =>
            {
                format!("{source} are not replaced")
            }
            Some(ProbeResult::Kernel(_)) => format!("{source} is not replaced"),
            Some(ProbeResult::Http(answer)) if is_refused(answer, &assertion.read) => {
                format!("{source} {}", answer.status_line())
            }
            Some(ProbeResult::Log(lines)) => {
                let cut = if lines.is_cut() {
                    ", which was cut to its beginning since the signal,"
                } else {
                    ""
                };
                if lines.is_empty() {
                    format!("{source}{cut} has no line since the signal")
                } else {
                    let last = Some(lines.line(assertion));
                    let unmet = assertion.unmet(last.as_deref(), self.showing());
                    format!("the last line of {source}{cut} {unmet}")
                }
            }
            _ => format!(
                "{source} {}",
                assertion.unmet(self.shown(assertion).as_deref(), self.showing())
            ),
        }
    }

    /// Returns that an assertion of `reject` holds, with its reading.
    pub(crate) fn kept_old(&self, assertion: &Assertion, endpoint: &str) -> String {
        let reading = self
            .shown(assertion)
            .filter(|_| self.showing() == Showing::Open)
            .map_or(String::new(), |reading| {
                let reading = assertion::shown(&reading);
                if assertion.source.is_log() {
                    format!(": {reading}")
                } else {
                    format!(" ({} reads {reading})", assertion.read)
                }
            });
        format!(
            "{} says that it kept the old config{reading}",
            self.described(assertion, endpoint)
        )
    }

    /// Describes the source of an assertion; a log by its path.
    fn described(&self, assertion: &Assertion, endpoint: &str) -> String {
        if let Some(ProbeResult::Log(lines)) = self.result(&assertion.source)
            && let Some(files) = lines.files()
        {
            format!("its log, read from {files},")
        } else if assertion.source.is_log() {
            log::describe(self.member, &assertion.source)
        } else {
            assertion.source.describe(endpoint)
        }
    }

    /// Returns why `assertion` could never hold: the answer is an error page, or has no such metric
    /// or value. An assertion of `reject` may wait for a value that only a fault brings.
    pub(crate) fn unreadable(&self, assertion: &Assertion, role: Role) -> Option<Refusal> {
        let is_needed = role == Role::Confirm || assertion.needs_baseline();
        match (self.result(&assertion.source)?, &assertion.read) {
            (ProbeResult::Http(answer), read) if is_refused(answer, read) => Some(answer.refusal()),
            (ProbeResult::Command(output), read)
                if output.code != 0
                    && assertion.expectation == Expectation::AfterSignal
                    && *read != Extract::Exit =>
            {
                let code = output.code;
                let text = "so it has no moment that a later one could be compared with";
                Some(format!("ended with exit status {code}, {text}").into())
            }
            (ProbeResult::Command(output), _) if output.code != 0 => None,
            (
                result @ (ProbeResult::Http(_) | ProbeResult::Command(_)),
                Extract::Metric(name, labels),
            ) if is_needed => missing_metric(result, assertion, name, labels).map(Refusal::from),
            (result, read)
                if assertion.expectation == Expectation::AfterSignal
                    && let Some(text) = assertion.reported_by(result.read(read)) =>
            {
                why_no_moment(&text).map(|why| self.no_moment(assertion, why).into())
            }
            (result, read @ Extract::Json(pointer)) if is_needed && result.read(read).is_none() => {
                Some(format!("has no value at `{pointer}`, or is no JSON").into())
            }
            _ => None,
        }
    }

    /// Returns why there is no reading that `assertion` could compare with.
    pub(crate) fn no_baseline(&self, assertion: &Assertion, endpoint: &str) -> String {
        let source = assertion.source.describe(endpoint);
        let reading = self
            .result(&assertion.source)
            .and_then(|result| result.read(&assertion.read));
        match (&assertion.source, reading) {
            (Source::Workers, _) => "has no workers that a reload could replace".into(),
            (Source::Listener, _) => "has no listening socket that a reload could replace".into(),
            (Source::Children(name), _) => {
                format!("has no child `{name}` that a reload could replace")
            }
            (_, Some(_)) => {
                format!("{source} reads as nothing, so a change of it could not be seen")
            }
            (_, None) => format!(
                "{}, so a change of it could not be seen",
                self.why_not(assertion, endpoint)
            ),
        }
    }

    /// Returns the message about a reading that is no moment after the signal. The reading itself
    /// may be the program's reason.
    fn no_moment(&self, assertion: &Assertion, why: &str) -> String {
        let reading = self
            .shown(assertion)
            .filter(|_| self.showing() == Showing::Open)
            .map(|text| format!(" (it reads {})", assertion::shown(&text)))
            .unwrap_or_default();
        format!("{why}{reading}, so it cannot be `after_signal`")
    }

    /// Returns the reading of `assertion` without the secrets of its request.
    fn shown(&self, assertion: &Assertion) -> Option<String> {
        let reading = self.read(assertion)?;
        Some(match self.result(&assertion.source) {
            Some(ProbeResult::Http(answer)) => answer.masked(&reading),
            _ => reading,
        })
    }

    /// Tells whether a message may contain a reading. A reading may show the config.
    fn showing(&self) -> Showing {
        showing(self.member)
    }
}

/// Returns the message about a metric that the answer does not have.
fn missing_metric(
    result: &ProbeResult,
    assertion: &Assertion,
    name: &str,
    labels: &[(String, String)],
) -> Option<String> {
    // The new config may bring the metric with other labels.
    let (labels, with_labels) = if assertion.needs_baseline() {
        (labels.to_vec(), " with these labels")
    } else {
        (Vec::new(), "")
    };
    let is_there = result
        .read(&Extract::Metric(name.to_owned(), labels))
        .is_some();
    (!is_there).then(|| format!("has no metric `{name}`{with_labels}"))
}
