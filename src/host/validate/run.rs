//! Runs a validator, and prepares its output for the screen.

use std::time::Duration;

use crate::{
    check::CheckError,
    host::exec::{self, Bind, Output, RunError, Subject, placeholders::NoValue},
};

/// The longest run of a validator.
const LIMIT: Duration = Duration::from_secs(30);

/// The most bytes of a validator's output that are kept as the reason of a refusal.
const MAX_OUTPUT: usize = 4 << 10;

/// Why a candidate has not passed its validator.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ValidationError {
    /// The validator has refused the candidate.
    #[error(transparent)]
    Refused(#[from] Objection),
    /// The validator could not be run, so that it has refused nothing.
    #[error(transparent)]
    NotRun(#[from] NotRun),
}

/// Why a validator refuses a candidate.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Objection {
    /// It ended with another status than 0. Its output is none if that must not be shown.
    #[error(
        "the validator `{program}` refused it (exit status: {code}){}{}",
        shown(output.as_deref()),
        if *clean { CLEAN } else { "" }
    )]
    Status {
        program: String,
        code: i32,
        output: Option<String>,
        /// True if it ran without the environment of its instance.
        clean: bool,
    },
    /// It ended with 0, and names errors; none if these must not be shown.
    #[error(
        "the validator `{command}` ends with 0, but names errors that it does not name in the \
         present config: {}",
        errors.as_deref().unwrap_or("they are not shown, since the config is a secret")
    )]
    Errors {
        command: String,
        errors: Option<String>,
    },
    /// The parser of this binary refuses it.
    #[error(transparent)]
    Parser(#[from] CheckError),
    /// As [`Self::Parser`], for content that must not be shown.
    #[error("its content is a secret")]
    Secret,
}

/// The note about a validator whose instance has no readable environment, on a line of its own.
const CLEAN: &str = "\n(in a clean environment: that of the instance cannot be read)";

fn shown(output: Option<&str>) -> String {
    match output {
        Some(output) => format!(": {output}"),
        None => "; its output is not shown, since the config is a secret".into(),
    }
}

/// Why a validator could not be run.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NotRun {
    /// It needs arguments that are not known.
    #[error(
        "the validator could not be run: its command line is a title that hides the arguments of \
         the process, or the borders between them, which `{{args}}` and `{{opt:..}}` stand for; \
         set another `validate` without them"
    )]
    HiddenArguments,
    /// It needs a value that the instance does not have.
    #[error("the validator could not be run: {0}")]
    NoValue(#[from] NoValue),
    #[error("the validator {0}")]
    NoResult(#[from] RunError),
    /// Its writes are discarded, and limited.
    #[error("a write of the validator, which would be discarded, was refused ({0})")]
    DiskFull(Box<Objection>),
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
    let output = exec::judge_in_view(argv, subject, binds, LIMIT)
        .await
        .map_err(NotRun::from)?;
    if output.code == 0 {
        return Ok(text(&output));
    }
    Err(Objection::Status {
        program: argv.first().cloned().unwrap_or_default(),
        code: output.code,
        output: (!secret).then(|| cut(text(&output))),
        clean: false,
    }
    .into())
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
