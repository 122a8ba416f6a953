//! The builder of [`matcher_common::table::class`].

use ipnet::IpNet;
use matcher_common::table::{
    LINE_WORDS, Lines,
    class::{
        CLASS_BITS, CLOSER, DEFAULT, LEAF_LINES, LEAF_SHIFT_V4, LEAF_SHIFT_V6, NODE_LINES, OUTSIDE,
        ROOT_LINES, ROOT_SHIFT, STEP,
    },
};

use super::{Family, Image, LINE_BYTES, Or, key::Key};

/// Entries of a node or leaf.
const ENTRIES: u64 = 1 << STEP;
/// A word of a leaf of nothing but subscribers with the default consent.
const LEAF_OF_DEFAULT: u64 = 0x5555_5555_5555_5555;
/// Two entries of a node, likewise.
const NODE_OF_DEFAULT: u64 = DEFAULT << 32 | DEFAULT;

/// First and last value of the first word of addresses, both inside.
type Range = (u64, u64);

/// A tree to be built: what it takes is known, nothing is taken yet.
#[derive(Clone, Debug)]
pub struct Plan {
    leaf_shift: u32,
    /// Disjoint, sorted; what lies between is outside.
    segments: Vec<(Range, u64)>,
    used_lines: u64,
    spare_lines: u64,
}

/// Lines of a tree in use that are kept for additions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spare {
    leaf_shift: u32,
    next: u64,
    end: u64,
}

/// Bytes that the tree of so many entries takes at most, wherever they lie:
/// each end of a prefix splits one node and one leaf (in IPv6 five nodes).
/// [`Plan::bytes`] is exact, and for entries that lie together a small part.
pub fn bytes_at_most(family: Family, subscriber_prefixes: u64, consent_entries: u64) -> u64 {
    let lines = match family {
        Family::V4 => {
            let ends = (subscriber_prefixes + consent_entries) * 2;
            let nodes = ends.min(1 << 16);
            let leaves = ends.min(1 << 24);
            nodes * u64::from(NODE_LINES) + leaves * u64::from(LEAF_LINES)
        }
        Family::V6 => {
            let path = (ROOT_SHIFT - STEP) / STEP * NODE_LINES + LEAF_LINES;
            subscriber_prefixes * 2 * u64::from(path)
        }
    };
    let used = u64::from(ROOT_LINES) + lines;
    (used + spare(used)) * LINE_BYTES
}

/// Room for additions until the next build.
fn spare(used_lines: u64) -> u64 {
    4096 + used_lines / 8
}

impl Plan {
    /// The tree of IPv4: the subscriber space, and in it all that has a
    /// consent entry of its own. In any order, other families are ignored.
    pub fn v4(
        subscribers: impl IntoIterator<Item = IpNet>,
        consent: impl IntoIterator<Item = IpNet>,
    ) -> Self {
        let subscribers = union(spans(Family::V4, subscribers));
        let consent = union(spans(Family::V4, consent));
        Self::new(LEAF_SHIFT_V4, classed(&subscribers, &consent))
    }

    /// The tree of IPv6: the subscriber space alone. A /64 of which a part is
    /// a subscriber's is one to look at closer.
    pub fn v6(subscribers: impl IntoIterator<Item = IpNet>) -> Self {
        let (whole, part): (Vec<Key>, Vec<Key>) = subscribers
            .into_iter()
            .filter_map(|prefix| Key::of(Family::V6, &prefix))
            .partition(|key| key.length <= 64);
        let whole = union(whole.into_iter().map(Key::span).collect());
        let part = union(part.into_iter().map(Key::span).collect());
        let all = union(whole.iter().chain(&part).copied().collect());
        let parts = subtract(&part, &whole);
        Self::new(LEAF_SHIFT_V6, classed(&all, &parts))
    }

    fn new(leaf_shift: u32, segments: Vec<(Range, u64)>) -> Self {
        let used_lines = u64::from(ROOT_LINES) + below(&segments, leaf_shift);
        Self {
            leaf_shift,
            segments,
            used_lines,
            spare_lines: spare(used_lines),
        }
    }

    /// Bytes of the image.
    pub fn bytes(&self) -> u64 {
        (self.used_lines + self.spare_lines) * LINE_BYTES
    }

    #[cfg(test)]
    pub(super) fn used_lines(&self) -> u64 {
        self.used_lines
    }

    /// Builds the image.
    pub fn build(&self) -> (Image, Spare) {
        let end = self.used_lines + self.spare_lines;
        let mut builder = Builder {
            image: Image::zeroed(usize::try_from(end).unwrap_or(0)),
            leaf_shift: self.leaf_shift,
            next: u64::from(ROOT_LINES),
        };
        for (range, class) in &self.segments {
            builder.paint(0, ROOT_SHIFT, *range, *class);
        }
        let spare = Spare {
            leaf_shift: self.leaf_shift,
            next: builder.next,
            end,
        };
        (builder.image, spare)
    }
}

fn spans(family: Family, prefixes: impl IntoIterator<Item = IpNet>) -> Vec<Range> {
    prefixes
        .into_iter()
        .filter_map(|prefix| Key::of(family, &prefix).map(Key::span))
        .collect()
}

/// The same addresses in ranges that neither overlap nor touch, sorted.
fn union(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    ranges.dedup_by(|(start, end), (_, kept_end)| {
        let joined = *start <= kept_end.saturating_add(1);
        if joined {
            *kept_end = (*kept_end).max(*end);
        }
        joined
    });
    ranges
}

/// What of `ranges` does not lie in `others`; both as [`union`] makes them.
fn subtract(ranges: &[Range], others: &[Range]) -> Vec<Range> {
    let mut rest = Vec::new();
    cross(ranges, others, |range, inside| {
        if !inside {
            rest.push(range);
        }
    });
    rest
}

/// Class of each part of the space, in order.
fn classed(space: &[Range], closer: &[Range]) -> Vec<(Range, u64)> {
    let mut segments = Vec::new();
    cross(space, closer, |range, inside| {
        segments.push((range, if inside { CLOSER } else { DEFAULT }));
    });
    segments
}

/// Cuts `ranges` at the ends of `others`, and says of each piece whether it
/// lies in one of those.
fn cross(ranges: &[Range], others: &[Range], mut piece: impl FnMut(Range, bool)) {
    let mut others = others.iter().copied().peekable();
    for &(start, end) in ranges {
        let mut start = start;
        loop {
            while others.next_if(|(_, last)| *last < start).is_some() {}
            match others.peek() {
                Some(&(first, _)) if first > start && first <= end => {
                    piece((start, first - 1), false);
                    start = first;
                }
                Some(&(first, last)) if first <= start && last < end => {
                    piece((start, last), true);
                    start = last + 1;
                }
                Some(&(first, _)) if first <= start => {
                    piece((start, end), true);
                    break;
                }
                _ => {
                    piece((start, end), false);
                    break;
                }
            }
        }
    }
}

/// Lines of all nodes and leaves: every change of class splits the entries in
/// which it lies, and does not only touch.
fn below(segments: &[(Range, u64)], leaf_shift: u32) -> u64 {
    let mut lines = 0;
    let mut shift = ROOT_SHIFT;
    while shift > leaf_shift {
        let size = if shift == leaf_shift + STEP {
            LEAF_LINES
        } else {
            NODE_LINES
        };
        let mut last = None;
        let ends = segments
            .iter()
            .flat_map(|((start, end), _)| [Some(*start), end.checked_add(1)]);
        for end in ends.flatten() {
            let entry = end >> shift;
            if entry << shift != end && last != Some(entry) {
                last = Some(entry);
                lines += u64::from(size);
            }
        }
        shift -= STEP;
    }
    lines
}

struct Builder {
    image: Image,
    leaf_shift: u32,
    next: u64,
}

impl Builder {
    /// Gives a range its class, in the node at line `first`, whose entries
    /// have `shift` bits below them. Nothing was painted there before.
    fn paint(&mut self, first: u64, shift: u32, range: Range, class: u64) {
        let (start, end) = range;
        for at in start >> shift..=end >> shift {
            let from = at << shift;
            let to = from | ((1 << shift) - 1);
            let (word, offset) = place(first, shift, self.leaf_shift, at);
            if start <= from && to <= end {
                self.image.or(word, class << offset);
                continue;
            }
            let entry = self.entry(word, offset);
            let mut down = entry >> CLASS_BITS;
            if down == 0 {
                down = self.next;
                self.next += u64::from(lines_below(shift, self.leaf_shift));
                self.image.or(word, down << CLASS_BITS << offset);
            }
            self.paint(down, shift - STEP, (start.max(from), end.min(to)), class);
        }
    }

    fn entry(&self, word: usize, offset: u32) -> u64 {
        let word = self.image.lines.as_flattened().get(word);
        word.map_or(0, |word| word >> offset & 0xffff_ffff)
    }
}

/// Word and bit of the entry for the values `at` in the node at line `first`.
fn place(first: u64, shift: u32, leaf_shift: u32, at: u64) -> (usize, u32) {
    let base = first * u64::from(LINE_WORDS);
    let (word, offset) = if shift == ROOT_SHIFT {
        (at / 2, at % 2 * 32)
    } else if shift == leaf_shift {
        let at = at % ENTRIES;
        (at / 32, at % 32 * u64::from(CLASS_BITS))
    } else {
        let at = at % ENTRIES;
        (at / 2, at % 2 * 32)
    };
    ((base + word) as usize, offset as u32)
}

/// Lines of what hangs below an entry with `shift` bits below it.
fn lines_below(shift: u32, leaf_shift: u32) -> u32 {
    if shift == leaf_shift + STEP {
        LEAF_LINES
    } else {
        NODE_LINES
    }
}

impl Spare {
    /// The bits that make all subscribers of a prefix of IPv4 ones to look at
    /// closer, in a tree in use: at most 65,536 for a /0, a handful for a
    /// host. Where no lines are left, or a whole node is covered, its
    /// neighbours and what is outside in it become so too, until the next
    /// build.
    ///
    /// The bits must be set in this order: what hangs below is written before
    /// it is hung up. Trees of IPv6 hold no consent, so there is nothing to
    /// add: see [`super::filter::add`].
    pub fn look_closer(&mut self, tree: &impl Lines, prefix: &IpNet) -> Vec<Or> {
        let mut additions = Vec::new();
        if self.leaf_shift == LEAF_SHIFT_V4
            && let Some(key) = Key::of(Family::V4, prefix)
        {
            self.close(tree, 0, ROOT_SHIFT, key.span(), &mut additions);
        }
        additions
    }

    #[cfg(test)]
    pub(super) fn exhaust(&mut self) {
        self.next = self.end;
    }

    /// Lines that are left.
    pub fn lines(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }

    fn close(
        &mut self,
        tree: &impl Lines,
        first: u64,
        shift: u32,
        (start, end): Range,
        additions: &mut Vec<Or>,
    ) {
        for at in start >> shift..=end >> shift {
            let from = at << shift;
            let to = from | ((1 << shift) - 1);
            let (word, offset) = place(first, shift, self.leaf_shift, at);
            let is_leaf = shift == self.leaf_shift;
            let entry = read(tree, word) >> offset & if is_leaf { 3 } else { 0xffff_ffff };
            if entry == OUTSIDE || entry & CLOSER != 0 {
                continue;
            }
            let closer = Or {
                word,
                bits: CLOSER << offset,
            };
            if start <= from && to <= end {
                additions.push(closer);
                continue;
            }
            let range = (start.max(from), end.min(to));
            let down = entry >> CLASS_BITS;
            if down != 0 {
                self.close(tree, down, shift - STEP, range, additions);
            } else if let Some(down) = self.hang(shift, range, additions) {
                additions.push(Or {
                    word,
                    bits: down << CLASS_BITS << offset,
                });
            } else {
                additions.push(closer);
            }
        }
    }

    /// Takes a node or leaf for an entry that was the default throughout, and
    /// fills it: the default, but closer in the range.
    fn hang(&mut self, shift: u32, (start, end): Range, additions: &mut Vec<Or>) -> Option<u64> {
        let lines = u64::from(lines_below(shift, self.leaf_shift));
        let first = self.next;
        // Whatever hangs below must find room as well.
        let path = u64::from(NODE_LINES + LEAF_LINES);
        if self.lines() < path {
            return None;
        }
        self.next += lines;
        let below = shift - STEP;
        let is_leaf = below == self.leaf_shift;
        let fill = if is_leaf {
            LEAF_OF_DEFAULT
        } else {
            NODE_OF_DEFAULT
        };
        let words = lines * u64::from(LINE_WORDS);
        let mut filled = vec![fill; words as usize];
        for at in start >> below..=end >> below {
            let from = at << below;
            let to = from | ((1 << below) - 1);
            let (word, offset) = place(0, below, self.leaf_shift, at);
            let bits = if start <= from && to <= end {
                CLOSER
            } else {
                match self.hang(below, (start.max(from), end.min(to)), additions) {
                    Some(down) => down << CLASS_BITS,
                    None => CLOSER,
                }
            };
            if let Some(word) = filled.get_mut(word) {
                *word |= bits << offset;
            }
        }
        let base = (first * u64::from(LINE_WORDS)) as usize;
        additions.extend((base..).zip(filled).map(|(word, bits)| Or { word, bits }));
        Some(first)
    }
}

fn read(tree: &impl Lines, word: usize) -> u64 {
    let line = word / LINE_WORDS as usize;
    u32::try_from(line)
        .ok()
        .and_then(|line| tree.line(line))
        .map_or(0, |line| {
            tree.word(line, (word % LINE_WORDS as usize) as u32)
        })
}
