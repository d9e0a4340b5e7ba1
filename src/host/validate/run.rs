//! Runs a validator, and prepares its output for the screen.

use std::time::Duration;

use crate::host::exec::{self, Bind, Output, RunError, Subject};

/// The longest run of a validator.
const LIMIT: Duration = Duration::from_secs(30);

/// The most bytes of a validator's output that are kept as the reason of a refusal.
const MAX_OUTPUT: usize = 4 << 10;

/// Why a candidate has not passed its validator.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ValidationError {
    /// The validator has refused the candidate.
    #[error("{0}")]
    Refused(String),
    /// The validator could not be run, so that it has refused nothing.
    #[error("{0}")]
    NotRun(String),
}

/// Runs `argv` to its end, at most 30 s, as the instance of `subject` and with each of `binds`
/// mounted at its live path. Returns the output if it passes. The refusal of a `secret` does not
/// repeat the output.
///
/// # Errors
/// Fails with the output if the validator refuses, or with the reason if it could not be run.
pub(crate) async fn run(
    argv: &[String],
    subject: Subject<'_>,
    binds: &[Bind],
    secret: bool,
) -> Result<String, ValidationError> {
    let not_run = |e: RunError| ValidationError::NotRun(format!("the validator {e}"));
    let output = exec::judge_in_view(argv, subject, binds, LIMIT)
        .await
        .map_err(not_run)?;
    if output.code == 0 {
        return Ok(text(&output));
    }
    let program = argv.first().map_or("", String::as_str);
    let refusal = format!(
        "the validator `{program}` refused it (exit status: {})",
        output.code
    );
    Err(ValidationError::Refused(match secret {
        true => format!("{refusal}; its output is not shown, since the config is a secret"),
        false => format!("{refusal}: {}", cut(text(&output))),
    }))
}

/// Returns the output, stderr first, without characters that a terminal would obey.
fn text(output: &Output) -> String {
    let text = [&output.stderr, &output.stdout]
        .map(|bytes| String::from_utf8_lossy(bytes).trim_end().to_owned())
        .join("\n");
    text.trim()
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

/// Returns the first [`MAX_OUTPUT`] bytes, cut between two characters.
fn cut(text: String) -> String {
    let end = text.floor_char_boundary(MAX_OUTPUT);
    if end < text.len() {
        format!("{} ..", &text[..end])
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_output_is_cut_between_characters_and_has_no_control_characters() {
        let shown = |stderr: &str| {
            cut(text(&Output {
                code: 1,
                stdout: b"out\n".to_vec(),
                stderr: stderr.into(),
            }))
        };
        assert_eq!(shown("a\x1b[31m\tb\r\n"), "a\u{fffd}[31m\tb\nout");
        let long = shown(&"\u{e4}".repeat(MAX_OUTPUT));
        assert!(
            long.len() <= MAX_OUTPUT + 3 && long.ends_with("\u{e4} .."),
            "{}",
            long.len()
        );
        assert_eq!(shown(""), "out");
    }
}
