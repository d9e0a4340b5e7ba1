//! `hello forget`: takes away one run, or one content from every run, now.

use std::{io::Write, path::PathBuf};

use crate::{
    event::Verdict,
    runs::{self, NotForgotten},
    step::short,
};

/// Fewer digits could mean what nobody thought of.
const DIGITS: usize = 8;
/// So many are named where it is not clear which is meant.
const NAMED: usize = 5;

/// Checked options.
#[derive(Debug, Clone)]
pub struct Options {
    /// The first digits of a run's id or of a digest.
    pub what: String,
    /// Where runs are kept.
    pub state: PathBuf,
    /// What commands need besides, so that they look there.
    pub flag: String,
}

/// Takes it away; answers the exit code: 0, 3 there is nothing of that name, 5 it is needed by an open run, 2 several are meant, 9 other runs hold the
/// store, 1 it could not be done.
#[must_use]
pub fn run(options: &Options) -> u8 {
    let (verdict, said) = match attempt(options) {
        Ok(done) => (Verdict::Converged, format!("{:>12} {done}", "Forgotten")),
        Err((verdict, why)) => (verdict, format!("error: {why}")),
    };
    let _ = writeln!(std::io::stderr(), "{said}");
    verdict.exit()
}

fn attempt(options: &Options) -> Result<String, (Verdict, String)> {
    let (state, what) = (&options.state, options.what.to_ascii_lowercase());
    for (path, why) in runs::sweep(state) {
        let _ = writeln!(std::io::stderr(), "{:>12} {}: {why}", "Left beside", path.display());
    }
    let unread = |e: std::io::Error| (Verdict::Failed, format!("the state directory `{}` cannot be read: {e}", state.display()));
    if what.len() < DIGITS || !what.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err((Verdict::Usage, format!("{:?} is no run and no SHA-256: at least their first {DIGITS} digits", options.what)));
    }
    let (found, contents) = (runs::find(state, &what).map_err(unread)?, runs::bytes_of(state, &what).map_err(unread)?);
    match (found.as_slice(), contents.as_slice()) {
        ([], []) => Err((Verdict::NoMatch, format!("no run and no content in `{}` begins with {what}", state.display()))),
        ([id], []) => {
            let dropped = runs::forget_run(state, id).map_err(|e| not_done(e, options))?;
            Ok(format!("run {id}, and {dropped} contents that nothing else needs"))
        }
        ([], [sha256]) => {
            let (of, proven) = runs::forget_bytes(state, sha256).map_err(|e| not_done(e, options))?;
            let more = if proven { "; processes that run now were proven on it last" } else { "" };
            Ok(format!("sha256:{} of {of} runs: there is no way back to it by `hello` any more{more}", short(sha256)))
        }
        _ => {
            let named: Vec<&str> = found.iter().chain(&contents).take(NAMED).map(String::as_str).collect();
            Err((Verdict::Usage, format!("{what} may be any of {}: {}", found.len() + contents.len(), named.join(", "))))
        }
    }
}

fn not_done(why: NotForgotten, options: &Options) -> (Verdict, String) {
    match why {
        NotForgotten::Open(past) => {
            let why = match past.next(&options.flag) {
                Some([resume, revert]) => format!("run {} was left open and needs it; first go on, or back:\n  {resume}\n  {revert}", past.id),
                None => format!("run {} needs it, and runs now", past.id),
            };
            (Verdict::Refused, why)
        }
        NotForgotten::Busy => (Verdict::Busy, format!("the store in `{}` is held by {why}", options.state.display())),
        NotForgotten::Io(e) => (Verdict::Failed, format!("the state directory `{}` cannot be used: {e}", options.state.display())),
    }
}
