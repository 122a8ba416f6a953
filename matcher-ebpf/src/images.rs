//! The compiled tables, which answer for nearly every packet: images that the
//! agent writes into array maps, two of each, of which a generation names the
//! one in use.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use matcher_common::{
    abi::{AddressBytes, RuleSpan},
    parse::Family,
    table::{
        self, AddressWords, LINE_BYTES, LINE_WORDS, Line, Lines,
        class::{self, Class},
        filter,
        hosts::{self, Host},
    },
};

use crate::{
    maps::Address,
    opaque::{opaque, patched},
};

// Both images in one value, whose size the agent sets when it loads the
// program: one look-up finds the value, and a line of it is an addition away.
#[map]
static CLASSES_V4: Array<Line> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static CLASSES_V6: Array<Line> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static CONSENT_FILTER_V6: Array<Line> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static CC_FILTER_V4: Array<Line> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static CC_FILTER_V6: Array<Line> = Array::with_max_entries(1, BPF_F_MMAPABLE);
// Single addresses, nearly all of a list; what finds no place there lies in the
// tries. An element a line: the verifier adds no more than 512 MiB to a value.
#[map]
static CC_HOSTS_V4: Array<Line> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
static CC_HOSTS_V6: Array<Line> = Array::with_max_entries(2, BPF_F_MMAPABLE);
/// Lines of one image, set by the agent when it loads the program.
#[unsafe(no_mangle)]
static CLASSES_V4_LINES: u32 = 1;
#[unsafe(no_mangle)]
static CLASSES_V6_LINES: u32 = 1;
#[unsafe(no_mangle)]
static CONSENT_FILTER_V6_LINES: u32 = 1;
#[unsafe(no_mangle)]
static CC_FILTER_V4_LINES: u32 = 1;
#[unsafe(no_mangle)]
static CC_FILTER_V6_LINES: u32 = 1;
#[unsafe(no_mangle)]
static CC_HOSTS_V4_LINES: u32 = 1;
#[unsafe(no_mangle)]
static CC_HOSTS_V6_LINES: u32 = 1;

/// An address as the images know it.
pub(crate) trait Key: Copy {
    const FAMILY: Family;

    /// The images that tell the class of an address.
    type Classes: Copy;

    /// Those of a generation. `None` cannot be.
    fn classes(generation: u64) -> Option<Self::Classes>;

    /// Whether it is a subscriber's in the space without a VLAN, and whether the
    /// default consent holds for it, or a refusal.
    fn class(self, classes: &Self::Classes) -> Class;

    /// As packets have it.
    fn bytes(self) -> AddressBytes;

    /// As the filters have it.
    type Words: AddressWords;

    /// As the filters have it.
    fn words(self) -> Self::Words;

    /// The filter of the C&C list of a generation. `None` cannot be.
    fn filter(generation: u64) -> Option<Block>;

    /// What the hosts of the C&C list of a generation know of it.
    fn host(self, generation: u64) -> Host;

    /// [`Key::is_listed_maybe`] without a first look at the filter. A function of
    /// its own in the kernel for each family: one address in twenty comes here,
    /// and it would take registers from the way of all others.
    fn exactly(self, generation: u64) -> bool;

    /// Whether the C&C list of a generation covers it.
    #[inline(always)]
    fn listed(self, generation: u64) -> Listed {
        let Some(image) = Self::filter(generation) else {
            return Listed::Closer;
        };
        let words = self.words();
        if filter::maybe_host(&image, words)
            && let Some(listed) = Listed::of(self.host(generation))
        {
            return listed;
        }
        Listed::unless(filter::maybe_prefix(&image, words))
    }

    /// Whether [`Key::listed`] says anything but no.
    #[inline(always)]
    fn is_listed_maybe(self, generation: u64) -> bool {
        match Self::filter(generation) {
            Some(image) => filter::maybe_near(&image, self.words()) && self.exactly(generation),
            None => true,
        }
    }
}

/// An IPv4 address.
#[derive(Clone, Copy)]
pub(crate) struct V4(u32);

impl V4 {
    #[inline(always)]
    pub(crate) fn new(bytes: [u8; 4]) -> Self {
        // Opaque, or the compiler keeps two addresses in one register.
        Self(opaque(u32::from_be_bytes(bytes) as usize) as u32)
    }
}

impl Key for V4 {
    const FAMILY: Family = Family::V4;

    type Classes = Block;

    #[inline(always)]
    fn classes(generation: u64) -> Option<Block> {
        Block::of(&CLASSES_V4, &CLASSES_V4_LINES, generation)
    }

    #[inline(always)]
    fn class(self, tree: &Block) -> Class {
        class::class_v4(tree, table::v4_key(self.0))
    }

    #[inline(always)]
    fn bytes(self) -> AddressBytes {
        AddressBytes::from_v4(self.0.to_be_bytes())
    }

    type Words = u64;

    #[inline(always)]
    fn words(self) -> u64 {
        table::v4_key(self.0)
    }

    #[inline(always)]
    fn filter(generation: u64) -> Option<Block> {
        Block::of(&CC_FILTER_V4, &CC_FILTER_V4_LINES, generation)
    }

    #[inline(always)]
    fn host(self, generation: u64) -> Host {
        let hosts = Elements::of(&CC_HOSTS_V4, &CC_HOSTS_V4_LINES, generation);
        hosts::find_v4(&hosts, self.0)
    }

    #[inline(never)]
    fn exactly(self, generation: u64) -> bool {
        !matches!(self.listed(generation), Listed::No)
    }
}

/// An IPv6 address, in two halves.
#[derive(Clone, Copy)]
pub(crate) struct V6 {
    high: u64,
    low: u64,
}

impl V6 {
    #[inline(always)]
    pub(crate) fn new(bytes: &AddressBytes) -> Self {
        let (high, low) = bytes.halves();
        Self { high, low }
    }
}

impl Key for V6 {
    const FAMILY: Family = Family::V6;

    /// The tree of the subscriber space, and the filter of the consent entries.
    type Classes = (Block, Block);

    #[inline(always)]
    fn classes(generation: u64) -> Option<(Block, Block)> {
        Some((
            Block::of(&CLASSES_V6, &CLASSES_V6_LINES, generation)?,
            Block::of(&CONSENT_FILTER_V6, &CONSENT_FILTER_V6_LINES, generation)?,
        ))
    }

    #[inline(always)]
    fn class(self, (tree, consent): &(Block, Block)) -> Class {
        class::class_v6(tree, consent, self.high, self.low)
    }

    #[inline(always)]
    fn bytes(self) -> AddressBytes {
        let bits = u128::from(self.high) << 64 | u128::from(self.low);
        AddressBytes::from_v6(bits.to_be_bytes())
    }

    type Words = (u64, u64);

    #[inline(always)]
    fn words(self) -> (u64, u64) {
        (self.high, self.low)
    }

    #[inline(always)]
    fn filter(generation: u64) -> Option<Block> {
        Block::of(&CC_FILTER_V6, &CC_FILTER_V6_LINES, generation)
    }

    #[inline(always)]
    fn host(self, generation: u64) -> Host {
        let hosts = Elements::of(&CC_HOSTS_V6, &CC_HOSTS_V6_LINES, generation);
        hosts::find_v6(&hosts, self.high, self.low)
    }

    #[inline(always)]
    fn exactly(self, generation: u64) -> bool {
        // In two registers: what is given by address lies on the stack.
        exactly_v6(self.high, self.low, generation)
    }
}

#[inline(never)]
fn exactly_v6(high: u64, low: u64, generation: u64) -> bool {
    !matches!(V6 { high, low }.listed(generation), Listed::No)
}

/// [`Key::class`] of an address of either family.
#[inline(always)]
pub(crate) fn class(generation: u64, address: Address<'_>) -> Class {
    #[inline(always)]
    fn of<K: Key>(key: K, generation: u64) -> Class {
        match K::classes(generation) {
            Some(classes) => key.class(&classes),
            None => Class::Closer,
        }
    }
    match address.family {
        Family::V4 => of(V4::new(address.bytes.v4()), generation),
        Family::V6 => of(V6::new(address.bytes), generation),
    }
}

/// [`Key::listed`] of an address of either family.
#[inline(always)]
pub(crate) fn listed(generation: u64, address: Address<'_>) -> Listed {
    match address.family {
        Family::V4 => V4::new(address.bytes.v4()).listed(generation),
        Family::V6 => V6::new(address.bytes).listed(generation),
    }
}

/// What the images know of an address and the C&C list. A filter says no to
/// nearly all addresses; only the others meet the table of hosts.
pub(crate) enum Listed {
    /// No entry covers it.
    No,
    /// It is listed itself, with these rules.
    Host(RuleSpan),
    /// The tries must be asked.
    Closer,
}

impl Listed {
    /// What the table of hosts says; `None`: that prefixes alone may cover it.
    #[inline(always)]
    fn of(host: Host) -> Option<Self> {
        match host {
            Host::Listed(span) => Some(Self::Host(span)),
            Host::Elsewhere => Some(Self::Closer),
            Host::NotListed => None,
        }
    }

    #[inline(always)]
    fn unless(maybe: bool) -> Self {
        if maybe { Self::Closer } else { Self::No }
    }
}

/// One of the two images in the value of a map.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// Start of the value.
    start: *const u8,
    /// Bytes before the image.
    first: u64,
    lines: u32,
}

impl Block {
    /// The image that the generation names. `lines` is a constant of the object
    /// file that the loader patches: so the verifier knows it, and by it how far
    /// an image reaches.
    #[inline(always)]
    fn of(map: &'static Array<Line>, lines: &'static u32, generation: u64) -> Option<Self> {
        let lines = patched(lines);
        Some(Self {
            start: map.get_ptr(0)?.cast(),
            first: if_odd(generation) & (u64::from(lines) * u64::from(LINE_BYTES)),
            lines,
        })
    }
}

impl Lines for Block {
    type Line = *const u64;

    #[inline(always)]
    fn line(&self, index: u32) -> Option<*const u64> {
        if index >= self.lines {
            return None;
        }
        let at = self.first + u64::from(index) * u64::from(LINE_BYTES);
        // SAFETY: a line inside the value, which holds two images of as many
        // lines.
        Some(unsafe { self.start.add(at as usize) }.cast())
    }

    #[inline(always)]
    fn word(&self, line: *const u64, at: u32) -> u64 {
        word(line, at)
    }

    /// Of two additions and one comparison, as every packet takes these steps.
    #[inline(always)]
    fn half_word(&self, first: u32, at: u32) -> Option<u32> {
        let at = u64::from(first) * u64::from(LINE_BYTES) + u64::from(at) * 4;
        let at = opaque(at as usize) as u64;
        // So, as the verifier does not know that `at` is a multiple of 4.
        if at > (u64::from(self.lines) * u64::from(LINE_BYTES)).wrapping_sub(4) {
            return None;
        }
        // SAFETY: inside the image, whose bytes are a multiple of 4 as `at` is;
        // volatile as in `word`.
        Some(unsafe {
            self.start
                .add((self.first + at) as usize)
                .cast::<u32>()
                .read_volatile()
        })
    }
}

/// One of the two images in the elements of a map, a line each.
#[derive(Clone, Copy)]
struct Elements {
    map: &'static Array<Line>,
    first: u32,
    lines: u32,
}

impl Elements {
    /// The image that the generation names; `lines` as for a [`Block`].
    #[inline(always)]
    fn of(map: &'static Array<Line>, lines: &'static u32, generation: u64) -> Self {
        let lines = patched(lines);
        Self {
            map,
            first: if_odd(generation) as u32 & lines,
            lines,
        }
    }
}

impl Lines for Elements {
    type Line = *const u64;

    #[inline(always)]
    fn line(&self, index: u32) -> Option<*const u64> {
        if index >= self.lines {
            return None;
        }
        let element = self.map.get_ptr(self.first.wrapping_add(index))?;
        Some(element.cast())
    }

    #[inline(always)]
    fn word(&self, line: *const u64, at: u32) -> u64 {
        word(line, at)
    }
}

/// All bits for a generation of the second image, none for one of the first.
/// Opaque, so that it stays a mask: a branch would have the verifier walk all that
/// follows twice, and of a product kernel 6.1 forgets the bound.
#[inline(always)]
fn if_odd(generation: u64) -> u64 {
    opaque(0_usize.wrapping_sub((generation & 1) as usize)) as u64
}

#[inline(always)]
fn word(line: *const u64, at: u32) -> u64 {
    let at = (at & (LINE_WORDS - 1)) as usize;
    // SAFETY: a word inside a line of a map, which lives as long as the program;
    // volatile, since the agent writes to the same memory.
    unsafe { line.add(at).read_volatile() }
}
