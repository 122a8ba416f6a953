//! The images of subscriber classes: rebuilt and switched when subscriber space
//! or consent has changed in the exact tables.

use ipnet::IpNet;
use matcher_common::{
    abi::Setting,
    table::class::{Class, ROOT, ROOT_LINES, head},
};

use super::{KernelError, grace::wait_for_packets, tables::Tables};
use crate::tables::compiled::{Family, Image, class, filter, seeds};

impl Tables {
    /// Builds the images of what the exact tables hold now, and switches to
    /// them. `entries`: the prefixes of space 0 with a consent entry, and
    /// whether that refuses detection whatever the port.
    ///
    /// An image only ever says "outside" or "default" where no exact table says
    /// otherwise; "refuses" it says a moment longer than they do of whoever
    /// takes a refusal back. So the exact tables are written first, and a change
    /// is in force when this is done.
    pub(super) fn switch_classes(
        &mut self,
        entries: impl Iterator<Item = (IpNet, bool)> + Clone,
    ) -> Result<(), KernelError> {
        let subscribers: Vec<IpNet> = self
            .subscribers()?
            .into_iter()
            .filter(|at| at.space == 0)
            .map(|at| at.prefix)
            .collect();
        let next = self.setting(Setting::ClassGeneration)?.wrapping_add(1);
        let subscribers = || subscribers.iter().copied();
        let refusals = || entries.clone().filter(|at| at.1).map(|at| at.0);
        let others = || entries.clone().filter(|at| !at.1).map(|at| at.0);
        let v4 = class::Plan::new(Family::V4, subscribers(), refusals(), others());
        let mut v6 = class::Plan::new(Family::V6, subscribers(), refusals(), others());
        let mut in_filter = filter::Plan::new(Family::V6, []);
        if v6.bytes() > self.images.classes_v6.bytes() {
            // Opt-outs so far from each other that each takes lines of its own.
            tracing::info!(
                "{} MB of IPv6 subscriber classes do not fit into {} MB: a filter tells of \
                 opt-outs, which is slower for IPv6 subscribers. Raise \
                 tables.max_consent_entries, detach and attach, if that matters",
                v6.bytes() >> 20,
                self.images.classes_v6.bytes() >> 20,
            );
            v6 = class::Plan::new(Family::V6, subscribers(), [], []);
            in_filter = filter::Plan::new(Family::V6, entries.map(|at| at.0));
        }
        let seeds = random_seeds()?;
        // Until the last switch this half was in use.
        wait_for_packets();
        let images = &mut self.images;
        for (halves, plan) in [(&mut images.classes_v4, v4), (&mut images.classes_v6, v6)] {
            if plan.bytes() > halves.bytes() {
                tracing::warn!(
                    "{} MB of subscriber classes do not fit into {} MB: every packet asks the \
                     exact tables, which is slower. Raise tables.max_consent_entries, detach and \
                     attach",
                    plan.bytes() >> 20,
                    halves.bytes() >> 20,
                );
                halves.write(next, &all_closer());
            } else {
                halves.write(next, &plan.build());
            }
        }
        if in_filter.bytes() > images.consent_v6.bytes()
            || !images.consent_v6.write(next, &in_filter.build(seeds))
        {
            images.consent_v6.write(next, &always_maybe());
        }
        self.set(Setting::ClassGeneration, next)?;
        self.set(Setting::ClassesDue, 0)
    }

    /// To be called before the exact tables are written: whoever comes after a
    /// process that died in between makes the images anew.
    pub(super) fn classes_are_due(&mut self) -> Result<(), KernelError> {
        self.set(Setting::ClassesDue, 1)
    }

    /// Whether the images say what the exact tables do.
    pub(super) fn classes_are_current(&self) -> Result<bool, KernelError> {
        Ok(self.setting(Setting::ClassGeneration)? != 0 && self.setting(Setting::ClassesDue)? == 0)
    }
}

/// Secrets of an image.
pub(super) fn random_seeds() -> Result<matcher_common::table::hash::Seeds, KernelError> {
    let mut random = [0; 24];
    let got = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| KernelError::from_source("drawing random numbers", errno))?;
    if got < random.len() {
        return Err(KernelError::Failed {
            action: "drawing random numbers".into(),
            reason: format!("only {got} bytes"),
        });
    }
    Ok(seeds(random))
}

/// A tree that knows nothing: every address is one to look at closer.
fn all_closer() -> Image {
    let closer = Class::Closer as u64;
    let both = closer << 32 | closer;
    let mut image = Image::filled((ROOT + ROOT_LINES) as usize, both);
    // Nothing is in common: whoever it is asks the root.
    for word in [head::COMMON, head::BITS] {
        image.set(word as usize, 0);
    }
    image
}

/// A filter that knows nothing: every address is a maybe.
pub(super) fn always_maybe() -> Image {
    use matcher_common::table::filter::{head, parts};
    let mut image = Image::filled(1, 0);
    image.set(head::USE as usize, parts::HOSTS | parts::DIRECT);
    // Lines that no image has.
    let first = 1 << 31;
    image.set(head::HOSTS as usize, first << 32 | 1);
    image.set(head::DIRECT as usize, first);
    image
}
