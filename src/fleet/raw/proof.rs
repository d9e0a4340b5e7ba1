//! The keys of a group that say how a reload is proven.

use std::{ops::Range, path::PathBuf};

use toml::Spanned;

use super::group::RawGroup;
use crate::{
    assertion::{Access, Assertion, HttpRequest, Log, RawAssertion, Source, without_config_keys},
    fleet::{
        Speaks,
        spanned::{SpannedError, argument, spanned},
    },
};

/// How a reload is proven.
pub(super) struct Proof {
    pub(super) speaks: Speaks,
    pub(super) confirm: Vec<Assertion>,
    pub(super) reject: Vec<Assertion>,
    pub(super) samples: u32,
    /// The log whose last lines stand under a failure.
    pub(super) log: Option<Log>,
}

/// Resolves the proof of the group whose table is at `span`.
pub(super) fn resolve_proof(
    raw: &mut RawGroup,
    span: &Range<usize>,
) -> Result<Proof, SpannedError> {
    let speaks = raw.speaks.unwrap_or(Speaks::None);
    let mut confirm = match raw.confirm.take() {
        Some(confirm) => assertions(confirm)?,
        None if speaks == Speaks::Hello => Vec::new(),
        None => {
            return Err(spanned(
                span.clone(),
                "nothing says how a reload is proven: add [[group.confirm]], or `confirm = []` if \
                 a reload cannot be observed",
            ));
        }
    };
    let samples = raw.samples.take();
    if let Some(zero) = samples.as_ref().filter(|s| *s.get_ref() == 0) {
        return Err(spanned(zero.span(), "0 samples would prove nothing"));
    }
    let mut reject = assertions(raw.reject.take().unwrap_or_default())?;
    share_credentials(
        &mut [&mut confirm, &mut reject],
        [
            raw.auth_file.take(),
            raw.bearer_file.take(),
            raw.client_cert.take(),
            raw.client_key.take(),
        ],
    )?;
    // `hello serve` answers with the digest of its config. Behind any other answer may be several
    // workers, of which one sample shows one.
    let default_samples = if speaks == Speaks::Hello { 1 } else { 3 };
    Ok(Proof {
        speaks,
        confirm,
        reject,
        samples: samples.map_or(default_samples, Spanned::into_inner),
        log: raw.log.take().map(log).transpose()?,
    })
}

/// Reads the log of a group.
fn log(raw: Spanned<String>) -> Result<Log, SpannedError> {
    let log = Log::parse(raw.get_ref()).map_err(|why| spanned(raw.span(), why))?;
    if let Log::File(text) = &log {
        log_path(text, &raw.span())?;
    }
    Ok(log)
}

/// Checks the placeholders in the path of a log.
fn log_path(text: &str, span: &Range<usize>) -> Result<(), SpannedError> {
    let rest = without_config_keys(text);
    if rest.replace("{candidate.dir}", "").contains("{candidate.") {
        return Err(SpannedError {
            message: format!("log = {text:?} names only the log of the new config"),
            hint: Some(
                "write {config.KEY}: where the new config names another file, both are read".into(),
            ),
            at: span.clone(),
        });
    }
    argument(&rest, &[], span)
}

fn assertions(raw: Vec<Spanned<RawAssertion>>) -> Result<Vec<Assertion>, SpannedError> {
    let entries = raw.into_iter().enumerate();
    let entries: Vec<Vec<Assertion>> = entries.map(entry).collect::<Result<_, _>>()?;
    Ok(entries.into_iter().flatten().collect())
}

/// Reads an entry: an assertion, or the alternatives of `any`.
fn entry((number, raw): (usize, Spanned<RawAssertion>)) -> Result<Vec<Assertion>, SpannedError> {
    let span = raw.span();
    let raw = raw.into_inner();
    let url_span = raw.url_span().unwrap_or(span.clone());
    let entry = raw.into_entry(number).map_err(|error| SpannedError {
        message: error.message,
        hint: error.hint,
        at: error.at.unwrap_or(span.clone()),
    })?;
    entry
        .iter()
        .try_for_each(|assertion| placeholders(assertion, &span, &url_span))?;
    Ok(entry)
}

/// Checks the placeholders of a source; `url_span` is that of its URL.
fn placeholders(
    assertion: &Assertion,
    span: &Range<usize>,
    url_span: &Range<usize>,
) -> Result<(), SpannedError> {
    match &assertion.source {
        Source::Exec(argv) => argv.iter().try_for_each(|arg| argument(arg, &[], span)),
        Source::Http(request) => argument(&request.url, &[], url_span),
        Source::Log(Log::File(text)) => log_path(text, span),
        Source::Tcp(text) => argument(text, &[], span),
        Source::Workers | Source::Listener | Source::Children(_) | Source::Log(_) => Ok(()),
    }
}

/// Gives the credentials of a group to each of its assertions that requests the instance's own
/// endpoint.
fn share_credentials(
    assertions: &mut [&mut Vec<Assertion>],
    raw: [Option<Spanned<PathBuf>>; 4],
) -> Result<(), SpannedError> {
    let Some(span) = raw.iter().flatten().map(Spanned::span).next() else {
        return Ok(());
    };
    let access = Access::from(raw.map(|path| path.map(Spanned::into_inner)));
    let mut requests: Vec<&mut HttpRequest> = Vec::new();
    for assertion in assertions.iter_mut().flat_map(|list| list.iter_mut()) {
        match &mut assertion.source {
            Source::Http(request) if request.url.contains("{listen") => requests.push(request),
            _ => {}
        }
    }
    let https = requests.iter().any(|request| request.is_https());
    if let Some(why) = access.fault(https) {
        return Err(spanned(span, why));
    }
    if requests.is_empty() {
        return Err(spanned(
            span,
            "credentials are for assertions with `http` and {listen}, and this group has none",
        ));
    }
    for request in requests {
        let https = request.is_https();
        request.access.or(&access, https);
    }
    Ok(())
}
