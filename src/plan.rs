//! The plan of a run: which file becomes what, who reads it, and who is signalled. Pure: no process and no file is touched.

use std::path::PathBuf;

use crate::{
    config,
    event::{Instance, State},
    fact::Fact,
    fleet::Speaks,
};

/// Bytes and their digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The content of a config.
    pub bytes: Vec<u8>,
    /// Lower-case hex SHA-256 of `bytes`.
    pub sha256: String,
}

impl Blob {
    /// Digests `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { sha256: config::digest(&bytes), bytes }
    }
}

/// An instance and what the survey learnt of it.
#[derive(Debug, Clone)]
pub struct Member {
    /// What is reported of it.
    pub instance: Instance,
    /// Its attempt number at the survey.
    pub seq: u64,
    /// From its signal to its proof.
    pub timeout: std::time::Duration,
    /// What it tells of itself.
    pub speaks: Speaks,
    /// What must be seen, as its group says it.
    pub facts: Vec<Fact>,
    /// The facts' readings from before the signal, in the same order.
    pub baseline: Vec<Option<String>>,
    /// How often in a row the facts must hold.
    pub samples: u32,
}

/// One target and the instances that read it.
#[derive(Debug, Clone)]
pub struct Step {
    /// Resolved path of the target.
    pub path: PathBuf,
    /// What is on disk at the survey.
    pub disk: Blob,
    /// The way back; none where nobody has the bytes that are served now.
    pub from: Option<Blob>,
    /// What is wanted.
    pub to: Blob,
    /// Who reads it.
    pub members: Vec<Member>,
}

impl Step {
    /// Decides the way back of one target and who needs no signal.
    ///
    /// `old` finds the bytes of an earlier config by digest.
    ///
    /// # Errors
    /// Names the instances that run neither the file on disk nor the candidate (drift).
    pub fn new(path: PathBuf, disk: Blob, to: Blob, mut members: Vec<Member>, old: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Self, Vec<(i32, String)>> {
        let adopted = disk.sha256 == to.sha256;
        let mut drifted = Vec::new();
        let mut others: Vec<&str> = Vec::new();
        for member in &members {
            // Who cannot tell what it runs has no way back where the disk is the candidate already.
            let Some(runs) = member.instance.before.as_deref() else {
                others.push("");
                continue;
            };
            if runs == to.sha256 || runs == disk.sha256 {
                continue;
            }
            others.push(runs);
            if !adopted {
                let why = format!(
                    "runs {}, but `{}` on disk is {}: neither the old nor the new config; adopt or put back that file first",
                    short(runs),
                    path.display(),
                    short(&disk.sha256)
                );
                drifted.push((member.instance.pid, why));
            }
        }
        if !drifted.is_empty() {
            return Err(drifted);
        }
        others.dedup();
        let from = match (adopted, others.as_slice()) {
            (false, _) => Some(disk.clone()),
            (true, [one]) => old(one).map(Blob::new).filter(|b| b.sha256 == *one),
            (true, _) => None,
        };
        for member in members.iter_mut().filter(|m| adopted && m.instance.before.as_ref() == Some(&to.sha256)) {
            member.instance.state = State::Unchanged;
        }
        Ok(Self { path, disk, from, to, members })
    }

    /// Whether anybody gets a signal.
    #[must_use]
    pub fn is_work(&self) -> bool {
        self.members.iter().any(|m| m.instance.state != State::Unchanged)
    }
}

/// The first 12 digits, enough for people.
#[must_use]
pub fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}
