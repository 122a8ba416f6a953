//! Tests that cannot run here say so.

use std::{env, fs::OpenOptions, io::Write};

/// Says that `test` was skipped and why, also to the log of `cargo xtask test`.
///
/// # Panics
/// The log cannot be written.
pub fn skip(test: &str, reason: &str) {
    println!("skipped: {test}: {reason}");
    if let Some(log) = env::var_os("MATCHER_SKIP_LOG") {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(log)
            .and_then(|mut log| writeln!(log, "{test}"))
            .expect("the log of skipped tests takes a line");
    }
}
