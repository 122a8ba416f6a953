//! `matcher tail`: hits from the agent when one runs, else from the ring
//! buffer itself.

use std::{
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use matcher_common::abi::HitEvent;
use matcher_user::{
    clock::WallOffset,
    control::TailLine,
    drain::Names,
    hit::{Hit, line_text},
    indicator::IndicatorId,
    indicators::Catalog,
    instance::{Instance, InstanceError, LockName},
    kernel::{attach, ring::Ring, tables::Tables},
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
    let mut tables = instance.tables()?;
    let _lock = instance.run_dir().try_lock(LockName::Ring)?;
    let mut explainer = Explainer {
        instance,
        catalog: instance.catalog()?,
        names: Names::default(),
    };
    let mut ring = Ring::open(&tables).map_err(InstanceError::from)?;
    let window = tables.folding().map_err(InstanceError::from)?.window;
    let (mut swept, mut swept_at) = (false, Instant::now());
    if !once {
        announce("no agent runs: reading the ring buffer, and taking the hits out of it")?;
    }
    loop {
        let offset = WallOffset::measure();
        if !window.is_zero() && swept_at.elapsed() >= window {
            (swept, swept_at) = (true, Instant::now());
            if !print_folds(&mut tables, &mut explainer, json)? {
                return Ok(0);
            }
        }
        let mut lines = String::new();
        let mut batch = 0;
        while batch < 1_000
            && let Some(event) = ring.next_event()
        {
            let event = event.map_err(InstanceError::from)?;
            batch += 1;
            // The canary of an agent that has ended.
            if event.flow.indicator == IndicatorId::CANARY.0 {
                continue;
            }
            let hit = explainer.hit(&event, offset)?;
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
        // What was folded before anybody came.
        if !swept {
            (swept, swept_at) = (true, Instant::now());
            if !print_folds(&mut tables, &mut explainer, json)? {
                return Ok(0);
            }
            continue;
        }
        if once {
            return Ok(0);
        }
        // The kernel wakes us only when much waits.
        let timeout = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        // Interrupted or timed out: look again.
        let _ = poll(&mut [PollFd::new(&ring, PollFlags::IN)], Some(&timeout));
    }
}

/// What events stand for.
struct Explainer<'a> {
    instance: &'a Instance,
    catalog: Catalog,
    names: Names,
}

impl Explainer<'_> {
    fn hit(&mut self, event: &HitEvent, offset: WallOffset) -> Result<Hit, InstanceError> {
        if self
            .catalog
            .get(IndicatorId(event.flow.indicator))
            .is_none()
        {
            self.catalog = self.instance.catalog()?;
            self.names.forget_indicators();
        }
        Ok(self.names.hit(event, offset, &self.catalog, attach::name))
    }
}

/// Prints what was folded, then empties the kernel's tables of it; false when
/// the reader has gone.
fn print_folds(
    tables: &mut Tables,
    explainer: &mut Explainer<'_>,
    json: bool,
) -> anyhow::Result<bool> {
    // One that a crash left, then the one in use.
    if let Some(closed) = tables.closed_folds().map_err(InstanceError::from)?
        && !print_closed(tables, closed, explainer, json)?
    {
        return Ok(false);
    }
    let closed = tables.close_folds().map_err(InstanceError::from)?;
    print_closed(tables, closed, explainer, json)
}

fn print_closed(
    tables: &mut Tables,
    closed: u64,
    explainer: &mut Explainer<'_>,
    json: bool,
) -> anyhow::Result<bool> {
    let offset = WallOffset::measure();
    let mut lines = String::new();
    for summary in tables.folds(closed).map_err(InstanceError::from)? {
        lines.push_str(&render(&explainer.hit(&summary, offset)?, json)?);
        lines.push('\n');
    }
    let read = write_out(io::stdout(), lines.as_bytes())?;
    if read {
        tables.clear_folds(closed).map_err(InstanceError::from)?;
    }
    Ok(read)
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
