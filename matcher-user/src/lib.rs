//! The agent of matcher.

pub mod hit;
pub mod indicator;
pub mod protocol;
