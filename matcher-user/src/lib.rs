//! The agent of matcher.

pub mod capture;
pub mod hit;
pub mod indicator;
pub mod protocol;
