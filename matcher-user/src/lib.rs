//! The agent of matcher.

pub mod feeds;
pub mod hit;
pub mod indicator;
pub mod indicators;
pub mod protocol;
