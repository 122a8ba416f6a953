//! Finds the eBPF object that is built into the agent and makes sure that it
//! is one.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=MATCHER_EBPF_OBJECT");
    let object = match env::var_os("MATCHER_EBPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => default_object(),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    match fs::read(&object) {
        // ELF magic, and at offset 18 machine 247 (EM_BPF).
        Ok(bytes) if bytes.starts_with(b"\x7fELF") && bytes.get(18..20) == Some(&[247, 0]) => {
            let path = fs::canonicalize(&object).unwrap_or(object);
            println!("cargo::rustc-env=MATCHER_EBPF_OBJECT={}", path.display());
        }
        Ok(_) => println!(
            "cargo::error={} is not an eBPF object file (ELF for machine 247)",
            object.display()
        ),
        Err(error) => println!(
            "cargo::error=no eBPF object at {}: {error}. Run `cargo xtask build` once, or set \
             MATCHER_EBPF_OBJECT to a prebuilt one",
            object.display()
        ),
    }
}

/// Where `cargo xtask build` puts it.
fn default_object() -> PathBuf {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let target = env::var_os("CARGO_TARGET_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| manifest.join("../target"));
    target.join("bpf/matcher.o")
}
