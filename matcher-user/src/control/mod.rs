//! The control socket: how commands reach a running agent.
//!
//! One JSON line asks, JSON lines answer. Whoever may connect is decided by
//! the socket's file mode and checked again by the kernel's word on who the
//! peer is.

pub mod client;
pub mod server;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{instance::ConsentAction, verdicts::AskedVerdict};

/// Longest request line in bytes.
pub const MAX_REQUEST: u64 = 1 << 20;

/// What a command asks of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "command")]
pub enum Request {
    /// Is somebody there?
    Ping,
    /// The state.
    Status {
        /// As JSON.
        json: bool,
    },
    /// Attach to more interfaces, `NAME[:ROLE]`; those of the configuration
    /// when none is named.
    Attach {
        /// Interfaces.
        interfaces: Vec<String>,
        /// `native`, `generic` or `auto`.
        mode: Option<String>,
    },
    /// Load these feeds, `FORMAT:PATH`; those of the configuration when none
    /// is named. Consent is read again too.
    Load {
        /// Feeds.
        feeds: Vec<String>,
        /// Fetch the configured ones now, as far as their publishers allow;
        /// else only those whose time has come.
        #[serde(default)]
        fetch: bool,
    },
    /// Change or show consent.
    Consent(ConsentAction),
    /// The emergency stop, or its end.
    StopMatching {
        /// Match again.
        resume: bool,
    },
    /// Record a verdict on an indicator.
    Verdict(AskedVerdict),
    /// Send the canary, and answer when it came through or did not.
    Canary {
        /// As JSON.
        json: bool,
    },
    /// Detach everything; the agent ends.
    Detach,
    /// Hits as they are stored, one a line, until the asker hangs up.
    Tail {
        /// Only hits after this cursor; those after the last one when absent.
        after: Option<u64>,
    },
}

/// One hit on the way to `matcher tail`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TailLine {
    /// Where to go on after a lost connection.
    pub cursor: u64,
    /// The JSON line of the contract; empty for a sign of life.
    pub hit: Option<serde_json::Value>,
}

/// Where the agent listens and who may ask.
#[derive(Clone, Debug)]
pub struct Door {
    /// The socket.
    pub path: PathBuf,
    /// Group whose members may ask, beside root and the agent's own user.
    pub group: Option<u32>,
}
