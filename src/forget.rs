//! `hello forget`: removes one run, or one content from every run.

use crate::{
    event::Verdict,
    protocol::KeptItem,
    report::{action, operator, remove_leftovers},
    runs::{self, Matches, OldRun, RunInfo, ShortIds},
    screen,
    step::short,
};

mod chosen;
mod end;
mod of_host;
mod options;
mod over_hosts;
mod refusal;

use self::refusal::{Refusal, refusal};
pub(crate) use self::{
    of_host::forget_of_host,
    options::{HostChoice, Options},
};

/// The fewest digits of an id or digest. A shorter prefix is too easy to mistype.
const DIGITS: usize = 8;

/// The digits of a SHA-256.
const DIGEST: usize = 64;

/// Removes the run or the content, and returns the exit code.
///
/// 0: removed. 1: the state directory cannot be used. 2: several match. 3: nothing matches. 5: an
/// open run needs it. 9: other runs hold the store. 11: a host was not reached, and its part stays.
#[must_use]
pub(crate) async fn run(options: Options) -> u8 {
    let options = &options;
    match attempt(options).await {
        Ok(exit) => exit.exit(),
        Err(refusal) => {
            screen::tell(&screen::failure(&refusal.why));
            let abandon = format!(
                "hello forget {} --abandon{}{}",
                screen::quote(&options.id),
                options.hosts.arguments(),
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

/// Removes the run or content, and says what was removed.
async fn attempt(options: &Options) -> Result<Verdict, Refusal> {
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
    let found = Matches::of(state, &options.id).map_err(|e| unreadable(options, &e))?;
    if options.hosts.selects() {
        let (item, run) = item_of_hosts(options, &found)?;
        return over_hosts::forget(options, item, run).await;
    }
    let done = match (found.runs.as_slice(), found.contents.as_slice()) {
        ([], []) => Err(Refusal::new(
            Verdict::NoMatch,
            format!(
                "no run and no content in `{}` has the name {}",
                state.display(),
                options.id
            ),
        )),
        ([id], []) => match runs::over_hosts(state, Some(id)).filter(|_| !options.hosts.here) {
            Some(run) => {
                let item = KeptItem::Run(id.clone());
                return over_hosts::forget(options, item, Some(run)).await;
            }
            None => forget_run(id, options).await,
        },
        ([], [sha256]) => forget_content(sha256, options).await,
        _ => Err(Refusal::new(
            Verdict::Usage,
            format!("{} matches {}", options.id, found.describe(state)),
        )),
    }?;
    screen::tell(&screen::worded("Forgotten", &done));
    Ok(Verdict::Converged)
}

fn unreadable(options: &Options, e: &std::io::Error) -> Refusal {
    let text = format!(
        "the state directory `{}` cannot be read: {e}",
        options.state.display()
    );
    Refusal::new(Verdict::Failed, text)
}

/// Returns what selected hosts are to remove, and the index of the run. The first digits of a name
/// may mean something else on each host, so it must be whole, unless this machine knows the run.
fn item_of_hosts(
    options: &Options,
    found: &Matches,
) -> Result<(KeptItem, Option<runs::RunOverHosts>), Refusal> {
    if let ([id], []) = (found.runs.as_slice(), found.contents.as_slice()) {
        let index = runs::over_hosts(&options.state, Some(id));
        return Ok((KeptItem::Run(id.clone()), index));
    }
    let name = options.id.strip_prefix("sha256:").unwrap_or(&options.id);
    if let Some(id) = runs::whole_id(name).filter(|_| name == options.id) {
        return Ok((KeptItem::Run(id), None));
    }
    let digest = runs::digits(name);
    if digest.len() == DIGEST && digest.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok((KeptItem::Sha256(digest), None));
    }
    Err(Refusal::new(
        Verdict::Usage,
        format!(
            "{:?} may mean another run or content on each host: give all digits of its id or \
             SHA-256",
            options.id
        ),
    ))
}

/// Removes a run. The answer describes it, because the name may have been a place from the end.
async fn forget_run(id: &str, options: &Options) -> Result<String, Refusal> {
    let ids = ShortIds::of(&options.state);
    let info = RunInfo::of(&options.state, id);
    let contents = runs::forget_run(&options.state, id, options.open)
        .await
        .map_err(|e| refusal(e, (&options.state, &options.state_args)))?;
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
        .map_err(|e| refusal(e, (&options.state, &options.state_args)))?;
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
