//! Subscriber spaces in the kernel, changed while packets are judged by them.

use std::{collections::BTreeMap, net::Ipv6Addr};

use ipnet::Ipv6Net;
use matcher_common::abi::{ConsentEntry, Setting, purposes};

use super::{
    ConsentChange, KernelError,
    grace::wait_for_packets,
    tables::Tables,
    tries::{full_or, key6},
};
use crate::{
    consent::SpacePrefix,
    tables::{consent::ConsentEntries, spaces::SpaceTables},
};

const SUBSCRIBERS: &str = "subscriber space";
const CONSENT: &str = "consent";

impl Tables {
    /// Who is a subscriber, and in which space.
    pub fn subscribers(&self) -> Result<Vec<SpacePrefix>, KernelError> {
        let entries = self.subscribers.entries(SUBSCRIBERS)?;
        Ok(entries.into_iter().map(|(at, _)| at).collect())
    }

    /// The spaces that the kernel knows.
    pub fn spaces(&self) -> Result<SpaceTables, KernelError> {
        let mut vlans = BTreeMap::new();
        for entry in self.vlans.iter() {
            let (vlan, space) = entry.map_err(|error| failed("reading", "VLANs", error))?;
            vlans.insert(vlan, space);
        }
        let mut nat64 = BTreeMap::new();
        for entry in self.nat64.iter() {
            let (key, places) =
                entry.map_err(|error| failed("reading", "NAT64 prefixes", error))?;
            let length = u8::try_from(key.prefix_len()).unwrap_or(u8::MAX);
            if let Ok(prefix) = Ipv6Net::new(Ipv6Addr::from(key.data()), length) {
                nat64.insert(prefix, places);
            }
        }
        Ok(SpaceTables {
            subscribers: self.subscribers()?.into_iter().collect(),
            vlans,
            nat64,
        })
    }

    /// Makes the kernel know exactly these spaces; consent stays as it is.
    pub fn set_spaces(&mut self, new: &SpaceTables) -> Result<(), KernelError> {
        self.change_spaces(new, |_| Ok(()))
    }

    /// Makes the kernel know exactly these spaces, and hold exactly this
    /// consent.
    pub fn set_spaces_and_consent(
        &mut self,
        spaces: &SpaceTables,
        consent: &ConsentEntries,
    ) -> Result<ConsentChange, KernelError> {
        self.change_spaces(spaces, |tables| tables.set_consent(consent))
    }

    /// There is no moment in which someone who opted out is allowed (R1):
    ///
    /// - Where the same packet could come into another space, or be looked up
    ///   as another address, nothing is matched while the tables change. The
    ///   deadline of consent is moved to 0, and the tables are written when
    ///   every packet is done that saw the old deadline; the deadline comes
    ///   back when all is in place. Should this process die in between, nothing
    ///   is matched until somebody confirms consent again.
    /// - Else only prefixes of space 0 change. Its consent depends on no
    ///   prefix, so the new consent comes first, whole; then new prefixes are
    ///   added, then old ones removed: an address in both is at no moment
    ///   outside, where its subscriber's refusal would not count.
    fn change_spaces<T>(
        &mut self,
        new: &SpaceTables,
        change_consent: impl FnOnce(&mut Self) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        let old = self.spaces()?;
        if *new == old && self.classes_are_current()? {
            return change_consent(self);
        }
        if !new.reads_packets_otherwise(&old) {
            let changed = change_consent(self)?;
            self.classes_are_due()?;
            self.change_subscribers(&old, new)?;
            self.switch_classes_of_held_consent()?;
            return Ok(changed);
        }
        let deadline = self.setting(Setting::ConsentDeadline)?;
        self.set(Setting::ConsentDeadline, 0)?;
        wait_for_packets();
        let changed = change_consent(self)?;
        self.classes_are_due()?;
        self.change_subscribers(&old, new)?;
        self.change_vlans(&old, new)?;
        self.change_nat64(&old, new)?;
        self.switch_classes_of_held_consent()?;
        self.set(Setting::ConsentDeadline, deadline)?;
        Ok(changed)
    }

    fn switch_classes_of_held_consent(&mut self) -> Result<(), KernelError> {
        let entries = self.consent.entries(CONSENT)?;
        let of_space_0 = entries.iter().filter(|(at, _)| at.space == 0);
        self.switch_classes(of_space_0.map(|(at, value)| {
            let entry: ConsentEntry = zerocopy::transmute!(*value);
            let refuses = entry.count == 0 && entry.allowed & purposes::DETECT == 0;
            (at.prefix, refuses)
        }))
    }

    fn change_subscribers(
        &mut self,
        old: &SpaceTables,
        new: &SpaceTables,
    ) -> Result<(), KernelError> {
        let added = new.subscribers.difference(&old.subscribers);
        for (done, at) in added.enumerate() {
            self.subscribers
                .insert(SUBSCRIBERS, done, at, [1, 0, 0, 0])?;
        }
        for at in old.subscribers.difference(&new.subscribers) {
            self.subscribers.remove(SUBSCRIBERS, at)?;
        }
        Ok(())
    }

    fn change_vlans(&mut self, old: &SpaceTables, new: &SpaceTables) -> Result<(), KernelError> {
        for (vlan, space) in &new.vlans {
            self.vlans
                .insert(vlan, space, 0)
                .map_err(|error| failed("writing", "VLANs", error))?;
        }
        for vlan in old
            .vlans
            .keys()
            .filter(|vlan| !new.vlans.contains_key(*vlan))
        {
            self.vlans
                .remove(vlan)
                .map_err(|error| failed("writing", "VLANs", error))?;
        }
        self.set(Setting::VlanSpaces, u64::from(!new.vlans.is_empty()))
    }

    fn change_nat64(&mut self, old: &SpaceTables, new: &SpaceTables) -> Result<(), KernelError> {
        for prefix in old
            .nat64
            .keys()
            .filter(|prefix| !new.nat64.contains_key(*prefix))
        {
            self.nat64
                .remove(&key6(prefix))
                .map_err(|error| failed("writing", "NAT64 prefixes", error))?;
        }
        for (done, (prefix, places)) in new.nat64.iter().enumerate() {
            self.nat64
                .insert(&key6(prefix), places, 0)
                .map_err(|error| full_or("NAT64 prefixes", "nat64.prefixes", done, error))?;
        }
        self.set(Setting::Nat64, u64::from(!new.nat64.is_empty()))
    }
}

fn failed(action: &str, table: &str, error: aya::maps::MapError) -> KernelError {
    KernelError::from_source(format!("{action} the table of {table}"), error)
}
