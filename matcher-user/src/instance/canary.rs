//! The canary's part that touches the pinned state.

use matcher_common::abi::Setting;
use serde::Serialize;

use super::{Instance, InstanceError};
use crate::{
    canary::{self, Edge, Report, Stage, State, Trouble},
    clock::boot_now_ns,
    config::CanaryConfig,
    consent::Purpose,
    indicator::Indicator,
    kernel::{attach, ring::Ring, tables::Tables},
};

/// The canary's frame has no VLAN.
const SPACE: u32 = 0;

/// The canary in `matcher status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CanaryStatus {
    /// Seconds between two of them.
    pub every_seconds: u64,
    /// Frames that were sent since the agent started. Each is one packet, and
    /// one match, in the kernel's counters.
    pub sent: u64,
    /// Of these, hits that came through.
    pub seen: u64,
    /// How the last one went; none yet when absent.
    pub last: Option<Report>,
}

impl Instance {
    /// The canary of the configuration, if it is on.
    pub fn canary(&self) -> Option<&CanaryConfig> {
        self.config.as_ref()?.canary.as_ref()
    }

    /// What the C&C tables must hold for it.
    pub fn canary_indicator(&self) -> Option<Indicator> {
        self.canary().map(canary::indicator)
    }

    /// The canary, for commands that need one.
    pub fn canary_config(&self) -> Result<CanaryConfig, InstanceError> {
        self.canary().cloned().ok_or_else(|| {
            InstanceError::Usage(
                "no canary is configured: put a table [canary] into the configuration, and send \
                 the agent SIGHUP"
                    .into(),
            )
        })
    }

    /// What the way from packet to hit depends on.
    pub fn canary_state(
        &self,
        config: &CanaryConfig,
        tables: &Tables,
    ) -> Result<State, InstanceError> {
        let known = self.run_dir().record()?.interfaces;
        let roles = tables.interfaces()?;
        let pins = self.pins();
        let edges = pins
            .attached()?
            .into_iter()
            .map(|ifindex| {
                let now = attach::name(ifindex);
                let name = known
                    .iter()
                    .find(|record| record.ifindex == ifindex)
                    .map(|record| record.name.clone())
                    .or(now.clone())
                    .unwrap_or_else(|| format!("interface {ifindex}"));
                Ok(Edge {
                    holds: pins.holds(ifindex)?,
                    visible: now.as_ref() == Some(&name),
                    settings: roles
                        .iter()
                        .find(|(known, _)| *known == ifindex)
                        .map(|(_, settings)| *settings),
                    name,
                    ifindex,
                })
            })
            .collect::<Result<_, InstanceError>>()?;
        let (used, size) = Ring::open(tables)?.fill();
        let allowed = tables.allowed_purposes(SPACE, config.subscriber, None)?;
        Ok(State {
            stopped: tables.setting(Setting::Stopped)? != 0,
            consent: tables.setting(Setting::ConsentDeadline)? > boot_now_ns(),
            generation: tables.setting(Setting::Generation)?,
            edges,
            subscriber: config.subscriber,
            in_space: tables
                .subscribers()?
                .iter()
                .any(|at| at.space == SPACE && at.prefix.contains(&config.subscriber)),
            allows: allowed.contains(Purpose::Detect),
            ring: [used, size],
        })
    }

    /// What can be said without an agent: that there is none, and what else
    /// stands in the way. Nothing is sent, since nobody would read the hit.
    pub fn canary_without_agent(&self, hung: bool) -> Result<Report, InstanceError> {
        let config = self.canary_config()?;
        let mut troubles = vec![Trouble {
            stage: Stage::Agent,
            what: if hung {
                "the agent does not answer; look at its process and its log, and start it again"
            } else {
                "no agent runs, so nobody reads the hits and renews consent; start it (`matcher \
                 run`, or the service)"
            }
            .into(),
        }];
        if self.pins().exist() {
            troubles.extend(self.canary_state(&config, &self.tables()?)?.troubles());
        } else {
            troubles.insert(
                0,
                Trouble {
                    stage: Stage::Attached,
                    what: "nothing is attached; `matcher attach`, or start the agent".into(),
                },
            );
        }
        Ok(Report::failed(jiff::Timestamp::now(), troubles))
    }
}
