//! `hello forget`: removes one run, or one content from every run.

use std::path::PathBuf;

use crate::{
    event::Verdict,
    report::{action, operator, remove_leftovers},
    runs::{self, Matches, NotForgotten, OldRun, OpenRuns, RunInfo, ShortIds},
    screen,
    step::short,
};

/// The fewest digits of an id or digest. A shorter prefix is too easy to mistype.
const DIGITS: usize = 8;

/// Checked options.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The name of a run, or the first digits of a digest.
    pub id: String,
    /// The state directory.
    pub state: PathBuf,
    /// The fate of an open run.
    pub open: OpenRuns,
    /// ` --state DIR` to append to suggested commands; empty for the default directory.
    pub state_args: String,
}

/// Removes the run or the content, and returns the exit code.
///
/// 0: removed. 1: the state directory cannot be used. 2: several match. 3: nothing matches. 5: an
/// open run needs it. 9: other runs hold the store.
#[must_use]
pub(crate) async fn run(options: Options) -> u8 {
    let options = &options;
    match attempt(options).await {
        Ok(done) => {
            screen::tell(&screen::worded("Forgotten", &done));
            Verdict::Converged.exit()
        }
        Err(refusal) => {
            screen::tell(&screen::failure(&refusal.why));
            let abandon = format!(
                "hello forget {} --abandon{}",
                screen::quote(&options.id),
                options.state_args
            );
            let mut commands = refusal.next;
            let action = match refusal.old_version {
                Some(OldRun { note, command }) => {
                    commands.push(command);
                    Some(format!("{note}; to see its old bytes; or to"))
                }
                None if commands.is_empty() => None,
                None => Some("first finish the run; or".into()),
            };
            if let Some(action) = action {
                let action =
                    format!("{action} give it up, and leave processes and files as they are:");
                commands.push(abandon);
                screen::tell(&screen::hint(&action, &commands));
            }
            refusal.verdict.exit()
        }
    }
}

/// Why nothing was removed.
struct Refusal {
    verdict: Verdict,
    why: String,
    /// The commands of which one must run first.
    next: Vec<String>,
    /// Set for an open run of an earlier version, which no command can finish.
    old_version: Option<OldRun>,
}

impl Refusal {
    fn new(verdict: Verdict, why: String) -> Self {
        Self {
            verdict,
            why,
            next: Vec::new(),
            old_version: None,
        }
    }
}

/// Removes the run or content, and returns what was removed.
async fn attempt(options: &Options) -> Result<String, Refusal> {
    let state = &options.state;
    let name = options.id.strip_prefix("sha256:").unwrap_or(&options.id);
    let digits = runs::digits(name);
    remove_leftovers(state);
    let is_place = name.starts_with('@');
    let is_long = digits.len() >= DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_place && !is_long {
        return Err(Refusal::new(
            Verdict::Usage,
            format!(
                "{:?} is too short or no name of a run or content: give {DIGITS} digits of its id \
                 or SHA-256 or more, @ or @-N",
                options.id
            ),
        ));
    }
    let unreadable = |e: std::io::Error| {
        let text = format!(
            "the state directory `{}` cannot be read: {e}",
            state.display()
        );
        Refusal::new(Verdict::Failed, text)
    };
    let found = Matches::of(state, &options.id).map_err(unreadable)?;
    match (found.runs.as_slice(), found.contents.as_slice()) {
        ([], []) => Err(Refusal::new(
            Verdict::NoMatch,
            format!(
                "no run and no content in `{}` has the name {}",
                state.display(),
                options.id
            ),
        )),
        ([id], []) => forget_run(id, options).await,
        ([], [sha256]) => forget_content(sha256, options).await,
        _ => Err(Refusal::new(
            Verdict::Usage,
            format!("{} matches {}", options.id, found.describe(state)),
        )),
    }
}

/// Removes a run. The answer describes it, because the name may have been a place from the end.
async fn forget_run(id: &str, options: &Options) -> Result<String, Refusal> {
    let ids = ShortIds::of(&options.state);
    let info = RunInfo::of(&options.state, id);
    let contents = runs::forget_run(&options.state, id, options.open)
        .await
        .map_err(|e| refusal(e, options))?;
    let what = info.began.as_ref().map_or_else(String::new, |began| {
        format!(" ({}{})", action(began, &ids), operator(began))
    });
    Ok(format!(
        "run {id}{what}, and {} that nothing else needs",
        screen::counted(contents, "content")
    ))
}

async fn forget_content(sha256: &str, options: &Options) -> Result<String, Refusal> {
    let (runs, proven) = runs::forget_bytes(&options.state, sha256)
        .await
        .map_err(|e| refusal(e, options))?;
    let proven = if proven {
        "; processes that run now were last proven on it"
    } else {
        ""
    };
    Ok(format!(
        "sha256:{} of {}: `hello` cannot roll back to it any more{proven}",
        short(sha256),
        screen::counted(runs, "run")
    ))
}

fn refusal(why: NotForgotten, options: &Options) -> Refusal {
    let state = options.state.display();
    match why {
        NotForgotten::Open(info) => {
            let next = info.next(&options.state_args);
            let text = if info.running {
                "needs it, and runs now"
            } else {
                "is open and needs it"
            };
            Refusal {
                next,
                old_version: info.old_version(&options.state_args),
                ..Refusal::new(Verdict::Refused, format!("run {} {text}", info.id))
            }
        }
        NotForgotten::Busy => Refusal::new(
            Verdict::Busy,
            format!("the store in `{state}` is busy: {why}"),
        ),
        NotForgotten::Io(e) => Refusal::new(
            Verdict::Failed,
            format!("the state directory `{state}` cannot be used: {e}"),
        ),
    }
}
