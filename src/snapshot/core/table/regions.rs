// SPDX-License-Identifier: GPL-2.0-only

//! The regions of a table.

use super::{
    region::Region,
    size::{
        kmalloc,
        of_array, //
    }, //
};
use crate::format::NoMemory;
use crate::memory::{
    Box,
    Vec,
    When, //
};
use core::mem::replace;

/// The most entries of a node: a kibibyte of regions.
const FULL: usize = 64;

/// A node of the tree. None but the root is empty.
enum Node {
    /// Regions by their numbers.
    Leaf(Vec<(u64, Box<Region>)>),
    /// Nodes by the least number that each can have; the first one has all that are less, too.
    Inner(Vec<(u64, Node)>),
}

/// Regions by their numbers: a B-tree, so that neither many regions nor the order in which they
/// come make it slow or need much memory at once.
///
/// Full nodes are split on the way down, so that an allocation that fails leaves nothing half done.
/// Nodes that have become small are not joined, empty ones are freed.
pub(super) struct Regions {
    root: Node,
    bytes: usize,
}

impl Regions {
    pub(super) const fn new() -> Self {
        Self {
            root: Node::Leaf(Vec::new()),
            bytes: 0,
        }
    }

    /// The memory of the tree and of the regions in it, without their blocks and directories, in
    /// bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, number: u64) -> Option<&Region> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(regions) => return Some(&regions.get(find(regions, number)?)?.1),
                Node::Inner(nodes) => node = &nodes.get(child(nodes, number))?.1,
            }
        }
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Region> {
        let mut node = &mut self.root;
        loop {
            match node {
                Node::Leaf(regions) => {
                    let index = find(regions, number)?;
                    return Some(&mut regions.get_mut(index)?.1);
                }
                Node::Inner(nodes) => {
                    let index = child(nodes, number);
                    node = &mut nodes.get_mut(index)?.1;
                }
            }
        }
    }

    /// The first region from `number` on, and its number.
    pub(super) fn from(&self, number: u64) -> Option<(u64, &Region)> {
        let mut node = &self.root;
        // The nodes after the one that is looked into, the nearest ones.
        let mut after = None;
        loop {
            match node {
                Node::Leaf(regions) => {
                    let index = regions.partition_point(|(other, _)| *other < number);
                    if let Some((number, region)) = regions.get(index) {
                        return Some((*number, region));
                    }
                    // No number in there is before the one asked for.
                    node = after.take()?;
                }
                Node::Inner(nodes) => {
                    let index = child(nodes, number);
                    if let Some((_, next)) = nodes.get(index + 1) {
                        after = Some(next);
                    }
                    node = &nodes.get(index)?.1;
                }
            }
        }
    }

    /// Calls `visit` with all regions and their numbers, in order, as long as it succeeds.
    pub(super) fn try_for_each<E>(
        &mut self,
        mut visit: impl FnMut(u64, &mut Region) -> Result<(), E>,
    ) -> Result<(), E> {
        try_for_each(&mut self.root, &mut visit)
    }

    /// Makes a region of the number, which there is none of.
    pub(super) fn create(&mut self, number: u64, when: When) -> Result<(), NoMemory> {
        let Self { root, bytes } = self;
        if root.is_full() {
            let mut nodes = Vec::new();
            reserve(&mut nodes, 2, when, bytes)?;
            let old = replace(root, Node::Leaf(Vec::new()));
            let _ = nodes.push((0, old));
            *root = Node::Inner(nodes);
        }
        let mut node = root;
        loop {
            match node {
                Node::Leaf(regions) => {
                    reserve(regions, 1, when, bytes)?;
                    let region = Box::new(Region::new(), when)?;
                    *bytes += kmalloc(size_of::<Region>());
                    let index = regions.partition_point(|(other, _)| *other < number);
                    return regions
                        .insert(index, (number, region))
                        .map_err(|_| NoMemory);
                }
                Node::Inner(nodes) => {
                    let mut index = child(nodes, number);
                    if nodes.get(index).is_some_and(|(_, node)| node.is_full()) {
                        reserve(nodes, 1, when, bytes)?;
                        let (_, full) = nodes.get_mut(index).ok_or(NoMemory)?;
                        let (first, upper) = full.split(number, when, bytes)?;
                        index += 1;
                        let _ = nodes.insert(index, (first, upper));
                        if number < first {
                            index -= 1;
                        }
                    }
                    node = &mut nodes.get_mut(index).ok_or(NoMemory)?.1;
                }
            }
        }
    }

    /// Removes a region, if it is there.
    pub(super) fn remove(&mut self, number: u64) {
        let Self { root, bytes } = self;
        if remove(root, number, bytes) {
            *bytes -= root.bytes();
            *root = Node::Leaf(Vec::new());
        }
        while let Node::Inner(nodes) = root {
            if nodes.len() != 1 {
                break;
            }
            let Some((_, only)) = nodes.pop() else {
                break;
            };
            *bytes -= of_array(nodes);
            *root = only;
        }
    }
}

impl Node {
    fn is_full(&self) -> bool {
        match self {
            Self::Leaf(regions) => regions.len() >= FULL,
            Self::Inner(nodes) => nodes.len() >= FULL,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Leaf(regions) => of_array(regions),
            Self::Inner(nodes) => of_array(nodes),
        }
    }

    /// Makes two nodes of one that is full and that `number` is to be put into. Returns the upper
    /// one and its least number. A failure changes nothing.
    fn split(
        &mut self,
        number: u64,
        when: When,
        bytes: &mut usize,
    ) -> Result<(u64, Self), NoMemory> {
        Ok(match self {
            Self::Leaf(regions) => {
                let (first, upper) = split(regions, number, when, bytes)?;
                (first, Self::Leaf(upper))
            }
            Self::Inner(nodes) => {
                let (first, upper) = split(nodes, number, when, bytes)?;
                (first, Self::Inner(upper))
            }
        })
    }
}

/// Where the region with this number is in a leaf.
fn find(regions: &[(u64, Box<Region>)], number: u64) -> Option<usize> {
    regions
        .binary_search_by_key(&number, |(other, _)| *other)
        .ok()
}

/// Which of the nodes can have this number.
fn child(nodes: &[(u64, Node)], number: u64) -> usize {
    nodes
        .partition_point(|(first, _)| *first <= number)
        .saturating_sub(1)
}

/// Makes room for more entries, and adds what that takes to `bytes`.
fn reserve<T>(
    entries: &mut Vec<T>,
    additional: usize,
    when: When,
    bytes: &mut usize,
) -> Result<(), NoMemory> {
    let before = of_array(entries);
    entries.reserve(additional, when)?;
    *bytes += of_array(entries) - before;
    Ok(())
}

/// Moves the upper half of the entries to an array of their own, or the last one only if `number`
/// is after it: what comes in ascending order fills node after node.
fn split<T>(
    entries: &mut Vec<(u64, T)>,
    number: u64,
    when: When,
    bytes: &mut usize,
) -> Result<(u64, Vec<(u64, T)>), NoMemory> {
    let ascending = entries.last().is_some_and(|(last, _)| *last < number);
    let moved = if ascending { 1 } else { entries.len() / 2 };
    let mut upper = Vec::new();
    reserve(&mut upper, moved, when, bytes)?;
    for _ in 0..moved {
        if let Some(entry) = entries.pop() {
            let _ = upper.push(entry);
        }
    }
    upper.reverse();
    let first = upper.first().map_or(number, |(first, _)| *first);
    Ok((first, upper))
}

/// Removes a region, and nodes that have nothing else. Returns whether nothing is left of `node`,
/// which the caller then removes.
fn remove(node: &mut Node, number: u64, bytes: &mut usize) -> bool {
    match node {
        Node::Leaf(regions) => {
            if find(regions, number).is_some_and(|index| regions.remove(index).is_some()) {
                *bytes -= kmalloc(size_of::<Region>());
            }
            regions.is_empty()
        }
        Node::Inner(nodes) => {
            let index = child(nodes, number);
            if let Some((_, node)) = nodes.get_mut(index) {
                if remove(node, number, bytes) {
                    *bytes -= node.bytes();
                    nodes.remove(index);
                }
            }
            nodes.is_empty()
        }
    }
}

fn try_for_each<E>(
    node: &mut Node,
    visit: &mut impl FnMut(u64, &mut Region) -> Result<(), E>,
) -> Result<(), E> {
    match node {
        Node::Leaf(regions) => regions
            .iter_mut()
            .try_for_each(|(number, region)| visit(*number, region)),
        Node::Inner(nodes) => nodes
            .iter_mut()
            .try_for_each(|(_, node)| try_for_each(node, visit)),
    }
}
