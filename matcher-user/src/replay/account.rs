//! The closing accounts: aligned tables for a person.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use matcher_common::abi::{Counter, CounterKind};

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Captures that were named.
    pub captures: u64,
    /// Files that could not be opened or read on, or are no captures.
    pub unusable: u64,
    /// Captures that are cut off or damaged; the packets before that place
    /// were read.
    pub broken: u64,
    /// Packets that were read.
    pub packets: u64,
    /// Packets of these that were skipped, because of their link type.
    pub skipped: u64,
}

impl Captured {
    /// Whether every capture could be opened and is one. Those that are cut
    /// off or damaged count: what is there was used.
    pub fn all_usable(&self) -> bool {
        self.unusable == 0
    }

    fn head(&self) -> Vec<(String, u64)> {
        let mut rows = vec![("captures".to_owned(), self.captures)];
        rows.extend(
            [
                ("  cut off or damaged", self.broken),
                ("  not usable", self.unusable),
            ]
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(label, count)| (label.to_owned(), count)),
        );
        rows.push(("packets".to_owned(), self.packets));
        if self.skipped > 0 {
            rows.push(("  skipped for their link type".to_owned(), self.skipped));
        }
        rows
    }
}

/// What a replay came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayAccount {
    /// What was read.
    pub captured: Captured,
    /// Every counter of the program, 0 included; packets too short for the
    /// kernel's test entry are counted among them by the host's parser.
    pub counters: BTreeMap<Counter, u64>,
    /// Hits that were written.
    pub hits: u64,
}

impl ReplayAccount {
    /// One counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters.get(&counter).copied().unwrap_or(0)
    }

    /// Writes the account; the reasons add up to the packets.
    ///
    /// # Errors
    /// Those of `err`.
    pub fn write(&self, err: &mut dyn Write) -> io::Result<()> {
        let mut rows = self.captured.head();
        rows.extend(reasons(&self.counters));
        rows.push(("hits".to_owned(), self.hits));
        rows.push((
            "opted-out packets passed unmatched".to_owned(),
            self.get(Counter::OptedOut),
        ));
        rows.push(("lost".to_owned(), self.get(Counter::Lost)));
        write_rows(err, &rows)
    }
}

/// What `matcher parse` saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParseAccount {
    /// What was read.
    pub captured: Captured,
    /// Packets that were parsed to their end.
    pub parsed: u64,
    /// Packets that were not, by reason.
    pub unparsed: BTreeMap<Counter, u64>,
    /// Packets of all these that the host parsed, because the kernel's test
    /// entry takes none of their length.
    pub by_host: u64,
}

impl ParseAccount {
    /// Writes the account; parsed, the reasons and skipped add up to the
    /// packets.
    ///
    /// # Errors
    /// Those of `err`.
    pub fn write(&self, err: &mut dyn Write) -> io::Result<()> {
        let mut rows = self.captured.head();
        rows.push(("  parsed".to_owned(), self.parsed));
        rows.extend(reasons(&self.unparsed));
        if self.by_host > 0 {
            rows.push((
                "parsed on the host, too short or long for the kernel's test entry".to_owned(),
                self.by_host,
            ));
        }
        write_rows(err, &rows)
    }
}

/// How packets left the program, where any did.
fn reasons(counters: &BTreeMap<Counter, u64>) -> impl Iterator<Item = (String, u64)> {
    counters
        .iter()
        .filter(|(counter, count)| counter.kind() == CounterKind::Exit && **count > 0)
        .map(|(counter, count)| (format!("  {}", counter.name()), *count))
}

fn write_rows(err: &mut dyn Write, rows: &[(String, u64)]) -> io::Result<()> {
    let label_width = rows.iter().map(|(label, _)| label.len()).max();
    let count_width = rows.iter().map(|(_, count)| count.to_string().len()).max();
    let (label_width, count_width) = (label_width.unwrap_or(0), count_width.unwrap_or(0));
    for (label, count) in rows {
        writeln!(err, "{label:<label_width$}  {count:>count_width$}")?;
    }
    Ok(())
}
