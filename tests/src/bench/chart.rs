//! The figures as a picture, SVG: what a packet adds by the length of the list,
//! and packets forwarded.

use std::fmt::Write as _;

use super::{Family, report::Report, traffic::Traffic};

const WIDTH: f64 = 1000.0;
/// Programs of the curves, with a colour each (Okabe and Ito, distinct for
/// colour-blind eyes too).
const CURVES: [(&str, &str); 3] = [
    ("plain-tries", "#d55e00"),
    ("hash-map", "#0072b2"),
    ("matcher", "#009e73"),
];
const GREY: &str = "#999999";
/// Least and greatest nanoseconds of the axis, powers of ten.
const DECADES: std::ops::RangeInclusive<i32> = 0..=4;

/// A drawing under way.
struct Canvas(String);

impl Canvas {
    fn text(&mut self, (x, y): (f64, f64), anchor: &str, style: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.0,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" {style}>{text}</text>"#
        );
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), style: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.0,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" {style}/>"#
        );
    }

    fn rectangle(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str) {
        let _ = writeln!(
            self.0,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{fill}"/>"#
        );
    }

    fn curve(&mut self, points: &[(f64, f64)], colour: &str) {
        let path: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            self.0,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2.5"/>"#,
            path.join(" ")
        );
        for (x, y) in points {
            let _ = writeln!(
                self.0,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#
            );
        }
    }
}

impl Report {
    /// The picture.
    pub fn chart(&self) -> String {
        let forwarded = self.forwarded().len() as f64;
        let bars_at = 470.0;
        let height = match forwarded > 0.0 {
            true => bars_at + 60.0 + forwarded * 30.0,
            false => bars_at,
        };
        let mut canvas = Canvas(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n"
        ));
        canvas.rectangle((0.0, 0.0), (WIDTH, height), "#ffffff");
        canvas.text(
            (20.0, 28.0),
            "start",
            r#"font-size="18" font-weight="bold""#,
            "What a packet that matches nothing costs, by the length of the C&C list",
        );
        canvas.text((20.0, 48.0), "start", r##"fill="#555555""##, &self.taken());
        for (family, left) in Family::ALL.into_iter().zip([70.0, 550.0]) {
            self.cost_panel(&mut canvas, family, left);
        }
        if forwarded > 0.0 {
            self.forward_panel(&mut canvas, bars_at);
        }
        canvas.0.push_str("</svg>\n");
        canvas.0
    }

    /// Where the figures are from.
    fn taken(&self) -> String {
        let machine = &self.machine;
        let mut taken = format!(
            "{}, {} CPUs, kernel {}, commit {}, {}; {} opt-outs",
            machine.cpu.as_deref().unwrap_or("unknown CPU"),
            machine.cpus.map_or("?".to_owned(), |cpus| cpus.to_string()),
            machine.kernel,
            machine.commit.as_deref().unwrap_or("unknown"),
            machine.date.strftime("%Y-%m-%d"),
            self.plan.opt_outs,
        );
        if self.quick {
            taken.push_str(" - A QUICK RUN: THE FIGURES MEAN NOTHING");
        }
        taken
    }

    fn cost_panel(&self, canvas: &mut Canvas, family: Family, left: f64) {
        let (top, width, height) = (95.0, 340.0, 290.0);
        let sizes = &self.plan.sizes;
        let (first, last) = (*DECADES.start(), *DECADES.end());
        let across = |at: usize| left + width * (at as f64 + 0.5) / sizes.len() as f64;
        let up = |ns: f64| {
            let share = (ns.max(1.0).log10() - f64::from(first)) / f64::from(last - first);
            top + height * (1.0 - share.clamp(0.0, 1.0))
        };
        let title = match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        canvas.text(
            (left, top - 14.0),
            "start",
            r#"font-weight="bold""#,
            &format!("{title}: ns added over the empty program"),
        );
        for decade in DECADES {
            let ns = 10f64.powi(decade);
            let at = up(ns);
            let style = r##"stroke="#e0e0e0""##;
            canvas.line((left, at), (left + width, at), style);
            canvas.text((left - 8.0, at + 4.0), "end", "", &format!("{ns}"));
        }
        for (at, entries) in sizes.iter().enumerate() {
            let below = (across(at), top + height + 20.0);
            canvas.text(below, "middle", "", &thousands(*entries));
        }
        canvas.text(
            (left + width / 2.0, top + height + 40.0),
            "middle",
            "",
            "entries in the list",
        );
        let rows = self.compared();
        let of = |name: &str, entries: Option<usize>| {
            rows.iter()
                .find(|compared| {
                    let row = compared.row;
                    row.family == family
                        && row.measured.name() == name
                        && row.traffic == Traffic::Miss
                        && row.measured.prefixes() == entries
                })
                .map(|compared| compared.added.median)
        };
        let budget = up(67.0);
        let style = format!(r#"stroke="{GREY}" stroke-dasharray="5 4""#);
        canvas.line((left, budget), (left + width, budget), &style);
        for (at, (name, colour)) in CURVES.into_iter().enumerate() {
            let points: Vec<(f64, f64)> = sizes
                .iter()
                .enumerate()
                .filter_map(|(at, entries)| Some((across(at), up(of(name, Some(*entries))?))))
                .collect();
            canvas.curve(&points, colour);
            // A legend, since curves may lie upon each other.
            let (x, y) = (left + at as f64 * 120.0, top + height + 62.0);
            canvas.line(
                (x, y - 4.0),
                (x + 22.0, y - 4.0),
                &format!(r#"stroke="{colour}" stroke-width="3""#),
            );
            canvas.text((x + 28.0, y), "start", "", name);
        }
        // Beside the curves, which may run anywhere.
        let lines = ["67 ns:", "10 Gbit/s of", "smallest packets"];
        for (line, below) in lines.into_iter().zip([-8.0, 4.0, 16.0]) {
            canvas.text(
                (left + width + 5.0, budget + below),
                "start",
                r##"fill="#777777" font-size="11""##,
                line,
            );
        }
    }

    fn forward_panel(&self, canvas: &mut Canvas, top: f64) {
        let (left, width) = (130.0, 470.0);
        canvas.text(
            (20.0, top + 20.0),
            "start",
            r#"font-size="18" font-weight="bold""#,
            "Packets forwarded through a veth pair by one CPU, IPv4, million a second",
        );
        let rows = self.forwarded();
        let most = rows
            .iter()
            .map(|row| row.rate.median)
            .fold(f64::MIN_POSITIVE, f64::max);
        for (at, row) in rows.iter().enumerate() {
            let y = top + 40.0 + at as f64 * 30.0;
            let name = row.candidate.name;
            let fill = match name {
                "matcher" => "#009e73",
                "plain-tries" => "#d55e00",
                _ => GREY,
            };
            let length = width * row.rate.median / most;
            canvas.text((left - 10.0, y + 15.0), "end", "", name);
            canvas.rectangle((left, y), (length, 21.0), fill);
            let label = format!(
                "{:.2} ({:.0} % of pass-only), {} entries",
                row.rate.median / 1e6,
                row.of_pass_only.median * 100.0,
                thousands(row.candidate.entries),
            );
            canvas.text((left + length + 8.0, y + 15.0), "start", "", &label);
        }
    }
}

/// "1k", "100k", "1M".
fn thousands(number: usize) -> String {
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => format!("{}k", number / 1_000),
        _ => {
            format!("{:.3}", number as f64 / 1e6)
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
                + "M"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_on_axes_are_short() {
        let cases = [(0, "0"), (950, "950"), (10_000, "10k"), (1_000_000, "1M")];
        for (number, expected) in cases {
            assert_eq!(thousands(number), expected);
        }
        assert_eq!(thousands(1_500_000), "1.5M");
    }
}
