//! From lists to what the kernel looks up: pure functions, no kernel.
//!
//! A kernel trie answers with the longest prefix alone, while every entry that
//! covers an address counts (design decision 5). So the builders here push
//! each entry down into the longer prefixes under it: the longest match then
//! knows everything.

pub mod compiled;
pub mod consent;
pub mod indicators;
pub mod places;
pub mod spaces;

use ipnet::IpNet;

/// Sorts prefixes so that each stands before those it covers.
fn in_tree_order(a: &IpNet, b: &IpNet) -> std::cmp::Ordering {
    (a.network(), a.prefix_len()).cmp(&(b.network(), b.prefix_len()))
}

/// The prefixes that cover the one at hand, while a sorted list is walked.
struct Covering<T> {
    stack: Vec<(IpNet, T)>,
}

impl<T> Covering<T> {
    fn new() -> Self {
        Self { stack: Vec::new() }
    }

    /// Leaves the prefixes that do not cover `prefix`, and gives the longest
    /// that does.
    fn enter(&mut self, prefix: &IpNet) -> Option<&T> {
        while let Some((top, _)) = self.stack.last() {
            if top.contains(prefix) {
                break;
            }
            self.stack.pop();
        }
        self.stack.last().map(|(_, value)| value)
    }

    fn push(&mut self, prefix: IpNet, value: T) {
        self.stack.push((prefix, value));
    }
}
