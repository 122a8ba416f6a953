//! Which list the kernel's tables hold, so that a load in which nothing
//! changed makes no new generation.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
};

use serde::{Deserialize, Serialize};

use super::{Instance, InstanceError};
use crate::{indicator::Indicator, kernel::ring::Ring, kernel::tables::Tables};

/// A list, as far as the kernel looks at it, and the tables that hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InForce {
    /// Names the tables over restarts and boots.
    tables: String,
    /// Their generation.
    generation: u64,
    /// Stands for the list.
    list: u64,
}

impl InForce {
    /// This list in these tables under this generation.
    pub(super) fn new<'a>(
        tables: &Tables,
        generation: u64,
        list: impl IntoIterator<Item = &'a Indicator>,
    ) -> Result<Self, InstanceError> {
        Ok(Self {
            tables: Ring::open(tables)?.id().0.clone(),
            generation,
            list: number_of(list),
        })
    }

    /// What was written down last. Anything else than a readable file says
    /// that nothing is known, and the list is written again.
    pub(super) fn of(instance: &Instance) -> Option<Self> {
        let bytes = fs::read(instance.run_dir().in_force()).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Writes it down; after the kernel has switched, never before.
    pub(super) fn remember(&self, instance: &Instance) -> io::Result<()> {
        let path = instance.run_dir().in_force();
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(self)?)?;
        fs::rename(fresh, path)
    }
}

/// All that the kernel's tables are made of.
fn number_of<'a>(list: impl IntoIterator<Item = &'a Indicator>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut entries = 0_u64;
    for it in list {
        (it.id, it.value, it.qualifier, it.valid_from, it.valid_until).hash(&mut hasher);
        entries += 1;
    }
    entries.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::{
        feeds::{Format, parse},
        indicators::{Catalog, IndicatorSet, Listed},
    };

    fn set(before: &Catalog, feed: &str, text: &str) -> (IndicatorSet, Catalog) {
        let parsed = parse(Format::Plain, text.as_bytes());
        let listed = [Listed {
            feed,
            entries: &parsed.entries,
            names: &parsed.names,
        }];
        IndicatorSet::merge(
            before,
            &listed,
            Timestamp::UNIX_EPOCH + Duration::from_secs(1),
        )
        .unwrap()
    }

    #[test]
    fn only_what_the_kernel_looks_at_makes_another_list() {
        let (first, catalog) = set(&Catalog::default(), "a", "192.0.2.1\n192.0.2.2:80\n");
        let again = |text| number_of(set(&catalog, "a", text).0.iter());
        assert_eq!(number_of(first.iter()), again("192.0.2.2:80\n192.0.2.1\n"));
        assert_eq!(
            number_of(first.iter()),
            again("192.0.2.1 malware=X\n192.0.2.2:80\n")
        );
        for other in [
            "192.0.2.1\n",
            "192.0.2.1\n192.0.2.2:81\n",
            "192.0.2.1\n192.0.2.2:80\n192.0.2.3\n",
            "192.0.2.1 until=2030-01-01T00:00:00Z\n192.0.2.2:80\n",
        ] {
            assert_ne!(number_of(first.iter()), again(other), "{other}");
        }
    }
}
