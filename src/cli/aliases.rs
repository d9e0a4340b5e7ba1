//! Other names of commands, which operators know from other tools.

/// Those of `hello broadcast`.
pub(super) const BROADCAST: [&str; 2] = ["reload", "apply"];

/// Those of `hello revert`.
pub(super) const REVERT: [&str; 2] = ["undo", "rollback"];

/// Those of `hello status`.
pub(super) const STATUS: [&str; 1] = ["ps"];

/// Those of `hello history`.
pub(super) const HISTORY: [&str; 1] = ["log"];

/// Returns the command that `word` names, by its name or by another one.
pub(super) fn command_of(word: &str) -> &str {
    let commands: [(&str, &[&str]); 4] = [
        ("broadcast", &BROADCAST),
        ("revert", &REVERT),
        ("status", &STATUS),
        ("history", &HISTORY),
    ];
    commands
        .into_iter()
        .find(|(_, aliases)| aliases.contains(&word))
        .map_or(word, |(command, _)| command)
}
