//! The figures as text and JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    Plan,
    machine::Machine,
    measure::{Figures, LoadTimes, Measured, Row},
};

/// Version of the JSON; a field that goes or changes its meaning raises it.
const VERSION: u32 = 1;

/// The middle of several measurements, and how far they lie apart.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Spread {
    /// Half of them are at most this.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of at least one measurement.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        };
        Some(Self { median, min, max })
    }

    fn json(self) -> Value {
        json!({
            "median": rounded(self.median),
            "min": rounded(self.min),
            "max": rounded(self.max),
        })
    }
}

/// To a hundredth: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// A row's figures, held against the baselines of the same rounds.
struct Compared<'a> {
    row: &'a Row,
    /// Nanoseconds a packet.
    ns: Spread,
    /// Nanoseconds a packet over `empty`.
    added: Spread,
    /// `ns` over that of `parse-min`.
    times_parse_min: Spread,
}

/// Everything there is to tell.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it was measured.
    pub plan: Plan,
    /// Whether the plan is one whose figures mean nothing.
    pub quick: bool,
    /// Where.
    pub machine: Machine,
    /// What came of it.
    pub figures: Figures,
}

impl Report {
    /// Every row against the baselines of its family, round by round: what
    /// disturbed a whole round disturbed both.
    fn compared(&self) -> Vec<Compared<'_>> {
        let baseline = |row: &Row, name: &str| {
            self.figures
                .rows
                .iter()
                .find(|other| other.family == row.family && other.measured.name() == name)
        };
        self.figures
            .rows
            .iter()
            .filter_map(|row| {
                let empty = baseline(row, "empty")?;
                let parse_min = baseline(row, "parse-min")?;
                let own = || row.rounds.iter().copied();
                Some(Compared {
                    row,
                    ns: Spread::of(own())?,
                    added: Spread::of(own().zip(&empty.rounds).map(|(own, empty)| own - empty))?,
                    times_parse_min: Spread::of(
                        own().zip(&parse_min.rounds).map(|(own, least)| own / least),
                    )?,
                })
            })
            .collect()
    }

    /// The report for programs.
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .compared()
            .into_iter()
            .map(|compared| {
                let row = compared.row;
                json!({
                    "family": row.family.name(),
                    "program": row.measured.name(),
                    "prefixes": row.measured.prefixes(),
                    "traffic": row.traffic.name(),
                    "ns": compared.ns.json(),
                    "added_ns": compared.added.json(),
                    "times_parse_min": compared.times_parse_min.json(),
                    "rounds_ns": row.rounds.iter().copied().map(rounded).collect::<Vec<_>>(),
                    "packets": row.packets,
                    "exit": row.exits.map(|_| row.traffic.exit().name()),
                    "exits": row.exits,
                    "lookups": row.lookups,
                })
            })
            .collect();
        let lists: Vec<Value> = self.figures.lists.iter().map(list_json).collect();
        let programs: Vec<Value> = self
            .figures
            .instructions
            .iter()
            .map(|(name, walked)| json!({"program": name, "verified_instructions": walked}))
            .collect();
        json!({
            "version": VERSION,
            "quick": self.quick,
            "date": self.machine.date.to_string(),
            "commit": self.machine.commit,
            "compiler": self.machine.compiler,
            "optimised": self.machine.optimised,
            "machine": self.machine.json(),
            "method": self.plan.json(),
            "programs": programs,
            "lists": lists,
            "rows": rows,
        })
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut text = self.head();
        let _ = writeln!(
            text,
            "\n{:<6} {:<10} {:>9} {:<10} {:>9} {:>17} {:>11} {:>11}",
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
                "{:<6} {:<10} {:>9} {:<10} {:>9.1} {:>17} {:>11.1} {:>11.2}",
                row.family.name(),
                row.measured.name(),
                prefixes(row.measured),
                row.traffic.name(),
                compared.ns.median,
                format!("{:.1}-{:.1}", compared.ns.min, compared.ns.max),
                compared.added.median,
                compared.times_parse_min.median,
            );
        }
        let _ = writeln!(
            text,
            "\n{:<6} {:>9} {:>9} {:>9} {:>10} {:>9} {:>9}   milliseconds to load a list",
            "family", "prefixes", "parse", "merge", "compile", "kernel", "total"
        );
        for list in &self.figures.lists {
            let steps = [list.parse, list.merge, list.compile, list.load];
            let _ = write!(text, "{:<6} {:>9}", list.family.name(), list.prefixes);
            for (step, width) in steps.into_iter().zip([9, 9, 10, 9]) {
                let _ = write!(text, " {:>width$.1}", step.as_secs_f64() * 1e3);
            }
            let total: f64 = steps.iter().map(std::time::Duration::as_secs_f64).sum();
            let _ = writeln!(text, " {:>9.1}", total * 1e3);
        }
        let _ = writeln!(text, "\ninstructions that the verifier walked:");
        for (name, walked) in &self.figures.instructions {
            let walked = walked.map_or("unknown".to_owned(), |walked| walked.to_string());
            let _ = writeln!(text, "  {name:<10} {walked:>9}");
        }
        text
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

fn prefixes(measured: Measured) -> String {
    measured
        .prefixes()
        .map_or("-".to_owned(), |prefixes| prefixes.to_string())
}

fn list_json(list: &LoadTimes) -> Value {
    let ms = |step: std::time::Duration| rounded(step.as_secs_f64() * 1e3);
    json!({
        "family": list.family.name(),
        "prefixes": list.prefixes,
        "parse_ms": ms(list.parse),
        "merge_ms": ms(list.merge),
        "compile_ms": ms(list.compile),
        "load_ms": ms(list.load),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        let even = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(even.median, 2.5);
        assert_eq!(Spread::of([]), None);
    }
}
