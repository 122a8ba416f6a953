//! Hits to rows and back.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use matcher_common::abi::Tunnel;
use rusqlite::{Row, Transaction, params};

use super::{CommitRange, Cursor, Failure, Store, StoreError, StorePath, address, last_rowid};
use crate::{
    hit::{Direction, Encapsulation, Endpoint, Hit, IndicatorSummary},
    protocol::Protocol,
};

/// Directions as rows hold them.
const OUTBOUND: u8 = 0;
const INBOUND: u8 = 1;

impl Store {
    /// Reads a row of the columns that [`Store::hits_after`] selects.
    pub(super) fn hit(
        &self,
        row: &Row<'_>,
        shared: &mut Shared,
    ) -> Result<(Cursor, Hit), StoreError> {
        let failed = self.path.failed("read");
        let cursor: i64 = row.get(0).map_err(failed)?;
        let damaged = |field| self.path.fails(Failure::Row { cursor, field });
        let ip = |column, field| -> Result<IpAddr, StoreError> {
            row.get_ref(column)
                .ok()
                .and_then(|value| address::from_blob(value.as_blob().ok()?))
                .ok_or_else(|| damaged(field))
        };
        let indicator_row: i64 = row.get(12).map_err(|_| damaged("indicator"))?;
        let indicator = match shared.indicators.get(&indicator_row) {
            Some(known) => Arc::clone(known),
            None => {
                let text: String = self
                    .db
                    .prepare_cached("SELECT summary FROM indicators WHERE id = ?1")
                    .and_then(|mut select| select.query_row([indicator_row], |row| row.get(0)))
                    .map_err(failed)?;
                let summary: IndicatorSummary =
                    serde_json::from_str(&text).map_err(|_| damaged("indicator"))?;
                let summary = Arc::new(summary);
                shared
                    .indicators
                    .insert(indicator_row, Arc::clone(&summary));
                summary
            }
        };
        let time: i64 = row.get(1).map_err(|_| damaged("time"))?;
        let interface = match row.get_ref(2).map(|value| value.as_str_or_null()) {
            Ok(Ok(name)) => name.map(|name| shared.interface(name)),
            _ => return Err(damaged("interface")),
        };
        let sequence: i64 = row.get(10).map_err(|_| damaged("sequence"))?;
        let optional_ip = |column, field| -> Result<Option<IpAddr>, StoreError> {
            match row.get_ref(column) {
                Ok(rusqlite::types::ValueRef::Null) => Ok(None),
                _ => ip(column, field).map(Some),
            }
        };
        let subscriber_ip = ip(5, "subscriber_ip")?;
        let tunnel: Option<u8> = row.get(14).map_err(|_| damaged("tunnel"))?;
        let encapsulation = match tunnel {
            None => None,
            Some(number) => Some(Encapsulation {
                tunnel: Tunnel::from_number(number).ok_or_else(|| damaged("tunnel"))?,
                outer_source: ip(15, "outer_source_ip")?,
                outer_destination: ip(16, "outer_destination_ip")?,
            }),
        };
        let nat64 = match optional_ip(17, "nat64_ip")? {
            None => None,
            Some(IpAddr::V4(carried)) => Some(carried),
            Some(IpAddr::V6(_)) => return Err(damaged("nat64_ip")),
        };
        let vlan_ids: u32 = row.get(19).map_err(|_| damaged("vlan_ids"))?;
        let hit = Hit {
            time: Timestamp::from_nanosecond(time.into()).map_err(|_| damaged("time"))?,
            interface,
            direction: match row.get(3) {
                Ok(OUTBOUND) => Direction::Outbound,
                Ok(INBOUND) => Direction::Inbound,
                _ => return Err(damaged("direction")),
            },
            protocol: Protocol(row.get(4).map_err(|_| damaged("protocol"))?),
            subscriber: Endpoint {
                ip: subscriber_ip,
                port: row.get(6).map_err(|_| damaged("subscriber_port"))?,
            },
            remote: Endpoint {
                ip: ip(7, "remote_ip")?,
                port: row.get(8).map_err(|_| damaged("remote_port"))?,
            },
            local_ip: optional_ip(13, "local_ip")?.unwrap_or(subscriber_ip),
            nat64,
            encapsulation,
            space: row.get(18).map_err(|_| damaged("space"))?,
            vlan_ids: vlan_ids_of(vlan_ids),
            indicator,
            packets: row.get(9).map_err(|_| damaged("packets"))?,
            sequence: sequence.cast_unsigned(),
            source_validated: row.get(11).map_err(|_| damaged("source_validated"))?,
            several_flows: row.get(20).map_err(|_| damaged("several_flows"))?,
        };
        Ok((Cursor(cursor.cast_unsigned()), hit))
    }
}

/// Rows of indicators that were stored through this connection, by the
/// place of the summary in memory: hits share it.
#[derive(Debug, Default)]
pub(super) struct KnownIndicators(HashMap<usize, (Arc<IndicatorSummary>, i64)>);

impl KnownIndicators {
    /// Each feed reload brings new summaries; the old ones are let go.
    const LIMIT: usize = 65_536;

    fn row(&self, summary: &Arc<IndicatorSummary>) -> Option<i64> {
        self.0
            .get(&Arc::as_ptr(summary).addr())
            .map(|(_, row)| *row)
    }

    /// Holding on to the summary keeps its place from being used again.
    fn remember(&mut self, summary: &Arc<IndicatorSummary>, row: i64) {
        if self.0.len() >= Self::LIMIT {
            self.clear();
        }
        self.0
            .insert(Arc::as_ptr(summary).addr(), (Arc::clone(summary), row));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// What many hits have in common, read once.
#[derive(Default)]
pub(super) struct Shared {
    indicators: HashMap<i64, Arc<IndicatorSummary>>,
    interfaces: HashMap<String, Arc<str>>,
}

impl Shared {
    fn interface(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.interfaces.get(name) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = name.into();
        self.interfaces.insert(name.to_owned(), Arc::clone(&shared));
        shared
    }
}

/// Two VLAN ids in one column.
fn vlan_number([outer, inner]: [u16; 2]) -> u32 {
    u32::from(outer) << 16 | u32::from(inner)
}

fn vlan_ids_of(number: u32) -> [u16; 2] {
    let [a, b, c, d] = number.to_be_bytes();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

/// Nanoseconds since the epoch, where 64 bits hold them.
pub(super) fn nanoseconds(time: Timestamp) -> Option<i64> {
    i64::try_from(time.as_nanosecond()).ok()
}

/// Writes `hits` within the transaction, with consecutive cursors.
pub(super) fn append(
    transaction: &Transaction<'_>,
    path: &StorePath,
    edge: i64,
    indicators: &mut KnownIndicators,
    hits: &[Hit],
) -> Result<CommitRange, StoreError> {
    let failed = path.failed("write");
    let first = last_rowid(transaction).map_err(failed)?.saturating_add(1);
    let mut insert = transaction
        .prepare_cached(
            "INSERT INTO hits (cursor, time, edge, interface, direction, protocol, subscriber_ip,
                 subscriber_port, remote_ip, remote_port, packets, sequence, source_validated,
                 indicator, local_ip, tunnel, outer_source_ip, outer_destination_ip, nat64_ip,
                 space, vlan_ids, several_flows)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                 ?18, ?19, ?20, ?21, ?22)",
        )
        .map_err(failed)?;
    let mut count = 0_u64;
    for hit in hits {
        let indicator = match indicators.row(&hit.indicator) {
            Some(row) => row,
            None => {
                let row = indicator_row(transaction, path, &hit.indicator)?;
                indicators.remember(&hit.indicator, row);
                row
            }
        };
        let time = nanoseconds(hit.time).ok_or_else(|| path.fails(Failure::Time(hit.time)))?;
        let around = hit.encapsulation;
        insert
            .execute(params![
                first.saturating_add(count).cast_signed(),
                time,
                edge,
                hit.interface.as_deref(),
                match hit.direction {
                    Direction::Outbound => OUTBOUND,
                    Direction::Inbound => INBOUND,
                },
                hit.protocol.0,
                address::to_blob(hit.subscriber.ip),
                hit.subscriber.port,
                address::to_blob(hit.remote.ip),
                hit.remote.port,
                hit.packets,
                hit.sequence.cast_signed(),
                hit.source_validated,
                indicator,
                (hit.local_ip != hit.subscriber.ip).then(|| address::to_blob(hit.local_ip)),
                around.map(|around| around.tunnel as u8),
                around.map(|around| address::to_blob(around.outer_source)),
                around.map(|around| address::to_blob(around.outer_destination)),
                hit.nat64.map(|carried| address::to_blob(carried.into())),
                hit.space,
                vlan_number(hit.vlan_ids),
                hit.several_flows,
            ])
            .map_err(failed)?;
        count = count.saturating_add(1);
    }
    Ok(CommitRange { first, count })
}

fn indicator_row(
    transaction: &Transaction<'_>,
    path: &StorePath,
    summary: &IndicatorSummary,
) -> Result<i64, StoreError> {
    let text =
        serde_json::to_string(summary).map_err(|error| path.fails(Failure::Indicator(error)))?;
    let insert = || {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO indicators (summary) VALUES (?1)")?
            .execute([&text])?;
        transaction
            .prepare_cached("SELECT id FROM indicators WHERE summary = ?1")?
            .query_row([&text], |row| row.get(0))
    };
    insert().map_err(path.failed("write"))
}
