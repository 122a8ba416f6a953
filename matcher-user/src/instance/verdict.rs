//! Verdicts on indicators, and what follows at once (R15).

use std::path::PathBuf;

use ipnet::IpNet;
use jiff::Timestamp;
use matcher_common::abi::Setting;

use super::{Answer, Instance, InstanceError, LockName};
use crate::{
    subscribers::{SubscriberSpace, SubscriberSpaces},
    tables::indicators,
    verdicts::{AskedVerdict, Opinion, Verdicts},
};

impl Instance {
    /// Where verdicts are kept.
    pub fn verdicts_path(&self) -> PathBuf {
        self.paths.state_dir.join("verdicts.jsonl")
    }

    /// The verdicts.
    pub fn verdicts(&self) -> Result<Verdicts, InstanceError> {
        Ok(Verdicts::load(&self.verdicts_path())?)
    }

    /// The operator's own space, as the configuration has it: own prefixes,
    /// the subscribers of every VLAN, NAT64 prefixes.
    pub fn own_space(&self) -> Result<Vec<IpNet>, InstanceError> {
        let config = self.config()?;
        let subscribers = &config.subscribers;
        let space =
            SubscriberSpace::load(subscribers.prefixes.iter().copied(), &subscribers.files)?;
        let spaces = SubscriberSpaces::load(space, &subscribers.spaces)?;
        let own = config.guards.own_prefixes.iter().copied();
        // An address in there stands for an IPv4 address, which may be own.
        let nat64 = config.nat64.iter().map(|it| IpNet::V6(it.prefix()));
        Ok(own
            .chain(spaces.prefixes().map(|at| at.prefix))
            .chain(nat64)
            .collect())
    }

    /// Records a verdict. When it returns, the kernel acts on it: a new
    /// generation of the list in force, without what is refuted and with what
    /// is no longer. No feed is read for it, so that nothing else changes.
    ///
    /// Waits for a load that is under way.
    pub fn give_verdict(
        &self,
        asked: &AskedVerdict,
        answer: &mut Answer,
    ) -> Result<Verdicts, InstanceError> {
        let _loading = self.run_dir().lock(LockName::Load)?;
        let catalog = self.catalog()?;
        let mut verdicts = self.verdicts()?;
        let before = verdicts.refuted();
        let verdict = asked.about(&catalog, Timestamp::now())?;
        let said = format!("{}: {}", verdict.subject, verdict.verdict);
        let opinion = verdict.verdict;
        verdicts.push(verdict);
        verdicts.save(&self.verdicts_path())?;
        answer.say(format!("{said}; recorded"));

        let listed = catalog.current();
        let now = verdicts.refuted();
        let (was, is) = (before.taken_from(&listed), now.taken_from(&listed));
        let (was_out, is_out) = (listed.len() - was.len(), listed.len() - is.len());
        if was.iter().eq(is.iter()) {
            answer.say(match opinion {
                Opinion::FalsePositive => {
                    "no address in the list in force was concerned; it stays as it is"
                }
                Opinion::Confirmed | Opinion::Clear => "the list in force stays as it is",
            });
            return Ok(verdicts);
        }
        if !self.pins().exist() {
            answer.say("nothing is attached, so nothing is matched; it holds for the next load");
            return Ok(verdicts);
        }
        let mut tables = self.tables()?;
        if tables.setting(Setting::Generation)? == 0 {
            answer.say("no list is loaded; it holds for the next load");
            return Ok(verdicts);
        }
        let compiled = indicators::compile(is.iter().chain(self.canary_indicator().as_ref()))?;
        let generation = tables.load_indicators(&compiled)?;
        let change = if is_out >= was_out {
            format!("{} taken out", is_out - was_out)
        } else {
            format!("{} put back", was_out - is_out)
        };
        answer.say(format!(
            "{change}; {} indicators in force, generation {generation}",
            is.len()
        ));
        Ok(verdicts)
    }
}
