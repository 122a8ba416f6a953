//! What came of it, for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::compare::{Difference, differences};
use super::explained::Explained;
use super::seen::{Ours, Theirs};

/// Explained packets a thousand compared; more are refused: then something is wrong with us.
const EXPLAINED_PER_MILLE: u64 = 5;

/// Counts of one capture, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets of a link type that matcher reads.
    pub compared: u64,
    /// Those that both see the same, as far as matcher reads them.
    pub agreed: u64,
    /// Those with a difference that is explained.
    pub explained: u64,
    /// Those with one that is not.
    pub unexplained: u64,
    /// Those that matcher did not read to their end, whatever else holds.
    pub unread: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.compared += other.compared;
        self.agreed += other.agreed;
        self.explained += other.explained;
        self.unexplained += other.unexplained;
        self.unread += other.unread;
    }
}

/// Packets that matcher left unread for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Unread {
    packets: u64,
    /// Of these, those in which tshark sees more IP layers than matcher.
    deeper: u64,
    /// What tshark sees, with the number of packets and the first of them.
    kinds: BTreeMap<String, (u64, String)>,
}

/// The account of a run.
#[derive(Default)]
pub struct Report {
    captures: Vec<(String, Counts)>,
    /// Packets that cannot be compared: link types that matcher skips.
    skipped: u64,
    unread: BTreeMap<String, Unread>,
    disagreements: Vec<String>,
    stale: Vec<String>,
}

impl Report {
    /// Compares one capture.
    pub fn add(
        &mut self,
        name: &str,
        path: &Path,
        ours: &[Ours],
        theirs: &[Theirs],
        explained: &[Explained],
    ) {
        let here: Vec<&Explained> = explained.iter().filter(|entry| entry.is_of(path)).collect();
        let mut counts = Counts::default();
        let mut met = Vec::new();
        for our in ours {
            counts.compared += 1;
            let packet = our.packet;
            let Some(their) = usize::try_from(packet - 1)
                .ok()
                .and_then(|at| theirs.get(at))
            else {
                counts.unexplained += 1;
                let line = format!("{name} packet {packet}: tshark does not get that far");
                self.disagreements.push(line);
                continue;
            };
            if let Some(reason) = &our.unparsed {
                counts.unread += 1;
                self.left_unread(reason, name, our, their);
            }
            let found = differences(our, their);
            let entry = here.iter().find(|entry| entry.packet == packet);
            if found.is_empty() {
                counts.agreed += 1;
            } else if entry.is_some_and(|entry| entry.covers(&found)) {
                counts.explained += 1;
                met.push(packet);
            } else {
                counts.unexplained += 1;
                let line = disagreement(name, our, their, &found);
                self.disagreements.push(line);
            }
        }
        for entry in here.iter().filter(|entry| !met.contains(&entry.packet)) {
            self.stale.push(format!("{name} packet {}", entry.packet));
        }
        let read = u64::try_from(theirs.len()).unwrap_or(u64::MAX);
        self.skipped += read.saturating_sub(counts.compared);
        self.captures.push((name.to_owned(), counts));
    }

    fn left_unread(&mut self, reason: &str, name: &str, ours: &Ours, theirs: &Theirs) {
        let unread = self.unread.entry(reason.to_owned()).or_default();
        unread.packets += 1;
        unread.deeper += u64::from(theirs.layers.len() > ours.layers.len());
        let first = || (0, format!("{name} {}", ours.packet));
        let kind = unread.kinds.entry(theirs.protocols.join(":"));
        kind.or_insert_with(first).0 += 1;
    }

    /// The sum over all captures.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for (_, counts) in &self.captures {
            total.add(*counts);
        }
        total
    }

    /// What does not let the run succeed.
    pub fn failures(&self) -> Vec<String> {
        let total = self.total();
        let mut failures = Vec::new();
        if total.compared == 0 {
            failures.push("no packet was compared".to_owned());
        }
        if total.unexplained > 0 {
            failures.push(format!(
                "{} packets without an explanation",
                total.unexplained
            ));
        }
        if !self.stale.is_empty() {
            failures.push(format!("{} explanations of nothing", self.stale.len()));
        }
        if total.explained * 1000 > total.compared * EXPLAINED_PER_MILLE {
            failures.push(format!(
                "{} packets of {} are explained, which is more than 0.5 %",
                total.explained, total.compared
            ));
        }
        failures
    }

    /// The whole report; with `kinds` also what tshark sees in packets left unread.
    pub fn text(&self, kinds: bool) -> String {
        let mut text = String::new();
        let width = self.captures.iter().map(|(name, _)| name.len()).max();
        let width = width.unwrap_or_default().max("capture".len());
        let _ = writeln!(
            text,
            "{:<width$} {:>8} {:>8} {:>9} {:>11} {:>7} {:>7}",
            "capture", "compared", "agreed", "explained", "unexplained", "unread", "agree"
        );
        let total = self.total();
        let all = ("total".to_owned(), total);
        for (name, counts) in self.captures.iter().chain([&all]) {
            let _ = writeln!(
                text,
                "{name:<width$} {:>8} {:>8} {:>9} {:>11} {:>7} {:>7}",
                counts.compared,
                counts.agreed,
                counts.explained,
                counts.unexplained,
                counts.unread,
                percent(counts.agreed, counts.compared),
            );
        }
        if !self.unread.is_empty() {
            text.push_str("\nleft unread by matcher (such a packet never matches):\n");
        }
        for (reason, unread) in &self.unread {
            let _ = writeln!(
                text,
                "  {reason:<18} {:>7}   tshark sees IP further inside: {}",
                unread.packets, unread.deeper
            );
            for (protocols, (packets, first)) in unread.kinds.iter().filter(|_| kinds) {
                let _ = writeln!(text, "      {packets:>7} {protocols}   first: {first}");
            }
        }
        for (title, lines) in [
            ("disagreements without an explanation", &self.disagreements),
            ("explained, but there is no such difference", &self.stale),
        ] {
            if !lines.is_empty() {
                let _ = writeln!(text, "\n{title}:");
                for line in lines {
                    let _ = writeln!(text, "  {line}");
                }
            }
        }
        let _ = writeln!(
            text,
            "\n{} packets compared: {} agreed, {} explained, {} unexplained; of these {} left \
             unread by matcher; {} more of link types that it does not read",
            total.compared,
            total.agreed,
            total.explained,
            total.unexplained,
            total.unread,
            self.skipped
        );
        text
    }
}

fn disagreement(name: &str, ours: &Ours, theirs: &Theirs, found: &[Difference]) -> String {
    let found: Vec<String> = found.iter().map(Difference::to_string).collect();
    let unparsed = ours.unparsed.as_ref();
    format!(
        "{name} packet {}: {} (tshark: {}{})",
        ours.packet,
        found.join("; "),
        theirs.protocols.join(":"),
        unparsed.map_or(String::new(), |reason| format!(
            "; matcher stopped: {reason}"
        )),
    )
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    // Rounded down: 100 % is all of them.
    let tenths = part * 1000 / whole;
    format!("{}.{} %", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::super::seen::Layer;
    use super::*;

    fn layer(port: u16) -> Layer {
        Layer {
            source: "192.0.2.1".parse().unwrap(),
            destination: "192.0.2.2".parse().unwrap(),
            protocol: 17,
            fragment_offset: 0,
            source_port: Some(port),
            destination_port: Some(9),
        }
    }

    fn ours(packet: u64, port: u16) -> Ours {
        Ours {
            packet,
            layers: vec![layer(port)],
            vlan_tags: 0,
            unparsed: None,
        }
    }

    fn theirs(port: u16) -> Theirs {
        Theirs {
            layers: vec![layer(port)],
            ..Theirs::default()
        }
    }

    fn explained(packet: u64) -> Explained {
        Explained {
            capture: "x.pcap".to_owned(),
            packet,
            differences: vec![Difference {
                field: "layer 1 source port".to_owned(),
                tshark: "2".to_owned(),
                matcher: "1".to_owned(),
            }],
            because: String::new(),
        }
    }

    fn run(ours: &[Ours], theirs: &[Theirs], explained: &[Explained]) -> Report {
        let mut report = Report::default();
        report.add("x.pcap", Path::new("/a/x.pcap"), ours, theirs, explained);
        report
    }

    #[test]
    fn agreement_succeeds_and_nothing_at_all_does_not() {
        let report = run(&[ours(1, 1)], &[theirs(1)], &[]);
        assert_eq!(report.failures(), [""; 0]);
        assert_eq!(report.total().agreed, 1);
        assert_eq!(run(&[], &[], &[]).failures(), ["no packet was compared"]);
    }

    #[test]
    fn a_difference_fails_unless_it_is_explained() {
        let mut seen: Vec<Ours> = (1..=200).map(|packet| ours(packet, 1)).collect();
        let mut other: Vec<Theirs> = (1..=200).map(|_| theirs(1)).collect();
        other[6] = theirs(2);
        let failures = run(&seen, &other, &[]).failures();
        assert_eq!(failures, ["1 packets without an explanation"]);
        assert_eq!(run(&seen, &other, &[explained(7)]).failures(), [""; 0]);
        // Another packet, or another difference, is not meant.
        assert_eq!(run(&seen, &other, &[explained(8)]).failures().len(), 2);
        seen[6] = ours(7, 3);
        assert_eq!(run(&seen, &other, &[explained(7)]).failures().len(), 2);
    }

    #[test]
    fn an_explanation_of_nothing_fails() {
        let failures = run(&[ours(1, 1)], &[theirs(1)], &[explained(1)]).failures();
        assert_eq!(failures, ["1 explanations of nothing"]);
    }

    #[test]
    fn more_than_one_explained_packet_in_two_hundred_fails() {
        let failures = run(&[ours(1, 1)], &[theirs(2)], &[explained(1)]).failures();
        assert_eq!(failures.len(), 1);
        assert!(failures[0].contains("more than 0.5 %"), "{failures:?}");
    }

    #[test]
    fn a_packet_that_tshark_does_not_reach_fails() {
        let report = run(&[ours(1, 1), ours(2, 1)], &[theirs(1)], &[]);
        assert_eq!(report.total().unexplained, 1);
        assert!(report.text(false).contains("does not get that far"));
    }

    #[test]
    fn a_hundred_percent_is_all() {
        assert_eq!(percent(1999, 2000), "99.9 %");
        assert_eq!(percent(2000, 2000), "100.0 %");
        assert_eq!(percent(0, 0), "-");
    }
}
