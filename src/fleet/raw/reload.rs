//! What makes the processes of a group reload, and whether the program is declared to.

use toml::Spanned;

use super::{group::RawGroup, values};
use crate::fleet::{
    Reloads, Signal, placeholder,
    spanned::{SpannedError, argv, spanned},
    title_of, variable_of,
};

/// The keys of a group that say how it reloads.
pub(super) struct Reload {
    pub(super) declared: Reloads,
    pub(super) signal: Signal,
    /// Replaces the signal; empty if there is none.
    pub(super) command: Vec<String>,
}

/// Reads these keys. A command declares by itself that the program reloads.
pub(super) fn reload(raw: &mut RawGroup) -> Result<Reload, SpannedError> {
    let (signal, reloads) = (raw.signal.take(), raw.reloads.take());
    let Some(command) = raw.reload_by.take() else {
        return Ok(Reload {
            declared: reloads.map_or(Ok(Reloads::No), values::reloads)?,
            signal: signal.map_or(Ok(Signal::Hup), values::signal)?,
            command: Vec::new(),
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
    })
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
