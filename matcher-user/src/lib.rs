//! The agent of matcher.

pub mod aggregate;
pub mod candidate;
pub mod hit;
pub mod indicator;
pub mod protocol;
pub mod sinks;
pub mod store;
