//! The directory that runs are kept in.

use std::path::PathBuf;

use crate::{runs::Retention, screen};

/// The option that names the state directory.
#[derive(Debug, clap::Args)]
pub(super) struct StateArg {
    /// Keep runs in this directory.
    ///
    /// Without the option, root uses /var/lib/hello. Other users use hello in $XDG_STATE_HOME, or
    /// in $HOME/.local/state. The directory also holds what processes were last proven to run.
    #[arg(
        help_heading = "Record",
        long,
        value_name = "DIR",
        env = "HELLO_STATE",
        hide_env_values = true
    )]
    state: Option<PathBuf>,
}

/// The option that limits the runs that are kept.
#[derive(Debug, clap::Args)]
pub(super) struct KeepArg {
    /// Keep the last N runs, runs up to this AGE, or both limits.
    ///
    /// Older runs are removed when a run has ended. Open runs are always kept.
    #[arg(
        help_heading = "Record",
        hide_short_help = true,
        long,
        value_name = "N|AGE|N,AGE",
        default_value = "50,30d"
    )]
    pub(super) keep: Retention,
}

/// The state directory of a command.
#[derive(Debug)]
pub(super) struct StateDir {
    pub(super) path: PathBuf,
    /// ` --state DIR` to append to suggested commands; empty for the default directory.
    pub(super) args: String,
}

/// No directory is named, and the user has no home.
#[derive(Debug, thiserror::Error)]
#[error("no state directory: neither --state, HELLO_STATE nor HOME is set")]
pub(super) struct NoStateDir;

impl StateArg {
    /// Returns the directory that the option names, or the default one.
    ///
    /// # Errors
    /// Fails if no option names one and the user has no home.
    pub(super) fn resolve(self) -> Result<StateDir, NoStateDir> {
        let default = default_state();
        let path = self.state.or_else(|| default.clone()).ok_or(NoStateDir)?;
        let args = if default.as_ref() == Some(&path) {
            String::new()
        } else {
            format!(" --state {}", screen::quote(&path))
        };
        Ok(StateDir { path, args })
    }
}

/// The default state directory of this user; none without a home.
fn default_state() -> Option<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Some("/var/lib/hello".into());
    }
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
    std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(home)
        .map(|directory| directory.join("hello"))
}
