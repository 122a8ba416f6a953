//! The agent of matcher.

pub mod capture;
pub mod clock;
pub mod config;
pub mod consent;
pub mod drain;
pub mod feeds;
pub mod hit;
pub mod indicator;
pub mod indicators;
pub mod kernel;
pub mod protocol;
pub mod replay;
pub mod subscribers;
pub mod tables;
