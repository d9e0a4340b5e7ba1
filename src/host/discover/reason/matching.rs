//! Why a process is no instance of a group.

use std::{io, path::PathBuf, sync::Arc};

use crate::{
    host::{
        discover::{inspect::InspectError, pidfile::PidFileError},
        proc::user::NoUser,
    },
    identity::Credentials,
    refusal::Refusal,
    trust::Distrust,
};

/// A reason, and the step or the key of `fleet.toml` that helps.
pub(crate) type MatchRefusal = Refusal<MatchReason>;

/// Why a process is no instance of a group: no match, skipped, or refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MatchReason {
    /// The process cannot be read, or runs no program.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// A key of `match` does not fit, as `fleet.toml` words it.
    #[error("{0}")]
    Unfit(String),
    /// The arguments of `match` are the only difference.
    #[error("{0}")]
    Lacking(String),
    /// Its match depends on what this user may not see.
    #[error("cannot be looked at by this user")]
    Hidden,
    /// As [`Self::Hidden`], and what this user sees speaks for a match.
    #[error(
        "cannot be looked at by this user (it belongs to uid {uid}), and may be one of group \
             `{group}`"
    )]
    MayMatch { uid: u32, group: String },
    /// It belongs to a user that the group does not name.
    #[error(transparent)]
    NotMeant(#[from] NotMeant),
    #[error("is excluded by its `exclude`")]
    Excluded,
    #[error("is not in the list of its `instances`")]
    NotListed,
    #[error("started after the scan")]
    Late,
    #[error("is being upgraded: pid {other} and pid {pid} are both masters")]
    Upgraded { other: i32, pid: i32 },
    #[error("is a worker whose master is gone, so that nothing makes it reload")]
    Orphan,
    #[error("was started by pid {parent}, which group `{group}` excludes")]
    OfExcluded { parent: i32, group: String },
    #[error("does not fit the `leader` of group `{0}`")]
    NoLeader(String),
    /// A list of instances names a worker.
    #[error("is a worker of pid {0}, which takes the signal for it: list that one")]
    ListedWorker(i32),
    #[error("is no process of group `{0}`")]
    NotInGroup(String),
    /// The pid file of `match` names a process that does not match.
    #[error("is named by `{}` and {}", .0.display(), .1)]
    Named(PathBuf, Box<MatchReason>),
    #[error("is named by `{}`, which is not trusted: {}", .0.display(), .1)]
    UntrustedPidFile(PathBuf, Distrust),
    #[error("pid file `{}`: {}", .0.display(), .1)]
    PidFile(PathBuf, PidFileError),
    #[error(transparent)]
    NoUser(#[from] NoUser),
    #[error("the listening sockets cannot be read: {0}")]
    Sockets(Arc<io::Error>),
    #[error("a process that may listen where group `{0}` says cannot be looked at by this user")]
    MayListen(String),
}

impl MatchReason {
    /// Tells whether something could not be read, so that a process may be a match all the same.
    pub(crate) fn is_unread(&self) -> bool {
        match self {
            Self::Inspect(why) => matches!(why, InspectError::Failed(_)),
            Self::Named(_, why) => why.is_unread(),
            Self::PidFile(_, why) => {
                matches!(why, PidFileError::Io(_) | PidFileError::Unreadable(_))
            }
            Self::NoUser(_) | Self::Sockets(_) => true,
            _ => false,
        }
    }
}

impl From<Refusal<NotMeant>> for MatchRefusal {
    fn from(refusal: Refusal<NotMeant>) -> Self {
        Self {
            why: refusal.why.into(),
            hint: refusal.hint,
        }
    }
}

/// Why a match does not belong to the users of its group.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotMeant {
    /// The group names no user.
    #[error(
        "belongs to uid {0}, and group `{1}` matches only its caller's own processes, unless it \
             names a `user`"
    )]
    NotCallers(u32, String),
    /// The group names other users.
    #[error("belongs to uid {0}, and group `{1}` matches only its `user`'s processes")]
    NotUsers(u32, String),
    #[error(
        "runs as {0}, since its executable is setuid: its real user may have started it, and \
             group `{1}` does not match it"
    )]
    Setuid(Users, String),
    #[error(
        "runs as {0}: more than one of them is neither root nor the caller, and no group \
             matches that"
    )]
    Several(Users),
    #[error(
        "runs as {0}: its real and effective user differ, and group `{1}` matches it only if it \
             names both"
    )]
    NotBoth(Users, String),
}

/// The users of a process: real, effective and saved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Users([u32; 3]);

impl Users {
    pub(crate) fn of(person: &Credentials) -> Self {
        Self(person.uids)
    }
}

impl std::fmt::Display for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [real, effective, saved] = self.0;
        write!(f, "real uid {real}, effective uid {effective}")?;
        if saved != effective && saved != real {
            write!(f, ", saved uid {saved}")?;
        }
        Ok(())
    }
}
