//! Who of a group's matches leads. Pure: what each match fits is known already.

use std::collections::{BTreeMap, BTreeSet};

/// A match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    /// Process number.
    pub(super) pid: i32,
    /// Its parent, match or not.
    pub(super) parent: i32,
    /// Whether it fits the group's `leader`.
    pub(super) leads: bool,
    /// Whether it fits the group's `worker`.
    pub(super) works: bool,
}

/// What a match is to its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It takes the signal.
    Leader,
    /// This one takes the signal for it: its leader, or else the nearest match that started it, or
    /// else its parent.
    Worker(i32),
    /// It works for nobody any more.
    Orphan,
    /// It and this one are masters of the same service.
    Upgraded(i32),
}

/// Who decides, besides the patterns.
#[derive(Debug, Default)]
pub(super) struct LeaderSource {
    /// The unit's main process.
    pub(super) main: Option<i32>,
    /// Whom pid files name.
    pub(super) named: BTreeSet<i32>,
    /// Whether the group has a `leader` pattern.
    pub(super) pattern: bool,
}

/// The role of every match. The unit's main process decides for all; pid files, the pattern, and at
/// last who has no match for a parent, decide for each family (what descends from one match through
/// matches alone).
pub(super) fn roles(nodes: &[Node], said: &LeaderSource) -> BTreeMap<i32, Role> {
    let by_pid: BTreeMap<i32, &Node> = nodes.iter().map(|n| (n.pid, n)).collect();
    let parent = |pid: i32| {
        by_pid
            .get(&pid)
            .and_then(|n| by_pid.get(&n.parent))
            .filter(|p| p.pid != pid)
            .map(|p| p.pid)
    };
    // A chain cannot be longer than there are matches: pids that were given out anew could make it
    // a circle.
    let line = |pid: i32| std::iter::successors(Some(pid), |pid| parent(*pid)).take(nodes.len());
    let root = |pid: i32| line(pid).last().unwrap_or(pid);
    let main = said.main.filter(|pid| by_pid.contains_key(pid));
    let spoken_for: BTreeSet<i32> = said
        .named
        .iter()
        .filter(|pid| by_pid.contains_key(pid))
        .map(|pid| root(*pid))
        .collect();
    let leads = |pid: i32| match main {
        Some(main) => pid == main,
        None if spoken_for.contains(&root(pid)) => said.named.contains(&pid),
        None if said.pattern => by_pid[&pid].leads,
        None => parent(pid).is_none(),
    };
    let mut roles = BTreeMap::new();
    for node in nodes {
        let role =
            if said.pattern && node.leads && parent(node.pid).is_some_and(|p| by_pid[&p].leads) {
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
                // One above its leader (a wrapper of the same executable) has it below.
                let below = || {
                    said.named
                        .iter()
                        .copied()
                        .find(|pid| line(*pid).any(|above| above == node.pid))
                };
                Role::Worker(main.or(above).or_else(below).unwrap_or(node.parent))
            };
        roles.insert(node.pid, role);
    }
    // Both masters are named, the old one too.
    for (new, old) in roles.clone().into_iter().filter_map(|(pid, role)| {
        if let Role::Upgraded(old) = role {
            Some((pid, old))
        } else {
            None
        }
    }) {
        roles.entry(old).and_modify(|role| {
            if !matches!(role, Role::Upgraded(_)) {
                *role = Role::Upgraded(new);
            }
        });
    }
    roles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nodes: &[(i32, i32, &str)], said: &LeaderSource) -> Vec<Role> {
        let nodes: Vec<Node> = nodes
            .iter()
            .map(|(pid, parent, fits)| Node {
                pid: *pid,
                parent: *parent,
                leads: *fits == "l",
                works: *fits == "w",
            })
            .collect();
        let roles = roles(&nodes, said);
        nodes.iter().map(|n| roles[&n.pid]).collect()
    }

    fn said(main: Option<i32>, named: &[i32], pattern: bool) -> LeaderSource {
        LeaderSource {
            main,
            named: named.iter().copied().collect(),
            pattern,
        }
    }

    use Role::{Leader, Orphan, Upgraded, Worker};

    #[test]
    fn without_a_word_who_has_no_match_for_a_parent_leads() {
        assert_eq!(
            of(
                &[(10, 1, ""), (11, 10, ""), (12, 11, ""), (20, 5, "")],
                &said(None, &[], false)
            ),
            [Leader, Worker(10), Worker(10), Leader]
        );
    }

    #[test]
    fn the_main_process_of_the_unit_decides_for_all() {
        let all = [(10, 1, ""), (11, 10, ""), (20, 1, "")];
        assert_eq!(
            of(&all, &said(Some(11), &[20], true)),
            [Worker(11), Leader, Worker(11)]
        );
        // One that does not match decides nothing.
        assert_eq!(
            of(&all, &said(Some(99), &[], false)),
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
            of(&all, &said(None, &[11], false)),
            [Worker(11), Leader, Worker(11), Leader, Worker(20)]
        );
        assert_eq!(of(&all, &said(None, &[99], false))[0], Leader);
    }

    #[test]
    fn the_pattern_decides_where_it_is_given() {
        let all = [(10, 1, ""), (11, 10, "l"), (12, 11, "w"), (13, 11, "")];
        assert_eq!(
            of(&all, &said(None, &[], true)),
            [Worker(1), Leader, Worker(11), Worker(11)]
        );
    }

    #[test]
    fn two_masters_of_one_service_are_an_upgrade_whatever_else_is_said() {
        let all = [
            (10, 1, "l"),
            (11, 10, "w"),
            (12, 10, "l"),
            (13, 12, "w"),
            (20, 1, "l"),
        ];
        for main in [None, Some(10)] {
            let roles = of(&all, &said(main, &[12], true));
            assert_eq!((roles[0], roles[2]), (Upgraded(12), Upgraded(10)));
        }
        assert_eq!(of(&all, &said(None, &[12], true))[4], Leader);
    }

    #[test]
    fn a_worker_whose_parent_is_no_match_has_lost_its_master() {
        let all = [(10, 1, "l"), (11, 10, "w"), (12, 1, "w"), (13, 12, "")];
        assert_eq!(
            of(&all, &said(None, &[], true)),
            [Leader, Worker(10), Orphan, Worker(12)]
        );
        assert_eq!(of(&all, &said(Some(12), &[], true))[2], Orphan);
    }

    #[test]
    fn a_circle_of_parents_ends() {
        assert_eq!(
            of(&[(10, 11, ""), (11, 10, "")], &said(None, &[], false)).len(),
            2
        );
    }
}
