//! The `matcher` command.
fn main() {}
