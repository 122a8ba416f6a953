//! The agent of matcher.

pub mod config;
pub mod consent;
pub mod hit;
pub mod indicator;
pub mod protocol;
pub mod subscribers;
