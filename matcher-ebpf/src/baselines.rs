//! Programs that `cargo xtask bench` holds the product against, and the ones
//! that give each packet new addresses before the program under test sees it.
//!
//! `BPF_PROG_TEST_RUN` runs one packet many times; with one pair of addresses
//! every table would answer from the cache. `rotate_v4` and `rotate_v6` write
//! the next addresses of a list into the packet and then tail-call whatever
//! program the bench has put into `TARGET`: the very program that would be
//! attached, not a copy of it. What they cost is the same before every target
//! and is measured with [`empty`] as the target.
#![no_std]
#![feature(asm_experimental_arch)]
#![no_main]

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, xdp_action},
    helpers::generated::{bpf_ktime_get_ns, bpf_loop, bpf_redirect},
    macros::{map, xdp},
    maps::{Array, HashMap, LpmTrie, PerCpuArray, ProgramArray, RingBuf, lpm_trie::Key},
    programs::XdpContext,
};
use matcher_common::abi::HitEvent;

/// Source and destination, as they stand beside each other in an IPv4 header.
type Flow4 = [u64; 1];
/// The same of an IPv6 header.
type Flow6 = [u64; 4];
/// A word of a header in halves: that is how it is aligned behind Ethernet.
type Halves = [u16; 4];

/// Entries of the list of addresses; the bench sets it when it loads.
#[unsafe(no_mangle)]
static FLOWS: u32 = 1;

#[map]
static FLOWS_V4: Array<Flow4> = Array::with_max_entries(1, 0);
#[map]
static FLOWS_V6: Array<Flow6> = Array::with_max_entries(1, 0);
/// The flow that comes next on each CPU.
#[map]
static NEXT: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);
/// The pair of addresses that comes next on each CPU, for [`rotate_pairs_v4`].
#[map]
static NEXT_PAIR: PerCpuArray<NextPair> = PerCpuArray::with_max_entries(1, 0);
/// Slot 0: nanoseconds from one packet of [`rotate_pairs_v4`] to the next.
#[map]
static PACE: Array<u64> = Array::with_max_entries(1, 0);
/// Slot 0: the program under test.
#[map]
static TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Opted-out subscribers and C&C prefixes, as a first version of such a
/// program would keep them.
#[map]
static PLAIN_CONSENT_V4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static PLAIN_CONSENT_V6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static PLAIN_CC_V4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static PLAIN_CC_V6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1, 0);
/// The same in hashes, where a prefix cannot be but as its first address.
#[map]
static HASH_CONSENT_V4: HashMap<[u8; 4], u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static HASH_CONSENT_V6: HashMap<[u8; 16], u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static HASH_CC_V4: HashMap<[u8; 4], u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static HASH_CC_V6: HashMap<[u8; 16], u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
/// Where [`bare_hits`] puts its records.
#[map]
static BARE_HITS: RingBuf = RingBuf::with_byte_size(4096, 0);
/// Slot 0: index of the interface that generated frames go to.
#[map]
static GENERATE_TO: Array<u32> = Array::with_max_entries(1, 0);

/// What the programs below did: C&C look-ups, those that found something,
/// records delivered, records lost. Plain memory, one instruction to add to:
/// the bench runs them on one CPU at a time.
#[unsafe(no_mangle)]
static mut TALLY: [u64; 4] = [0; 4];

/// Sum of the header of the generator's IPv4 packet without addresses and
/// checksum (RFC 1071), in the machine's byte order; the bench sets it.
#[unsafe(no_mangle)]
static HEADER_SUM: u32 = 0;

/// Ethernet and IPv4: the next flow, then the target.
#[xdp(frags)]
fn rotate_v4(context: XdpContext) -> u32 {
    rotate(&context, &FLOWS_V4, 26)
}

/// Ethernet and IPv6: the next flow, then the target.
#[xdp(frags)]
fn rotate_v6(context: XdpContext) -> u32 {
    rotate(&context, &FLOWS_V6, 22)
}

/// Aborts, which the bench takes for a failure, unless the target runs.
#[inline(always)]
fn rotate<const WORDS: usize>(
    context: &XdpContext,
    flows: &Array<[u64; WORDS]>,
    offset: usize,
) -> u32 {
    let addresses = context.data() + offset;
    if addresses + size_of::<[u64; WORDS]>() > context.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    let Some(flow) = flows.get(next()) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the addresses lie inside the packet, as just compared.
    unsafe { store(addresses, flow) };
    // SAFETY: nothing here waits to be dropped.
    unsafe { TARGET.tail_call(context, 0) };
    xdp_action::XDP_ABORTED
}

/// Writes words of a packet, each with one instruction. They are not aligned, and
/// the compiler would write them piece by piece; a program that then reads across
/// two pieces waits until both have reached the cache, as it never does for a
/// packet that a NIC has written.
///
/// # Safety
///
/// As many bytes at `address` may be written.
#[inline(always)]
unsafe fn store<const WORDS: usize>(address: usize, words: &[u64; WORDS]) {
    for (at, word) in words.iter().enumerate() {
        // SAFETY: inside, as promised by the caller; the kernel allows it at any
        // address (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS).
        unsafe {
            core::arch::asm!("*(u64 *)({0} + 0) = {1}",
                in(reg) address + at * size_of::<u64>(), in(reg) *word,
                options(nostack, preserves_flags));
        }
    }
}

/// Where [`rotate_pairs_v4`] has come to.
#[repr(C)]
#[derive(Clone, Copy)]
struct NextPair {
    /// The flow that gives the source.
    index: u32,
    /// How many flows further the one is that gives the destination.
    apart: u32,
    /// When the packet is due, `bpf_ktime_get_ns`.
    due_ns: u64,
}

/// Ethernet and IPv4: the source of the next flow and the destination of
/// another, which is one further each time round, so that it takes very long
/// until a pair comes again; at the pace of `PACE`. Then the target.
#[xdp(frags)]
fn rotate_pairs_v4(context: XdpContext) -> u32 {
    let addresses = context.data() + 26;
    if addresses + size_of::<Flow4>() > context.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: a constant of the object file, volatile because the loader
    // patches it.
    let flows = unsafe { core::ptr::read_volatile(&raw const FLOWS) };
    let (Some(pair), Some(pace)) = (NEXT_PAIR.get_ptr_mut(0), PACE.get(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: this CPU's own slot; XDP programs do not preempt each other on
    // one CPU.
    let pair = unsafe { &mut *pair };
    if *pace > 0 {
        pair.due_ns = wait_until(pair.due_ns).wrapping_add(*pace);
    }
    let index = pair.index;
    let other = index.wrapping_add(pair.apart);
    let other = if other >= flows {
        other.wrapping_sub(flows)
    } else {
        other
    };
    pair.index = index.wrapping_add(1);
    if pair.index >= flows {
        pair.index = 0;
        pair.apart = pair.apart.wrapping_add(1);
        if pair.apart >= flows {
            pair.apart = 0;
        }
    }
    let (Some([from]), Some([to])) = (FLOWS_V4.get(index), FLOWS_V4.get(other)) else {
        return xdp_action::XDP_ABORTED;
    };
    // The source is the lower half.
    let flow = [from << 32 >> 32 | to >> 32 << 32];
    // SAFETY: the addresses lie inside the packet, as just compared.
    unsafe { store(addresses, &flow) };
    // SAFETY: nothing here waits to be dropped.
    unsafe { TARGET.tail_call(&context, 0) };
    xdp_action::XDP_ABORTED
}

/// Returns when it is `due_ns`, with that, or at once with the time if it is
/// later already: a packet that comes late delays those behind it.
#[inline(always)]
fn wait_until(due_ns: u64) -> u64 {
    /// More than a millisecond's worth of looking at the clock.
    const LOOKS: u32 = 1 << 16;
    let mut due_ns = due_ns;
    // SAFETY: helpers; the callback takes a pointer to what `due_ns` is.
    unsafe {
        let now = bpf_ktime_get_ns();
        if now >= due_ns {
            return now;
        }
        bpf_loop(
            LOOKS,
            is_due as *mut c_void,
            (&raw mut due_ns).cast::<c_void>(),
            0,
        );
    }
    due_ns
}

/// 1, which ends the waiting, when it is time. A callback of `bpf_loop`.
///
/// # Safety
///
/// `due_ns` is the one that [`wait_until`] hands to the helper.
unsafe extern "C" fn is_due(_look: u32, due_ns: *mut u64) -> i64 {
    // SAFETY: as promised by the caller.
    unsafe { i64::from(bpf_ktime_get_ns() >= *due_ns) }
}

/// Goes round the list.
#[inline(always)]
fn next() -> u32 {
    // SAFETY: a constant of the object file, volatile because the loader
    // patches it.
    let flows = unsafe { core::ptr::read_volatile(&raw const FLOWS) };
    let Some(slot) = NEXT.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: this CPU's own slot; XDP programs do not preempt each other on
    // one CPU.
    unsafe {
        let index = *slot;
        let following = index.wrapping_add(1);
        *slot = if following >= flows { 0 } else { following };
        index
    }
}

/// Nothing at all: what the harness itself costs.
#[xdp(frags)]
fn empty(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Ethernet and the addresses of IPv4 or IPv6, folded into the return value
/// so that they are really read. The yardstick for later work: never change.
#[xdp(frags)]
fn parse_min(context: XdpContext) -> u32 {
    let start = context.data();
    let end = context.data_end();
    if start + 14 > end {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: inside the packet, as just compared; at an even offset of a
    // buffer that starts aligned, as every read below.
    let ether_type = unsafe { *((start + 12) as *const u16) };
    let folded = match u16::from_be(ether_type) {
        0x0800 => {
            if start + 34 > end {
                return xdp_action::XDP_PASS;
            }
            // SAFETY: inside the packet, as just compared.
            or(unsafe { *((start + 26) as *const Halves) })
        }
        0x86dd => {
            if start + 54 > end {
                return xdp_action::XDP_PASS;
            }
            // SAFETY: inside the packet, as just compared.
            let [a, b, c, d] = unsafe { *((start + 22) as *const [Halves; 4]) };
            or(a) | or(b) | or(c) | or(d)
        }
        _ => return xdp_action::XDP_PASS,
    };
    if folded == 0 {
        xdp_action::XDP_DROP
    } else {
        xdp_action::XDP_PASS
    }
}

/// What `parse_min` does, then consent of the source in an LPM trie, then the
/// destination in an LPM trie of C&C prefixes.
#[xdp(frags)]
fn plain_tries(context: XdpContext) -> u32 {
    match ends(&context) {
        Ends::V4(source, destination) => {
            if PLAIN_CONSENT_V4.get(Key::new(32, source)).is_none() {
                tally(PLAIN_CC_V4.get(Key::new(32, destination)));
            }
        }
        Ends::V6(source, destination) => {
            if PLAIN_CONSENT_V6.get(Key::new(128, source)).is_none() {
                tally(PLAIN_CC_V6.get(Key::new(128, destination)));
            }
        }
        Ends::None => {}
    }
    xdp_action::XDP_PASS
}

/// What `parse_min` does, then consent of the source in a hash, then the
/// destination in a hash of C&C hosts.
#[xdp(frags)]
fn hash_map(context: XdpContext) -> u32 {
    // SAFETY: the bench writes no entry while this runs.
    unsafe {
        match ends(&context) {
            Ends::V4(source, destination) => {
                if HASH_CONSENT_V4.get(source).is_none() {
                    tally(HASH_CC_V4.get(destination));
                }
            }
            Ends::V6(source, destination) => {
                if HASH_CONSENT_V6.get(source).is_none() {
                    tally(HASH_CC_V6.get(destination));
                }
            }
            Ends::None => {}
        }
    }
    xdp_action::XDP_PASS
}

/// Source and destination of a packet.
enum Ends {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
    None,
}

/// The addresses, read as [`parse_min`] reads them.
#[inline(always)]
fn ends(context: &XdpContext) -> Ends {
    let start = context.data();
    let end = context.data_end();
    if start + 14 > end {
        return Ends::None;
    }
    // SAFETY: inside the packet, as just compared; at an even offset of a
    // buffer that starts aligned, as every read below.
    let ether_type = unsafe { *((start + 12) as *const u16) };
    match u16::from_be(ether_type) {
        0x0800 => {
            if start + 34 > end {
                return Ends::None;
            }
            // SAFETY: inside the packet, as just compared. The halves are
            // addresses, whose bytes stay where they are.
            let [source, destination] =
                unsafe { *((start + 26) as *const [[u16; 2]; 2]) }.map(|half| {
                    // SAFETY: as many bytes, all of them valid.
                    unsafe { core::mem::transmute::<[u16; 2], [u8; 4]>(half) }
                });
            Ends::V4(source, destination)
        }
        0x86dd => {
            if start + 54 > end {
                return Ends::None;
            }
            // SAFETY: inside the packet, as just compared. The halves are
            // addresses, whose bytes stay where they are.
            let [source, destination] =
                unsafe { *((start + 22) as *const [[u16; 8]; 2]) }.map(|half| {
                    // SAFETY: as many bytes, all of them valid.
                    unsafe { core::mem::transmute::<[u16; 8], [u8; 16]>(half) }
                });
            Ends::V6(source, destination)
        }
        _ => Ends::None,
    }
}

/// Counts a C&C look-up and what it found.
#[inline(always)]
fn tally(found: Option<&u32>) {
    // SAFETY: one CPU at a time runs this.
    unsafe {
        TALLY[0] += 1;
        if found.is_some_and(|found| *found != 0) {
            TALLY[1] += 1;
        }
    }
}

/// A record of the size of a hit, zeroed, into a ring buffer: what the ring
/// buffer alone can carry.
#[xdp(frags)]
fn bare_hits(_context: XdpContext) -> u32 {
    // SAFETY: one CPU at a time runs this.
    unsafe {
        match BARE_HITS.reserve::<HitEvent>(0) {
            Some(mut entry) => {
                entry.write(HitEvent::default());
                entry.submit(0);
                TALLY[2] += 1;
            }
            None => TALLY[3] += 1,
        }
    }
    xdp_action::XDP_PASS
}

/// Gives a live frame its addresses and checksum, and sends it to the
/// interface in `GENERATE_TO`. Only IPv4.
#[xdp(frags)]
fn generate_v4(context: XdpContext) -> u32 {
    let start = context.data();
    if start + 34 > context.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    let (Some(flow), Some(to)) = (FLOWS_V4.get(next()), GENERATE_TO.get(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    let [word] = *flow;
    let [a, b, c, d] = [0, 16, 32, 48].map(|shift| (word >> shift) as u32 & 0xffff);
    // SAFETY: a constant of the object file, volatile because the loader
    // patches it.
    let header = unsafe { core::ptr::read_volatile(&raw const HEADER_SUM) };
    let sum = header + a + b + c + d;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    // SAFETY: inside the packet, as just compared; the first at an even offset of
    // a buffer that starts aligned.
    unsafe {
        *((start + 24) as *mut u16) = !(sum as u16);
        store(start + 26, flow);
    }
    // SAFETY: the helper takes numbers.
    unsafe { bpf_redirect(*to, 0) as u32 }
}

/// Half words without a loop, because that is how addresses are aligned: any
/// other way would be slower than a parser has to be.
#[inline(always)]
fn or([a, b, c, d]: Halves) -> u16 {
    a | b | c | d
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: a program with a panic path does not load.
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
