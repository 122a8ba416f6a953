//! What it costs to make an event a hit with its indicator's name, when hits
//! are spread over a list of a million: `cargo bench -p matcher-user --bench
//! naming`.
//!
//! Nanoseconds a hit, the median of five rounds: over names that know nothing
//! yet, as after each change of the list, and over the same names again.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark: it prints, and a mistake in it may end it"
)]

use std::{collections::BTreeSet, fmt::Write as _, hint::black_box, net::Ipv4Addr, time::Instant};

use jiff::Timestamp;
use matcher_common::abi::{AddressBytes, Flow, HitEvent, hit_flags};
use matcher_user::{
    clock::WallOffset,
    drain::Names,
    feeds::{self, Format},
    indicators::{Catalog, IndicatorSet},
};

const INDICATORS: u32 = 1_000_000;
const EVENTS: usize = 2_000_000;
const ROUNDS: usize = 5;

fn catalog(numbers: &mut fastrand::Rng) -> Catalog {
    let mut addresses = BTreeSet::new();
    while addresses.len() < INDICATORS as usize {
        addresses.insert(Ipv4Addr::from_bits(numbers.u32(..)));
    }
    let mut text = String::new();
    for address in addresses {
        writeln!(text, "{address}").expect("a string takes any text");
    }
    let feed = feeds::parse(Format::Plain, text.as_bytes());
    let entries = [("bench", feed.entries.as_slice())];
    let (_, catalog) = IndicatorSet::merge(&Catalog::default(), &entries, Timestamp::UNIX_EPOCH)
        .expect("there are ids enough");
    catalog
}

fn event() -> HitEvent {
    let subscriber = AddressBytes::from_v4([203, 0, 113, 7]);
    HitEvent {
        packets: 1,
        flow: Flow {
            subscriber,
            local: subscriber,
            remote: AddressBytes::from_v4([198, 51, 100, 23]),
            ifindex: 3,
            local_port: 51_413,
            remote_port: 443,
            protocol: 6,
            flags: hit_flags::OUTBOUND | hit_flags::PORTS,
            ..Flow::default()
        },
        ..HitEvent::default()
    }
}

/// Nanoseconds a hit.
fn pass(names: &mut Names, catalog: &Catalog, ids: &[u32]) -> f64 {
    let offset = WallOffset::measure();
    let mut events = [event(); Names::AHEAD];
    let start = Instant::now();
    for ids in ids.chunks(events.len()) {
        for (event, id) in events.iter_mut().zip(ids) {
            event.flow.indicator = *id;
        }
        names.look_ahead(&events, catalog);
        for event in events.iter().take(ids.len()) {
            black_box(names.hit(black_box(event), offset, catalog, |_| None));
        }
    }
    start.elapsed().as_secs_f64() * 1e9 / ids.len() as f64
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    *figures
        .get(figures.len() / 2)
        .expect("there is a round at least")
}

fn main() {
    // `cargo test` runs benches too: only that they start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut numbers = fastrand::Rng::with_seed(1);
    let catalog = catalog(&mut numbers);
    let ids: Vec<u32> = (0..EVENTS).map(|_| numbers.u32(1..=INDICATORS)).collect();
    let (mut fresh, mut known) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut names = Names::default();
        fresh.push(pass(&mut names, &catalog, &ids));
        known.push(pass(&mut names, &catalog, &ids));
    }
    println!("fresh names: {:.0} ns a hit", median(fresh));
    println!("known names: {:.0} ns a hit", median(known));
}
