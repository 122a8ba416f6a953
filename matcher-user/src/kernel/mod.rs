//! The kernel side of the agent, and the only module that names `aya`.
//!
//! It creates and fills tables, attaches the program, reads counters and the
//! ring buffer. It never parses a feed, a record or a request: what crosses
//! this border are compiled tables and events, so that it can become a process
//! of its own with CAP_BPF and CAP_NET_ADMIN.
//!
//! - [`object`]: the eBPF object file and its ABI version.
//! - [`program`]: loading, and running single packets (`BPF_PROG_TEST_RUN`).
//! - [`tables`]: typed access to the maps.
//! - [`pins`]: the pinned state that outlives the agent.
//! - [`attach`]: interfaces.
//! - [`ring`]: the consumer of the ring buffer.
//! - [`support`]: what is missing, said in one sentence.

pub mod attach;
mod bpffs;
mod error;
mod grace;
pub mod object;
pub mod pins;
pub mod program;
pub mod ring;
pub mod support;
pub mod tables;

pub use error::KernelError;
