//! Circles in a directed graph of names.

use std::collections::{BTreeMap, BTreeSet};

/// The names that each name points to.
pub(super) type Graph = BTreeMap<String, BTreeSet<String>>;

/// Returns the circles: sets of two or more names that all reach each other, in order of size.
pub(super) fn circles(graph: &Graph) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> = graph
        .keys()
        .map(|name| (name, reachable(graph, name)))
        .collect();
    let mut circles = BTreeSet::new();
    for (name, reached) in &reach {
        let circle: BTreeSet<String> = reached
            .iter()
            .filter(|&&other| reach.get(other).is_some_and(|back| back.contains(name)))
            .map(|&other| other.clone())
            .collect();
        if circle.len() > 1 {
            circles.insert((usize::MAX - circle.len(), circle));
        }
    }
    circles.into_iter().map(|(_, circle)| circle).collect()
}

/// Returns all names that an edge or more lead to.
fn reachable<'a>(graph: &'a Graph, from: &str) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&String> = graph.get(from).into_iter().flatten().collect();
    while let Some(name) = open.pop() {
        if found.insert(name) {
            open.extend(graph.get(name).into_iter().flatten());
        }
    }
    found
}

/// Returns a shortest path inside of a circle, from its first name back to it.
pub(super) fn round_trip(graph: &Graph, circle: &BTreeSet<String>) -> Vec<String> {
    let Some(start) = circle.first() else {
        return Vec::new();
    };
    let mut paths = std::collections::VecDeque::from([vec![start.clone()]]);
    let mut seen = BTreeSet::new();
    while let Some(path) = paths.pop_front() {
        let targets = path.last().and_then(|last| graph.get(last));
        for target in targets.into_iter().flatten() {
            let mut longer = path.clone();
            longer.push(target.clone());
            if target == start {
                return longer;
            }
            if circle.contains(target) && seen.insert(target.clone()) {
                paths.push_back(longer);
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph
                .entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned());
        }
        graph
    }

    fn joined(circles: &[BTreeSet<String>]) -> Vec<String> {
        circles
            .iter()
            .map(|circle| circle.iter().cloned().collect::<Vec<_>>().join(" "))
            .collect()
    }

    #[test]
    fn a_graph_of_layers_has_no_circle() {
        let graph = graph(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]);
        assert_eq!(circles(&graph), []);
    }

    #[test]
    fn each_circle_is_found_once_the_largest_first() {
        let graph = graph(&[
            ("a", "b"),
            ("b", "a"),
            ("b", "c"),
            ("c", "d"),
            ("d", "e"),
            ("e", "c"),
            ("e", "f"),
        ]);
        assert_eq!(joined(&circles(&graph)), ["c d e", "a b"]);
    }

    #[test]
    fn a_round_trip_is_a_shortest_one() {
        let graph = graph(&[("a", "b"), ("b", "c"), ("c", "a"), ("b", "a"), ("c", "d")]);
        let circle = circles(&graph).remove(0);
        assert_eq!(round_trip(&graph, &circle), ["a", "b", "a"]);
    }
}
