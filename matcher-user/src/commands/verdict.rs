//! `matcher feed verdict`, `verdicts` and `export`.

use std::path::Path;

use ipnet::IpNet;
use jiff::Timestamp;
use matcher_user::{
    control::Request,
    indicator::Tlp,
    instance::{Answer, Instance, InstanceError},
    verdicts::{AskedVerdict, ShareFormat, Verdicts, share},
};

use super::{print, through_agent};

pub(super) fn give(config: Option<&Path>, asked: AskedVerdict) -> anyhow::Result<u8> {
    let instance = Instance::open(config)?;
    through_agent(&instance, &Request::Verdict(asked.clone()), |answer| {
        instance.give_verdict(&asked, answer)?;
        answer.say("candidates are withdrawn when the agent starts");
        Ok(())
    })
}

pub(super) fn list(config: Option<&Path>, json: bool) -> anyhow::Result<u8> {
    let verdicts = Instance::open(config)?.verdicts()?;
    let mut answer = Answer::default();
    if json {
        for verdict in verdicts.history() {
            answer.say(serde_json::to_string(verdict)?);
        }
        return print(&answer);
    }
    let mut none = true;
    for verdict in verdicts.in_force() {
        none = false;
        answer.say(format!("{}  {}", verdict.subject, verdict.reason()));
    }
    if none {
        answer.say("no verdict holds");
    }
    print(&answer)
}

pub(super) fn export(
    config: Option<&Path>,
    format: ShareFormat,
    since: Option<Timestamp>,
    organisation: Option<&str>,
    strictest: Tlp,
) -> anyhow::Result<u8> {
    let instance = Instance::open(config)?;
    let verdicts: Verdicts = instance.verdicts()?;
    // Without its configuration nobody can tell what is own space.
    let own: Vec<IpNet> = instance
        .config()
        .map_err(|_| {
            InstanceError::Usage(
                "export needs the configuration (-c FILE): it keeps back what lies in the own \
                 space"
                    .into(),
            )
        })
        .and_then(|_| instance.own_space())?;
    let shared = share(&verdicts, format, since, organisation, &own, strictest);
    let mut answer = Answer::default();
    answer.out.push_str(&shared.text);
    for withheld in &shared.withheld {
        answer.warn(format!("kept back: {withheld}"));
    }
    answer.problem(format!("{} verdicts written", shared.verdicts));
    print(&answer)
}
