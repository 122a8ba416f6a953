//! The compiled tables, which answer for nearly every packet: images that the
//! agent writes into array maps, two of each, of which a generation names the
//! one in use.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use matcher_common::{
    abi::{RuleSpan, Setting},
    parse::Family,
    table::{
        self, LINE_BYTES, LINE_WORDS, Line, Lines,
        class::{self, Class},
        filter,
        hosts::{self, Host},
    },
};

use crate::{
    maps::{Address, Settings},
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

/// The images that say what nearly every address is.
#[derive(Clone, Copy)]
pub(crate) struct Images {
    class_generation: u64,
    generation: u64,
}

impl Images {
    /// Those in use.
    #[inline(always)]
    pub(crate) fn current(settings: &Settings) -> Self {
        Self {
            class_generation: settings.get(Setting::ClassGeneration),
            generation: settings.get(Setting::Generation),
        }
    }

    /// [`class`].
    #[inline(always)]
    pub(crate) fn class(&self, address: Address<'_>) -> Class {
        class(self.class_generation, address)
    }

    /// [`listed`].
    #[inline(always)]
    pub(crate) fn listed(&self, address: Address<'_>) -> Listed {
        listed(self.generation, address)
    }
}

/// Whether the address is a subscriber's in the space without a VLAN, and
/// whether the default consent holds for it, or a refusal.
#[inline(always)]
pub(crate) fn class(generation: u64, address: Address<'_>) -> Class {
    match address.family {
        Family::V4 => {
            let lines = &CLASSES_V4_LINES;
            let Some(tree) = Block::of(&CLASSES_V4, lines, generation) else {
                return Class::Closer;
            };
            class::class_v4(&tree, v4_key(address))
        }
        Family::V6 => {
            let lines = &CLASSES_V6_LINES;
            let Some(tree) = Block::of(&CLASSES_V6, lines, generation) else {
                return Class::Closer;
            };
            let lines = &CONSENT_FILTER_V6_LINES;
            let Some(consent) = Block::of(&CONSENT_FILTER_V6, lines, generation) else {
                return Class::Closer;
            };
            let (high, low) = address.bytes.halves();
            class::class_v6(&tree, &consent, high, low)
        }
    }
}

/// What the images know of an address and the C&C list.
pub(crate) enum Listed {
    /// No entry covers it.
    No,
    /// It is listed itself, with these rules.
    Host(RuleSpan),
    /// The tries must be asked.
    Closer,
}

/// Whether the C&C list of that generation covers the address. A filter says no
/// to nearly all addresses; only the others meet the table of hosts.
#[inline(always)]
pub(crate) fn listed(generation: u64, address: Address<'_>) -> Listed {
    match address.family {
        Family::V4 => {
            let lines = &CC_FILTER_V4_LINES;
            let Some(image) = Block::of(&CC_FILTER_V4, lines, generation) else {
                return Listed::Closer;
            };
            let key = v4_key(address);
            answer(
                filter::maybe_host_v4(&image, key),
                || {
                    let lines = &CC_HOSTS_V4_LINES;
                    let hosts = Elements::of(&CC_HOSTS_V4, lines, generation);
                    hosts::find_v4(&hosts, (key >> 32) as u32)
                },
                || filter::maybe_prefix_v4(&image, key),
            )
        }
        Family::V6 => {
            let lines = &CC_FILTER_V6_LINES;
            let Some(image) = Block::of(&CC_FILTER_V6, lines, generation) else {
                return Listed::Closer;
            };
            let (high, low) = address.bytes.halves();
            answer(
                filter::maybe_host_v6(&image, high, low),
                || {
                    let lines = &CC_HOSTS_V6_LINES;
                    let hosts = Elements::of(&CC_HOSTS_V6, lines, generation);
                    hosts::find_v6(&hosts, high, low)
                },
                || filter::maybe_prefix_v6(&image, high, low),
            )
        }
    }
}

#[inline(always)]
fn answer(
    maybe_host: bool,
    host: impl FnOnce() -> Host,
    maybe_prefix: impl FnOnce() -> bool,
) -> Listed {
    if maybe_host {
        match host() {
            Host::Listed(span) => return Listed::Host(span),
            Host::Elsewhere => return Listed::Closer,
            Host::NotListed => {}
        }
    }
    if maybe_prefix() {
        Listed::Closer
    } else {
        Listed::No
    }
}

#[inline(always)]
fn v4_key(address: Address<'_>) -> u64 {
    table::v4_key(u32::from_be_bytes(address.bytes.v4()))
}

/// One of the two images in the value of a map.
#[derive(Clone, Copy)]
struct Block {
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
