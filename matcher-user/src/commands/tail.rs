//! `matcher tail`: hits from the agent when one runs, else from the ring
//! buffer itself.

use std::{io, path::Path, thread, time::Duration};

use anyhow::Context as _;
use matcher_user::{
    clock::WallOffset,
    control::TailLine,
    drain::Names,
    hit::{Hit, line_text},
    instance::{Instance, InstanceError, LockName},
    kernel::{attach, ring::Ring},
};
use rustix::event::{PollFd, PollFlags, poll};

use super::{agent, write_out};

/// How often a lost agent is looked for.
const RETRY: Duration = Duration::from_millis(200);

pub(super) fn tail(config: Option<&Path>, json: bool, once: bool) -> anyhow::Result<u8> {
    let instance = Instance::open(config)?;
    // Where to go on when the agent was restarted: no hit twice, none missed.
    let mut after = None;
    let mut announced = once;
    loop {
        if let Some(client) = agent(&instance)? {
            for line in client.tail(after).context("asking the agent")? {
                let TailLine { cursor, hit } = line.map_err(|source| InstanceError::File {
                    action: "read hits from",
                    path: instance.run_dir().socket(),
                    source,
                })?;
                after = Some(cursor);
                let line = match hit {
                    Some(hit) if json => hit.to_string(),
                    Some(hit) => line_text(&hit),
                    None if once => return Ok(0),
                    None => {
                        if !announced {
                            announced = true;
                            announce("following the hits of the agent")?;
                        }
                        continue;
                    }
                };
                if !write_out(io::stdout(), format!("{line}\n").as_bytes())? {
                    return Ok(0);
                }
            }
        } else if after.is_none() {
            return from_ring(&instance, json, once);
        }
        // An agent that was there comes back: the ring buffer stays its own.
        thread::sleep(RETRY);
    }
}

/// Consumes the ring buffer. A hit is released after it is printed.
fn from_ring(instance: &Instance, json: bool, once: bool) -> anyhow::Result<u8> {
    let tables = instance.tables()?;
    let _lock = instance.run_dir().try_lock(LockName::Ring)?;
    let mut catalog = instance.catalog()?;
    let mut ring = Ring::open(&tables).map_err(InstanceError::from)?;
    let mut names = Names::default();
    if !once {
        announce("no agent runs: reading the ring buffer, and taking the hits out of it")?;
    }
    loop {
        let offset = WallOffset::measure();
        let mut lines = String::new();
        let mut batch = 0;
        while batch < 1_000
            && let Some(event) = ring.next_event()
        {
            let event = event.map_err(InstanceError::from)?;
            let id = matcher_user::indicator::IndicatorId(event.indicator);
            batch += 1;
            // The canary of an agent that has ended.
            if id == matcher_user::indicator::IndicatorId::CANARY {
                continue;
            }
            if catalog.get(id).is_none() {
                catalog = instance.catalog()?;
                names.forget_indicators();
            }
            let hit = names.hit(&event, offset, &catalog, attach::name);
            lines.push_str(&render(&hit, json)?);
            lines.push('\n');
        }
        if batch > 0 {
            if !write_out(io::stdout(), lines.as_bytes())? {
                return Ok(0);
            }
            ring.release();
            continue;
        }
        if once {
            return Ok(0);
        }
        let timeout = rustix::time::Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        // Interrupted or timed out: look again.
        let _ = poll(&mut [PollFd::new(&ring, PollFlags::IN)], Some(&timeout));
    }
}

/// Tells a person who sees nothing yet, and a program that starts this one,
/// from when on no hit is missed.
fn announce(what: &str) -> anyhow::Result<()> {
    write_out(io::stderr(), format!("{what}; Ctrl-C ends\n").as_bytes())?;
    Ok(())
}

fn render(hit: &Hit, json: bool) -> anyhow::Result<String> {
    if json {
        Ok(serde_json::to_string(hit)?)
    } else {
        Ok(line_text(&serde_json::to_value(hit)?))
    }
}
