//! What no list may bring in, each failure seen in the field by its name: a
//! list that is read from a file and the same list fetched from a server pass
//! the same guards.

use std::{collections::BTreeSet, fs, net::IpAddr};

use anyhow::{Result, ensure};
use jiff::{Timestamp, ToSpan as _};
use matcher_tests::feed_server::{FeedServer, reply};
use matcher_user::{
    indicator::Indicator,
    indicators::IndicatorSet,
    instance::{Answer, FetchReport, Instance, InstanceError, Quiet},
};
use tempfile::TempDir;

const CONFIG: &str = r#"
[consent]
model = "opt-out"
notice_since = 2026-01-01T00:00:00Z
no_list = true

[subscribers]
prefixes = ["203.0.113.0/24", "2001:db8:100::/40"]

[[feed]]
name = "list"
format = "{format}"
{place}
{feed}

[guards]
own_prefixes = ["198.51.100.128/25"]
{guards}
"#;

/// An edge without a kernel: what a load would put in force.
struct Edge {
    folder: TempDir,
    instance: Instance,
    server: Option<FeedServer>,
}

/// What a load did.
struct Loaded {
    /// The values in force, with their ports.
    values: BTreeSet<String>,
    set: IndicatorSet,
    answer: Answer,
}

impl Edge {
    fn new(format: &str, feed: &str, guards: &str, fetched: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let server = fetched.then(FeedServer::start).transpose()?;
        let place = match &server {
            Some(server) => format!("url = \"{}\"", server.url("/list")),
            None => "path = \"list\"".to_owned(),
        };
        let paths = "[paths]\nrun_dir = \"run\"\nstate_dir = \"state\"\n";
        let text = CONFIG
            .replace("{format}", format)
            .replace("{place}", &place)
            .replace("{feed}", feed)
            .replace("{guards}", guards);
        let path = folder.path().join("matcher.toml");
        fs::write(folder.path().join("list"), "")?;
        fs::write(&path, format!("{paths}{text}"))?;
        fs::create_dir_all(folder.path().join("state"))?;
        fs::create_dir_all(folder.path().join("run"))?;
        Ok(Self {
            instance: Instance::of_config(&path)?,
            folder,
            server,
        })
    }

    /// Whoever publishes the list has another one now.
    fn publish(&self, text: &str) -> Result<()> {
        let Some(server) = &self.server else {
            fs::write(self.folder.path().join("list"), text)?;
            return Ok(());
        };
        let body = text.to_owned();
        server.on("/list", move |_, out| reply(out, 200, &[], body.as_bytes()));
        let feeds = &self.instance.config()?.feeds;
        match self.instance.fetch(&feeds[0], &Quiet) {
            FetchReport::New(_) | FetchReport::Same(_) | FetchReport::Failed(_) => Ok(()),
        }
    }

    /// Other guards, as after SIGHUP.
    fn guard(&mut self, from: &str, to: &str) -> Result<()> {
        let path = self.folder.path().join("matcher.toml");
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(from), "the configuration has no {from:?}");
        fs::write(&path, text.replacen(from, to, 1))?;
        self.instance = Instance::of_config(&path)?;
        Ok(())
    }

    fn load(&self) -> Result<Loaded, InstanceError> {
        let config = self.instance.config()?;
        let guards = self
            .instance
            .guards_with(config.subscribers.prefixes.iter().copied())?;
        let mut answer = Answer::default();
        let prepared = self
            .instance
            .prepare(&guards, &config.feeds, &mut answer, &Quiet)?;
        // As a load does once the kernel has switched.
        prepared.catalog.save(&self.instance.catalog_path())?;
        Ok(Loaded {
            values: prepared.set.iter().map(text).collect(),
            set: prepared.set,
            answer,
        })
    }
}

fn text(indicator: &Indicator) -> String {
    match indicator.qualifier.port {
        Some(port) => format!("{} port {port}", indicator.value_text()),
        None => indicator.value_text(),
    }
}

/// Does it with a file and with a server.
fn both(
    format: &str,
    feed: &str,
    guards: &str,
    test: impl Fn(&mut Edge) -> Result<()>,
) -> Result<()> {
    for fetched in [false, true] {
        test(&mut Edge::new(format, feed, guards, fetched)?)?;
    }
    Ok(())
}

/// Of a list of these lines and a good one, only the good one is in force, and
/// each other is refused by its line.
fn refused(lines: &[&str], reason: &str) -> Result<()> {
    both("plain", "", "", |edge| {
        edge.publish(&format!("45.61.137.10\n{}\n", lines.join("\n")))?;
        let loaded = edge.load()?;
        assert_eq!(loaded.values, set(&["45.61.137.10"]));
        for number in 2..lines.len() + 2 {
            let said = loaded
                .answer
                .err
                .lines()
                .find(|line| line.contains(&format!(":{number}: ")));
            assert!(
                said.is_some_and(|line| line.contains(reason)),
                "line {number}: {}",
                loaded.answer.err
            );
        }
        Ok(())
    })
}

fn set(values: &[&str]) -> BTreeSet<String> {
    values.iter().map(|it| (*it).to_owned()).collect()
}

fn many(entries: u8) -> String {
    (0..entries).map(|it| format!("45.61.137.{it}\n")).collect()
}

/// The last good list stays when this is what the publisher has now.
fn stays(body: &str) -> Result<()> {
    both("sslbl-csv", "", "", |edge| {
        edge.publish("# Firstseen,DstIP,DstPort\n2024-01-01 00:00:00,45.61.137.10,443\n")?;
        let before = edge.load()?.values;
        assert_eq!(before, set(&["45.61.137.10 port 443"]));
        edge.publish(body)?;
        let after = edge.load()?;
        assert_eq!(after.values, before, "{}", after.answer.err);
        Ok(())
    })
}

#[test]
fn an_empty_file_with_200_does_not_empty_the_list() -> Result<()> {
    stays("")
}

#[test]
fn a_file_of_comments_alone_does_not_empty_the_list() -> Result<()> {
    stays("# Firstseen,DstIP,DstPort\n# Number of entries: 0\n")
}

#[test]
fn a_file_that_says_deprecated_does_not_empty_the_list() -> Result<()> {
    stays("# Firstseen,DstIP,DstPort\n# ATTENTION: This list has been deprecated on 2025-01-03\n")
}

#[test]
fn a_list_that_shrank_below_the_configured_share_is_held_back_and_reported() -> Result<()> {
    for (share, kept) in [("0.5", 100), ("0.3", 40)] {
        let feed = format!("min_remaining_share = {share}");
        both("plain", &feed, "", |edge| {
            edge.publish(&many(100))?;
            assert_eq!(edge.load()?.values.len(), 100);
            edge.publish(&many(40))?;
            let loaded = edge.load()?;
            assert_eq!(loaded.values.len(), kept, "{share}");
            assert_eq!(
                loaded.answer.err.contains("40 entries now, 100 before"),
                kept == 100,
                "{}",
                loaded.answer.err
            );
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_tiny_list_is_no_error() -> Result<()> {
    both("plain", "", "", |edge| {
        edge.publish(&many(3))?;
        assert_eq!(edge.load()?.values.len(), 3);
        edge.publish(&many(1))?;
        let loaded = edge.load()?;
        assert_eq!(loaded.values.len(), 1);
        assert_eq!((loaded.answer.exit, loaded.answer.err.as_str()), (0, ""));
        Ok(())
    })
}

#[test]
fn bogons_and_private_space_are_refused() -> Result<()> {
    refused(
        &[
            "0.1.2.3",
            "10.0.0.0/8",
            "127.0.0.1",
            "192.168.1.1",
            "fd00::1",
        ],
        " is in ",
    )
}

#[test]
fn shared_space_is_refused() -> Result<()> {
    refused(&["100.64.0.0/10", "100.64.0.1"], "100.64.0.0/10")
}

#[test]
fn multicast_is_refused() -> Result<()> {
    refused(&["224.0.0.1", "ff02::1"], "multicast")
}

#[test]
fn the_operators_own_prefixes_are_refused() -> Result<()> {
    refused(
        &["198.51.100.129", "198.51.100.0/24"],
        "the operator's own space",
    )
}

#[test]
fn the_subscriber_space_is_refused() -> Result<()> {
    refused(
        &["203.0.113.7", "203.0.112.0/22", "2001:db8:100::/48"],
        "the operator's own space",
    )
}

#[test]
fn default_routes_are_refused() -> Result<()> {
    refused(&["0.0.0.0/0", "::/0"], "is a default route")
}

#[test]
fn over_wide_prefixes_are_refused() -> Result<()> {
    refused(&["44.0.0.0/11", "2a00::/23"], "is wider than")
}

#[test]
fn well_known_shared_services_are_refused() -> Result<()> {
    refused(&["8.8.8.8", "1.1.1.1", "198.41.0.4"], "never matched")
}

#[test]
fn an_own_entry_is_matched_once_a_person_confirmed_it_and_no_other() -> Result<()> {
    let guards = r#"confirmed = [{ value = "203.0.113.66", by = "A. Person", reason = "seen", at = 2026-01-02T00:00:00Z }]"#;
    both("plain", "", guards, |edge| {
        edge.publish("203.0.113.66\n203.0.113.67\n203.0.113.64/30\n")?;
        assert_eq!(edge.load()?.values, set(&["203.0.113.66"]));
        Ok(())
    })
}

#[test]
fn a_new_allowlist_entry_takes_its_indicator_out() -> Result<()> {
    both("plain", "", "", |edge| {
        edge.publish("45.61.137.10\n45.61.138.0/24\n")?;
        assert_eq!(edge.load()?.values.len(), 2);
        edge.guard(
            "[guards]\n",
            "[guards]\nallow = [{ value = \"45.61.138.7\", reason = \"ticket 1\" }]\n",
        )?;
        assert_eq!(edge.load()?.values, set(&["45.61.137.10"]));
        Ok(())
    })
}

/// With nothing else to match, the last good list would stay: but not what
/// the operator takes out.
#[test]
fn a_new_allowlist_entry_takes_the_only_indicator_out() -> Result<()> {
    both("plain", "", "", |edge| {
        edge.publish("45.61.138.7\n")?;
        assert_eq!(edge.load()?.values.len(), 1);
        edge.guard(
            "[guards]\n",
            "[guards]\nallow = [{ value = \"45.61.138.7\", reason = \"ticket 1\" }]\n",
        )?;
        let loaded = edge.load()?;
        assert_eq!(loaded.values, set(&[]));
        assert!(
            loaded.answer.err.contains("guards refuse all of it now"),
            "{}",
            loaded.answer.err
        );
        assert_eq!(loaded.answer.exit, 1, "the feed is of no use");
        Ok(())
    })
}

#[test]
fn a_last_good_list_passes_the_guards_of_today() -> Result<()> {
    both("plain", "", "", |edge| {
        edge.publish("45.61.137.10\n45.61.138.7\n")?;
        assert_eq!(edge.load()?.values.len(), 2);
        edge.publish("<html>\n")?;
        if edge.server.is_some() {
            // The copy is the last good list itself; without it, what was
            // listed is.
            let copy = edge.folder.path().join("state/feeds/list/copy");
            fs::remove_file(copy)?;
        }
        edge.guard(
            "[guards]\n",
            "[guards]\nallow = [{ value = \"45.61.138.0/24\", reason = \"ticket 1\" }]\n",
        )?;
        let loaded = edge.load()?;
        assert_eq!(loaded.values, set(&["45.61.137.10"]));
        assert!(
            loaded.answer.err.contains("without 1 that guards refuse"),
            "{}",
            loaded.answer.err
        );
        Ok(())
    })
}

#[test]
fn a_cidr_stays_a_cidr_and_ipv6_stays_ipv6() -> Result<()> {
    both("plain", "", "", |edge| {
        edge.publish("45.61.138.0/23\n2a0e:97c0::/32\n[2a0e:97c1::7]:80\n2a0e:97c1::8\n")?;
        assert_eq!(
            edge.load()?.values,
            set(&[
                "45.61.138.0/23",
                "2a0e:97c0::/32",
                "2a0e:97c1::7 port 80",
                "2a0e:97c1::8"
            ])
        );
        Ok(())
    })
}

#[test]
fn quoted_values_are_unquoted() -> Result<()> {
    both("feodo-csv", "", "", |edge| {
        edge.publish(
            "\"first_seen_utc\",\"dst_ip\",\"dst_port\",\"c2_status\",\"last_online\",\"malware\"\n\
             \"2023-05-23 17:51:44\",\"45.61.137.10\",\"1194\",\"online\",\"2024-04-01\",\"Pikabot\"\n",
        )?;
        assert_eq!(edge.load()?.values, set(&["45.61.137.10 port 1194"]));
        Ok(())
    })
}

#[test]
fn indicators_expire_one_by_one() -> Result<()> {
    both("plain", "", "", |edge| {
        let now = Timestamp::now();
        let (soon, later) = (now + 1.hour(), now + 3.hours());
        edge.publish(&format!(
            "45.61.137.10 until={soon:.0}\n45.61.137.11 until={later:.0}\n45.61.137.12\n"
        ))?;
        let set = edge.load()?.set;
        let matches = |host: u8, at: Timestamp| {
            let ip = IpAddr::from([45, 61, 137, host]);
            !set.lookup(ip, None, None, at).is_empty()
        };
        let at = |at| [10, 11, 12].map(|host| matches(host, at));
        assert_eq!(at(now), [true, true, true]);
        assert_eq!(at(now + 2.hours()), [false, true, true]);
        assert_eq!(at(now + 4.hours()), [false, false, true]);
        Ok(())
    })
}

#[test]
fn confidence_below_the_threshold_is_not_loaded() -> Result<()> {
    both("plain", "min_confidence = 60", "", |edge| {
        edge.publish("45.61.137.10 confidence=59\n45.61.137.11 confidence=60\n45.61.137.12\n")?;
        let loaded = edge.load()?;
        assert_eq!(loaded.values, set(&["45.61.137.11", "45.61.137.12"]));
        assert!(
            loaded
                .answer
                .err
                .contains(":1: 45.61.137.10 has confidence 59"),
            "{}",
            loaded.answer.err
        );
        Ok(())
    })
}

#[test]
fn the_same_indicator_from_several_feeds_is_one_that_names_them_all() -> Result<()> {
    both("plain", "", "", |edge| {
        edge.guard(
            "[guards]\n",
            "[[feed]]\nname = \"other\"\nformat = \"netset\"\npath = \"other\"\n\n[guards]\n",
        )?;
        fs::write(edge.folder.path().join("other"), "45.61.137.10\n")?;
        edge.publish("45.61.137.10\n")?;
        let set = edge.load()?.set;
        let feeds: Vec<String> = set.iter().map(|it| it.feeds().join(" ")).collect();
        assert_eq!(feeds, ["list other"]);
        Ok(())
    })
}

#[test]
fn a_list_of_attackers_sources_is_no_cc_list_unless_the_operator_says_so() -> Result<()> {
    let refused = Edge::new("dshield", "", "", false).err();
    let refused = refused.map_or_else(String::new, |error| error.to_string());
    assert!(refused.contains("match_attackers"), "{refused}");
    both("dshield", "match_attackers = true", "", |edge| {
        edge.publish(
            "Start\tEnd\tNetblock\tAttacks\tName\tCountry\temail\n\
             45.61.137.0\t45.61.137.255\t24\t788\tSomebody\tUS\tabuse@example.net\n",
        )?;
        assert_eq!(edge.load()?.values, set(&["45.61.137.0/24"]));
        Ok(())
    })
}

/// `guards.max_bad_share`, and a feed's own.
#[test]
fn the_share_of_bad_lines_that_makes_a_feed_broken_is_configurable() -> Result<()> {
    let half = "45.61.137.10\n45.61.137.11\nwhat\nis this\n";
    for (feed, guards, used) in [
        ("", "", true),
        ("max_bad_share = 0.4", "", false),
        ("", "max_bad_share = 0.4", false),
        ("max_bad_share = 0.6", "max_bad_share = 0.4", true),
    ] {
        both("plain", feed, guards, |edge| {
            edge.publish("45.61.137.1\n")?;
            edge.load()?;
            edge.publish(half)?;
            let expected = if used {
                set(&["45.61.137.10", "45.61.137.11"])
            } else {
                set(&["45.61.137.1"])
            };
            assert_eq!(edge.load()?.values, expected, "{feed} {guards}");
            Ok(())
        })?;
    }
    Ok(())
}
