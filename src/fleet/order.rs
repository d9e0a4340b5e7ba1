//! The order of groups: a graph that is walked once, in linear time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Group;

/// The groups that each group comes after, by name.
pub type Order = BTreeMap<String, Vec<String>>;

/// Returns the part of `order` for groups that are not among `groups`, as far as one of `groups`
/// comes after them.
#[must_use]
pub fn outside_order(groups: &[Group], order: &Order) -> Order {
    let inside: BTreeSet<&str> = groups.iter().map(|g| g.name.as_str()).collect();
    let mut found = Order::new();
    let mut next: Vec<&String> = groups.iter().flat_map(|g| &g.after).collect();
    while let Some(name) = next.pop() {
        if inside.contains(name.as_str()) || found.contains_key(name) {
            continue;
        }
        if let Some(after) = order.get(name) {
            found.insert(name.clone(), after.clone());
            next.extend(after);
        }
    }
    found
}

/// Nodes by their index in a list, and the edges between them.
#[derive(Debug)]
pub struct Graph {
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
}

impl Graph {
    /// Builds the graph of nodes with their names and the names that each comes after. Unknown
    /// names are ignored.
    #[must_use]
    pub fn of(nodes: &[(&str, &[String])]) -> Self {
        let indices: BTreeMap<&str, usize> = nodes
            .iter()
            .enumerate()
            .map(|(node, (name, _))| (*name, node))
            .collect();
        let mut graph = Self {
            before: vec![Vec::new(); nodes.len()],
            after: vec![Vec::new(); nodes.len()],
        };
        for (node, (_, names)) in nodes.iter().enumerate() {
            for before in names.iter().filter_map(|name| indices.get(name.as_str())) {
                graph.before[node].push(*before);
                graph.after[*before].push(node);
            }
        }
        graph
    }

    /// Iterates over the nodes that `node` comes after.
    pub fn before(&self, node: usize) -> impl Iterator<Item = usize> {
        self.before[node].iter().copied()
    }

    /// Returns every node once, each behind all nodes that it comes after. Nodes of a circle have
    /// no such order: they and the nodes after them are last.
    #[must_use]
    pub fn sorted(&self) -> Vec<usize> {
        let (mut sorted, waiting) = self.walk();
        sorted.extend((0..waiting.len()).filter(|node| waiting[*node] > 0));
        sorted
    }

    /// Returns the nodes of one circle, sorted; none if there is no circle.
    #[must_use]
    pub fn circle(&self) -> Vec<usize> {
        let (_, waiting) = self.walk();
        let Some(mut node) = waiting.iter().position(|waits| *waits > 0) else {
            return Vec::new();
        };
        // Each node that waits comes after another that waits, so this walk reaches a circle.
        let mut path = Vec::new();
        let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
        while !seen.contains_key(&node) {
            seen.insert(node, path.len());
            path.push(node);
            match self.before[node]
                .iter()
                .find(|before| waiting[**before] > 0)
            {
                Some(before) => node = *before,
                None => return Vec::new(),
            }
        }
        let mut circle = path.split_off(seen[&node]);
        circle.sort_unstable();
        circle
    }

    /// Returns the nodes in their order, and the number of nodes that each of the others waits for.
    fn walk(&self) -> (Vec<usize>, Vec<usize>) {
        let mut waiting: Vec<usize> = self.before.iter().map(Vec::len).collect();
        let mut ready: VecDeque<usize> = (0..waiting.len())
            .filter(|node| waiting[*node] == 0)
            .collect();
        let mut sorted = Vec::with_capacity(waiting.len());
        while let Some(node) = ready.pop_front() {
            sorted.push(node);
            for next in &self.after[node] {
                waiting[*next] -= 1;
                if waiting[*next] == 0 {
                    ready.push_back(*next);
                }
            }
        }
        (sorted, waiting)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::{path::Path, time::Duration};

    use super::*;
    use crate::fleet::Fleet;

    fn fleet(groups: impl Iterator<Item = (String, Vec<String>)>) -> Fleet {
        let after = |names: Vec<String>| {
            if names.is_empty() {
                String::new()
            } else {
                format!("after = {names:?}\n")
            }
        };
        let group = |(name, names)| {
            format!(
                "[[group]]\nname = \"{name}\"\nkind = \"hello\"\n{}",
                after(names)
            )
        };
        let text: String = ["version = 1\n".to_owned()]
            .into_iter()
            .chain(groups.map(group))
            .collect();
        Fleet::parse(text.as_bytes(), Path::new("fleet.toml")).unwrap()
    }

    fn name(index: usize) -> String {
        format!("g{index}")
    }

    fn chain(length: usize) -> Fleet {
        let before = |index: usize| index.checked_sub(1).map(name).into_iter().collect();
        fleet((0..length).map(|index| (name(index), before(index))))
    }

    #[test]
    fn groups_outside_a_run_still_order_those_inside() {
        let whole = chain(9);
        let some = whole
            .clone()
            .select(&[name(1), name(4), name(8)], false)
            .unwrap();
        let beyond = outside_order(&some.groups, &some.order);
        assert_eq!(
            beyond.keys().cloned().collect::<Vec<_>>(),
            [2, 3, 5, 6, 7].map(name)
        );
        assert!(super::outside_order(&whole.groups, &whole.order).is_empty());
    }

    #[test]
    fn a_circle_is_found_without_the_nodes_after_it() {
        let none: &[String] = &[];
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let a = list(&["c"]);
        let b = list(&["a"]);
        let c = list(&["b", "x"]);
        let d = list(&["c"]);
        let graph = Graph::of(&[("d", &d), ("a", &a), ("b", &b), ("c", &c), ("e", none)]);
        assert_eq!(
            (graph.circle(), graph.sorted()),
            (vec![1, 2, 3], vec![4, 0, 1, 2, 3])
        );
        let own = list(&["a"]);
        assert_eq!(Graph::of(&[("a", &own)]).circle(), [0]);
    }

    /// Returns the processor time of this thread, which the load of the machine does not change.
    fn thread_time() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(
            time.tv_sec.try_into().unwrap(),
            time.tv_nsec.try_into().unwrap(),
        )
    }

    /// Returns the shortest time of three tries.
    fn shortest(make: impl Fn() -> Fleet) -> Duration {
        let tries = (0..3).map(|_| {
            let began = thread_time();
            assert!(!make().groups.is_empty());
            thread_time() - began
        });
        tries.min().unwrap_or_default()
    }

    #[test]
    fn the_time_to_order_groups_is_linear() {
        let wide = |length: usize| {
            let before = |index| {
                if index == 0 {
                    Vec::new()
                } else {
                    vec![name(0)]
                }
            };
            fleet((0..length).map(|index| (name(index), before(index))))
        };
        // Layers of two, each of which comes after both of the layer before.
        let diamonds = |length: usize| {
            fleet((0..length).map(|index| {
                (
                    name(index),
                    if index < 2 {
                        Vec::new()
                    } else {
                        vec![name(index / 2 * 2 - 2), name(index / 2 * 2 - 1)]
                    },
                )
            }))
        };
        let shapes: [(&str, &dyn Fn(usize) -> Fleet); 3] =
            [("chain", &chain), ("wide", &wide), ("diamonds", &diamonds)];
        for (shape, make) in shapes {
            let few = shortest(|| make(300));
            let many = shortest(|| make(3_000));
            assert!(
                many < few * 50,
                "{shape}: 300 groups take {few:?}, and 3,000 {many:?}"
            );
        }
    }
}
