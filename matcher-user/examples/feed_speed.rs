//! How fast a bulk list is parsed, and what an entry of it costs in memory:
//!
//! ```text
//! cargo run --release -p matcher-user --example feed_speed
//! ```
//!
//! Peak memory is the kernel's own figure (`VmHWM`), so each format runs in a
//! process of its own.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::Ipv4Addr,
    process::{Command, ExitCode},
    time::Instant,
};

use jiff::Timestamp;
use matcher_user::{
    feeds::{self, Format, Guards},
    indicators::{Catalog, IndicatorSet, Listed},
};

const ENTRIES: u32 = 1_000_000;

fn main() -> ExitCode {
    let mut out = std::io::stdout();
    let mut arguments = std::env::args().skip(1);
    if let Some(format) = arguments.next() {
        let Ok(format) = format.parse::<Format>() else {
            eprintln!("{format}: no such format");
            return ExitCode::from(2);
        };
        let written = measure(format).and_then(|line| Ok(writeln!(out, "{line}")?));
        return match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    for format in Format::ALL {
        let done =
            std::env::current_exe().and_then(|own| Command::new(own).arg(format.name()).status());
        if !done.is_ok_and(|status| status.success()) {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// One line about one format.
fn measure(format: Format) -> Result<String, Box<dyn std::error::Error>> {
    let text = list(format)?;
    let before = peak()?;
    let begin = Instant::now();
    let mut feed = feeds::parse(format, text.as_bytes());
    let parsed = begin.elapsed();
    let after = peak()?;
    let entries = feed.entries.len() + feed.names.len();
    if entries != ENTRIES as usize {
        return Err(format!("{format}: {entries} entries of {ENTRIES} were read").into());
    }
    drop(text);
    let begin = Instant::now();
    Guards::default().apply(&mut feed.entries);
    Guards::default().apply_to_names(&mut feed.names);
    let guarded = begin.elapsed();
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
    let merged = begin.elapsed();
    Ok(format!(
        "{format:<14} {entries} entries: parsed in {:.2} s ({:.2} million lines/s), {} bytes an entry; \
         guarded in {:.2} s; merged into {} in {:.2} s; peak {} MiB",
        parsed.as_secs_f64(),
        f64::from(ENTRIES) / parsed.as_secs_f64() / 1e6,
        (after - before) / entries.max(1),
        guarded.as_secs_f64(),
        set.len() + set.names().len(),
        merged.as_secs_f64(),
        peak()? >> 20,
    ))
}

/// A list of different addresses, none of which guards refuse.
fn list(format: Format) -> Result<String, std::fmt::Error> {
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
    for number in 0..ENTRIES {
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

/// Most memory that this process ever had, in bytes.
fn peak() -> Result<usize, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .ok_or("no VmHWM")?;
    let kibibytes: usize = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes * 1024)
}
