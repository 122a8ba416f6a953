//! Events and summaries to hits: the first stage after the kernel.

use std::{
    collections::HashMap,
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use foldhash::fast::RandomState;
use matcher_common::abi::{AddressBytes, HitEvent, Tunnel, hit_flags};

use crate::{
    clock::WallOffset,
    hit::{Direction, Encapsulation, Endpoint, Hit, IndicatorSummary},
    indicator::{IndicatorId, Qualifier},
    indicators::{Catalog, summary},
    protocol::Protocol,
};

/// What turns events into hits: the names that event numbers stand for.
#[derive(Debug, Default)]
pub struct Names {
    /// Ids are given in order: a place by id costs a hit among a million less
    /// memory that is far away than a hash table.
    indicators: HashMap<u32, Box<Page>, RandomState>,
    interfaces: HashMap<u32, Arc<str>, RandomState>,
}

/// What indicators with consecutive ids are called, as far as it was asked.
type Page = [Option<Arc<IndicatorSummary>>];

/// Ids of a page.
const PAGE: u32 = 1 << 10;

impl Names {
    /// Events that [`Names::look_ahead`] is best given at once: enough for the
    /// processor to wait for many at a time, and few enough that what it
    /// fetched is still near when their hits are made.
    pub const AHEAD: usize = 64;

    /// Fetches from memory what [`Names::hit`] will need for these events. Hits
    /// of a long list need what no cache holds, and made one by one each waits
    /// for it alone; here the processor waits for many at once. Leaving it out
    /// costs time only.
    pub fn look_ahead(&self, events: &[HitEvent], catalog: &Catalog) {
        let ids = || events.iter().map(|it| IndicatorId(it.flow.indicator));
        // A pass for each step: where the next one leads must be there already,
        // or a branch that was guessed wrong waits for memory again.
        for id in ids() {
            black_box(self.known(id));
        }
        for id in ids() {
            match self.known(id) {
                Some(known) => {
                    black_box(Arc::strong_count(known));
                }
                None => {
                    let statements = catalog.get(id).map(|it| &it.statements);
                    black_box(statements.and_then(|it| it.first().map(Arc::as_ptr)));
                }
            }
        }
    }

    /// Forgets what indicators were called; they are asked for anew. To be
    /// called when the list has changed.
    pub fn forget_indicators(&mut self) {
        self.indicators.clear();
    }

    /// The hit that an event stands for. `interface` names an interface by
    /// its index; `catalog` explains the indicator.
    pub fn hit(
        &mut self,
        event: &HitEvent,
        offset: WallOffset,
        catalog: &Catalog,
        interface: impl Fn(u32) -> Option<String>,
    ) -> Hit {
        let id = IndicatorId(event.flow.indicator);
        let indicator = self.indicator(id, catalog);
        let name = self
            .interfaces
            .entry(event.flow.ifindex)
            .or_insert_with(|| {
                interface(event.flow.ifindex)
                    .unwrap_or_else(|| format!("interface {}", event.flow.ifindex))
                    .into()
            });
        Hit {
            time: offset.wall(event.boot_ns),
            interface: Some(Arc::clone(name)),
            ..bare_hit(event, indicator)
        }
    }

    fn known(&self, id: IndicatorId) -> Option<&Arc<IndicatorSummary>> {
        let (page, place) = place_of(id);
        self.indicators.get(&page)?.get(place)?.as_ref()
    }

    fn indicator(&mut self, id: IndicatorId, catalog: &Catalog) -> Arc<IndicatorSummary> {
        if let Some(known) = self.known(id) {
            return Arc::clone(known);
        }
        let new = Arc::new(explain(id, catalog));
        let (page, place) = place_of(id);
        let page = self
            .indicators
            .entry(page)
            .or_insert_with(|| vec![None; PAGE as usize].into());
        if let Some(place) = page.get_mut(place) {
            *place = Some(Arc::clone(&new));
        }
        new
    }
}

/// The page that an id is on, and where.
fn place_of(id: IndicatorId) -> (u32, usize) {
    (id.0 / PAGE, (id.0 % PAGE) as usize)
}

/// The hit without what only an attached program knows: no interface, and the
/// time is the epoch.
pub fn bare_hit(event: &HitEvent, indicator: Arc<IndicatorSummary>) -> Hit {
    let flow = &event.flow;
    let has = |flag: u16| flow.flags & flag != 0;
    let ipv6 = has(hit_flags::IPV6);
    let outer_ipv6 = has(hit_flags::OUTER_IPV6);
    let port = |port: u16| has(hit_flags::PORTS).then_some(port);
    let known_by_outer = has(hit_flags::SUBSCRIBER_OUTER);
    let subscriber_ipv6 = if known_by_outer { outer_ipv6 } else { ipv6 };
    Hit {
        time: jiff::Timestamp::UNIX_EPOCH,
        interface: None,
        direction: if has(hit_flags::OUTBOUND) {
            Direction::Outbound
        } else {
            Direction::Inbound
        },
        protocol: Protocol(flow.protocol),
        subscriber: Endpoint {
            ip: address_of(&flow.subscriber, subscriber_ipv6),
            port: port(flow.local_port),
        },
        local_ip: address_of(&flow.local, ipv6),
        remote: Endpoint {
            ip: address_of(&flow.remote, ipv6),
            port: port(flow.remote_port),
        },
        nat64: has(hit_flags::NAT64).then(|| flow.nat64.into()),
        encapsulation: Tunnel::from_number(flow.tunnel).map(|tunnel| Encapsulation {
            tunnel,
            outer_source: address_of(&flow.outer_source, outer_ipv6),
            outer_destination: address_of(&flow.outer_destination, outer_ipv6),
        }),
        space: flow.space,
        vlan_ids: flow.vlan_ids,
        indicator,
        packets: event.packets,
        sequence: event.sequence,
        source_validated: has(hit_flags::SOURCE_VALIDATED),
        several_flows: has(hit_flags::SEVERAL_FLOWS),
    }
}

/// An address of the ABI.
pub fn address_of(bytes: &AddressBytes, ipv6: bool) -> IpAddr {
    if ipv6 {
        IpAddr::V6(Ipv6Addr::from(bytes.octets()))
    } else {
        IpAddr::V4(Ipv4Addr::from(bytes.v4()))
    }
}

fn explain(id: IndicatorId, catalog: &Catalog) -> IndicatorSummary {
    match catalog.get(id) {
        Some(indicator) => summary(indicator),
        // The catalog was removed while its ids were in the kernel.
        None => IndicatorSummary {
            id,
            value: "unknown".into(),
            qualifier: Qualifier::default(),
            feeds: vec![],
            malware: None,
            confidence: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use matcher_common::abi::Flow;

    use super::*;

    fn event() -> HitEvent {
        let subscriber = AddressBytes::from_v4([203, 0, 113, 7]);
        HitEvent {
            boot_ns: 5,
            packets: 1,
            flow: Flow {
                subscriber,
                local: subscriber,
                remote: AddressBytes::from_v4([198, 51, 100, 23]),
                indicator: 12,
                ifindex: 3,
                local_port: 51413,
                remote_port: 443,
                protocol: 6,
                flags: hit_flags::OUTBOUND | hit_flags::PORTS | hit_flags::SOURCE_VALIDATED,
                ..Flow::default()
            },
            ..HitEvent::default()
        }
    }

    #[test]
    fn an_event_becomes_the_line_of_the_contract() {
        let hit =
            Names::default().hit(&event(), WallOffset::measure(), &Catalog::default(), |_| {
                Some("eth0".into())
            });
        let mut line = serde_json::to_value(&hit).unwrap();
        line["time"] = "2026-11-22T01:02:03.000000004Z".into();
        insta::assert_snapshot!(line, @r#"{"direction":"outbound","indicator":{"feeds":[],"id":12,"value":"unknown"},"interface":"eth0","packets":1,"protocol":"tcp","remote_ip":"198.51.100.23","remote_port":443,"sequence":0,"subscriber_ip":"203.0.113.7","subscriber_port":51413,"time":"2026-11-22T01:02:03.000000004Z","tunnel":null}"#);
    }

    #[test]
    fn a_packet_without_ports_has_none() {
        let mut without = event();
        without.flow.flags &= !hit_flags::PORTS;
        without.flow.flags &= !hit_flags::OUTBOUND;
        without.flow.protocol = 1;
        let hit =
            Names::default().hit(&without, WallOffset::measure(), &Catalog::default(), |_| {
                None
            });
        assert_eq!(hit.subscriber.port, None);
        assert_eq!(hit.remote.port, None);
        assert_eq!(hit.direction, Direction::Inbound);
        assert_eq!(hit.interface.as_deref(), Some("interface 3"));
    }
}
