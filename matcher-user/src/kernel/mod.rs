//! The kernel side of the agent, and the only module that names `aya`.
//!
//! It creates and fills tables, attaches the program, reads counters and the
//! ring buffer. It never parses a feed, a record or a request: what crosses
//! this border are compiled tables and events, so that it can become a process
//! of its own with CAP_BPF and CAP_NET_ADMIN.
//!
//! - `object`: the eBPF object file and its ABI version.
//! - `program`: loading, and running single packets (`BPF_PROG_TEST_RUN`).
//! - `tables`: typed access to the maps; `tries` and `port_ranges` are those
//!   that need more, `consent` and `spaces` change what packets meanwhile read,
//!   `refusals` hold at once.
//! - `image`, `classes`, `rules`: the tables that every packet meets first, in
//!   memory that is shared with the kernel.
//! - `settings`: words that are in force with the next packet.
//! - `folds`: repeated packets, counted; read and emptied in batches (`batch`).
//! - `pins`: the pinned state that outlives the agent.
//! - `attach`: interfaces.
//! - `grace`: packets under way.
//! - `ring`: the consumer of the ring buffer.
//! - `bench`: what the benchmark runs.
//! - `support`: what is missing, said in one sentence.

pub mod attach;
mod batch;
pub mod bench;
mod bpffs;
mod classes;
mod consent;
mod error;
pub mod folds;
mod grace;
mod image;
#[cfg(feature = "kernel-log")]
mod log;
mod mapping;
pub mod object;
pub mod pins;
mod port_ranges;
pub mod program;
mod refusals;
pub mod ring;
mod rules;
mod settings;
mod spaces;
pub mod support;
pub mod tables;
mod tries;

pub use consent::ConsentChange;
pub use error::KernelError;
