//! Refusals that hold at once: in the kernel within a millisecond, however many
//! entries the consent tables have. They stand there until the tables, made
//! anew, say the same exactly.

use std::net::IpAddr;

use aya::maps::{LpmTrie, MapData, MapError};
use ipnet::IpNet;
use matcher_common::abi::Setting;

use super::{
    KernelError,
    error::root_errno,
    tables::Tables,
    tries::{full_or, key4, key6},
};

const TABLE: &str = "refusals that hold at once";
/// linux/bpf.h: only where there is none yet.
const NO_EXIST: u64 = 1;

impl Tables {
    /// From the next packet on nobody inside of the prefix is matched, in any
    /// space and at any port. `said_ns`: boot clock, for
    /// [`Tables::end_refusals_before`].
    ///
    /// # Errors
    /// The table is full (1,024 entries), or the kernel refuses.
    pub fn refuse_now(&mut self, prefix: &IpNet, said_ns: u64) -> Result<(), KernelError> {
        // Before the entry, so that no packet meets an entry and no number.
        self.settings.add(Setting::RefusedNow, 1);
        let inserted = self.refuse(prefix, said_ns, NO_EXIST);
        let fresh = inserted.is_ok();
        let done = match inserted {
            Err(error) if root_errno(&error) == Some(rustix::io::Errno::EXIST) => {
                self.refuse(prefix, said_ns, 0)
            }
            other => other,
        };
        if !fresh {
            self.settings.subtract(Setting::RefusedNow, 1);
        }
        done.map_err(|error| full_or(TABLE, "the number of commands at once", 1024, error))
    }

    /// Ends such a refusal: the consent tables say what holds.
    pub fn end_refusal(&mut self, prefix: &IpNet) -> Result<(), KernelError> {
        let removed = match prefix {
            IpNet::V4(prefix) => self.refused_now.v4.remove(&key4(prefix)),
            IpNet::V6(prefix) => self.refused_now.v6.remove(&key6(prefix)),
        };
        match removed {
            Ok(()) => {
                self.settings.subtract(Setting::RefusedNow, 1);
                Ok(())
            }
            Err(MapError::KeyNotFound) => Ok(()),
            Err(error) if root_errno(&error) == Some(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(KernelError::from_source(format!("ending {TABLE}"), error)),
        }
    }

    /// Ends what commands have left behind that did not live to end it
    /// themselves: refusals said before this time of the boot clock.
    pub fn end_refusals_before(&mut self, boot_ns: u64) -> Result<(), KernelError> {
        if self.settings.get(Setting::RefusedNow) == 0 {
            return Ok(());
        }
        let mut left = Vec::new();
        for (prefix, said_ns) in self.refusals()? {
            if said_ns < boot_ns {
                left.push(prefix);
            }
        }
        left.iter().try_for_each(|prefix| self.end_refusal(prefix))
    }

    /// The refusals that hold at once, and when each was said.
    pub fn refusals(&self) -> Result<Vec<(IpNet, u64)>, KernelError> {
        fn entries<const N: usize>(
            trie: &LpmTrie<MapData, [u8; N], u64>,
        ) -> Result<Vec<(IpNet, u64)>, KernelError>
        where
            IpAddr: From<[u8; N]>,
        {
            trie.iter()
                .filter_map(|entry| match entry {
                    Ok((key, said)) => {
                        let length = u8::try_from(key.prefix_len()).ok()?;
                        let prefix = IpNet::new(key.data().into(), length).ok()?;
                        Some(Ok((prefix, said)))
                    }
                    Err(error) => Some(Err(KernelError::from_source(
                        format!("reading {TABLE}"),
                        error,
                    ))),
                })
                .collect()
        }
        let mut all = entries(&self.refused_now.v4)?;
        all.append(&mut entries(&self.refused_now.v6)?);
        Ok(all)
    }

    fn refuse(&mut self, prefix: &IpNet, said_ns: u64, flags: u64) -> Result<(), MapError> {
        // 0 is what the program takes for nothing.
        let said_ns = said_ns.max(1);
        match prefix {
            IpNet::V4(prefix) => self.refused_now.v4.insert(&key4(prefix), said_ns, flags),
            IpNet::V6(prefix) => self.refused_now.v6.insert(&key6(prefix), said_ns, flags),
        }
    }
}
