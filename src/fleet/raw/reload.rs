//! What makes the processes of a group reload, and whether the program is declared to.

use toml::{Spanned, Value};

use super::{group::RawGroup, values};
use crate::fleet::{
    NoSignal, Reloads, Signal, placeholder,
    spanned::{SpannedError, argv, spanned},
    title_of, variable_of,
};

/// The keys of a group that say how it reloads.
pub(super) struct Reload {
    pub(super) declared: Reloads,
    pub(super) signal: Signal,
    /// Replaces the signal; empty if there is none.
    pub(super) command: Vec<String>,
    pub(super) no_signal: Option<NoSignal>,
}

/// Reads these keys. A command declares by itself that the program reloads.
pub(super) fn reload(raw: &mut RawGroup) -> Result<Reload, SpannedError> {
    let no_signal = no_signal(raw)?;
    let (signal, reloads) = (raw.signal.take(), raw.reloads.take());
    let Some(command) = raw.reload_by.take() else {
        return Ok(Reload {
            declared: declared(reloads, no_signal.as_ref())?,
            signal: signal.map_or(Ok(Signal::Hup), values::signal)?,
            command: Vec::new(),
            no_signal,
        });
    };
    if command.get_ref().is_empty() {
        return Err(spanned(command.span(), "reload_by = [] names no program"));
    }
    if let Some(signal) = signal {
        return Err(spanned(signal.span(), "`signal` beside `reload_by`")
            .hinted("a group reloads by one of them: remove the other"));
    }
    if let Some(reloads) = reloads {
        let span = reloads.span();
        if values::reloads(reloads)? != Reloads::Yes {
            let why = "only `reloads = true` goes with `reload_by`";
            return Err(spanned(span, why).hinted("the command declares it: remove the key"));
        }
    }
    Ok(Reload {
        declared: Reloads::Yes,
        signal: Signal::Hup,
        command: argv(Some(command.into_inner()), &[])?,
        no_signal,
    })
}

/// Reads whether the program is declared to reload on a signal.
fn declared(
    raw: Option<Spanned<Value>>,
    no_signal: Option<&NoSignal>,
) -> Result<Reloads, SpannedError> {
    let Some(raw) = raw else {
        return Ok(Reloads::No);
    };
    let span = raw.span();
    match (values::reloads(raw)?, no_signal) {
        (Reloads::Yes | Reloads::Unchecked, Some(NoSignal { why, .. })) => {
            let text = format!("`reloads`, and `no_signal` says that no signal reloads it: {why}");
            Err(spanned(span, text).hinted("remove one of them, or write a `reload_by`"))
        }
        (declared, _) => Ok(declared),
    }
}

/// Reads why no signal reloads the program.
fn no_signal(raw: &mut RawGroup) -> Result<Option<NoSignal>, SpannedError> {
    match (raw.no_signal.take(), raw.instead.take()) {
        (Some(why), instead) => Ok(Some(NoSignal {
            why: why.into_inner(),
            instead: instead.map(Spanned::into_inner),
        })),
        (None, None) => Ok(None),
        (None, Some(instead)) => Err(spanned(instead.span(), "`instead` without `no_signal`")
            .hinted("write why no signal reloads the program: `no_signal = ..`")),
    }
}

/// Reads the command that starts an instance again, which has ended by then.
pub(super) fn revive(raw: Option<Vec<Spanned<String>>>) -> Result<Vec<String>, SpannedError> {
    let is_of_process = |word: &str| {
        std::iter::successors(placeholder(word), |(_, _, after)| placeholder(after))
            .any(|(_, name, _)| variable_of(name).is_some() || title_of(name).is_some())
    };
    let mut words = raw.iter().flatten();
    match words.find(|word| is_of_process(word.get_ref())) {
        None => argv(raw, &[]),
        Some(word) => {
            let why = "`revive` has no {env:NAME} and no {title:TEXT *}: its process has ended";
            Err(spanned(word.span(), why).hinted("write the value itself"))
        }
    }
}
