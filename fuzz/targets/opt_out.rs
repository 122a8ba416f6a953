//! Lists of subscribers who opted out, opted in or are left alone.

#![no_main]

use std::{path::Path, sync::Arc};

use matcher_user::consent::list::{ListKind, ParsedList};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let source: Arc<Path> = Path::new("fuzz.txt").into();
    let lines = bytes.split(|byte| *byte == b'\n').count();
    let in_file = |line: u32| (1..=lines).contains(&(line as usize));
    let read = |kind| ParsedList::read(kind, &source, bytes);
    let out = read(ListKind::OptOut);
    for list in [&out, &read(ListKind::OptIn), &read(ListKind::Exclusion)] {
        assert_eq!(list.zero_bytes, bytes.is_empty());
        assert!(list.entries.len() <= lines);
        for entry in &list.entries {
            assert!(in_file(entry.line), "{entry:?} of {lines} lines");
            if let Some(prefix) = entry.prefix() {
                assert_eq!(prefix.trunc(), prefix, "host bits are cleared");
            }
        }
        for problem in &list.problems {
            assert!(in_file(problem.line), "{problem:?} of {lines} lines");
        }
    }
    // Doubt favours the subscriber: what is refused as a consent is kept as a refusal.
    for entry in read(ListKind::OptIn).entries {
        assert!(
            out.entries.iter().any(|refusal| refusal.line == entry.line),
            "{entry:?}"
        );
    }
});
