//! The builder of [`matcher_common::table::class`].

use ipnet::IpNet;
use matcher_common::table::{
    LINE_WORDS,
    class::{
        CLASS_BITS, CLOSER, DEFAULT, LEAF_LINES, LEAF_SHIFT_V4, LEAF_SHIFT_V6, NODE_LINES, REFUSES,
        ROOT_LINES, ROOT_SHIFT, STEP,
    },
};

use super::{Family, Image, LINE_BYTES, key::Key};

/// Entries of a node or leaf.
const ENTRIES: u64 = 1 << STEP;

/// First and last value of the first word of addresses, both inside.
type Range = (u64, u64);

/// A tree to be built: what it takes is known, nothing is taken yet.
#[derive(Clone, Debug)]
pub struct Plan {
    leaf_shift: u32,
    /// Disjoint, sorted; what lies between is outside.
    segments: Vec<(Range, u64)>,
    lines: u64,
}

impl Plan {
    /// The tree of IPv4: the subscriber space, and in it all that has a
    /// consent entry of its own: those that refuse detection whatever the port,
    /// and the others. In any order, other families are ignored.
    ///
    /// Where a refusal and another entry cover an address it is one to look at
    /// closer: which of them is longer is not asked here.
    pub fn v4(
        subscribers: impl IntoIterator<Item = IpNet>,
        refusals: impl IntoIterator<Item = IpNet>,
        others: impl IntoIterator<Item = IpNet>,
    ) -> Self {
        let subscribers = union(spans(Family::V4, subscribers));
        let refusals = union(spans(Family::V4, refusals));
        let others = union(spans(Family::V4, others));
        Self::new(LEAF_SHIFT_V4, classed(&subscribers, &others, &refusals))
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
        Self::new(LEAF_SHIFT_V6, classed(&all, &parts, &[]))
    }

    fn new(leaf_shift: u32, segments: Vec<(Range, u64)>) -> Self {
        let lines = u64::from(ROOT_LINES) + below(&segments, leaf_shift);
        Self {
            leaf_shift,
            segments,
            lines,
        }
    }

    /// Bytes of the image.
    pub fn bytes(&self) -> u64 {
        self.lines * LINE_BYTES
    }

    /// Builds the image.
    pub fn build(&self) -> Image {
        let mut builder = Builder {
            image: Image::zeroed(usize::try_from(self.lines).unwrap_or(0)),
            leaf_shift: self.leaf_shift,
            next: u64::from(ROOT_LINES),
        };
        for (range, class) in &self.segments {
            builder.paint(0, ROOT_SHIFT, *range, *class);
        }
        builder.image
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
fn classed(space: &[Range], closer: &[Range], refuses: &[Range]) -> Vec<(Range, u64)> {
    let mut segments = Vec::new();
    let mut rest = Vec::new();
    cross(space, closer, |range, inside| {
        if inside {
            segments.push((range, CLOSER));
        } else {
            rest.push(range);
        }
    });
    cross(&rest, refuses, |range, inside| {
        segments.push((range, if inside { REFUSES } else { DEFAULT }));
    });
    segments.sort_unstable();
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
