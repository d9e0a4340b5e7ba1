//! `hello forget`: takes away one run, or one content from every run, now.

use std::path::PathBuf;

use crate::{
    event::Verdict,
    names,
    runs::{self, NotForgotten, OpenRuns},
    screen,
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
    /// What becomes of a run that is open.
    pub open: OpenRuns,
    /// What commands need besides, so that they look there.
    pub flag: String,
}

/// Takes it away; answers the exit code: 0, 3 there is nothing of that name, 5 it is needed by an
/// open run, 2 several are meant, 9 other runs hold the store, 1 it could not be done.
#[must_use]
pub fn run(options: &Options) -> u8 {
    match attempt(options) {
        Ok(done) => {
            screen::tell(&screen::worded("Forgotten", &done));
            Verdict::Converged.exit()
        }
        Err(refusal) => {
            screen::tell(&screen::failure(&refusal.why));
            if let Some([resume, revert]) = &refusal.first {
                let abandon = format!(
                    "hello forget {} --abandon{}",
                    screen::quote(&options.what),
                    options.flag
                );
                let what = "first go on, or back; or give it up, and leave processes and files as \
                            they are:";
                screen::tell(&screen::hint(what, &[resume, revert, &abandon]));
            }
            refusal.verdict.exit()
        }
    }
}

/// Why nothing was taken away.
struct Refusal {
    verdict: Verdict,
    why: String,
    /// The commands of which one must come first.
    first: Option<[String; 2]>,
}

impl Refusal {
    fn new(verdict: Verdict, why: String) -> Self {
        Self {
            verdict,
            why,
            first: None,
        }
    }
}

fn attempt(options: &Options) -> Result<String, Refusal> {
    let (state, what) = (&options.state, options.what.to_ascii_lowercase());
    for (path, why) in runs::sweep(state) {
        screen::tell(&format!("{:>12} {}: {why}", "Left beside", path.display()));
    }
    let unread = |e: std::io::Error| {
        Refusal::new(
            Verdict::Failed,
            format!(
                "the state directory `{}` cannot be read: {e}",
                state.display()
            ),
        )
    };
    if what.len() < DIGITS || !what.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Refusal::new(
            Verdict::Usage,
            format!(
                "{:?} is no run and no SHA-256: at least their first {DIGITS} digits",
                options.what
            ),
        ));
    }
    let (found, contents) = (
        runs::find(state, &what).map_err(unread)?,
        runs::bytes_of(state, &what).map_err(unread)?,
    );
    match (found.as_slice(), contents.as_slice()) {
        ([], []) => Err(Refusal::new(
            Verdict::NoMatch,
            format!(
                "no run and no content in `{}` begins with {what}",
                state.display()
            ),
        )),
        ([id], []) => {
            let dropped =
                runs::forget_run(state, id, options.open).map_err(|e| not_done(e, options))?;
            Ok(format!(
                "run {id}, and {} that nothing else needs",
                screen::counted(dropped, "content")
            ))
        }
        ([], [sha256]) => {
            let (of, proven) =
                runs::forget_bytes(state, sha256).map_err(|e| not_done(e, options))?;
            let more = if proven {
                "; processes that run now were proven on it last"
            } else {
                ""
            };
            Ok(format!(
                "sha256:{} of {}: there is no way back to it by `hello` any more{more}",
                short(sha256),
                screen::counted(of, "run")
            ))
        }
        _ => Err(Refusal::new(
            Verdict::Usage,
            format!(
                "{what} may be any of {}: {}",
                found.len() + contents.len(),
                names::list(found.iter().chain(&contents), ", ", NAMED)
            ),
        )),
    }
}

fn not_done(why: NotForgotten, options: &Options) -> Refusal {
    match why {
        NotForgotten::Open(past) => {
            let first = past.next(&options.flag);
            let what = if first.is_some() {
                "was left open and needs it"
            } else {
                "needs it, and runs now"
            };
            Refusal {
                first,
                ..Refusal::new(Verdict::Refused, format!("run {} {what}", past.id))
            }
        }
        NotForgotten::Busy => Refusal::new(
            Verdict::Busy,
            format!(
                "the store in `{}` is held by {why}",
                options.state.display()
            ),
        ),
        NotForgotten::Io(e) => Refusal::new(
            Verdict::Failed,
            format!(
                "the state directory `{}` cannot be used: {e}",
                options.state.display()
            ),
        ),
    }
}
