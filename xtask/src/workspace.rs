//! Where things are in this checkout, and how its cargo is called.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the root `Cargo.toml`.
pub fn root() -> PathBuf {
    // Set by `cargo run`; the other is where this binary was built from.
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest
        .parent()
        .map_or(manifest.clone(), Path::to_path_buf)
}

/// Cargo's target folder, absolute.
pub fn target_dir() -> PathBuf {
    let root = root();
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => root.join(dir),
        _ => root.join("target"),
    }
}

/// The cargo that runs this xtask, in the checkout's root.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    forget_own_package(&mut cargo);
    cargo
}

/// Takes out what `cargo run` told xtask about xtask itself, so that the child starts as if the
/// user had called it.
pub fn forget_own_package(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || matches!(
                text,
                "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE"
            )
        {
            command.env_remove(&name);
        }
    }
}
