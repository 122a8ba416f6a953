//! The agent of matcher.

pub mod hit;
pub mod indicator;
pub mod kernel;
pub mod protocol;
pub mod tables;
