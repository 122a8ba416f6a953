//! A feed of each format: how fast its lines are read, and what an entry takes in
//! memory.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use matcher_user::{
    feeds::{self, Format, Guards},
    indicators::{Catalog, IndicatorSet, Listed},
};
use serde_json::{Value, json};

use super::{
    Bench,
    again::{Told, again, peak_bytes},
};

/// A format's feed, each time in a process of its own.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The format.
    pub format: Format,
    /// Entries of the feed.
    pub entries: u32,
    /// What each process measured.
    pub times: Vec<Times>,
    /// What an entry took in memory, at most: the peak after parsing less the
    /// one before, the text being in memory both times.
    pub entry_bytes: u64,
    /// The most memory that a process had at once, text and merged set included.
    pub peak_bytes: u64,
}

/// What the steps of reading a feed took.
#[derive(Copy, Clone, Debug)]
pub struct Times {
    /// From text to entries.
    pub parse: Duration,
    /// Through the guards.
    pub guard: Duration,
    /// Into one set with ids.
    pub merge: Duration,
}

impl Reading {
    /// Entries parsed in a second, in each process.
    pub fn per_second(&self) -> impl Iterator<Item = f64> {
        let entries = f64::from(self.entries);
        self.times
            .iter()
            .map(move |times| entries / times.parse.as_secs_f64())
    }
}

/// Reads a feed of every format, in new processes: so the peak of memory is that
/// feed's.
pub(super) fn measure(bench: &Bench<'_>, say: &mut dyn FnMut(&str)) -> Result<Vec<Reading>> {
    let entries = bench.plan.feed_entries;
    Format::ALL
        .into_iter()
        .map(|format| {
            say(&format!("reading {entries} entries of a {format} feed"));
            let mut reading = Reading {
                format,
                entries,
                times: Vec::new(),
                entry_bytes: 0,
                peak_bytes: 0,
            };
            for _ in 0..bench.plan.loads {
                let entries = entries.to_string();
                let told = again(&[
                    "read-once",
                    "--format",
                    format.name(),
                    "--entries",
                    &entries,
                ])
                .with_context(|| format!("reading a {format} feed"))?;
                reading.add(&told)?;
            }
            Ok(reading)
        })
        .collect()
}

impl Reading {
    fn add(&mut self, told: &Told) -> Result<()> {
        self.times.push(Times {
            parse: told.time("parse_ns")?,
            guard: told.time("guard_ns")?,
            merge: told.time("merge_ns")?,
        });
        self.entry_bytes = self.entry_bytes.max(told.number("entry_bytes")?);
        self.peak_bytes = self.peak_bytes.max(told.number("peak_bytes")?);
        Ok(())
    }
}

/// Reads one feed and tells of it.
///
/// # Errors
/// An entry was not read.
pub fn once(format: Format, entries: u32) -> Result<Value> {
    let text = list(format, entries)?;
    let before = peak_bytes()?;
    let begin = Instant::now();
    let mut feed = feeds::parse(format, text.as_bytes());
    let parse = begin.elapsed();
    let after = peak_bytes()?;
    let read = feed.entries.len() + feed.names.len();
    ensure!(
        read == entries as usize,
        "{format}: {read} entries of {entries} were read"
    );
    drop(text);
    let begin = Instant::now();
    Guards::default().apply(&mut feed.entries);
    Guards::default().apply_to_names(&mut feed.names);
    let guard = begin.elapsed();
    let begin = Instant::now();
    let (set, _catalog) = IndicatorSet::merge(
        &Catalog::default(),
        &[Listed {
            feed: "bulk",
            entries: &feed.entries,
            names: &feed.names,
        }],
        Timestamp::UNIX_EPOCH,
    )?;
    let merge = begin.elapsed();
    let kept = set.len() + set.names().len();
    ensure!(
        kept == entries as usize,
        "{format}: {kept} entries of {entries} are left"
    );
    let ns = |step: Duration| u64::try_from(step.as_nanos()).unwrap_or(u64::MAX);
    Ok(json!({
        "parse_ns": ns(parse),
        "guard_ns": ns(guard),
        "merge_ns": ns(merge),
        // The kernel sums up pages of several CPUs roughly: a list of a few entries
        // may seem to have taken less than nothing.
        "entry_bytes": after.saturating_sub(before) / u64::from(entries.max(1)),
        "peak_bytes": peak_bytes()?,
    }))
}

/// A list of different addresses, none of which guards refuse.
fn list(format: Format, entries: u32) -> Result<String> {
    let mut text = String::from(match format {
        Format::FeodoCsv => "first_seen_utc,dst_ip,dst_port,c2_status,last_online,malware\n",
        Format::ThreatfoxCsv => {
            "# \"first_seen_utc\",\"ioc_id\",\"ioc_value\",\"ioc_type\",\"threat_type\",\"malware_printable\",\"confidence_level\"\n"
        }
        Format::SslblCsv => "# Firstseen,DstIP,DstPort\n",
        Format::Dshield => "Start\tEnd\tNetblock\tAttacks\tName\tCountry\temail\n",
        Format::Cymru => "#category|address|asn|timestamp|optional_information|asninfo\n",
        Format::Rpz => {
            "$TTL 30\n@ SOA rpz.example. hostmaster.example. 1 300 1800 604800 30\n NS localhost.\n"
        }
        Format::Stix => "{\"type\":\"bundle\",\"objects\":[\n",
        Format::Taxii => "{\"more\":false,\"objects\":[\n",
        Format::FeodoJson => "[\n",
        Format::ThreatfoxJson => "{\n",
        Format::Misp => {
            "{\"Event\":{\"uuid\":\"5e0a5cb0-0000-4000-8000-000000000000\",\"info\":\"bulk\",\"date\":\"2026-01-01\",\"Attribute\":[\n"
        }
        Format::Plain | Format::Netset | Format::EtBlock | Format::SpamhausDrop => "",
    });
    for number in 0..entries {
        let address = Ipv4Addr::from(0x1400_0000 + number * 7);
        let comma = if number == 0 { "" } else { "," };
        match format {
            Format::Plain | Format::Netset | Format::EtBlock => writeln!(text, "{address}")?,
            Format::FeodoCsv => writeln!(
                text,
                "\"2023-05-23 17:51:44\",\"{address}\",\"1194\",\"online\",\"2024-04-01\",\"Pikabot\""
            )?,
            Format::FeodoJson => writeln!(
                text,
                "{comma}{{\"ip_address\":\"{address}\",\"port\":1194,\"status\":\"online\",\
                 \"first_seen\":\"2021-01-17 07:44:46\",\"last_online\":\"2022-11-15\",\"malware\":\"Dridex\"}}"
            )?,
            Format::ThreatfoxCsv => writeln!(
                text,
                "\"2026-08-30 01:20:00\", \"{number}\", \"{address}:8080\", \"ip:port\", \"botnet_cc\", \"Gh0st\", \"80\""
            )?,
            Format::ThreatfoxJson => writeln!(
                text,
                "{comma}\"{number}\":[{{\"ioc_value\":\"{address}:8080\",\"ioc_type\":\"ip:port\",\
                 \"threat_type\":\"botnet_cc\",\"malware_printable\":\"Gh0st\",\
                 \"first_seen_utc\":\"2026-08-30 01:20:00\",\"confidence_level\":80}}]"
            )?,
            Format::SslblCsv => writeln!(text, "2024-01-01 00:00:00,{address},443")?,
            Format::Dshield => {
                let first = 0x1400_0000 + number * 256;
                let (first, last) = (Ipv4Addr::from(first), Ipv4Addr::from(first + 255));
                writeln!(
                    text,
                    "{first}\t{last}\t24\t788\tSomebody\tUS\tabuse@example.net"
                )?;
            }
            Format::SpamhausDrop => writeln!(
                text,
                "{{\"cidr\":\"{address}/32\",\"sblid\":\"SBL{number}\",\"rir\":\"apnic\"}}"
            )?,
            Format::Cymru => writeln!(
                text,
                "controller|{address}|64496|2019-03-25 05:50:45|family: nivdort;|Example AS Name, AT"
            )?,
            Format::Rpz => writeln!(text, "c2-{number}.example CNAME .")?,
            Format::Misp => writeln!(
                text,
                "{comma}{{\"uuid\":\"5e0a5cb0-0000-4000-8000-{number:012x}\",\"type\":\"ip-dst|port\",\
                 \"category\":\"Network activity\",\"value\":\"{address}|443\",\"to_ids\":true,\
                 \"timestamp\":\"1603642920\"}}"
            )?,
            Format::Stix | Format::Taxii => writeln!(
                text,
                "{comma}{{\"type\":\"indicator\",\"id\":\"indicator--{number:032x}\",\"modified\":\"2026-01-01T00:00:00Z\",\
                 \"pattern_type\":\"stix\",\"pattern\":\"[ipv4-addr:value = '{address}']\",\"valid_from\":\"2026-01-01T00:00:00Z\"}}"
            )?,
        }
    }
    text += match format {
        Format::Stix | Format::Taxii => "]}",
        Format::FeodoJson => "]",
        Format::ThreatfoxJson => "}",
        Format::Misp => "]}}",
        _ => "",
    };
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_every_format_each_entry_is_read_and_kept() {
        for format in Format::ALL {
            let told = once(format, 1_000).unwrap();
            assert!(told["parse_ns"].as_u64().unwrap() > 0, "{format}: {told}");
        }
    }
}
