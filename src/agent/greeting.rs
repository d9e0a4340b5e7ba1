//! What the agent says of its host before anything else.

use super::options::Options;
use crate::{
    fleet::{DEFAULT_CONFIRM_MAX, DEFAULT_LEASE, Fleet, FleetError, Group},
    protocol::{Greeting, GroupGreeting, Limits, MAX_BLOB, MAX_LINE, OpenRun, VERSION},
    runs,
};

/// Returns the greeting of this host.
pub(super) fn greet(fleet: &Result<Fleet, FleetError>, options: &Options) -> Greeting {
    let file = options.file.display().to_string();
    let (groups, fault) = match fleet {
        Ok(fleet) => (fleet.groups.iter().map(group).collect(), None),
        Err(why) => (Vec::new(), Some(why.to_string())),
    };
    let agent = fleet.as_ref().ok().and_then(|fleet| fleet.agent.as_ref());
    let mut labels = agent.map(|agent| agent.labels.clone()).unwrap_or_default();
    labels.extend(options.labels.clone());
    let state = options.state.as_deref();
    let mut open = state.map(runs::marked_runs).unwrap_or_default();
    open.retain(|run| run.open || run.running);
    Greeting {
        hello: "agent".into(),
        v: VERSION,
        min: VERSION,
        version: env!("CARGO_PKG_VERSION").into(),
        arch: std::env::consts::ARCH.into(),
        boot: runs::boot_id(),
        uid: nix::unistd::geteuid().as_raw(),
        host: options.name_of(agent),
        labels,
        fleet: Some(file).filter(|_| fleet.is_ok()),
        fault,
        can: Vec::new(),
        groups,
        open: open
            .iter()
            .map(|run| OpenRun {
                run: run.id.clone(),
                verdict: run.verdict().to_owned(),
                running: run.running,
                armed_s: state
                    .and_then(|state| runs::armed(state, &run.id))
                    .map(|armed| armed.left.as_secs()),
            })
            .collect(),
        limits: Limits {
            line: MAX_LINE,
            blob: MAX_BLOB,
            lease_s: agent.map_or(DEFAULT_LEASE, |agent| agent.lease).as_secs(),
            confirm_max_s: agent
                .map_or(DEFAULT_CONFIRM_MAX, |agent| agent.confirm_max)
                .as_secs(),
        },
    }
}

fn group(group: &Group) -> GroupGreeting {
    GroupGreeting {
        name: group.name.clone(),
        kind: group.kind.clone(),
        count: group.count.to_string(),
        validator: !group.validate.is_empty(),
        canary: group.has_canary(),
    }
}
