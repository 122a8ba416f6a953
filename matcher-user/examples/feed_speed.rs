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
    process::{Command, ExitCode},
    time::Instant,
};

use jiff::Timestamp;
use matcher_user::{
    feeds::{self, Format, Guards},
    indicators::{Catalog, IndicatorSet},
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
    for format in [
        "plain",
        "netset",
        "feodo-csv",
        "threatfox-csv",
        "spamhaus-drop",
        "stix",
    ] {
        let done = std::env::current_exe().and_then(|own| Command::new(own).arg(format).status());
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
    let entries = feed.entries.len();
    drop(text);
    let begin = Instant::now();
    Guards::default().apply(&mut feed.entries);
    let guarded = begin.elapsed();
    let begin = Instant::now();
    let (set, _catalog) = IndicatorSet::merge(
        &Catalog::default(),
        &[("bulk", feed.entries.as_slice())],
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
        set.len(),
        merged.as_secs_f64(),
        peak()? >> 20,
    ))
}

/// A list of different addresses, none of which guards refuse.
fn list(format: Format) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    match format {
        Format::FeodoCsv => {
            text += "first_seen_utc,dst_ip,dst_port,c2_status,last_online,malware\n"
        }
        Format::ThreatfoxCsv => {
            text += "# \"first_seen_utc\",\"ioc_id\",\"ioc_value\",\"ioc_type\",\"threat_type\",\"malware_printable\",\"confidence_level\"\n";
        }
        Format::Stix => text += "{\"type\":\"bundle\",\"objects\":[\n",
        _ => {}
    }
    for number in 0..ENTRIES {
        let address = std::net::Ipv4Addr::from(0x1400_0000 + number * 7);
        match format {
            Format::FeodoCsv => writeln!(
                text,
                "\"2023-05-23 17:51:44\",\"{address}\",\"1194\",\"online\",\"2024-04-01\",\"Pikabot\""
            )?,
            Format::ThreatfoxCsv => writeln!(
                text,
                "\"2026-08-30 01:20:00\", \"{number}\", \"{address}:8080\", \"ip:port\", \"botnet_cc\", \"Gh0st\", \"80\""
            )?,
            Format::SpamhausDrop => {
                writeln!(
                    text,
                    "{{\"cidr\":\"{address}/32\",\"sblid\":\"SBL{number}\",\"rir\":\"apnic\"}}"
                )?;
            }
            Format::Stix => writeln!(
                text,
                "{}{{\"type\":\"indicator\",\"id\":\"indicator--{number:032x}\",\"modified\":\"2026-01-01T00:00:00Z\",\
                 \"pattern_type\":\"stix\",\"pattern\":\"[ipv4-addr:value = '{address}']\",\"valid_from\":\"2026-01-01T00:00:00Z\"}}",
                if number == 0 { "" } else { "," }
            )?,
            _ => writeln!(text, "{address}")?,
        }
    }
    if format == Format::Stix {
        text += "]}";
    }
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
