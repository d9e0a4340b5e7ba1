//! The leaders among the matches of a group. Pure: the patterns are compared already.

use std::collections::{BTreeMap, BTreeSet};

/// A match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) pid: i32,
    /// Its parent, match or not.
    pub(super) parent: i32,
    /// True if it fits the group's `leader`.
    pub(super) leads: bool,
    /// True if it fits the group's `worker`.
    pub(super) works: bool,
}

/// The role of a match in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It takes the signal.
    Leader,
    /// This process takes the signal for it: its leader, or else the nearest match that started it,
    /// or else its parent.
    Worker(i32),
    /// A worker without a master.
    Orphan,
    /// It and this process are masters of the same service.
    Upgraded(i32),
}

/// The sources that decide which match leads, besides the patterns.
#[derive(Debug, Default)]
pub(super) struct LeaderSource {
    /// The unit's main process.
    pub(super) main: Option<i32>,
    /// The processes that pid files name.
    pub(super) named: BTreeSet<i32>,
    /// True if the group has a `leader` pattern.
    pub(super) pattern: bool,
}

/// Returns the role of every match. The unit's main process decides for all. Otherwise each family
/// (the descendants of one match through matches alone) is decided by its pid file, or else by the
/// pattern, or else by parents: a match without a match for a parent leads.
pub(super) fn roles(nodes: &[Node], source: &LeaderSource) -> BTreeMap<i32, Role> {
    let by_pid: BTreeMap<i32, &Node> = nodes.iter().map(|n| (n.pid, n)).collect();
    let parent = |pid: i32| {
        by_pid
            .get(&pid)
            .and_then(|n| by_pid.get(&n.parent))
            .filter(|p| p.pid != pid)
            .map(|p| p.pid)
    };
    // A chain is never longer than the number of matches: a reused pid could make a circle.
    let line = |pid: i32| std::iter::successors(Some(pid), |pid| parent(*pid)).take(nodes.len());
    let root = |pid: i32| line(pid).last().unwrap_or(pid);
    let main = source.main.filter(|pid| by_pid.contains_key(pid));
    let named_roots: BTreeSet<i32> = source
        .named
        .iter()
        .filter(|pid| by_pid.contains_key(pid))
        .map(|pid| root(*pid))
        .collect();
    let leads = |pid: i32| match main {
        Some(main) => pid == main,
        None if named_roots.contains(&root(pid)) => source.named.contains(&pid),
        None if source.pattern => by_pid[&pid].leads,
        None => parent(pid).is_none(),
    };
    let mut roles = BTreeMap::new();
    for node in nodes {
        let role =
            if source.pattern && node.leads && parent(node.pid).is_some_and(|p| by_pid[&p].leads) {
                Role::Upgraded(node.parent)
            } else if node.works && parent(node.pid).is_none() {
                Role::Orphan
            } else if leads(node.pid) {
                Role::Leader
            } else {
                let above = line(node.pid)
                    .skip(1)
                    .find(|pid| leads(*pid))
                    .or_else(|| parent(node.pid));
                // A wrapper of the same executable is above its leader.
                let below = || {
                    source
                        .named
                        .iter()
                        .copied()
                        .find(|pid| line(*pid).any(|above| above == node.pid))
                };
                Role::Worker(main.or(above).or_else(below).unwrap_or(node.parent))
            };
        roles.insert(node.pid, role);
    }
    name_both_masters(&mut roles);
    roles
}

/// Gives the old master of an upgrade the role of the new one.
fn name_both_masters(roles: &mut BTreeMap<i32, Role>) {
    for (new, old) in roles
        .clone()
        .into_iter()
        .filter_map(|(pid, role)| match role {
            Role::Upgraded(old) => Some((pid, old)),
            _ => None,
        })
    {
        roles.entry(old).and_modify(|role| {
            if !matches!(role, Role::Upgraded(_)) {
                *role = Role::Upgraded(new);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nodes: &[(i32, i32, &str)], source: &LeaderSource) -> Vec<Role> {
        let nodes: Vec<Node> = nodes
            .iter()
            .map(|(pid, parent, fits)| Node {
                pid: *pid,
                parent: *parent,
                leads: *fits == "l",
                works: *fits == "w",
            })
            .collect();
        let roles = roles(&nodes, source);
        nodes.iter().map(|n| roles[&n.pid]).collect()
    }

    fn source(main: Option<i32>, named: &[i32], pattern: bool) -> LeaderSource {
        LeaderSource {
            main,
            named: named.iter().copied().collect(),
            pattern,
        }
    }

    use Role::{Leader, Orphan, Upgraded, Worker};

    #[test]
    fn by_default_a_match_without_a_match_for_a_parent_leads() {
        assert_eq!(
            of(
                &[(10, 1, ""), (11, 10, ""), (12, 11, ""), (20, 5, "")],
                &source(None, &[], false)
            ),
            [Leader, Worker(10), Worker(10), Leader]
        );
    }

    #[test]
    fn the_main_process_of_the_unit_decides_for_all() {
        let all = [(10, 1, ""), (11, 10, ""), (20, 1, "")];
        assert_eq!(
            of(&all, &source(Some(11), &[20], true)),
            [Worker(11), Leader, Worker(11)]
        );
        // A main process that does not match decides nothing.
        assert_eq!(
            of(&all, &source(Some(99), &[], false)),
            [Leader, Worker(10), Leader]
        );
    }

    #[test]
    fn a_pid_file_decides_for_its_family_alone() {
        let all = [
            (10, 1, ""),
            (11, 10, ""),
            (12, 11, ""),
            (20, 1, ""),
            (21, 20, ""),
        ];
        assert_eq!(
            of(&all, &source(None, &[11], false)),
            [Worker(11), Leader, Worker(11), Leader, Worker(20)]
        );
        assert_eq!(of(&all, &source(None, &[99], false))[0], Leader);
    }

    #[test]
    fn the_pattern_decides_where_it_is_given() {
        let all = [(10, 1, ""), (11, 10, "l"), (12, 11, "w"), (13, 11, "")];
        assert_eq!(
            of(&all, &source(None, &[], true)),
            [Worker(1), Leader, Worker(11), Worker(11)]
        );
    }

    #[test]
    fn two_masters_of_one_service_are_an_upgrade_whatever_else_is_declared() {
        let all = [
            (10, 1, "l"),
            (11, 10, "w"),
            (12, 10, "l"),
            (13, 12, "w"),
            (20, 1, "l"),
        ];
        for main in [None, Some(10)] {
            let roles = of(&all, &source(main, &[12], true));
            assert_eq!((roles[0], roles[2]), (Upgraded(12), Upgraded(10)));
        }
        assert_eq!(of(&all, &source(None, &[12], true))[4], Leader);
    }

    #[test]
    fn a_worker_whose_parent_is_no_match_has_lost_its_master() {
        let all = [(10, 1, "l"), (11, 10, "w"), (12, 1, "w"), (13, 12, "")];
        assert_eq!(
            of(&all, &source(None, &[], true)),
            [Leader, Worker(10), Orphan, Worker(12)]
        );
        assert_eq!(of(&all, &source(Some(12), &[], true))[2], Orphan);
    }

    #[test]
    fn a_circle_of_parents_ends() {
        assert_eq!(
            of(&[(10, 11, ""), (11, 10, "")], &source(None, &[], false)).len(),
            2
        );
    }
}
