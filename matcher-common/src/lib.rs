//! What the kernel program and the agent of matcher share.
//!
//! - [`abi`]: every structure and number that crosses the border between
//!   kernel and agent, under one [`abi::ABI_VERSION`].
//! - [`parse`]: the packet parser, generic over a [`parse::Frame`], so that
//!   the very same code runs in the kernel, under a fuzzer and on the host.
//! - [`table`]: look-ups in the compiled tables, generic likewise.
//!
//! Nothing here allocates, and nothing here decides.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod parse;
pub mod table;
