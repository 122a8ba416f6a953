//! The builder of [`matcher_common::table::filter`].

use ipnet::IpNet;
use matcher_common::table::{
    LINE_WORDS,
    filter::{DIRECT_BITS, DIRECT_LINES, GATE_LEVEL_SHIFT, gate, head, parts, probe, reach},
    hash::Seeds,
};

use super::{
    Family, Image, LINE_BYTES,
    key::Key,
    levels::{self, Levels, Place},
    near::{self, Lengths, Reach},
};

/// Bits of a part for each of its keys: one address in 800 that no entry covers
/// is a maybe. More bits would be fewer maybes and more cache misses.
const KEY_BITS: u64 = 17;
/// Bits for each host where a maybe asks the table of hosts, which costs less
/// than a trie: one address in 90 does without cause.
const BITS_BEFORE_HOSTS: u64 = 10;
/// Bits of the gate for each prefix: one address in 70 passes without cause.
const GATE_BITS: u64 = 16;

/// A filter to be built: what it takes is known, nothing is taken yet.
#[derive(Clone, Debug)]
pub struct Plan {
    family: Family,
    keys: Vec<Key>,
    levels: Levels,
    layout: Layout,
}

/// Lines of the parts of an image; the head is line 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    hosts: u64,
    prefixes: u64,
    gate: u64,
    reach: u64,
}

impl Layout {
    fn new(
        host_keys: u64,
        host_bits: u64,
        prefix_keys: u64,
        gate_keys: u64,
        reach_bits: u64,
    ) -> Self {
        // The head has 32 bits for a number of lines.
        let lines = |keys: u64, bits: u64| (keys * bits).div_ceil(512).min(u32::MAX.into());
        Self {
            hosts: lines(host_keys, host_bits),
            prefixes: lines(prefix_keys, KEY_BITS),
            // There it has 32 bits for a number of words.
            gate: lines(gate_keys, GATE_BITS).min(u64::from(u32::MAX / LINE_WORDS)),
            reach: lines(reach_bits, 1),
        }
    }

    fn first_of_prefixes(self) -> u64 {
        1 + self.hosts
    }

    fn first_of_gate(self) -> u64 {
        self.first_of_prefixes() + self.prefixes
    }

    fn first_of_direct(self) -> u64 {
        self.first_of_gate() + self.gate
    }

    fn lines(self) -> u64 {
        self.first_of_direct() + u64::from(DIRECT_LINES) + self.reach
    }
}

/// Bytes that an image of this many entries takes at most, whatever the
/// lengths; [`Plan::bytes`] is exact, and for hosts alone a small part.
pub fn bytes_at_most(entries: u64) -> u64 {
    let spread = levels::spread_limit(entries);
    let layout = Layout::new(
        0,
        KEY_BITS,
        entries + spread,
        near::gate_limit(entries),
        near::reach_limit(),
    );
    // Where some of the keys are hosts, both parts are rounded up.
    (layout.lines() + 1) * LINE_BYTES
}

impl Plan {
    /// Plans the filter of the family's prefixes among these, in any order;
    /// duplicates and prefixes inside others cost room and no more.
    pub fn new(family: Family, prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        Self::with(family, KEY_BITS, prefixes)
    }

    /// The same for a list of which the hosts have a table of their own
    /// ([`super::hosts`]) that is asked next.
    pub fn before_hosts(family: Family, prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        Self::with(family, BITS_BEFORE_HOSTS, prefixes)
    }

    fn with(family: Family, host_bits: u64, prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let keys: Vec<Key> = prefixes
            .into_iter()
            .filter_map(|prefix| Key::of(family, &prefix))
            .collect();
        let mut lengths: Lengths = [0; 129];
        for key in &keys {
            if let Some(count) = lengths.get_mut(usize::from(key.length)) {
                *count += 1;
            }
        }
        let levels = levels::choose(family, &lengths);
        Self {
            family,
            layout: Layout::new(
                levels.host_keys,
                host_bits,
                levels.prefix_keys,
                levels.gate.map_or(0, |gate| gate.keys),
                1 << levels.reach.bits(),
            ),
            levels,
            keys,
        }
    }

    /// Bytes of the image.
    pub fn bytes(&self) -> u64 {
        self.layout.lines() * LINE_BYTES
    }

    /// Builds the image.
    pub fn build(&self, seeds: Seeds) -> Image {
        let layout = self.layout;
        let mut image = Image::zeroed(usize::try_from(layout.lines()).unwrap_or(0));
        let gate = self.levels.gate;
        let mut used = gate.map_or(0, |_| parts::GATE);
        for (at, level) in (1_u32..).zip(&self.levels.prefixes) {
            used |= u64::from(*level) << (8 * at);
        }
        let head = Head {
            family: self.family,
            gate_level: gate.map(|gate| gate.level),
            reach: self.levels.reach,
            seeds,
            hosts: 1 << 32 | layout.hosts,
            prefixes: layout.first_of_prefixes() << 32 | layout.prefixes,
            direct: layout.first_of_direct(),
            gate: layout.first_of_gate() << 32 | (layout.gate * u64::from(LINE_WORDS)),
        };
        let parts = [
            (head::HOSTS, head.hosts),
            (head::PREFIXES, head.prefixes),
            (
                head::DIRECT,
                gate.map_or(0, |gate| u64::from(gate.level)) << GATE_LEVEL_SHIFT
                    | u64::from(head.reach_shift()) << 32
                    | head.direct,
            ),
            (head::GATE, head.gate),
        ];
        for (at, word) in seeds.words().into_iter().chain(parts) {
            image.or(at as usize, word);
        }
        for key in &self.keys {
            let place = self.levels.places.get(usize::from(key.length)).copied();
            match place.unwrap_or(Place::Direct) {
                Place::Direct => used |= head.set_direct(*key, &mut image),
                Place::Level(level) => used |= head.set_level(*key, level, &mut image),
            }
            if key.length < self.family.host() {
                head.set_reach(*key, &mut image);
            }
        }
        image.or(head::USE as usize, used);
        image
    }
}

/// Line 0 of an image.
#[derive(Clone, Copy)]
struct Head {
    family: Family,
    gate_level: Option<u8>,
    reach: Reach,
    seeds: Seeds,
    hosts: u64,
    prefixes: u64,
    direct: u64,
    gate: u64,
}

impl Head {
    /// By how many bits the number of a bit in the reach is shorter than a word.
    fn reach_shift(&self) -> u32 {
        64 - self.reach.bits()
    }

    /// Sets the bits of a prefix at a level; gives the part that is in use.
    fn set_level(&self, key: Key, level: u8, image: &mut Image) -> u64 {
        let is_host = level == self.family.host();
        let part = if is_host { self.hosts } else { self.prefixes };
        let mut insert = |key: Key| {
            let probe = probe(self.seeds, key.high, key.low, level.into(), part as u32);
            let line = first_word((part >> 32) + u64::from(probe.line));
            for (word, bits) in probe.words {
                image.or(line + (word % LINE_WORDS) as usize, bits);
            }
        };
        if level >= key.length {
            key.spread(level).for_each(&mut insert);
        } else {
            insert(key.cut(level));
        }
        if is_host {
            return parts::HOSTS;
        }
        if let Some(level) = self.gate_level {
            for key in key.spread(level.max(key.length)) {
                let (word, bits) = gate(self.seeds, key.high, level.into(), self.gate as u32);
                image.or(first_word(self.gate >> 32) + word as usize, bits);
            }
        }
        0
    }

    /// Sets the bits of all that the prefix covers, or the one it lies in.
    fn set_direct(&self, key: Key, image: &mut Image) -> u64 {
        let part = first_word(self.direct);
        let shift = 64 - DIRECT_BITS;
        let (first, last) = key.span();
        let (first, last) = (first >> shift, last >> shift);
        for word in first / 64..=last / 64 {
            let from = first.max(word * 64) % 64;
            let to = last.min(word * 64 + 63) % 64;
            let bits = (u64::MAX << from) & (u64::MAX >> (63 - to));
            image.or(part + word as usize, bits);
        }
        parts::DIRECT
    }

    /// The same in the reach, of a prefix that is none of the hosts.
    fn set_reach(&self, key: Key, image: &mut Image) {
        let first = first_word(self.direct + u64::from(DIRECT_LINES));
        if self.reach == Reach::Everywhere {
            for word in 0..LINE_WORDS as usize {
                image.or(first + word, u64::MAX);
            }
            return;
        }
        let v6 = self.family == Family::V6;
        for key in key.spread(self.reach.level(self.family).max(key.length)) {
            let bit = reach(self.seeds, key.high, v6, self.reach_shift());
            image.or(first + (bit / 64) as usize, 1 << (bit % 64));
        }
    }
}

fn first_word(line: u64) -> usize {
    line as usize * LINE_WORDS as usize
}
