//! Broken input from the outside: a message with file, line and reason, and the
//! outcome that the design states.

use std::fs;

use anyhow::{Context, Result};
use matcher_common::abi::ABI_VERSION;
use matcher_tests::{
    lab::Lab,
    matcher::{Deployment, beacon, binary, subscriber},
    skip::skip,
};
use serde_json::json;

fn is_skipped(test: &str) -> bool {
    Lab::obstacle()
        .inspect(|reason| skip(test, reason))
        .is_some()
}

/// The subscribers that are hit when 7, 8 and 9 beacon.
fn hit(deployment: &Deployment) -> Result<Vec<serde_json::Value>> {
    let frames = [7, 8, 9].map(|host| beacon(subscriber(host), 1024));
    deployment.access()?.send_all(frames, 1000)?;
    let hits = deployment.hits()?;
    Ok(hits
        .iter()
        .map(|hit| hit["subscriber_ip"].clone())
        .collect())
}

#[test]
fn a_broken_configuration_changes_nothing() -> Result<()> {
    if is_skipped("a_broken_configuration_changes_nothing") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.start()?;
    deployment.configure("lists = [\"opt-out.list\"]", "lists = \"opt-out.list")?;
    let broken = deployment.matcher(["load"])?.failed(2);
    insta::assert_snapshot!("config", deployment.redacted(&broken.err));
    deployment.configure("lists = \"opt-out.list", "lists = [\"opt-out.list\"]")?;
    assert_eq!(hit(&deployment)?.len(), 3);
    assert_eq!(deployment.status()?["generation"], 1);
    Ok(())
}

#[test]
fn a_broken_feed_line_is_named_and_the_others_are_loaded() -> Result<()> {
    if is_skipped("a_broken_feed_line_is_named_and_the_others_are_loaded") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let mut feed: String = (1..=20).map(|n| format!("192.0.2.{n}\n")).collect();
    feed += "198.51.100.300\n198.51.100.23:443\n0.0.0.0/0\n203.0.113.8\n";
    deployment.write("cc.txt", &feed)?;
    deployment.matcher(["attach"])?.succeeded();
    let loaded = deployment.matcher(["load"])?.succeeded();
    insta::assert_snapshot!(
        "feed_line",
        deployment.redacted(&(loaded.err + &loaded.out))
    );
    assert_eq!(hit(&deployment)?.len(), 3);

    // A file that is nothing but broken keeps the last good list.
    deployment.write("cc.txt", "<html>403</html>\n")?;
    let refused = deployment.matcher(["load"])?.failed(1);
    insta::assert_snapshot!(
        "feed_file",
        deployment.redacted(&(refused.err + &refused.out))
    );
    assert_eq!(hit(&deployment)?.len(), 3);
    fs::remove_file(deployment.folder().join("cc.txt"))?;
    let missing = deployment.matcher(["load"])?.failed(1);
    insta::assert_snapshot!(
        "feed_missing",
        deployment.redacted(&(missing.err + &missing.out))
    );
    assert_eq!(hit(&deployment)?.len(), 3);
    Ok(())
}

#[test]
fn a_broken_opt_out_line_fails_closed() -> Result<()> {
    if is_skipped("a_broken_opt_out_line_fails_closed") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.write("opt-out.list", "203.0.113.7\n")?;
    deployment.start()?;
    assert_eq!(
        hit(&deployment)?,
        [json!("203.0.113.8"), json!("203.0.113.9")]
    );

    // 7 is taken out, 8 comes in, and one line cannot be read: the new refusal
    // holds at once, the removal waits.
    deployment.write("opt-out.list", "203.0.113.8\n203.0.113.2OO\n")?;
    let loaded = deployment.matcher(["load"])?;
    insta::assert_snapshot!(
        "opt_out_line",
        deployment.redacted(&format!(
            "exit {}\n{}{}",
            loaded.code, loaded.err, loaded.out
        ))
    );
    assert_eq!(hit(&deployment)?, [json!("203.0.113.9")]);

    deployment.write("opt-out.list", "203.0.113.8\n")?;
    deployment.matcher(["load"])?.succeeded();
    assert_eq!(
        hit(&deployment)?,
        [json!("203.0.113.7"), json!("203.0.113.9")]
    );
    Ok(())
}

#[test]
fn an_opt_out_list_that_was_never_readable_stops_all_matching() -> Result<()> {
    if is_skipped("an_opt_out_list_that_was_never_readable_stops_all_matching") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let list = deployment.folder().join("opt-out.list");
    fs::remove_file(&list)?;
    let attached = deployment.matcher(["attach"])?;
    let loaded = deployment.matcher(["load"])?;
    insta::assert_snapshot!(
        "opt_out_missing",
        deployment.redacted(&format!(
            "attach: exit {}\n{}{}load: exit {}\n{}{}",
            attached.code, attached.err, attached.out, loaded.code, loaded.err, loaded.out
        ))
    );
    assert_eq!(hit(&deployment)?.len(), 0);
    assert_eq!(deployment.counter("consent-expired")?, 3);

    fs::write(&list, "203.0.113.8\n")?;
    deployment.matcher(["load"])?.succeeded();
    assert_eq!(hit(&deployment)?.len(), 2);
    // Once it was readable, what it said last holds when it vanishes.
    fs::remove_file(&list)?;
    let without = deployment.matcher(["load"])?;
    insta::assert_snapshot!(
        "opt_out_vanished",
        deployment.redacted(&format!(
            "exit {}\n{}{}",
            without.code, without.err, without.out
        ))
    );
    assert_eq!(
        hit(&deployment)?,
        [json!("203.0.113.7"), json!("203.0.113.9")]
    );
    Ok(())
}

#[test]
fn an_object_file_that_is_not_ours_is_refused_before_the_kernel_sees_it() -> Result<()> {
    if is_skipped("an_object_file_that_is_not_ours_is_refused_before_the_kernel_sees_it") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.configure(
        "edge = \"edge-1\"",
        "edge = \"edge-1\"\nebpf_object = \"matcher.o\"",
    )?;
    let built = built_in_object()?;
    let cut = built.get(..built.len() / 2).context("a half")?;
    let host = fs::read("/proc/self/exe")?;
    let mut said = String::new();
    for (what, bytes) in [
        ("nothing", &b""[..]),
        ("garbage", b"\x7fELF and then nothing that one could load"),
        ("a program of this machine", &host),
        ("cut off", cut),
        ("another ABI", &of_another_abi(&built)?),
    ] {
        deployment.write("matcher.o", bytes)?;
        let refused = deployment.matcher(["attach"])?.failed(1);
        assert_eq!(refused.out, "", "{what}");
        assert!(!deployment.pins().directory().exists(), "{what}");
        let err = deployment.redacted(&refused.err);
        let ours = format!("this matcher has {ABI_VERSION};");
        said += &format!("{what}: {}", err.replace(&ours, "this matcher has [OURS];"));
    }
    fs::remove_file(deployment.folder().join("matcher.o"))?;
    let missing = deployment.matcher(["attach"])?.failed(1);
    said += &format!("missing: {}", deployment.redacted(&missing.err));
    insta::assert_snapshot!("object_file", said);

    deployment.write("matcher.o", &built)?;
    deployment.start()?;
    assert_eq!(hit(&deployment)?.len(), 3);
    Ok(())
}

/// The object that the binary was built with, found in it: it is the only ELF
/// file inside for eBPF (e_machine 247, elf.h).
fn built_in_object() -> Result<Vec<u8>> {
    let binary = fs::read(binary()?)?;
    let start = binary
        .windows(20)
        .position(|head| head.starts_with(b"\x7fELF\x02\x01\x01") && head.ends_with(&[247, 0]))
        .context("the binary holds an eBPF object")?;
    let object = binary.get(start..).context("from there on")?;
    // An ELF file ends with its section headers here (e_shoff, e_shnum).
    let field = |at: usize, width: usize| -> Result<usize> {
        let bytes = object.get(at..at + width).context("an ELF header")?;
        let mut value = [0; 8];
        value[..width].copy_from_slice(bytes);
        Ok(usize::from_le_bytes(value))
    };
    let end = field(40, 8)? + field(58, 2)? * field(60, 2)?;
    Ok(object.get(..end).context("a whole object")?.to_vec())
}

/// The same object, saying that it has ABI version 9999.
fn of_another_abi(object: &[u8]) -> Result<Vec<u8>> {
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
    let file = object::File::parse(object)?;
    let symbol = file
        .symbol_by_name("MATCHER_ABI_VERSION")
        .context("the symbol")?;
    let section = file.section_by_index(symbol.section_index().context("its section")?)?;
    let (offset, _) = section.file_range().context("its bytes")?;
    let at = usize::try_from(offset + symbol.address())?;
    let mut other = object.to_vec();
    other
        .get_mut(at..at + 4)
        .context("four bytes")?
        .copy_from_slice(&9999_u32.to_le_bytes());
    Ok(other)
}
