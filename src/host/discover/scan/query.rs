//! A group's match with everything that is resolved once per scan: users and pid files.

use crate::{
    fleet::{Group, Match},
    host::{
        discover::{
            inspect::{Criteria, inspect},
            pidfile::{PidFile, PidFileError},
            reason::MatchReason,
            scan::entries::Scan,
        },
        proc::user::{NoUser, uid_of},
    },
};

/// A pid, or 0, and why it is not the process that was asked for.
pub(in crate::host::discover) type Missing = (i32, MatchReason);

/// A group with its resolved patterns.
pub(in crate::host::discover) struct GroupQuery<'a> {
    pub(super) group: &'a Group,
    /// The users whose processes the group means.
    pub(super) uids: Vec<u32>,
    pub(super) matching: Criteria<'a>,
    pub(in crate::host::discover) exclude: Option<Criteria<'a>>,
    pub(super) leader: Option<Criteria<'a>>,
    pub(super) worker: Option<Criteria<'a>>,
}

impl Scan {
    /// Resolves the users and pid files of a group.
    pub(in crate::host::discover) fn query<'a>(
        &self,
        group: &'a Group,
    ) -> Result<GroupQuery<'a>, Missing> {
        let uids = uids_of(group).map_err(|why| (0, why.into()))?;
        let parts = [
            Some(&group.matching),
            group.exclude.as_ref(),
            group.leader.as_ref(),
            group.worker.as_ref(),
        ];
        if parts.into_iter().flatten().any(needs_listeners)
            && let Err(why) = self.listeners()
        {
            return Err((0, MatchReason::Sockets(why.clone())));
        }
        let matching = Criteria::new(&group.matching, pid_named_by(&group.matching, true)?);
        let exclude = group
            .exclude
            .as_ref()
            .map(|what| Ok(Criteria::new(what, pid_named_by(what, false)?)))
            .transpose()?;
        // A pattern whose pid file names no process matches none.
        let pattern = |what: &'a Option<Match>| {
            let Some(what) = what else { return Ok(None) };
            match pid_named_by(what, true) {
                Ok(pid) => Ok(Some(Criteria::new(what, pid))),
                Err((pid, why)) if why.is_unread() => Err((pid, why)),
                Err(_) => Ok(Some(Criteria::new(what, None))),
            }
        };
        Ok(GroupQuery {
            group,
            uids,
            matching,
            exclude,
            leader: pattern(&group.leader)?,
            worker: pattern(&group.worker)?,
        })
    }
}

/// Tells whether a match can only be decided with the listening sockets of this host.
pub(super) fn needs_listeners(what: &Match) -> bool {
    what.port.is_some() || what.listens.is_some()
}

/// The users whose processes a group means. A name that is not on this host is ignored, unless no
/// other is left.
fn uids_of(group: &Group) -> Result<Vec<u32>, NoUser> {
    let own = nix::unistd::geteuid().as_raw();
    if group.users.is_empty() {
        return Ok(vec![own]);
    }
    let uids: Vec<Result<u32, NoUser>> = group
        .users
        .iter()
        .map(|user| match user.as_str() {
            "{self}" => Ok(own),
            user => uid_of(user),
        })
        .collect();
    if uids.iter().all(Result::is_err) {
        uids.into_iter().collect()
    } else {
        Ok(uids.into_iter().flatten().collect())
    }
}

/// The process that the `pid_file` of a match names. If it is `needed`, a missing file is an error.
pub(in crate::host::discover) fn pid_named_by(
    what: &Match,
    needed: bool,
) -> Result<Option<i32>, Missing> {
    let Some(path) = &what.pid_file else {
        return Ok(None);
    };
    let file = match PidFile::read(path) {
        Ok(file) => file,
        Err(PidFileError::Missing) if !needed => return Ok(None),
        Err(e) => return Err((0, MatchReason::PidFile(path.clone(), e))),
    };
    // If there is no such process, the match reports that later.
    if let Ok(process) = inspect(file.pid) {
        file.is_trusted(process.uid)
            .map_err(|why| (file.pid, MatchReason::UntrustedPidFile(path.clone(), why)))?;
    }
    Ok(Some(file.pid))
}
