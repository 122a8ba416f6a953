//! The figures for people.

use std::{fmt::Write as _, time::Duration};

use super::{
    aims::Bound,
    drain::Fates,
    report::{Loaded, Report},
    spread::Spread,
};

impl Report {
    /// All tables, and the lines above them that say where they are from.
    pub fn text(&self) -> String {
        let mut text = self.head();
        self.cost_text(&mut text);
        self.forward_text(&mut text);
        self.drain_text(&mut text);
        self.load_text(&mut text);
        self.feeds_text(&mut text);
        self.opt_out_text(&mut text);
        if !self.figures.cost.instructions.is_empty() {
            let _ = writeln!(text, "\ninstructions that the verifier walked:");
        }
        for (name, walked) in &self.figures.cost.instructions {
            let walked = walked.map_or("unknown".to_owned(), |walked| walked.to_string());
            let _ = writeln!(text, "  {name:<12} {walked:>9}");
        }
        for (name, reason) in self.missing() {
            let _ = writeln!(text, "\nnot measured: {name}: {reason}");
        }
        self.aims_text(&mut text);
        text
    }

    fn opt_out_text(&self, text: &mut String) {
        let Ok(opt_outs) = &self.figures.opt_outs else {
            return;
        };
        let spread = |times: &[Duration]| {
            let spread = Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e3));
            spread.map_or("unknown".to_owned(), |Spread { median, min, max }| {
                format!("{median:.1} ms ({min:.1}-{max:.1})")
            })
        };
        let _ = writeln!(
            text,
            "\none more opt-out after {}, with {} entries: last hit after {}, answered after {}",
            opt_outs.before,
            opt_outs.prefixes,
            spread(&opt_outs.in_force),
            spread(&opt_outs.answered),
        );
    }

    fn aims_text(&self, text: &mut String) {
        let _ = writeln!(text, "\naims, medians of paired rounds:");
        for aim in self.aims() {
            let said = match aim.is_reached() {
                Some(true) => "reached",
                Some(false) => "MISSED",
                None => "not measured",
            };
            let bound = match aim.bound {
                Bound::AtMost => "at most",
                Bound::AtLeast => "at least",
            };
            let number = |value: f64| match value.abs() >= 1_000.0 {
                true => format!("{value:.0}"),
                false => format!("{value:.3}"),
            };
            let measured = aim.measured.map_or("-".to_owned(), number);
            let _ = writeln!(
                text,
                "  {:<66} {measured:>9}  {bound:<8} {:>9}  {said}",
                aim.what,
                number(aim.limit),
            );
        }
    }

    fn cost_text(&self, text: &mut String) {
        if self.figures.cost.rows.is_empty() {
            return;
        }
        let _ = writeln!(
            text,
            "\n{:<6} {:<12} {:>9} {:<10} {:>9} {:>17} {:>11} {:>11}",
            "family",
            "program",
            "prefixes",
            "traffic",
            "ns/packet",
            "min-max",
            "over empty",
            "x parse-min"
        );
        for compared in self.compared() {
            let row = compared.row;
            let _ = writeln!(
                text,
                "{:<6} {:<12} {:>9} {:<10} {:>9.1} {:>17} {:>11.1} {:>11.2}",
                row.family.name(),
                row.measured.name(),
                row.measured
                    .prefixes()
                    .map_or("-".to_owned(), |prefixes| prefixes.to_string()),
                row.traffic.name(),
                compared.ns.median,
                format!("{:.1}-{:.1}", compared.ns.min, compared.ns.max),
                compared.added.median,
                compared.times_parse_min.median,
            );
        }
    }

    fn forward_text(&self, text: &mut String) {
        let forwarded = self.forwarded();
        if forwarded.is_empty() {
            return;
        }
        let _ = writeln!(
            text,
            "\n{:<12} {:>9} {:>16} {:>17} {:>13}   packets forwarded through a veth pair (IPv4)",
            "attached", "entries", "million/second", "min-max", "of pass-only"
        );
        for row in forwarded {
            let million = |rate: f64| rate / 1e6;
            let line = format!(
                "{:<12} {:>9} {:>16.3} {:>17} {:>13.3}   {}",
                row.candidate.name,
                row.candidate.entries,
                million(row.rate.median),
                format!("{:.3}-{:.3}", million(row.rate.min), million(row.rate.max)),
                row.of_pass_only.median,
                row.candidate.note,
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }

    fn drain_text(&self, text: &mut String) {
        if self.figures.drain.is_empty() {
            return;
        }
        let _ = writeln!(
            text,
            "\n{:<16} {:>8} {:>16} {:>17}   hits through the ring buffer (IPv4)",
            "reader", "seconds", "hits/s, no loss", "emptying, hits/s"
        );
        for row in &self.figures.drain {
            let rate = row
                .without_loss
                .map_or("none".to_owned(), |rate| format!("{rate:.0}"));
            let _ = writeln!(
                text,
                "{:<16} {:>8.1} {:>16} {:>17.0}   {}",
                row.reader.name(),
                row.seconds,
                rate,
                row.emptying,
                fates(row.fates),
            );
            let _ = writeln!(text, "{:<16} nobody reads: {}", "", fates(row.overload));
        }
    }

    fn load_text(&self, text: &mut String) {
        if self.figures.load.is_empty() {
            return;
        }
        let _ = writeln!(
            text,
            "\n{:<6} {:>9} {:>7} {:>8} {:>8} {:>8} {:>8} {:>9} {:>11} {:>9} {:>9}   milliseconds from file to active",
            "family",
            "prefixes",
            "read",
            "parse",
            "merge",
            "compile",
            "kernel",
            "total",
            "plain trie",
            "peak MiB",
            "maps MiB"
        );
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        for loading in &self.figures.load {
            let loaded = Loaded::of(loading);
            let _ = write!(text, "{:<6} {:>9}", loading.family.name(), loading.prefixes);
            for ((_, spread), width) in loaded.steps.iter().zip([7, 8, 8, 8, 8, 9, 11]) {
                let median = spread.map_or(f64::NAN, |Spread { median, .. }| median);
                let _ = write!(text, " {median:>width$.1}");
            }
            let (peak, maps) = (mib(loading.peak_bytes), mib(loading.maps_bytes));
            let _ = writeln!(text, " {peak:>9.0} {maps:>9.0}");
        }
        if let Some(largest) = self.figures.load.iter().max_by_key(|list| list.prefixes) {
            let maps: Vec<String> = largest
                .maps
                .iter()
                .map(|(name, bytes)| format!("{name} {:.1}", mib(*bytes)))
                .collect();
            let _ = writeln!(
                text,
                "maps with {} {} entries, MiB: {}",
                largest.prefixes,
                largest.family.name(),
                maps.join(", ")
            );
        }
    }

    fn feeds_text(&self, text: &mut String) {
        let Some(first) = self.figures.feeds.first() else {
            return;
        };
        let _ = writeln!(
            text,
            "\n{:<14} {:>16} {:>11} {:>7} {:>7} {:>12} {:>9}   reading {} entries of one feed, seconds",
            "format",
            "million/second",
            "min-max",
            "guard",
            "merge",
            "bytes/entry",
            "peak MiB",
            first.entries,
        );
        for read in self.feeds() {
            let million = |rate: f64| rate / 1e6;
            let median = |spread: Option<Spread>| spread.map_or(f64::NAN, |spread| spread.median);
            let rate = read.per_second;
            let _ = writeln!(
                text,
                "{:<14} {:>16.2} {:>11} {:>7.2} {:>7.2} {:>12} {:>9.0}",
                read.reading.format.name(),
                million(median(rate)),
                rate.map_or(String::new(), |rate| format!(
                    "{:.2}-{:.2}",
                    million(rate.min),
                    million(rate.max)
                )),
                median(read.guard),
                median(read.merge),
                read.reading.entry_bytes,
                read.reading.peak_bytes as f64 / f64::from(1 << 20),
            );
        }
    }

    fn head(&self) -> String {
        let machine = &self.machine;
        let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        let mut text = String::new();
        if self.quick {
            text.push_str(
                "A quick run: it shows that the benchmark works, its figures mean nothing.\n",
            );
        }
        let _ = writeln!(
            text,
            "{}, {} CPUs, kernel {}, load average {} at the start\n\
             commit {}, kernel program by {}, {}\n\
             {} rounds of {} packets a row, {} pairs of addresses, {} opt-outs",
            known(&machine.cpu),
            machine.cpus.map_or("?".to_owned(), |cpus| cpus.to_string()),
            machine.kernel,
            machine
                .load_average
                .map_or("unknown".to_owned(), |load| load.to_string()),
            known(&machine.commit),
            known(&machine.compiler),
            machine.date,
            self.plan.rounds,
            self.plan.packets_per_round(),
            self.plan.flows,
            self.plan.opt_outs,
        );
        text
    }
}

fn fates(fates: Fates) -> String {
    format!(
        "{} matched = {} delivered + {} folded + {} lost; {} read",
        fates.matched, fates.delivered, fates.folded, fates.lost, fates.read
    )
}
