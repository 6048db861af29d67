//! The templates of a document as a tree: a look-up costs the segments of the path, not the number of operations.

use std::collections::HashMap;

use crate::template::{Segment, Template, split};

#[derive(Debug, Default)]
pub(crate) struct Paths {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, usize>,
    parameters: Vec<(Segment, usize)>,
    /// Numbers of templates that end here.
    ends: Vec<u32>,
}

/// Places that a look-up visits at most. A path of 64 segments could mean 2^64 templates; beyond this nothing was found.
const MAX_VISITS: usize = 10_000;

impl Paths {
    pub(crate) fn add(&mut self, template: &Template, number: u32) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        for segment in template.segments() {
            let next = self.nodes.len();
            let node = &mut self.nodes[at];
            let found = match segment {
                Segment::Literal(literal) => *node.literals.entry(literal.clone()).or_insert(next),
                parameter => match node.parameters.iter().find(|(known, _)| known == parameter) {
                    Some((_, found)) => *found,
                    None => {
                        node.parameters.push((parameter.clone(), next));
                        next
                    }
                },
            };
            if found == next {
                self.nodes.push(Node::default());
            }
            at = found;
        }
        self.nodes[at].ends.push(number);
    }

    /// The numbers of all templates that match, in the order in which they were added. Nothing where there would be too
    /// many places to look at.
    pub(crate) fn find(&self, path: &str) -> Vec<u32> {
        let segments: Vec<&str> = split(path).collect();
        let mut found = Vec::new();
        let (mut open, mut visits) = (vec![(0_usize, 0_usize)], 0);
        while let Some((at, depth)) = open.pop() {
            visits += 1;
            if visits > MAX_VISITS {
                return Vec::new();
            }
            let Some(node) = self.nodes.get(at) else { continue };
            match segments.get(depth) {
                None => found.extend_from_slice(&node.ends),
                Some(segment) => {
                    open.extend(node.literals.get(*segment).map(|next| (*next, depth + 1)));
                    let fitting = node.parameters.iter().filter(|(parameter, _)| parameter.matches(segment));
                    open.extend(fitting.map(|(_, next)| (*next, depth + 1)));
                }
            }
        }
        found.sort_unstable();
        found
    }
}
