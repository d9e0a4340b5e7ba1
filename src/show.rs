//! `hello show`: one run with what it changed, or the bytes of one stored content. Reads only.

use std::os::unix::ffi::OsStrExt;

use serde_json::{Map, Value, json};

use self::run_view::RunView;
use crate::{
    event::{VERSION, Verdict},
    exact,
    report::{Output, fail},
    runs::{self, ContentUse, Matches},
    screen,
    step::short,
};

mod options;
mod run_view;

pub(crate) use self::options::Options;

/// Why nothing is shown.
struct Refusal {
    verdict: Verdict,
    why: String,
    /// The next step, and its command.
    next: Option<(&'static str, String)>,
}

/// Shows the run or the content, and returns the exit code.
///
/// 0: shown. 1: the state directory cannot be read. 2: several match. 3: nothing matches. 5: the
/// content is a secret.
#[must_use]
pub(crate) fn run(options: &Options) -> u8 {
    match attempt(options) {
        Ok(()) => Verdict::Converged.exit(),
        Err(Refusal { verdict, why, next }) => {
            let commands: Vec<String> = next.iter().map(|(_, command)| command.clone()).collect();
            let code = fail(options.output, verdict, &why, &commands, Map::new());
            if let Some((action, command)) = next {
                screen::tell(&format!("\n{}", screen::hint(action, &[command])));
            }
            code
        }
    }
}

fn attempt(options: &Options) -> Result<(), Refusal> {
    let state = &options.state;
    let refusal = |verdict, why| Refusal {
        verdict,
        why,
        next: None,
    };
    let unreadable = |e: std::io::Error| {
        let state = state.display();
        let why = format!("the state directory `{state}` cannot be read: {e}");
        refusal(Verdict::Failed, why)
    };
    let found = Matches::of(state, &options.name).map_err(unreadable)?;
    match (found.runs.as_slice(), found.contents.as_slice()) {
        ([], []) => {
            let why = format!(
                "no run and no content in `{}` has the name {:?}",
                state.display(),
                options.name
            );
            Err(Refusal {
                next: Some((
                    "the runs that are kept:",
                    format!("hello history{}", options.state_args),
                )),
                ..refusal(Verdict::NoMatch, why)
            })
        }
        ([id], []) => {
            RunView::read(options, id)
                .map_err(unreadable)?
                .show(options);
            Ok(())
        }
        ([], [sha256]) => show_content(options, sha256),
        _ => Err(refusal(
            Verdict::Usage,
            format!("{:?} matches {}", options.name, found.describe(state)),
        )),
    }
}

/// Shows the bytes of a stored content.
fn show_content(options: &Options, sha256: &str) -> Result<(), Refusal> {
    let failed = |verdict, why| Refusal {
        verdict,
        why,
        next: None,
    };
    let uses = runs::uses(&options.state, sha256)
        .map_err(|e| failed(Verdict::Failed, format!("the runs cannot be read: {e}")))?;
    let secret = runs::is_secret(&uses);
    if secret != Some(false) && !options.reveal {
        let why = match secret {
            Some(_) => "is a secret: not every user may read its file, or its group says so",
            None => "may be a secret: no run that is kept recorded whether it is one",
        };
        return Err(Refusal {
            verdict: Verdict::Refused,
            why: format!("sha256:{} {why}", short(sha256)),
            next: Some((
                "to show it all the same:",
                format!(
                    "hello show {} --reveal{}",
                    short(sha256),
                    options.state_args
                ),
            )),
        });
    }
    let bytes = runs::stored(&options.state, sha256).ok_or_else(|| {
        let why = format!("the bytes of sha256:{sha256} cannot be read, or have changed");
        failed(Verdict::Failed, why)
    })?;
    if options.output == Output::Screen {
        screen::content(&bytes);
    } else {
        screen::data([content_object(sha256, &bytes, secret, &uses)]);
    }
    Ok(())
}

fn content_object(sha256: &str, bytes: &[u8], secret: Option<bool>, uses: &[ContentUse]) -> Value {
    let uses = uses.iter().map(|one| {
        json!({
            "run": one.run,
            "path": exact::value(one.target.path.as_os_str().as_bytes()),
            "kind": one.target.kind,
            "as": if one.target.to == sha256 { "to" } else { "from" },
        })
    });
    json!({
        "v": VERSION,
        "dry_run": false,
        "verdict": Verdict::Converged,
        "exit": 0,
        "reason": null,
        "next": [],
        "sha256": sha256,
        "size": bytes.len(),
        "secret": secret,
        "content": exact::value(bytes),
        "uses": uses.collect::<Vec<_>>(),
    })
}
