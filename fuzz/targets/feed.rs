//! Feeds: the format that `MATCHER_FUZZ_FEED` names. `list` prints the names of all, which is how
//! `cargo xtask fuzz` knows them: a new format needs nothing here.

#![no_main]

use std::{env, process, sync::OnceLock};

use matcher_user::feeds::Format;

const FORMAT: &str = "MATCHER_FUZZ_FEED";

static CHOSEN: OnceLock<Format> = OnceLock::new();

fn choose() -> Format {
    let name = env::var(FORMAT).unwrap_or_default();
    let names = Format::ALL.map(Format::name);
    if name == "list" {
        println!("{}", names.join("\n"));
        process::exit(0);
    }
    match name.parse() {
        Ok(format) => format,
        Err(error) => {
            eprintln!("{FORMAT}: {error}; one of {}", names.join(", "));
            process::exit(2);
        }
    }
}

libfuzzer_sys::fuzz_target!(init: {
    CHOSEN.get_or_init(choose);
}, |bytes: &[u8]| {
    matcher_fuzz::feed::check(*CHOSEN.get_or_init(choose), bytes);
});
