//! Who a process is, as the survey saw it: whatever starts a command for it later must find the
//! same again.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

/// Users, groups and capabilities of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Credentials {
    /// Real, effective and saved user.
    pub uids: [u32; 3],
    /// Real, effective and saved group.
    pub gids: [u32; 3],
    /// Supplementary groups, sorted.
    pub groups: Vec<u32>,
    /// Capabilities that it may use, as bits.
    pub permitted: u64,
    /// Capabilities that a program which it executes could gain at most.
    pub bounding: u64,
    /// Capabilities that a program which it executes keeps.
    pub ambient: u64,
}

/// Whether a process has the namespaces and the root directory of this one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sees {
    /// It was not looked at.
    #[default]
    NotAsked,
    /// It has.
    TheSame,
    /// It has others, or this user may not see them.
    Another,
}

/// A process and what it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Process number.
    pub pid: i32,
    /// Its number in its own PID namespace.
    pub inside: i32,
    /// Start time in clock ticks since boot.
    pub started: u64,
    /// Device and inode of its executable; zeros where this user may not see it.
    pub exe: (u64, u64),
    /// Its user, groups and capabilities; equal ones are kept once.
    pub person: Arc<Credentials>,
    /// What of its surroundings is its own.
    pub sees: Sees,
    /// Whether its command line is one.
    pub line: Line,
    /// What its reload executes.
    pub renewal: Renewal,
}

/// What `/proc/PID/cmdline` of a process holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Line {
    /// The arguments that it was started with.
    #[default]
    Arguments,
    /// A title that the process wrote over them.
    Title,
    /// The same, and its group says where the arguments stand in it.
    Told,
}

/// What a process that executes itself again on the signal will execute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Renewal {
    /// Its reload executes nothing.
    #[default]
    None,
    /// The program that it runs.
    Same,
    /// Another program, which stands at this path by now; with its device and inode.
    Another(PathBuf, (u64, u64)),
    /// Another program, to which this path leads by now, though what it runs is not at the end of
    /// it.
    Elsewhere(PathBuf),
    /// Nothing: this path leads to no program any more.
    Missing(PathBuf),
}

impl Credentials {
    /// Whether it acts as another user than it was started by, or could again.
    #[must_use]
    pub fn is_setuid(&self) -> bool {
        self.uids.iter().any(|uid| *uid != self.uids[0])
    }

    /// Whether it acts as another group than it was started by, or could again.
    #[must_use]
    pub fn is_setgid(&self) -> bool {
        self.gids.iter().any(|gid| *gid != self.gids[0])
    }

    /// As whom a process of this identity is started again. One that changed its users by itself
    /// was started by root, if it can be root again, and by its real user otherwise.
    #[must_use]
    pub fn starter(&self) -> Self {
        let uid = if self.is_setuid() && self.uids.contains(&0) {
            0
        } else {
            self.uids[0]
        };
        Self {
            uids: [uid; 3],
            gids: [self.gids[0]; 3],
            ..self.clone()
        }
    }

    /// Whether it acts as root, or was started by root and acts as another user.
    #[must_use]
    pub fn has_root(&self) -> bool {
        self.uids[..2].contains(&0)
    }

    /// Its effective user.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uids[1]
    }

    /// Its effective group.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gids[1]
    }
}
