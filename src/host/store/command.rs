//! A store that `hello` does not speak itself: commands of the operator read and write its keys.

use super::{
    client::MAX_VALUE,
    error::{Fault, Outcome},
    value::{MAX_REVISION, PutResult, Revision, Value},
};
use crate::{
    config,
    fleet::{CommandRevision, Key, StoreCommands, placeholder},
    host::exec::{self, Output},
};

/// The exit code by which a command says no: there is no such key, or it has another revision.
const NO: i32 = 3;
/// The longest text of a failed command that is repeated, in characters.
const MAX_TEXT: usize = 200;

/// Reads a key.
pub(super) async fn get(key: &Key) -> Outcome<Option<Value>> {
    let commands = commands(key)?;
    let argv = filled(&commands.get, &commands.key, "");
    // A revision in front of the value, and its line end.
    let max = MAX_VALUE + MAX_REVISION + 1;
    let output = exec::fetch(&argv, Vec::new(), max, key.access.timeout)
        .await
        .map_err(Fault::from)?;
    match output.code {
        0 => {}
        NO => return Ok(None),
        _ => return Err(failed(&argv, &output).into()),
    }
    let (rev, bytes) = match commands.rev {
        CommandRevision::Digest => (Revision(config::digest(&output.stdout)), output.stdout),
        CommandRevision::FirstLine => {
            let (rev, rest) = first_line(&output.stdout).ok_or_else(|| no_revision(&argv))?;
            (rev, rest.to_vec())
        }
    };
    if bytes.len() > MAX_VALUE {
        return Err(Fault::TooLarge(MAX_VALUE).into());
    }
    Ok(Some(Value { bytes, rev }))
}

/// Writes a key whose revision is `expected`, or that does not exist.
pub(super) async fn put(
    key: &Key,
    bytes: &[u8],
    expected: Option<&Revision>,
) -> Outcome<PutResult> {
    check_writable(key)?;
    let commands = commands(key)?;
    let rev = expected.map_or("", Revision::as_str);
    let argv = filled(&commands.put, &commands.key, rev);
    let output = exec::fetch(&argv, bytes.to_vec(), MAX_REVISION + 1, key.access.timeout)
        .await
        .map_err(Fault::from)?;
    match (output.code, commands.rev) {
        (NO, _) => Ok(PutResult::Conflict),
        (0, CommandRevision::Digest) => Ok(PutResult::Stored(Revision(config::digest(bytes)))),
        (0, CommandRevision::FirstLine) => match first_line(&output.stdout) {
            Some((rev, _)) => Ok(PutResult::Stored(rev)),
            None => Err(no_revision(&argv).into()),
        },
        _ => Err(failed(&argv, &output).into()),
    }
}

/// Checks that there is a command that writes the key.
pub(super) fn check_writable(key: &Key) -> Result<(), Fault> {
    match commands(key)?.put.as_slice() {
        [] => Err(Fault::ReadOnly("its [[store]] has no `put`")),
        _ => Ok(()),
    }
}

fn commands(key: &Key) -> Result<&StoreCommands, Fault> {
    let commands = key.access.commands.as_ref();
    commands.ok_or(Fault::ReadOnly("no [[store]] has its commands"))
}

/// Returns an argv with `{key}` and `{rev}` filled in, in one pass.
fn filled(argv: &[String], key: &str, rev: &str) -> Vec<String> {
    fn text(arg: &str, key: &str, rev: &str) -> String {
        let Some((before, name, after)) = placeholder(arg) else {
            return arg.to_owned();
        };
        let value = if name == "key" { key } else { rev };
        format!("{before}{value}{}", text(after, key, rev))
    }
    argv.iter().map(|arg| text(arg, key, rev)).collect()
}

/// Returns the first line as a revision, and the bytes behind it.
fn first_line(printed: &[u8]) -> Option<(Revision, &[u8])> {
    let end = printed
        .iter()
        .take(MAX_REVISION + 1)
        .position(|b| *b == b'\n');
    let (line, rest) = match end {
        Some(end) => (&printed[..end], &printed[end + 1..]),
        None => (printed, &[][..]),
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let is_revision = !line.is_empty()
        && line.len() <= MAX_REVISION
        && line.iter().all(|b| b.is_ascii_graphic() || *b == b' ');
    is_revision.then(|| {
        let text = String::from_utf8_lossy(line).into_owned();
        (Revision(text), rest)
    })
}

fn program(argv: &[String]) -> String {
    argv.first().cloned().unwrap_or_default()
}

fn no_revision(argv: &[String]) -> Fault {
    Fault::NoRevision {
        program: program(argv),
    }
}

fn failed(argv: &[String], output: &Output) -> Fault {
    let stderr = String::from_utf8_lossy(&output.stderr);
    Fault::Exit {
        program: program(argv),
        code: output.code,
        stderr: stderr.trim().chars().take(MAX_TEXT).collect(),
    }
}

#[cfg(test)]
mod tests;
