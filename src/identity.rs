//! Who a process is, as the survey saw it: whatever starts a command for it later must find the same again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Users, groups and capabilities of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Person {
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
    pub person: Arc<Person>,
    /// What of its surroundings is its own.
    pub sees: Sees,
}

impl Person {
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
