//! The identity of a process at the survey. A command that runs for it later must find the same
//! identity.

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
    /// Its permitted capabilities, as bits, capabilities(7).
    pub permitted: u64,
    /// Its capability bounding set: the most that a program which it executes can gain.
    pub bounding: u64,
    /// Its ambient capabilities, which a program that it executes keeps.
    pub ambient: u64,
}

/// The namespaces and the root directory of a process, compared with those of this one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sees {
    /// It was not checked.
    #[default]
    NotAsked,
    /// It has the same.
    TheSame,
    /// It has others, or this user may not see them.
    Another,
}

/// A process and its executable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Pid.
    pub pid: i32,
    /// Its pid in its own PID namespace.
    pub inside: i32,
    /// Start time in clock ticks since boot.
    pub started: u64,
    /// Device and inode of its executable; zeros if this user may not see it.
    pub exe: (u64, u64),
    /// Its user, groups and capabilities; equal ones share memory.
    pub person: Arc<Credentials>,
    /// Its namespaces, compared with those of this process.
    pub sees: Sees,
    /// The meaning of its command line.
    pub line: Line,
    /// The program that its reload executes.
    pub renewal: Renewal,
}

/// The content of a process's `/proc/PID/cmdline`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Line {
    /// The arguments that it was started with.
    #[default]
    Arguments,
    /// A title that the process wrote over them.
    Title,
    /// A title that contains the arguments, in the place that its group declares.
    Told,
}

/// The program that a process executes on the signal, if it executes itself again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Renewal {
    /// Its reload executes nothing.
    #[default]
    None,
    /// The program that it runs.
    Same,
    /// Another program, which is at this path now; with its device and inode.
    Another(PathBuf, (u64, u64)),
    /// Another program, which this path resolves to now. The running program was at a different
    /// path.
    Elsewhere(PathBuf),
    /// Nothing: this path does not resolve to a program any more.
    Missing(PathBuf),
}

impl Credentials {
    /// Tells whether it acts as another user than the one that started it, or could again.
    #[must_use]
    pub fn is_setuid(&self) -> bool {
        self.uids.iter().any(|uid| *uid != self.uids[0])
    }

    /// Tells whether it acts as another group than the one that started it, or could again.
    #[must_use]
    pub fn is_setgid(&self) -> bool {
        self.gids.iter().any(|gid| *gid != self.gids[0])
    }

    /// Returns the credentials to start a process of this identity again. A process that changed
    /// its users by itself was started by root, if it can be root again, and else by its real user.
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

    /// Tells whether it acts as root, or was started by root and acts as another user.
    #[must_use]
    pub fn has_root(&self) -> bool {
        self.uids[..2].contains(&0)
    }

    /// Returns its effective user.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uids[1]
    }

    /// Returns its effective group.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gids[1]
    }
}
