//! The builder of [`matcher_common::table::class`].

use ipnet::IpNet;
use matcher_common::table::{
    LINE_WORDS,
    class::{
        CLASS_BITS, Class, LAST_SHIFT_V4, LAST_SHIFT_V6, LEAF, LEAF_LINES, NODE_LINES, ROOT,
        ROOT_LINES, ROOT_SHIFT, STEP, head,
    },
};

use super::{Family, Image, LINE_BYTES, key::Key};

/// Entries of a node or leaf.
const ENTRIES: u64 = 1 << STEP;

/// First and last value of the first word of addresses, both inside.
type Range = (u64, u64);

/// A range whose addresses have this class.
type Segment = (Range, Class);

/// A tree to be built: what it takes is known, nothing is taken yet.
#[derive(Clone, Debug)]
pub struct Plan {
    common: Common,
    /// Disjoint, sorted; what lies between is outside. Without the bits in
    /// common.
    segments: Vec<Segment>,
    lines: u64,
}

impl Plan {
    /// The tree of a family: the subscriber space, and in it all that has a
    /// consent entry of its own: those that refuse detection whatever the port,
    /// and the others. In any order, other families are ignored.
    ///
    /// Where a refusal and another entry cover an address it is one to look at
    /// closer: which of them is longer is not asked here. So is a /64 of IPv6 of
    /// which a part is a subscriber's or has a consent entry.
    pub fn new(
        family: Family,
        subscribers: impl IntoIterator<Item = IpNet>,
        refusals: impl IntoIterator<Item = IpNet>,
        others: impl IntoIterator<Item = IpNet>,
    ) -> Self {
        let last_shift = match family {
            Family::V4 => LAST_SHIFT_V4,
            Family::V6 => LAST_SHIFT_V6,
        };
        let (space, parts) = by_word(family, subscribers);
        let (refusals, parts_refuse) = by_word(family, refusals);
        let (others, parts_other) = by_word(family, others);
        let closer = [subtract(&parts, &space), parts_refuse, others, parts_other].concat();
        let space = union([space, parts].concat());
        let mut segments = classed(&space, &union(closer), &refusals);
        let common = Common::of(&segments, last_shift);
        for ((start, end), _) in &mut segments {
            *start <<= common.bits;
            *end = *end << common.bits | ((1 << common.bits) - 1);
        }
        let lines = u64::from(ROOT + ROOT_LINES) + below(&segments, last_shift);
        Self {
            common,
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
            next: u64::from(ROOT + ROOT_LINES),
        };
        builder.image.set(head::COMMON as usize, self.common.value);
        builder
            .image
            .set(head::BITS as usize, self.common.bits.into());
        let root = Block {
            first: u64::from(ROOT),
            shift: ROOT_SHIFT,
            is_leaf: false,
            range: (0, u64::MAX),
        };
        builder.fill(&root, &self.segments);
        builder.image
    }
}

/// What the first words of all subscribers' addresses begin with.
#[derive(Clone, Copy, Debug)]
struct Common {
    /// Only the first `bits` may be set.
    value: u64,
    bits: u32,
}

impl Common {
    /// Whole steps of the tree, so that prefixes of usual lengths end where
    /// leaves do; and none that would leave less than a root and a step.
    fn of(segments: &[Segment], last_shift: u32) -> Self {
        let (Some(((first, _), _)), Some(((_, last), _))) = (segments.first(), segments.last())
        else {
            return Self { value: 0, bits: 0 };
        };
        let bits = (first ^ last).leading_zeros() / STEP * STEP;
        let bits = bits.min(ROOT_SHIFT - STEP - last_shift);
        Self {
            value: first & !(u64::MAX >> bits),
            bits,
        }
    }
}

/// The prefixes that the first word of an address tells, and the /64s of which
/// others are a part.
fn by_word(family: Family, prefixes: impl IntoIterator<Item = IpNet>) -> (Vec<Range>, Vec<Range>) {
    let (whole, part): (Vec<Key>, Vec<Key>) = prefixes
        .into_iter()
        .filter_map(|prefix| Key::of(family, &prefix))
        .partition(|key| key.length <= 64);
    let ranges = |keys: Vec<Key>| union(keys.into_iter().map(Key::span).collect());
    (ranges(whole), ranges(part))
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
fn classed(space: &[Range], closer: &[Range], refuses: &[Range]) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut rest = Vec::new();
    cross(space, closer, |range, inside| {
        if inside {
            segments.push((range, Class::Closer));
        } else {
            rest.push(range);
        }
    });
    cross(&rest, refuses, |range, inside| {
        let class = if inside {
            Class::Refuses
        } else {
            Class::Default
        };
        segments.push((range, class));
    });
    segments.sort_unstable_by_key(|(range, _)| *range);
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

/// Where the class changes between `first` and `last`, and not only at their own
/// ends.
fn changes(segments: &[Segment], (first, last): Range) -> impl Iterator<Item = u64> {
    segments
        .iter()
        .flat_map(|((start, end), _)| [Some(*start), end.checked_add(1)])
        .flatten()
        .filter(move |at| first < *at && *at <= last)
}

/// Not at the beginning of an entry with `shift` bits below it.
fn is_inside(at: u64, shift: u32) -> bool {
    at >> shift << shift != at
}

/// Lines of all nodes and leaves. A change of class inside an entry asks for
/// something below it: for a node if it lies inside one of the parts, too.
fn below(segments: &[Segment], last_shift: u32) -> u64 {
    let mut lines = 0;
    let mut shift = ROOT_SHIFT;
    while shift > last_shift {
        let mut split = None;
        let mut with_node = None;
        for at in changes(segments, (0, u64::MAX)).filter(|at| is_inside(*at, shift)) {
            let entry = at >> shift;
            if split != Some(entry) {
                split = Some(entry);
                lines += u64::from(LEAF_LINES);
            }
            if is_inside(at, shift - STEP) && with_node != Some(entry) {
                with_node = Some(entry);
                lines += u64::from(NODE_LINES - LEAF_LINES);
            }
        }
        shift -= STEP;
    }
    lines
}

/// The root, a node or a leaf.
struct Block {
    first: u64,
    /// Bits below an entry.
    shift: u32,
    is_leaf: bool,
    /// The addresses that it decides.
    range: Range,
}

struct Builder {
    image: Image,
    next: u64,
}

impl Builder {
    /// Gives every entry of the block its class, or what lies below it.
    /// `segments`: those that reach into its range.
    fn fill(&mut self, block: &Block, mut segments: &[Segment]) {
        let (mut next, last) = block.range;
        let below = (1 << block.shift) - 1;
        while let Some(&((start, end), class)) = segments.first() {
            let start = start.max(next);
            let entry = (start & !below, start | below);
            let done = if start == entry.0 && end.min(last) >= entry.1 {
                let end = end.min(last);
                // Up to the last entry that it covers whole.
                let end = end - (end.wrapping_add(1) & below);
                self.color(block, (start, end), class);
                end
            } else {
                let inside = segments.partition_point(|((start, _), _)| *start <= entry.1);
                self.split(block, entry, segments.get(..inside).unwrap_or_default());
                entry.1
            };
            let behind = segments.partition_point(|((_, end), _)| *end <= done);
            segments = segments.get(behind..).unwrap_or_default();
            if done >= last {
                return;
            }
            next = done + 1;
        }
    }

    /// Gives all entries in the range the class.
    fn color(&mut self, block: &Block, (start, end): Range, class: Class) {
        for at in start >> block.shift..=end >> block.shift {
            self.or(block, at, class as u64);
        }
    }

    /// Makes what lies below the entry with this range, and fills it.
    fn split(&mut self, block: &Block, entry: Range, segments: &[Segment]) {
        let shift = block.shift - STEP;
        let is_leaf = !changes(segments, entry).any(|at| is_inside(at, shift));
        let first = self.next;
        let (lines, class) = if is_leaf {
            (LEAF_LINES, LEAF)
        } else {
            (NODE_LINES, 0)
        };
        self.next += u64::from(lines);
        self.or(
            block,
            entry.0 >> block.shift,
            first << CLASS_BITS | u64::from(class),
        );
        let below = Block {
            first,
            shift,
            is_leaf,
            range: entry,
        };
        self.fill(&below, segments);
    }

    /// Writes the entry for the values `at`, which is zero.
    fn or(&mut self, block: &Block, at: u64, value: u64) {
        let at = if block.shift == ROOT_SHIFT {
            at
        } else {
            at % ENTRIES
        };
        let bits = u64::from(if block.is_leaf { CLASS_BITS } else { u32::BITS });
        let per_word = u64::from(u64::BITS) / bits;
        let word = block.first * u64::from(LINE_WORDS) + at / per_word;
        self.image
            .or(word as usize, value << (at % per_word * bits));
    }
}
