//! What `matcher consent show` says.

use super::{
    Answer, ConsentSubject, Instance, InstanceError,
    consent::{asked, asked_of, not_on_the_wire, now},
};
use crate::{
    consent::{Answer as Consent, ConsentLists, PurposeSet},
    indicator::value_text,
};

/// Port ranges of one address that are shown.
const MAX_RANGES: usize = 20;

impl Instance {
    pub(super) fn show_consent(
        &self,
        lists: &ConsentLists,
        whom: Option<&ConsentSubject>,
        answer: &mut Answer,
    ) -> Result<(), InstanceError> {
        let config = self.config()?;
        let table = lists.compile(now());
        let Some(subject) = whom else {
            answer.say(format!("model             {}", config.consent.model));
            answer.say(format!("without an entry  {}", table.default_allowed()));
            answer.say(format!("entries           {}", table.entry_count()));
            if let Some(closed) = table.closed() {
                answer.say(closed.to_string());
            }
            for (at, allowed) in table.entries() {
                let mut place = value_text(at.prefix);
                if at.space != 0 {
                    place.push_str(&format!(" space={}", at.space));
                }
                answer.say(format!("{place:<43} {}", in_short(&allowed)));
            }
            return Ok(());
        };
        let whom = asked(subject)?;
        let Some(asked) = asked_of(&whom) else {
            return Err(not_on_the_wire(&subject.subject));
        };
        let space = asked.space.unwrap_or(0);
        let address = asked.prefix.addr();
        let consent = table.answer(space, address);
        match (&consent, asked.ports) {
            (Consent::ByPort(by_port), None) => {
                answer.say(format!(
                    "{whom}: allows {} where the port is not known, {} for ports that nobody \
                     speaks of",
                    by_port.portless(),
                    by_port.outside()
                ));
                for range in by_port.ranges().iter().take(MAX_RANGES) {
                    answer.say(format!(
                        "  ports {}-{}: allows {}",
                        range.first, range.last, range.value
                    ));
                }
                let more = by_port.ranges().len().saturating_sub(MAX_RANGES);
                if more > 0 {
                    answer.say(format!("  and {more} more port ranges"));
                }
            }
            (_, Some(ports)) => {
                // What all of them allow: others may hold some of them too.
                let allowed = ports
                    .ranges()
                    .flat_map(|range| range.first()..=range.last())
                    .map(|port| consent.allowed(Some(port)))
                    .reduce(PurposeSet::intersection)
                    .unwrap_or_default();
                answer.say(format!("{whom}: allows {allowed}"));
            }
            (Consent::Whole(allowed), None) => answer.say(format!("{whom}: allows {allowed}")),
        }
        for line in lists.explain(asked) {
            answer.say(format!("  {line}"));
        }
        if self.pins().exist() {
            let tables = self.tables()?;
            let port = asked
                .ports
                .and_then(|ports| ports.ranges().next())
                .map(|range| range.first());
            let in_kernel = tables.allowed_purposes(space, address, port)?;
            if in_kernel != consent.allowed(port) {
                answer.warn(format!(
                    "the kernel allows {in_kernel} at the moment; a list was changed and not \
                     loaded yet"
                ));
            }
        }
        Ok(())
    }
}

fn in_short(consent: &Consent) -> String {
    match consent {
        Consent::Whole(allowed) => allowed.to_string(),
        Consent::ByPort(by_port) => format!(
            "{} (shared: {} without a port, {} port ranges)",
            by_port.outside(),
            by_port.portless(),
            by_port.ranges().len()
        ),
    }
}
