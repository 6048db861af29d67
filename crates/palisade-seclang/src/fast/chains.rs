//! All transformation chains of a group of rules as one tree of prefixes.

use std::collections::HashMap;

use super::mask::{self, mask};
use crate::settings::Steps;
use crate::transform::{Transform, UnicodeMap};

/// A set of nodes of the tree.
pub(crate) type Nodes = u128;

/// Most nodes.
const MOST: usize = 128;
/// A text of more bytes takes long enough that the time is asked for beside it.
pub(super) const LONG: usize = 64 << 10;

/// A chain of transformations that is a prefix of a rule's.
#[derive(Debug)]
struct Node {
    parent: u8,
    transform: Transform,
    trigger: u64,
    /// Triggers of everything below.
    below: u64,
    /// Something below looks at case.
    case_below: bool,
}

/// The tree. Node 0 is the raw value.
#[derive(Debug)]
pub(crate) struct Chains {
    nodes: Vec<Node>,
    /// By kind of byte: the nodes that a raw value which has it may change.
    changed: [Nodes; 64],
    known: HashMap<(u8, Transform), u8>,
    /// Shortest run of base64 that matters.
    pub(crate) base64: usize,
    /// Every transformation is applied, whatever the value.
    eager: bool,
    /// Every chain begins anew with the raw value, and nobody looks whether there is such a text already.
    forgetful: bool,
}

/// One distinct text that a value becomes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text {
    start: usize,
    end: usize,
    pub(crate) mask: u64,
    /// Chains after which the value reads so (but for case).
    pub(crate) nodes: Nodes,
    /// The text that is scanned for this one: itself, or one that differs by case only.
    twin: u8,
}

/// The texts of one value, with the memory they lie in.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    pub(crate) list: Vec<Text>,
    bytes: Vec<u8>,
    of_node: Vec<u8>,
    spare: Vec<u8>,
}

impl Texts {
    /// The bytes of a text; the first is the raw value.
    pub(crate) fn get<'a>(&'a self, index: usize, raw: &'a [u8]) -> &'a [u8] {
        if index == 0 {
            return raw;
        }
        self.list.get(index).and_then(|t| self.bytes.get(t.start..t.end)).unwrap_or(&[])
    }
}

impl Chains {
    pub(crate) fn new(steps: Steps) -> Chains {
        let root = Node { parent: 0, transform: Transform::Lowercase, trigger: 0, below: 0, case_below: false };
        Chains {
            nodes: vec![root],
            changed: [0; 64],
            known: HashMap::new(),
            base64: usize::MAX,
            eager: !steps.triggers,
            forgetful: !steps.cache,
        }
    }

    /// Adds a chain; returns the node of each of its prefixes, the raw value first. `None`: the tree is full.
    pub(crate) fn add(&mut self, chain: &[Transform]) -> Option<Vec<u8>> {
        let mut at = 0u8;
        let mut path = vec![0];
        for &transform in chain {
            at = match self.known.get(&(at, transform)) {
                Some(node) => *node,
                None => {
                    if self.nodes.len() >= MOST {
                        return None;
                    }
                    let node = self.nodes.len() as u8;
                    let trigger = mask::trigger(transform);
                    self.nodes.push(Node { parent: at, transform, trigger, below: 0, case_below: false });
                    self.known.insert((at, transform), node);
                    node
                }
            };
            path.push(at);
        }
        let (mut below, mut case_below) = (0, false);
        for node in path.iter().skip(1).rev().map(|n| usize::from(*n)) {
            let node = &mut self.nodes[node];
            node.below |= below;
            node.case_below |= case_below;
            below |= node.trigger;
            case_below |= sees_case(node.transform);
        }
        Some(path)
    }

    /// Triggers of the transformations of some nodes: a value without is the only text that it becomes, but for case.
    pub(crate) fn triggers(&self, wanted: Nodes) -> u64 {
        let nodes = self.nodes.iter().enumerate().filter(|(i, _)| wanted >> i & 1 == 1);
        let triggers = nodes.fold(0, |all, (_, node)| all | node.trigger);
        if self.eager { u64::MAX } else { triggers }
    }

    /// Finds the distinct texts of a value. Only nodes in `wanted` (with their prefixes) count; `raw_mask` is the value's,
    /// `triggers` are those of the nodes. Where they are long, `late` says whether to leave the rest.
    pub(crate) fn texts(
        &self,
        (wanted, triggers): (Nodes, u64),
        map: Option<&UnicodeMap>,
        (raw, raw_mask): (&[u8], u64),
        out: &mut Texts,
        mut late: impl FnMut() -> bool,
    ) {
        out.list.clear();
        out.bytes.clear();
        if raw_mask & triggers == 0 {
            out.list.push(Text { start: 0, end: raw.len(), mask: raw_mask, nodes: Nodes::MAX, twin: 0 });
            return;
        }
        out.list.push(Text { start: 0, end: raw.len(), mask: raw_mask, nodes: 1, twin: 0 });
        out.of_node.clear();
        out.of_node.resize(self.nodes.len(), 0);
        let changed = if self.eager { Nodes::MAX } else { self.changed_by(raw_mask) };
        out.list[0].nodes |= !changed;
        let mut left = wanted & changed & !1;
        while left != 0 {
            let i = left.trailing_zeros() as usize;
            left &= left - 1;
            let Some(node) = self.nodes.get(i) else { break };
            if raw.len() > LONG && late() {
                break;
            }
            let parent = usize::from(out.of_node[usize::from(node.parent)]);
            let parent_mask = out.list[parent].mask;
            let folds = folds_case(node.transform);
            // Scans ignore case, so a change of case matters only to a transformation below that looks at it and acts.
            let case_matters =
                folds && node.case_below && parent_mask & mask::UPPER != 0 && parent_mask & node.below != 0;
            if node.trigger & parent_mask == 0 && !case_matters && !self.eager {
                out.of_node[i] = parent as u8;
                // A text that is not scanned itself stands behind the one that it equals but for case.
                let scanned = usize::from(out.list[parent].twin);
                out.list[scanned].nodes |= 1 << i;
                continue;
            }
            let mut made = std::mem::take(&mut out.spare);
            made.clear();
            let same = if self.forgetful {
                self.anew(i, map, raw, &mut made);
                None
            } else {
                node.transform.apply(map, out.get(parent, raw), &mut made);
                (0..out.list.len()).find(|t| out.get(*t, raw) == made)
            };
            let text = match same {
                Some(text) => text,
                None => {
                    let equal = |t: &usize| out.get(*t, raw).eq_ignore_ascii_case(&made);
                    let twin = (0..out.list.len()).find(|t| folds && !self.forgetful && equal(t));
                    let number = out.list.len();
                    let start = out.bytes.len();
                    out.bytes.extend_from_slice(&made);
                    let text_mask = mask(&made, self.base64);
                    let twin = twin.map_or(number as u8, |t| out.list[t].twin);
                    out.list.push(Text { start, end: out.bytes.len(), mask: text_mask, nodes: 0, twin });
                    number
                }
            };
            out.of_node[i] = text as u8;
            let scanned = usize::from(out.list[text].twin);
            out.list[scanned].nodes |= 1 << i;
            out.spare = made;
        }
    }

    /// Nodes after which a raw value with these kinds of bytes may read differently; others leave it as it is.
    fn changed_by(&self, mut mask: u64) -> Nodes {
        let mut nodes = 0;
        while mask != 0 {
            nodes |= self.changed[mask.trailing_zeros() as usize];
            mask &= mask - 1;
        }
        nodes
    }

    /// All chains are known: prepares what is asked of each value.
    pub(crate) fn finish(&mut self) {
        // A node comes after its parent.
        let mut own = vec![0u64; self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate().skip(1) {
            let case = if folds_case(node.transform) && node.case_below { mask::UPPER } else { 0 };
            own[i] = own[usize::from(node.parent)] | node.trigger | case;
            for bit in (0..64).filter(|bit| own[i] >> bit & 1 == 1) {
                self.changed[bit] |= 1 << i;
            }
        }
    }

    /// What a node makes of the raw value.
    fn anew(&self, node: usize, map: Option<&UnicodeMap>, raw: &[u8], made: &mut Vec<u8>) {
        if node == 0 {
            made.extend_from_slice(raw);
            return;
        }
        let mut before = Vec::new();
        self.anew(usize::from(self.nodes[node].parent), map, raw, &mut before);
        self.nodes[node].transform.apply(map, &before, made);
    }

    /// The nodes of a chain with all its prefixes.
    pub(crate) fn closure(path: &[u8]) -> Nodes {
        path.iter().fold(0, |nodes, n| nodes | 1 << n)
    }
}

fn folds_case(transform: Transform) -> bool {
    matches!(transform, Transform::Lowercase | Transform::Uppercase | Transform::CmdLine)
}

/// Whether the result differs by more than case when the case of the input differs.
fn sees_case(transform: Transform) -> bool {
    !matches!(
        transform,
        Transform::Lowercase
            | Transform::Uppercase
            | Transform::CmdLine
            | Transform::UrlDecode
            | Transform::UrlDecodeUni
            | Transform::HtmlEntityDecode
            | Transform::CssDecode
            | Transform::Utf8ToUnicode
            | Transform::RemoveNulls
            | Transform::ReplaceNulls
            | Transform::CompressWhitespace
            | Transform::RemoveWhitespace
            | Transform::ReplaceComments
            | Transform::RemoveComments
            | Transform::RemoveCommentsChar
            | Transform::NormalisePath
            | Transform::NormalisePathWin
            | Transform::Trim
            | Transform::TrimLeft
            | Transform::TrimRight
    )
}
