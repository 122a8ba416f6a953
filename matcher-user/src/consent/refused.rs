//! Which records of earlier traffic a refusal of today reaches (R2).

use std::net::IpAddr;

use super::{purpose::Purpose, table::ConsentTable};

/// Everybody who refuses one purpose, to be asked of each record: it holds
/// nothing but the table it looks at.
#[derive(Copy, Clone, Debug)]
pub struct Refused<'a> {
    table: &'a ConsentTable,
    purpose: Purpose,
}

impl<'a> Refused<'a> {
    pub(super) fn new(table: &'a ConsentTable, purpose: Purpose) -> Self {
        Self { table, purpose }
    }

    /// Whether a record of this address, and of this port where it has one,
    /// is that of somebody who refuses. A record without a port may be of
    /// anyone who shares the address: one who refuses is enough.
    pub fn contains(&self, space: u32, address: IpAddr, port: Option<u16>) -> bool {
        !self.table.allows(space, address, port, self.purpose)
    }

    /// Whether nobody refuses: then no record has to be looked at.
    pub fn is_empty(&self) -> bool {
        self.table.nobody_refuses(self.purpose)
    }
}
