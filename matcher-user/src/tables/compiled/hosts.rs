//! The builder of [`matcher_common::table::hosts`].

use ipnet::IpNet;
use matcher_common::{
    abi::{MAX_RULES, RuleSpan},
    table::{
        Line,
        hash::Seeds,
        hosts::{
            BUCKETS, KEYS_V4, LAST, LEFT_OUT, SLOTS_V4, SLOTS_V6, SPAN_BITS_V6, SPAN_PART_V6,
            SPANS_V6, buckets, hash_v4, hash_v6, packed,
        },
    },
};

use super::{Family, Image, LINE_BYTES, key::Key};

/// Of 100 slots so many are meant to be taken.
const FULL_V4: u64 = 80;
const FULL_V6: u64 = 75;

/// A table of hosts to be built: what it takes is known, nothing is taken yet.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    family: Family,
    entries: &'a [(IpNet, RuleSpan)],
    buckets: u32,
}

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// The image.
    pub image: Image,
    /// Hosts without a place in it, hardly any. They belong into the trie.
    pub left: Vec<(IpNet, RuleSpan)>,
}

/// Whether the prefix is a single address.
pub fn is_host(prefix: &IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

/// Bytes that the image of this many entries takes at most: when all are hosts.
pub fn bytes_at_most(family: Family, entries: u64) -> u64 {
    bytes(buckets_for(family, entries))
}

fn bytes(buckets: u32) -> u64 {
    (1 + u64::from(buckets)) * LINE_BYTES
}

fn buckets_for(family: Family, hosts: u64) -> u32 {
    let full = match family {
        Family::V4 => FULL_V4,
        Family::V6 => FULL_V6,
    };
    let buckets = (hosts * 100).div_ceil(u64::from(slots_of(family)) * full);
    // With the head no more lines than have an index.
    u32::try_from(buckets).unwrap_or(u32::MAX).min(u32::MAX - 1)
}

const fn slots_of(family: Family) -> u32 {
    match family {
        Family::V4 => SLOTS_V4,
        Family::V6 => SLOTS_V6,
    }
}

impl<'a> Plan<'a> {
    /// Plans the table of the family's hosts among these entries, of which no
    /// two have the same prefix.
    pub fn new(family: Family, entries: &'a [(IpNet, RuleSpan)]) -> Self {
        let mut plan = Self {
            family,
            entries,
            buckets: 0,
        };
        let hosts = entries.iter().filter_map(|(prefix, _)| plan.host(prefix));
        plan.buckets = buckets_for(family, hosts.count() as u64);
        plan
    }

    /// Bytes of the image.
    pub fn bytes(&self) -> u64 {
        bytes(self.buckets)
    }

    /// Builds the image.
    pub fn build(&self, seeds: Seeds) -> Hosts {
        let mut places = Places::new(self, seeds);
        let mut left = Vec::new();
        for (at, (prefix, span)) in (0..).zip(self.entries) {
            if let Some(host) = self.host(prefix)
                && !(fits(*span) && places.insert(at, host))
            {
                left.push((*prefix, *span));
            }
        }
        let mut image = Image::zeroed(self.buckets as usize + 1);
        let (head, buckets) = image.lines.split_at_mut(1);
        if let [head] = head {
            or(head, BUCKETS, self.buckets.into());
            for (at, word) in seeds.words() {
                or(head, at, word);
            }
        }
        for host in left.iter().filter_map(|(prefix, _)| self.host(prefix)) {
            let [first, _] = self.buckets_of(seeds, host);
            if let Some(line) = buckets.get_mut(first as usize) {
                or(line, LAST, LEFT_OUT);
            }
        }
        for (bucket, line) in (0..).zip(buckets) {
            for (slot, at) in (0..).zip(places.of(bucket)) {
                if let Some((prefix, span)) = self.entries.get(*at as usize)
                    && let Some(host) = self.host(prefix)
                {
                    self.write(line, slot, host, packed(*span));
                }
            }
        }
        Hosts { image, left }
    }

    /// The prefix, if it is a host of the family.
    fn host(&self, prefix: &IpNet) -> Option<Key> {
        Key::of(self.family, prefix).filter(|key| key.length == self.family.host())
    }

    /// The two buckets of a host.
    fn buckets_of(&self, seeds: Seeds, host: Key) -> [u32; 2] {
        let hash = match self.family {
            Family::V4 => hash_v4(seeds, (host.high >> 32) as u32),
            Family::V6 => hash_v6(seeds, host.high, host.low),
        };
        buckets(hash, self.buckets)
    }

    /// Writes into a slot of a bucket, which is still zero.
    fn write(&self, line: &mut Line, slot: u32, host: Key, span: u64) {
        match self.family {
            Family::V4 => {
                let key = host.high >> 32;
                or(line, slot, span);
                or(line, KEYS_V4 + slot / 2, key << (slot % 2 * u32::BITS));
            }
            Family::V6 => {
                or(line, slot * 2, host.high);
                or(line, slot * 2 + 1, host.low);
                if slot < 2 {
                    or(line, SPANS_V6 + slot, span);
                } else {
                    or(line, SPANS_V6, span << SPAN_BITS_V6);
                    or(line, SPANS_V6 + 1, span >> SPAN_PART_V6 << SPAN_BITS_V6);
                }
            }
        }
    }
}

fn or(line: &mut Line, at: u32, bits: u64) {
    if let Some(word) = line.get_mut(at as usize) {
        *word |= bits;
    }
}

/// Which entry has which slot. Apart from the image, which is then written
/// from the first line to the last.
struct Places<'a> {
    plan: &'a Plan<'a>,
    seeds: Seeds,
    slots: usize,
    /// Slots taken of each bucket, the first ones: these bytes fit into a near
    /// cache.
    taken: Vec<u8>,
    /// The entry in each slot, if it is taken.
    entries: Vec<u32>,
}

impl<'a> Places<'a> {
    fn new(plan: &'a Plan<'a>, seeds: Seeds) -> Self {
        let slots = slots_of(plan.family) as usize;
        let buckets = plan.buckets as usize;
        Self {
            plan,
            seeds,
            slots,
            taken: vec![0; buckets],
            entries: vec![0; buckets * slots],
        }
    }

    /// The entries in a bucket.
    fn of(&self, bucket: u32) -> &[u32] {
        let first = bucket as usize * self.slots;
        self.entries
            .get(first..first + self.taken_of(bucket))
            .unwrap_or_default()
    }

    fn taken_of(&self, bucket: u32) -> usize {
        self.taken
            .get(bucket as usize)
            .map_or(self.slots, |taken| usize::from(*taken))
    }

    /// Finds a place for a host; false where there is none. A host that finds
    /// both its buckets full takes the slot of one that can go to its other
    /// bucket.
    fn insert(&mut self, at: u32, host: Key) -> bool {
        let [first, second] = self.plan.buckets_of(self.seeds, host);
        // In the first, which is asked first, where both are as empty.
        let emptier = if self.taken_of(first) <= self.taken_of(second) {
            first
        } else {
            second
        };
        if self.push(emptier, at) {
            return true;
        }
        for bucket in [first, second] {
            for slot in 0..self.slots {
                let place = bucket as usize * self.slots + slot;
                let Some(resident) = self.entries.get(place).copied() else {
                    continue;
                };
                if let Some(other) = self.other_bucket(resident, bucket)
                    && self.push(other, resident)
                {
                    if let Some(place) = self.entries.get_mut(place) {
                        *place = at;
                    }
                    return true;
                }
            }
        }
        false
    }

    /// Puts an entry into the next slot of a bucket; false if it is full.
    fn push(&mut self, bucket: u32, at: u32) -> bool {
        let Some(taken) = self.taken.get_mut(bucket as usize) else {
            return false;
        };
        let slot = usize::from(*taken);
        if slot >= self.slots {
            return false;
        }
        let place = bucket as usize * self.slots + slot;
        if let Some(place) = self.entries.get_mut(place) {
            *place = at;
            *taken += 1;
        }
        true
    }

    /// The bucket where an entry that lies in this one might lie too.
    fn other_bucket(&self, entry: u32, than: u32) -> Option<u32> {
        let (prefix, _) = self.plan.entries.get(entry as usize)?;
        let [first, second] = self.plan.buckets_of(self.seeds, self.plan.host(prefix)?);
        Some(if first == than { second } else { first })
    }
}

/// Whether a span is one that a slot can tell from an empty one, and can hold:
/// any that [`MAX_RULES`] allows.
fn fits(span: RuleSpan) -> bool {
    (1..=MAX_RULES).contains(&span.count)
}
const _: () = assert!(packed_bits() <= SPAN_BITS_V6 && SPAN_BITS_V6 < 2 * SPAN_PART_V6);

/// Bits of the widest span.
const fn packed_bits() -> u32 {
    let widest = packed(RuleSpan {
        first: u32::MAX,
        count: MAX_RULES,
    });
    u64::BITS - widest.leading_zeros()
}
