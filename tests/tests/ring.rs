//! The consumer of the ring buffer, over a ring of one page: what was read is
//! read once, what was not released stays, and what had no room is counted.

use std::collections::BTreeMap;

use matcher_common::abi::{Counter, HitEvent};
use matcher_tests::{
    kernel::{self, LIMITS, Tally, drain, install, is_skipped, load_with, send_often},
    packets::{self, Conditions, standard_world},
    traffic::random::Random,
};
use matcher_user::kernel::{
    program::{Clock, Limits, Loaded},
    ring::Ring,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    thread::{CpuSet, sched_getcpu, sched_setaffinity},
};

const RING_BYTES: u32 = 4096;
/// A record: the header of eight bytes, and the event.
const RECORD: u64 = 8 + size_of::<HitEvent>() as u64;
/// The kernel never fills a ring to its last byte.
const FITS: u64 = (RING_BYTES as u64 - 1) / RECORD;

/// A program with a small ring, and a packet that is a hit. The thread stays
/// on its CPU, so that there is one series of sequence numbers.
fn ready() -> (Loaded, Ring, Vec<u8>) {
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    sched_setaffinity(None, &here).unwrap();
    let limits = Limits {
        ring_bytes: RING_BYTES,
        ..LIMITS
    };
    let mut loaded = load_with(limits, Clock::Replay);
    install(&mut loaded.tables, &standard_world(&Conditions::default()));
    let ring = Ring::open(&loaded.tables).unwrap();
    let hit = packets::table()
        .into_iter()
        .find(|case| case.answer.hit.is_some())
        .unwrap();
    (loaded, ring, hit.frame)
}

/// Reads so many events without giving them back.
fn read(ring: &mut Ring, count: usize) -> Vec<u64> {
    let mut sequences = Vec::new();
    while sequences.len() < count
        && let Some(event) = ring.next_event()
    {
        sequences.push(event.unwrap().sequence);
    }
    sequences
}

fn is_readable(ring: &Ring) -> bool {
    let mut fds = [PollFd::new(ring, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
}

#[test]
fn the_account_is_exact_when_the_ring_overflows_and_lost_hits_leave_a_gap() {
    if is_skipped("the_account_is_exact_when_the_ring_overflows_and_lost_hits_leave_a_gap") {
        return;
    }
    let (mut loaded, mut ring, frame) = ready();
    let mut tally = Tally::start(&loaded.tables);
    let mut read = 0;
    let mut gaps = 0;
    let mut next = 0;
    for burst in [1, 200, 3, FITS, FITS + 1, 1000, 1] {
        send_often(&mut loaded, &frame, burst);
        let counts: BTreeMap<_, _> = tally.take(&loaded.tables).into_iter().collect();
        let count = |counter| counts.get(&counter).copied().unwrap_or(0);
        assert_eq!(count(Counter::Matched), burst);
        assert_eq!(count(Counter::Delivered), burst.min(FITS));
        assert_eq!(count(Counter::Lost), burst.saturating_sub(FITS));
        assert_eq!(
            count(Counter::Matched),
            count(Counter::Delivered) + count(Counter::Folded) + count(Counter::Lost)
        );
        for event in drain(&mut ring) {
            gaps += event.sequence - next;
            next = event.sequence + 1;
            read += 1;
        }
    }
    let all = loaded.tables.counters().unwrap();
    assert_eq!(read, all.get(Counter::Delivered));
    assert_eq!(gaps, all.get(Counter::Lost));
    assert_eq!(next, all.get(Counter::Matched));
}

#[test]
fn events_keep_their_order_over_the_rings_end_many_times() {
    if is_skipped("events_keep_their_order_over_the_rings_end_many_times") {
        return;
    }
    let (mut loaded, mut ring, frame) = ready();
    let mut random = Random::new(1);
    let mut next = 0;
    while ring.position() < 100 * u64::from(RING_BYTES) {
        let burst = random.within(1, FITS + 1);
        send_often(&mut loaded, &frame, burst);
        let sequences: Vec<u64> = drain(&mut ring)
            .into_iter()
            .map(|event| event.sequence)
            .collect();
        assert_eq!(sequences, Vec::from_iter(next..next + burst));
        next += burst;
    }
    assert_eq!(loaded.tables.counters().unwrap().get(Counter::Lost), 0);
}

#[test]
fn room_comes_back_with_the_release_and_not_with_the_reading() {
    if is_skipped("room_comes_back_with_the_release_and_not_with_the_reading") {
        return;
    }
    let (mut loaded, mut ring, frame) = ready();
    send_often(&mut loaded, &frame, FITS);
    assert_eq!(ring.fill(), (FITS * RECORD, RING_BYTES.into()));
    assert_eq!(read(&mut ring, usize::MAX), Vec::from_iter(0..FITS));
    assert!(ring.next_event().is_none());

    kernel::send(&mut loaded, &frame);
    assert!(ring.next_event().is_none(), "no room before the release");
    assert_eq!(ring.fill().0, FITS * RECORD);
    ring.release();
    assert_eq!(ring.fill().0, 0);
    kernel::send(&mut loaded, &frame);
    // One was lost in between.
    assert_eq!(read(&mut ring, usize::MAX), [FITS + 1]);
}

#[test]
fn the_next_consumer_goes_on_where_the_last_one_released() {
    if is_skipped("the_next_consumer_goes_on_where_the_last_one_released") {
        return;
    }
    let (mut loaded, mut ring, frame) = ready();
    // So far into the ring that what follows goes over its end.
    send_often(&mut loaded, &frame, 24);
    drain(&mut ring);
    send_often(&mut loaded, &frame, 20);
    assert_eq!(read(&mut ring, 10), Vec::from_iter(24..34));
    ring.release();
    // Read, but the process died before it could release them.
    assert_eq!(read(&mut ring, 5), Vec::from_iter(34..39));
    let id = ring.id().clone();
    drop(ring);

    let mut ring = Ring::open(&loaded.tables).unwrap();
    assert_eq!(*ring.id(), id);
    assert_eq!(read(&mut ring, usize::MAX), Vec::from_iter(34..44));
}

#[test]
fn what_was_stored_before_a_crash_is_passed_over() {
    if is_skipped("what_was_stored_before_a_crash_is_passed_over") {
        return;
    }
    let (mut loaded, mut ring, frame) = ready();
    send_often(&mut loaded, &frame, 20);
    read(&mut ring, 5);
    ring.release();
    let released = ring.position();
    // Stored together with their position, and not released.
    read(&mut ring, 7);
    let stored = ring.position();
    drop(ring);

    let mut ring = Ring::open(&loaded.tables).unwrap();
    let (waiting, _) = ring.fill();
    // Positions that speak of nothing that waits change nothing.
    for position in [0, RECORD, released, released + waiting + RECORD, u64::MAX] {
        ring.skip_to(position);
        assert_eq!((ring.position(), ring.fill().0), (released, waiting));
    }
    ring.skip_to(stored);
    assert_eq!(ring.fill().0, waiting - 7 * RECORD);
    assert_eq!(read(&mut ring, usize::MAX), Vec::from_iter(12..20));
    // Everything was stored.
    let end = ring.position();
    drop(ring);
    let mut ring = Ring::open(&loaded.tables).unwrap();
    ring.skip_to(end);
    assert_eq!(ring.fill().0, 0);
    assert!(ring.next_event().is_none());
}

#[test]
fn the_ring_is_readable_exactly_while_something_unreleased_waits() {
    if is_skipped("the_ring_is_readable_exactly_while_something_unreleased_waits") {
        return;
    }
    let (mut loaded, mut ring, frame) = ready();
    assert!(!is_readable(&ring));
    for _ in 0..100 {
        kernel::send(&mut loaded, &frame);
        assert!(is_readable(&ring));
        assert_eq!(read(&mut ring, usize::MAX).len(), 1);
        ring.release();
        assert!(!is_readable(&ring));
    }
}

#[test]
fn every_ring_has_an_id_of_its_own() {
    if is_skipped("every_ring_has_an_id_of_its_own") {
        return;
    }
    let (_first, ring, _) = ready();
    let (_second, other, _) = ready();
    assert_ne!(ring.id(), other.id());
}
