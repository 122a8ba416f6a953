//! The agent's configuration.

#![no_main]

use std::path::Path;

use matcher_user::config::Config;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let lines = text.split('\n').count();
    let problems = match Config::parse(Path::new("fuzz.toml"), text, |_| true) {
        Ok(config) => config.warnings,
        Err(error) => {
            assert!(!error.problems.is_empty(), "refused without a reason");
            error.problems
        }
    };
    for problem in problems {
        assert!(problem.line <= lines, "{problem:?} of {lines} lines");
        assert!(!problem.message.is_empty(), "{problem:?}");
    }
});
