//! Which group comes after which: a graph that is walked once, however many groups there are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Group;

/// The groups that each group comes after, by name.
pub type Order = BTreeMap<String, Vec<String>>;

/// The part of `order` that says more of `groups` than they say themselves: what groups that are
/// not among them come after, as far as one of `groups` comes after these.
#[must_use]
pub fn outside_order(groups: &[Group], order: &Order) -> Order {
    let mine: BTreeSet<&str> = groups.iter().map(|g| g.name.as_str()).collect();
    let mut found = Order::new();
    let mut next: Vec<&String> = groups.iter().flat_map(|g| &g.after).collect();
    while let Some(name) = next.pop() {
        if mine.contains(name.as_str()) || found.contains_key(name) {
            continue;
        }
        if let Some(after) = order.get(name) {
            found.insert(name.clone(), after.clone());
            next.extend(after);
        }
    }
    found
}

/// Nodes by their place in a list, and the edges between them.
#[derive(Debug)]
pub struct Graph {
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
}

impl Graph {
    /// Of nodes with their names and the names that each comes after; an unknown name counts for
    /// nothing.
    #[must_use]
    pub fn of(nodes: &[(&str, &[String])]) -> Self {
        let places: BTreeMap<&str, usize> = nodes
            .iter()
            .enumerate()
            .map(|(at, (name, _))| (*name, at))
            .collect();
        let mut graph = Self {
            before: vec![Vec::new(); nodes.len()],
            after: vec![Vec::new(); nodes.len()],
        };
        for (at, (_, names)) in nodes.iter().enumerate() {
            for before in names.iter().filter_map(|name| places.get(name.as_str())) {
                graph.before[at].push(*before);
                graph.after[*before].push(at);
            }
        }
        graph
    }

    /// The nodes that `at` comes after.
    pub fn before(&self, at: usize) -> impl Iterator<Item = usize> {
        self.before[at].iter().copied()
    }

    /// Every node once, each behind all that it comes after. Nodes that wait for each other have
    /// no such order: they and what comes after them stand at the end.
    #[must_use]
    pub fn sorted(&self) -> Vec<usize> {
        let (mut sorted, waiting) = self.walk();
        sorted.extend((0..waiting.len()).filter(|at| waiting[*at] > 0));
        sorted
    }

    /// Nodes of one circle, in their order; none where there is no circle.
    #[must_use]
    pub fn circle(&self) -> Vec<usize> {
        let (_, waiting) = self.walk();
        let Some(mut at) = waiting.iter().position(|waits| *waits > 0) else {
            return Vec::new();
        };
        // Each node that waits comes after another one that waits, so the way back ends in a
        // circle.
        let mut path = Vec::new();
        let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
        while !seen.contains_key(&at) {
            seen.insert(at, path.len());
            path.push(at);
            match self.before[at].iter().find(|before| waiting[**before] > 0) {
                Some(before) => at = *before,
                None => return Vec::new(),
            }
        }
        let mut circle = path.split_off(seen[&at]);
        circle.sort_unstable();
        circle
    }

    /// The nodes in their order, and for how many nodes each of the others still waits.
    fn walk(&self) -> (Vec<usize>, Vec<usize>) {
        let mut waiting: Vec<usize> = self.before.iter().map(Vec::len).collect();
        let mut ready: VecDeque<usize> =
            (0..waiting.len()).filter(|at| waiting[*at] == 0).collect();
        let mut sorted = Vec::with_capacity(waiting.len());
        while let Some(at) = ready.pop_front() {
            sorted.push(at);
            for next in &self.after[at] {
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

    fn name(at: usize) -> String {
        format!("g{at}")
    }

    fn chain(all: usize) -> Fleet {
        fleet((0..all).map(|at| (name(at), at.checked_sub(1).map(name).into_iter().collect())))
    }

    #[test]
    fn what_is_not_in_a_run_still_says_what_comes_after_what() {
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
    fn a_circle_is_found_and_told_from_what_comes_after_it() {
        let none: &[String] = &[];
        let of = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (a, b, c, d) = (of(&["c"]), of(&["a"]), of(&["b", "x"]), of(&["c"]));
        let graph = Graph::of(&[("d", &d), ("a", &a), ("b", &b), ("c", &c), ("e", none)]);
        assert_eq!(
            (graph.circle(), graph.sorted()),
            (vec![1, 2, 3], vec![4, 0, 1, 2, 3])
        );
        let own = of(&["a"]);
        assert_eq!(Graph::of(&[("a", &own)]).circle(), [0]);
    }

    /// The processor time of this thread, which other processes of a busy machine add nothing to.
    fn worked() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(
            time.tv_sec.try_into().unwrap(),
            time.tv_nsec.try_into().unwrap(),
        )
    }

    /// The shortest of a few tries.
    fn took(of: impl Fn() -> Fleet) -> Duration {
        let tries = (0..3).map(|_| {
            let began = worked();
            assert!(!of().groups.is_empty());
            worked() - began
        });
        tries.min().unwrap_or_default()
    }

    #[test]
    fn ten_times_the_groups_take_about_ten_times_as_long() {
        let wide = |all: usize| {
            fleet((0..all).map(|at| (name(at), if at == 0 { Vec::new() } else { vec![name(0)] })))
        };
        // Layers of two, each of which comes after both of the layer before.
        let diamonds = |all: usize| {
            fleet((0..all).map(|at| {
                (
                    name(at),
                    if at < 2 {
                        Vec::new()
                    } else {
                        vec![name(at / 2 * 2 - 2), name(at / 2 * 2 - 1)]
                    },
                )
            }))
        };
        let shapes: [(&str, &dyn Fn(usize) -> Fleet); 3] =
            [("chain", &chain), ("wide", &wide), ("diamonds", &diamonds)];
        for (shape, of) in shapes {
            let (few, many) = (took(|| of(300)), took(|| of(3_000)));
            assert!(
                many < few * 50,
                "{shape}: 300 groups take {few:?}, and 3,000 {many:?}"
            );
        }
    }
}
