//! Attaching to interfaces and detaching from them.

use matcher_common::abi::{InterfaceSettings, Setting, role};

use super::{
    Answer, Instance, InstanceError, LockName,
    run_dir::{AttachedInterface, Record},
};
use crate::{
    clock::WallOffset,
    config::{AttachMode, Interface, InterfaceArgument, Role},
    kernel::{
        attach::{self, Mode, Wanted},
        tables::Tables,
    },
    subscribers::{SubscriberSpace, SubscriberSpaces},
    tables::spaces::SpaceTables,
};

impl Instance {
    /// Loads the program if nothing is pinned, puts subscriber space and
    /// consent in place, then attaches to each interface. When one cannot be
    /// attached, those attached by this call are detached again: an edge that
    /// is watched by half is a surprise.
    pub fn attach(
        &self,
        interfaces: &[Interface],
        answer: &mut Answer,
    ) -> Result<(), InstanceError> {
        let config = self.config()?;
        if interfaces.is_empty() {
            return Err(InstanceError::Usage(
                "no interface to attach to: name one with --iface NAME[:ROLE], or put an \
                 [[interface]] into the configuration"
                    .into(),
            ));
        }
        crate::kernel::support::require()?;
        // Before anything is made: is there such an interface at all?
        for interface in interfaces {
            attach::ifindex(&interface.name)?;
        }
        let _changing = self.run_dir().lock(LockName::Changes)?;
        let pins = self.pins();
        let fresh = !pins.exist();
        let attached = self
            .prepare_tables(answer)
            .and_then(|mut tables| self.attach_each(&mut tables, interfaces, answer));
        match attached {
            Ok(attached) => self.run_dir().remember(&Record {
                config: Some(
                    std::path::absolute(&config.path).unwrap_or_else(|_| config.path.clone()),
                ),
                interfaces: attached,
            }),
            Err(error) => {
                if fresh && pins.attached()?.is_empty() {
                    pins.remove_all()?;
                }
                Err(error)
            }
        }
    }

    fn prepare_tables(&self, answer: &mut Answer) -> Result<Tables, InstanceError> {
        let object = self.object()?;
        let mut tables = self.pins().open_or_create(&object, self.limits())?;
        tables.set(Setting::WallOffset, WallOffset::measure().setting())?;
        tables.set_folding(self.folding()?)?;
        let mut lists = super::consent_lists(self.config()?, &self.paths);
        self.apply_subscribers(&mut tables, &mut lists, answer)?;
        Ok(tables)
    }

    fn attach_each(
        &self,
        tables: &mut Tables,
        interfaces: &[Interface],
        answer: &mut Answer,
    ) -> Result<Vec<AttachedInterface>, InstanceError> {
        let pins = self.pins();
        let mut record = self.run_dir().record()?.interfaces;
        let here = pins.attached()?;
        let mut done: Vec<u32> = Vec::new();
        for interface in interfaces {
            let result = self.attach_one(tables, interface, &here, answer);
            match result {
                Ok(attached) => {
                    if !here.contains(&attached.ifindex) {
                        done.push(attached.ifindex);
                    }
                    record.retain(|known| known.ifindex != attached.ifindex);
                    record.push(attached);
                }
                Err(error) => {
                    for ifindex in done {
                        pins.detach(ifindex)?;
                        tables.remove_interface(ifindex)?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(record)
    }

    fn attach_one(
        &self,
        tables: &mut Tables,
        interface: &Interface,
        here: &[u32],
        answer: &mut Answer,
    ) -> Result<AttachedInterface, InstanceError> {
        let name = &interface.name;
        let ifindex = attach::ifindex(name)?;
        let settings = InterfaceSettings {
            role: match interface.role {
                Role::Access => role::ACCESS,
                Role::Core => role::CORE,
                Role::Both => role::BOTH,
            },
            source_validated: interface.source_validated.into(),
        };
        // The role first: a packet on an interface without one passes.
        tables.set_interface(ifindex, settings)?;
        if here.contains(&ifindex) {
            answer.say(format!(
                "{name}: was attached already; its role is {} now",
                interface.role
            ));
            let known = self.run_dir().record()?.interfaces;
            return Ok(known
                .into_iter()
                .find(|known| known.ifindex == ifindex)
                .unwrap_or_else(|| AttachedInterface {
                    ifindex,
                    name: name.clone(),
                    mode: "unknown".into(),
                }));
        }
        let wanted = match interface.mode {
            AttachMode::Auto => Wanted::Auto,
            AttachMode::Native => Wanted::Only(Mode::Native),
            AttachMode::Generic => Wanted::Only(Mode::Generic),
        };
        let attached = match attach::attach(&self.pins(), name, wanted) {
            Ok(attached) => attached,
            Err(error) => {
                tables.remove_interface(ifindex)?;
                return Err(error.into());
            }
        };
        if let Some(reason) = &attached.fallback {
            answer.warn(format!(
                "{name}: attached in generic mode, which is much slower, because {reason}"
            ));
        }
        answer.say(format!(
            "{name}: attached in {} mode, role {}{}",
            attached.mode.name(),
            interface.role,
            if interface.source_validated {
                ", sources validated"
            } else {
                ""
            }
        ));
        Ok(AttachedInterface {
            ifindex,
            name: name.clone(),
            mode: attached.mode.name().into(),
        })
    }

    /// The subscriber spaces and NAT64 prefixes of the configuration, read from
    /// its files.
    pub(super) fn configured_spaces(&self) -> Result<SpaceTables, InstanceError> {
        let config = self.config()?;
        let subscribers = &config.subscribers;
        let space =
            SubscriberSpace::load(subscribers.prefixes.iter().copied(), &subscribers.files)?;
        let spaces = SubscriberSpaces::load(space, &subscribers.spaces)?;
        Ok(SpaceTables::new(&spaces, &config.nat64))
    }

    /// Detaches from every interface and removes everything pinned.
    pub fn detach(&self, answer: &mut Answer) -> Result<(), InstanceError> {
        crate::kernel::support::require()?;
        let _changing = self.run_dir().lock(LockName::Changes)?;
        let pins = self.pins();
        let run_dir = self.run_dir();
        let names = run_dir.record()?.interfaces;
        if !pins.exist() && pins.attached()?.is_empty() {
            answer.say("nothing was attached");
        }
        for ifindex in pins.attached()? {
            let name = names
                .iter()
                .find(|known| known.ifindex == ifindex)
                .map_or_else(
                    || format!("interface {ifindex}"),
                    |known| known.name.clone(),
                );
            pins.detach(ifindex)?;
            answer.say(format!("{name}: detached"));
        }
        pins.remove_all()?;
        run_dir.forget()
    }
}

/// The interfaces to attach to: those named, else those configured. A name
/// that is configured keeps its role and mode unless others are given.
pub fn chosen_interfaces(
    configured: &[Interface],
    named: &[String],
    mode: Option<&str>,
) -> Result<Vec<Interface>, InstanceError> {
    let usage = |text: String| InstanceError::Usage(text);
    let mode: Option<AttachMode> = mode
        .map(|mode| {
            mode.parse()
                .map_err(|error| usage(format!("--mode: {error}")))
        })
        .transpose()?;
    let mut chosen: Vec<Interface> = if named.is_empty() {
        configured.to_vec()
    } else {
        named
            .iter()
            .map(|text| {
                let argument: InterfaceArgument = text
                    .parse()
                    .map_err(|error| usage(format!("--iface {text}: {error}")))?;
                let known = configured
                    .iter()
                    .find(|interface| interface.name == argument.name)
                    .filter(|interface| argument.role.is_none_or(|role| role == interface.role));
                Ok(match known {
                    Some(known) => known.clone(),
                    None => argument.interface(AttachMode::Auto),
                })
            })
            .collect::<Result<_, InstanceError>>()?
    };
    if let Some(mode) = mode {
        for interface in &mut chosen {
            interface.mode = mode;
        }
    }
    Ok(chosen)
}
