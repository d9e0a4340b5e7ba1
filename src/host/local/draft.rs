//! Writes the group of a program that no group and no kind knows, from what this host shows of it.
//! Reads only: the program is not run, and no process is signalled.

use serde::{Deserialize, Serialize};

use self::{
    config::ConfigDraft, files::OpenFiles, help::Help, program::Program, selection::Selection,
    service::Services, signals::Signals, sources::Sources, text::GroupText,
};
pub(crate) use self::{error::NoDraft, fact::Fact};
use crate::{
    host::{
        discover::{Scan, found::Found},
        net::sockets::Listeners,
    },
    refusal::Refusal,
};

mod config;
mod error;
mod fact;
mod files;
mod help;
mod log;
mod manual;
mod named;
mod program;
mod proof;
mod reload;
mod selection;
mod service;
mod signals;
mod sockets;
mod sources;
mod strings;
mod text;
mod validator;

/// What this host shows of a program, and a group for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Draft {
    pub(crate) facts: Vec<Fact>,
    /// One `[[group]]` of `fleet.toml`, without `version`.
    pub(crate) toml: String,
}

/// Writes the group of a process. `taken` are the names that other groups have.
///
/// # Errors
/// Fails if no group can match the process, or if another process takes the signal for it.
pub(crate) async fn draft(
    found: &Found,
    scan: &Scan,
    listeners: &Listeners,
    taken: &[&str],
) -> Result<Draft, Refusal<NoDraft>> {
    let program = Program::of(found)?;
    let services = Services::of(&program);
    let selection = Selection::of(&program, &services, scan, taken).await?;
    let help = Help::of(&program).await;
    let files = OpenFiles::of(found.pid);
    let signals = Signals::of(found.pid);
    let config = ConfigDraft::of(&program, &help, &files, &selection).await;
    let named = config.named.clone();
    let mut text = GroupText::default();
    let mut facts = program.facts();
    selection.write(&mut text, &mut facts);
    config.write(&mut text, &mut facts);
    let sources = Sources {
        program: &program,
        services: &services,
        help: &help,
    };
    validator::write(sources, named.as_ref(), &mut text, &mut facts);
    reload::write(sources, &signals, &mut text, &mut facts);
    let has_tcp = sockets::write(found.pid, listeners, &mut text, &mut facts);
    let log = log::write(&program, &services, &files, &mut text, &mut facts);
    proof::write(&selection, log.as_ref(), has_tcp, &mut text);
    // Facts of one subject stand together, as the table shows them.
    facts.sort_by_key(|fact| fact.about);
    let toml = text.toml();
    selection::parsed(&toml).map_err(NoDraft::Invalid)?;
    Ok(Draft { facts, toml })
}
