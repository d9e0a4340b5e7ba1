//! Asks a validator: what it answers of a candidate, and what is shown of its words.

use std::time::Duration;

use crate::host::exec::{self, Bind, Output, RunError, Subject};

const LIMIT: Duration = Duration::from_secs(30);
/// So much of what it says is kept as the reason.
const MAX_SAID: usize = 4 << 10;

/// Why a candidate has not passed its validator.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ValidationError {
    /// The validator looked at it and says no.
    #[error("{0}")]
    Refused(String),
    /// The validator could not be run, so nothing is known: it has refused nothing.
    #[error("{0}")]
    NotRun(String),
}

/// Runs `argv` to its end, at most 30 s, as the instance of `subject` and with each of `binds` at
/// its live path. Of a `secret`, no refusal repeats what it said. Returns what it said of one that
/// it passes.
///
/// # Errors
/// What it said, when it refused; or why it could not be run.
pub(crate) async fn run(
    argv: &[String],
    subject: Subject<'_>,
    binds: &[Bind],
    secret: bool,
) -> Result<String, ValidationError> {
    let not_run = |e: RunError| ValidationError::NotRun(format!("the validator {e}"));
    let output = exec::look(argv, subject, binds, LIMIT)
        .await
        .map_err(not_run)?;
    if output.code == 0 {
        return Ok(words(&output));
    }
    let program = argv.first().map_or("", String::as_str);
    let says = format!(
        "the validator `{program}` says no (exit status: {})",
        output.code
    );
    Err(ValidationError::Refused(match secret {
        true => format!("{says}; its output is not shown, since the config is a secret"),
        false => format!("{says}: {}", cut(words(&output))),
    }))
}

/// What it said, errors first, in letters that no terminal obeys.
fn words(output: &Output) -> String {
    let all = [&output.stderr, &output.stdout]
        .map(|bytes| String::from_utf8_lossy(bytes).trim_end().to_owned())
        .join("\n");
    all.trim()
        .chars()
        .filter(|c| *c != '\r')
        .map(|c| {
            if c.is_control() && !matches!(c, '\n' | '\t') {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// Its beginning, as the reason of a refusal.
fn cut(words: String) -> String {
    match (0..=MAX_SAID).rev().find(|at| words.is_char_boundary(*at)) {
        Some(at) if at < words.len() => format!("{} ..", &words[..at]),
        _ => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_are_cut_between_letters_and_steer_no_terminal() {
        let said = |text: &str| {
            cut(words(&Output {
                code: 1,
                stdout: b"out\n".to_vec(),
                stderr: text.into(),
            }))
        };
        assert_eq!(said("a\x1b[31m\tb\r\n"), "a\u{fffd}[31m\tb\nout");
        let long = said(&"\u{e4}".repeat(MAX_SAID));
        assert!(
            long.len() <= MAX_SAID + 3 && long.ends_with("\u{e4} .."),
            "{}",
            long.len()
        );
        assert_eq!(said(""), "out");
    }
}
