//! The closing account, and what it is held against. Pure: what was counted goes
//! in, the verdict comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context, Result};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::screen::{Screen, number};
use crate::traffic::{Contacts, Kind, Scenario};

/// What was counted, each by somebody else.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    /// Packets that the wire took.
    pub(super) sent: u64,
    /// `matcher status`: what the program in the kernel counted.
    pub(super) status: Status,
    /// `matcher tail --json`: hits by subscriber.
    pub(super) hits: BTreeMap<IpAddr, Contacts>,
    /// Standard output of `matcher run`: subscribers of candidates.
    pub(super) candidates: BTreeSet<IpAddr>,
}

/// The part of `matcher status --json` that the account needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) generation: u64,
    pub(super) packets: u64,
    pub(super) matched: u64,
    pub(super) delivered: u64,
    pub(super) folded: u64,
    pub(super) lost: u64,
    pub(super) opted_out: u64,
    pub(super) ring_used: u64,
    pub(super) modes: Vec<String>,
}

impl Status {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("`matcher status` is no JSON")?;
        let field = |pointer: &str| {
            value
                .pointer(pointer)
                .and_then(Value::as_u64)
                .with_context(|| format!("`matcher status --json` has no number {pointer}"))
        };
        let interfaces = value.pointer("/interfaces").and_then(Value::as_array);
        Ok(Self {
            generation: field("/generation")?,
            packets: field("/packets")?,
            matched: field("/hits/matched")?,
            delivered: field("/hits/delivered")?,
            folded: field("/hits/folded")?,
            lost: field("/hits/lost")?,
            opted_out: field("/counters/opted-out")?,
            ring_used: field("/ring/0")?,
            modes: interfaces
                .into_iter()
                .flatten()
                .filter_map(|interface| Some(interface.get("mode")?.as_str()?.to_owned()))
                .collect(),
        })
    }
}

/// Adds up the hits of `matcher tail --json` by subscriber.
pub(super) fn contacts(lines: &[String]) -> Result<BTreeMap<IpAddr, Contacts>> {
    let mut hits: BTreeMap<IpAddr, Contacts> = BTreeMap::new();
    for line in lines {
        let read = || {
            let value: Value = serde_json::from_str(line).ok()?;
            let subscriber: IpAddr = value.get("subscriber_ip")?.as_str()?.parse().ok()?;
            let packets = value.get("packets")?.as_u64()?;
            Some((
                subscriber,
                value.get("direction")?.as_str()? == "outbound",
                packets,
            ))
        };
        let (subscriber, outbound, packets) =
            read().with_context(|| format!("not a hit of the contract: {line}"))?;
        let contacts = hits.entry(subscriber).or_default();
        if outbound {
            contacts.outbound += packets;
        } else {
            contacts.inbound += packets;
        }
    }
    Ok(hits)
}

/// What must hold, whether it did, and the numbers that say so.
#[derive(Clone, Debug)]
struct Claim {
    key: &'static str,
    text: &'static str,
    holds: bool,
    found: String,
}

/// The account and the verdict on it.
#[derive(Clone, Debug)]
pub struct Account {
    counted: Counted,
    hits: u64,
    opted_out_calls: u64,
    forged_hits: u64,
    claims: Vec<Claim>,
}

impl Account {
    /// Holds what was counted against what had to come of the scenario.
    pub(super) fn new(scenario: &Scenario, counted: Counted) -> Result<Self> {
        let expected = &scenario.expected;
        let opted_out = opted_out(&scenario.opt_out_list)?;
        let refuses = |ip: &IpAddr| opted_out.iter().any(|prefix| prefix.contains(ip));
        let total = |contacts: &Contacts| contacts.outbound + contacts.inbound;
        let of = |ip: &IpAddr| counted.hits.get(ip).copied().unwrap_or_default();

        let hits: u64 = counted.hits.values().map(total).sum();
        let due = expected.hit_count();
        let found_due: u64 = expected
            .hits
            .iter()
            .map(|(ip, due)| {
                let found = of(ip);
                found.outbound.min(due.outbound) + found.inbound.min(due.inbound)
            })
            .sum();
        let (mut of_refusing, mut of_legitimate) = (0, 0);
        for (ip, found) in &counted.hits {
            if refuses(ip) {
                of_refusing += total(found);
            } else {
                let due = expected.hits.get(ip).copied().unwrap_or_default();
                of_legitimate += found.outbound.saturating_sub(due.outbound)
                    + found.inbound.saturating_sub(due.inbound);
            }
        }
        // Whose packets the scenario forges: nothing of their own is a hit.
        let forged = |ip: &&IpAddr| expected.hits.get(ip).is_some_and(|due| due.outbound == 0);
        let one_way = |ip: &&IpAddr| expected.hits.get(ip).is_some_and(|due| due.inbound == 0);
        let forged_hosts = expected.hits.keys().filter(forged);
        let forged_hits: u64 = forged_hosts.map(|ip| of(ip).inbound).sum();
        let forged_candidates = counted.candidates.iter().filter(forged).count();
        let one_way_candidates = counted.candidates.iter().filter(one_way).count();
        let refusing_candidates = counted.candidates.iter().filter(|ip| refuses(ip)).count();
        let other_candidates = counted
            .candidates
            .iter()
            .filter(|ip| !refuses(ip) && !expected.hits.contains_key(ip))
            .count();
        let found_candidates = expected.candidates.intersection(&counted.candidates);
        let found_candidates = found_candidates.count();

        let status = &counted.status;
        let all = scenario.packets.len() as u64;
        let claim = |key, text, holds, found| Claim {
            key,
            text,
            holds,
            found,
        };
        let claims = vec![
            claim(
                "packets_seen",
                "The program in the kernel saw every packet",
                counted.sent == all && status.packets == all,
                format!("{} of {}", number(status.packets), number(all)),
            ),
            claim(
                "contacts_hit",
                "Each packet between a consenting host and a C&C server is a hit",
                found_due == due,
                format!("{} of {}", number(found_due), number(due)),
            ),
            claim(
                "infected_found",
                "Each infected host whose C&C server answered is a candidate",
                found_candidates == expected.candidates.len(),
                format!("{found_candidates} of {}", expected.candidates.len()),
            ),
            claim(
                "opted_out_untouched",
                "Hosts that opted out: stopped before any comparison, never a hit",
                of_refusing == 0
                    && refusing_candidates == 0
                    && status.opted_out == expected.stopped_by_consent,
                format!("{of_refusing} hits, {refusing_candidates} candidates"),
            ),
            claim(
                "legitimate_untouched",
                "Legitimate traffic: also beside C&C addresses, never a hit",
                of_legitimate == 0 && other_candidates == 0,
                format!("{of_legitimate} hits, {other_candidates} candidates"),
            ),
            claim(
                "forged_no_candidate",
                "Packets forged in the name of C&C servers accuse nobody",
                forged_candidates == 0,
                format!(
                    "{} hits, {forged_candidates} candidates",
                    number(forged_hits)
                ),
            ),
            claim(
                "unanswered_no_candidate",
                "Calls that no C&C server answered accuse nobody yet",
                one_way_candidates == 0,
                format!(
                    "{} hits, {one_way_candidates} candidates",
                    number(expected.packets_of(Kind::Unanswered))
                ),
            ),
            claim(
                "nothing_lost",
                "No hit was lost between kernel and reader",
                status.lost == 0
                    && status.matched == status.delivered + status.folded + status.lost
                    && hits == status.matched,
                format!(
                    "{} matched, {} read, {} lost",
                    number(status.matched),
                    number(hits),
                    number(status.lost)
                ),
            ),
        ];
        Ok(Self {
            hits,
            opted_out_calls: expected.packets_of(Kind::OptedOut),
            forged_hits,
            claims,
            counted,
        })
    }

    /// Whether all came as it had to.
    pub fn holds(&self) -> bool {
        self.claims.iter().all(|claim| claim.holds)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let Counted {
            sent,
            status,
            candidates,
            ..
        } = &self.counted;
        let claims: BTreeMap<&str, bool> = self
            .claims
            .iter()
            .map(|claim| (claim.key, claim.holds))
            .collect();
        json!({
            "ok": self.holds(),
            "packets_sent": sent,
            "packets_seen": status.packets,
            "opted_out_passed": status.opted_out,
            "opted_out_calls_passed": self.opted_out_calls,
            "hits": self.hits,
            "hits_matched": status.matched,
            "hits_folded": status.folded,
            "hits_lost": status.lost,
            "forged_hits": self.forged_hits,
            "candidates": candidates.len(),
            "modes": status.modes,
            "claims": claims,
        })
    }

    /// For people.
    pub(super) fn show(&self, screen: Screen) {
        let Counted {
            sent,
            status,
            candidates,
            ..
        } = &self.counted;
        let row = |what: &str, value: u64, note: &str| {
            let line = format!("   {what:<58}{:>8}   {note}", number(value));
            screen.line(line.trim_end());
        };
        screen.line("");
        screen.bold("The account");
        row("packets sent", *sent, "");
        row(
            "packets seen by the program in the kernel",
            status.packets,
            "",
        );
        row(
            "packets of hosts that opted out, passed unmatched",
            status.opted_out,
            &format!(
                "({} of them to or from C&C servers)",
                number(self.opted_out_calls)
            ),
        );
        row("hits", self.hits, "");
        row(
            "hits of forged inbound packets, which made no candidate",
            self.forged_hits,
            "",
        );
        row("candidates", candidates.len() as u64, "");
        row("hits lost", status.lost, "");
        screen.line("");
        screen.bold("The verdict, against what the traffic was made to hold");
        for claim in &self.claims {
            let mark = if claim.holds { "ok    " } else { "FAILED" };
            screen.line(format_args!("   {mark} {:<68}{}", claim.text, claim.found));
        }
    }
}

/// The prefixes of those whom the list takes out of detection.
fn opted_out(list: &str) -> Result<Vec<IpNet>> {
    let mut prefixes = Vec::new();
    for line in list.lines() {
        let mut words = line
            .split('#')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let Some(subject) = words.next() else {
            continue;
        };
        let purposes = words.find_map(|word| word.strip_prefix("purposes="));
        if purposes.is_none_or(|purposes| purposes.split(',').any(|it| it == "detect")) {
            let prefix = subject
                .parse::<IpNet>()
                .or_else(|_| subject.parse::<IpAddr>().map(IpNet::from));
            prefixes.push(prefix.with_context(|| format!("not a subject: {line}"))?);
        }
    }
    Ok(prefixes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario() -> Scenario {
        Scenario::new(1, "2026-11-22T01:02:03Z".parse().unwrap())
    }

    fn perfect(scenario: &Scenario) -> Counted {
        let expected = &scenario.expected;
        let hits = expected.hit_count();
        Counted {
            sent: scenario.packets.len() as u64,
            status: Status {
                packets: scenario.packets.len() as u64,
                matched: hits,
                delivered: hits,
                opted_out: expected.stopped_by_consent,
                ..Status::default()
            },
            hits: expected.hits.clone(),
            candidates: expected.candidates.clone(),
        }
    }

    fn failed(scenario: &Scenario, counted: Counted) -> Vec<&'static str> {
        let account = Account::new(scenario, counted).unwrap();
        let claims = account.claims.iter().filter(|claim| !claim.holds);
        let failed: Vec<_> = claims.map(|claim| claim.key).collect();
        assert_eq!(account.holds(), failed.is_empty());
        assert_eq!(account.json()["ok"], failed.is_empty());
        failed
    }

    #[test]
    fn what_is_as_expected_holds() {
        let scenario = scenario();
        assert!(failed(&scenario, perfect(&scenario)).is_empty());
    }

    #[test]
    fn each_way_to_be_wrong_fails_its_own_claim() {
        let scenario = scenario();
        let hosts = |keep: fn(&Contacts) -> bool| {
            let mut hosts = scenario.expected.hits.iter();
            *hosts.find(|(_, contacts)| keep(contacts)).unwrap().0
        };
        let answered = hosts(|it| it.outbound > 0 && it.inbound > 0);
        let forged = hosts(|it| it.outbound == 0);
        let unanswered = hosts(|it| it.inbound == 0);
        let refusing: IpAddr = "198.18.200.7".parse().unwrap();
        let clean: IpAddr = "198.18.10.1".parse().unwrap();
        type Case<'a> = (&'a [&'a str], &'a dyn Fn(&mut Counted));
        let cases: [Case; 12] = [
            (&["packets_seen"], &|it| it.sent -= 1),
            (&["packets_seen"], &|it| it.status.packets += 1),
            (&["contacts_hit", "nothing_lost"], &|it| {
                it.hits.get_mut(&answered).unwrap().inbound -= 1;
            }),
            (&["infected_found"], &|it| {
                it.candidates.remove(&answered);
            }),
            (&["opted_out_untouched", "nothing_lost"], &|it| {
                it.hits.entry(refusing).or_default().outbound += 1;
            }),
            (&["opted_out_untouched"], &|it| {
                it.candidates.insert(refusing);
            }),
            (&["opted_out_untouched"], &|it| it.status.opted_out -= 1),
            (&["legitimate_untouched", "nothing_lost"], &|it| {
                it.hits.entry(clean).or_default().inbound += 1;
            }),
            (&["legitimate_untouched"], &|it| {
                it.candidates.insert(clean);
            }),
            (&["forged_no_candidate"], &|it| {
                it.candidates.insert(forged);
            }),
            (&["unanswered_no_candidate"], &|it| {
                it.candidates.insert(unanswered);
            }),
            (&["nothing_lost"], &|it| {
                it.status.lost += 1;
                it.status.matched += 1;
            }),
        ];
        for (number, (claims, spoil)) in cases.into_iter().enumerate() {
            let mut counted = perfect(&scenario);
            spoil(&mut counted);
            assert_eq!(failed(&scenario, counted), claims, "case {number}");
        }
    }

    #[test]
    fn hits_are_added_up_by_subscriber_and_direction() {
        let line = |direction: &str, packets: u32| {
            format!(
                r#"{{"direction":"{direction}","subscriber_ip":"198.18.0.1","packets":{packets}}}"#
            )
        };
        let lines = [line("outbound", 1), line("inbound", 3), line("outbound", 1)];
        let hits = contacts(&lines).unwrap();
        let expected = Contacts {
            outbound: 2,
            inbound: 3,
        };
        assert_eq!(hits.into_values().collect::<Vec<_>>(), [expected]);
        assert!(contacts(&["{}".to_owned()]).is_err());
    }
}
