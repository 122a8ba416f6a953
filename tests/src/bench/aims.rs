//! What was set out to be reached, held against what was measured.

use matcher_user::feeds::Format;

use super::{Family, drain::Reader, report::Report, spread::Spread, traffic::Traffic};

/// Which side of the bound is the good one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// At most so much.
    AtMost,
    /// At least so much.
    AtLeast,
}

/// One aim.
#[derive(Clone, Debug)]
pub struct Aim {
    /// What it speaks of.
    pub what: String,
    /// Which side of `limit` is good.
    pub bound: Bound,
    /// The bound.
    pub limit: f64,
    /// The median of what was measured, round by round where rounds can be
    /// paired; `None` where something that it takes was not measured.
    pub measured: Option<f64>,
}

impl Aim {
    /// Whether it was reached; `None` where nothing was measured.
    pub fn is_reached(&self) -> Option<bool> {
        self.measured.map(|measured| match self.bound {
            Bound::AtMost => measured <= self.limit,
            Bound::AtLeast => measured >= self.limit,
        })
    }
}

/// List and entries that a row is looked up by.
type Place = (&'static str, Traffic, usize);

impl Report {
    /// Every aim.
    pub fn aims(&self) -> Vec<Aim> {
        let largest = self.plan.largest();
        let tenth = largest / 10;
        let mut aims = Vec::new();
        let mut aim = |what: String, bound, limit, measured| {
            aims.push(Aim {
                what,
                bound,
                limit,
                measured,
            });
        };
        for family in Family::ALL {
            let name = family.name();
            let miss = ("matcher", Traffic::Miss, largest);
            let times = match family {
                Family::V4 => 2.0,
                Family::V6 => 2.2,
            };
            aim(
                format!("{name}: miss, x parse-min"),
                Bound::AtMost,
                times,
                self.times_parse_min(family, miss),
            );
            aim(
                format!("{name}: ns that a miss adds over empty, of what plain tries add"),
                Bound::AtMost,
                1.0 / 40.0,
                self.added_of(family, miss, ("plain-tries", Traffic::Miss, largest)),
            );
            for (what, limit, of, to) in [
                (
                    "miss, of one at a tenth of the list",
                    1.3,
                    miss,
                    ("matcher", Traffic::Miss, tenth),
                ),
                (
                    "near miss, of a miss",
                    1.25,
                    ("matcher", Traffic::NearMiss, largest),
                    miss,
                ),
                (
                    "miss during a change of list, of one without",
                    1.15,
                    ("matcher-swap", Traffic::Miss, largest),
                    miss,
                ),
            ] {
                let measured = self.whole_of(family, of, to);
                aim(format!("{name}: {what}"), Bound::AtMost, limit, measured);
            }
        }
        self.aims_beside_cost(&mut aim);
        aims
    }

    fn aims_beside_cost(&self, aim: &mut dyn FnMut(String, Bound, f64, Option<f64>)) {
        let forwarded = self.forwarded();
        let rates = |name: &str| {
            let row = forwarded.iter().find(|row| row.candidate.name == name)?;
            Some(&row.candidate.rounds)
        };
        let own = rates("matcher");
        let of = |other: Option<&Vec<f64>>| {
            let ratios = own?.iter().zip(other?).map(|(own, other)| own / other);
            Spread::of(ratios).map(|spread| spread.median)
        };
        let passes = of(rates("pass-only"));
        aim(
            "forwarded, of what only passing does".into(),
            Bound::AtLeast,
            0.9,
            passes,
        );
        for row in &forwarded {
            let name = row.candidate.name;
            if !["pass-only", "matcher", "plain-tries"].contains(&name) {
                let measured = of(Some(&row.candidate.rounds));
                aim(
                    format!("forwarded, of what {name} does"),
                    Bound::AtLeast,
                    1.0,
                    measured,
                );
            }
        }
        let figures = &self.figures;
        for loading in &figures.load {
            if loading.prefixes == self.plan.largest() {
                let ratios = loading
                    .times
                    .iter()
                    .map(|times| times.total().as_secs_f64() / times.plain.as_secs_f64());
                let what = format!(
                    "{}: from file to active, of filling one plain trie",
                    loading.family.name()
                );
                let measured = Spread::of(ratios).map(|spread| spread.median);
                aim(what, Bound::AtMost, 0.5, measured);
            }
        }
        for format in [Format::Plain, Format::Netset] {
            let read = self
                .feeds()
                .into_iter()
                .find(|it| it.reading.format == format);
            let rate = read.as_ref().and_then(|it| it.per_second);
            aim(
                format!("a {format} feed: lines parsed a second"),
                Bound::AtLeast,
                1e6,
                rate.map(|rate| rate.median),
            );
            aim(
                format!("a {format} feed: bytes of memory an entry"),
                Bound::AtMost,
                300.0,
                read.map(|it| it.reading.entry_bytes as f64),
            );
        }
        let drained = |reader| figures.drain.iter().find(|one| one.reader == reader);
        let without_loss = |reader| drained(reader).and_then(|one| one.without_loss);
        let ratio = without_loss(Reader::Hits)
            .zip(without_loss(Reader::BareReader))
            .map(|(own, bare)| own / bare);
        let what = "drain: hits a second without loss, of a bare reader's".into();
        aim(what, Bound::AtLeast, 0.8, ratio);
        let what = "drain: distinct hits a second without loss".into();
        aim(what, Bound::AtLeast, 500_000.0, without_loss(Reader::Hits));
        let in_force =
            figures.opt_outs.as_ref().ok().and_then(|outs| {
                Spread::of(outs.in_force.iter().map(|took| took.as_secs_f64() * 1e3))
            });
        let what = "one more opt-out: milliseconds until the last hit, at most".into();
        aim(
            what,
            Bound::AtMost,
            100.0,
            in_force.map(|spread| spread.max),
        );
    }

    fn rounds<T>(
        &self,
        family: Family,
        (program, traffic, prefixes): Place,
        of: impl Fn(&super::cost::Row) -> T,
    ) -> Option<T> {
        self.figures
            .cost
            .rows
            .iter()
            .find(|row| {
                row.family == family
                    && row.measured.name() == program
                    && row.traffic == traffic
                    && row.measured.prefixes() == Some(prefixes)
            })
            .map(of)
    }

    fn times_parse_min(&self, family: Family, place: Place) -> Option<f64> {
        let ratios = self.rounds(family, place, |row| {
            let both = row.rounds.iter().zip(&row.parse_min);
            both.map(|(own, least)| own / least).collect::<Vec<_>>()
        })?;
        Spread::of(ratios).map(|spread| spread.median)
    }

    /// What one row adds over the empty program, of what another adds.
    fn added_of(&self, family: Family, own: Place, other: Place) -> Option<f64> {
        let added = |place| {
            self.rounds(family, place, |row| {
                let both = row.rounds.iter().zip(&row.empty);
                both.map(|(own, empty)| own - empty).collect::<Vec<_>>()
            })
        };
        let (own, other) = (added(own)?, added(other)?);
        let ratios = own.iter().zip(&other).map(|(own, other)| own / other);
        Spread::of(ratios).map(|spread| spread.median)
    }

    /// What one row takes, harness and all, of what another takes.
    fn whole_of(&self, family: Family, own: Place, other: Place) -> Option<f64> {
        let whole = |place| self.rounds(family, place, |row| row.rounds.clone());
        let (own, other) = (whole(own)?, whole(other)?);
        let ratios = own.iter().zip(&other).map(|(own, other)| own / other);
        Spread::of(ratios).map(|spread| spread.median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_is_reached_at_its_bound_and_on_its_good_side() {
        let aim = |bound, measured| Aim {
            what: "something".into(),
            bound,
            limit: 2.0,
            measured,
        };
        for (bound, measured, reached) in [
            (Bound::AtMost, Some(1.9), Some(true)),
            (Bound::AtMost, Some(2.0), Some(true)),
            (Bound::AtMost, Some(2.1), Some(false)),
            (Bound::AtLeast, Some(1.9), Some(false)),
            (Bound::AtLeast, Some(2.0), Some(true)),
            (Bound::AtLeast, None, None),
        ] {
            assert_eq!(
                aim(bound, measured).is_reached(),
                reached,
                "{bound:?} {measured:?}"
            );
        }
    }
}
