//! A file system in memory for a guest, in the "newc" cpio format (kernel,
//! Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// The archive under construction.
pub struct Initramfs {
    archive: Vec<u8>,
    names: BTreeSet<String>,
}

impl Initramfs {
    /// With a console, which the kernel opens for the first process.
    pub fn new() -> Self {
        let mut new = Self {
            archive: Vec::new(),
            names: BTreeSet::new(),
        };
        new.folder("dev");
        new.entry("dev/console", CHARACTER_DEVICE | 0o600, (5, 1), &[]);
        new
    }

    /// Adds a folder; its parents must be there.
    pub fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER | 0o755, (0, 0), &[]);
    }

    /// Adds a file and the folders above it.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        for (at, _) in name.match_indices('/') {
            self.folder(&name[..at]);
        }
        self.entry(name, FILE | mode, (0, 0), content);
    }

    /// Adds a program of this machine with the libraries that it needs, at the places where the
    /// loader looks for them.
    pub fn program(&mut self, name: &str, from: &Path) -> Result<()> {
        let read =
            |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        self.file(name, 0o755, &read(from)?);
        // Fails for a static program, which needs none.
        let libraries = process::output(Command::new("ldd").arg(from)).unwrap_or_default();
        for path in libraries.lines().filter_map(library) {
            self.file(path.trim_start_matches('/'), 0o755, &read(Path::new(path))?);
        }
        Ok(())
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.archive
    }

    /// Appends one entry; a name that is there already is left as it is.
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        if !self.names.insert(name.to_owned()) {
            return;
        }
        let inode = self.names.len();
        let (size, name_size) = (content.len(), name.len() + 1);
        let (major, minor) = device;
        // Owner, group, time and the file system's own device are 0, as is the checksum.
        let header = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}\
             {major:08x}{minor:08x}{name_size:08x}{0:08x}",
            0, 1
        );
        self.archive.extend_from_slice(header.as_bytes());
        self.archive.extend_from_slice(name.as_bytes());
        self.archive.push(0);
        self.pad();
        self.archive.extend_from_slice(content);
        self.pad();
    }

    /// Names and contents begin at multiples of four.
    fn pad(&mut self) {
        self.archive
            .resize(self.archive.len().next_multiple_of(4), 0);
    }
}

/// The path in a line of `ldd`: `libc.so.6 => /lib/libc.so.6 (0x...)` or `/lib64/ld.so (0x...)`.
fn library(line: &str) -> Option<&str> {
    let place = line
        .split_once("=> ")
        .map_or(line, |(_, place)| place)
        .trim();
    place
        .split_whitespace()
        .next()
        .filter(|path| path.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_its_header_its_name_and_its_content_each_at_a_multiple_of_four() {
        let mut image = Initramfs {
            archive: Vec::new(),
            names: BTreeSet::new(),
        };
        image.entry("ab", FILE | 0o644, (0, 0), b"hello");
        let expected = "07070100000001000081a4000000000000000000000001000000000000000500000000\
                        00000000000000000000000000000003\
                        00000000ab\0\0\0\0hello\0\0\0";
        assert_eq!(String::from_utf8_lossy(&image.archive), expected);
    }

    #[test]
    fn folders_above_a_file_are_made_once() {
        let mut image = Initramfs::new();
        image.file("a/b/c", 0o644, b"");
        image.file("a/b/d", 0o644, b"");
        let names: Vec<&str> = image.names.iter().map(String::as_str).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "dev", "dev/console"]);
    }

    #[test]
    fn libraries_are_read_from_what_the_loader_says() {
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007fb844df3000)"), None);
        assert_eq!(
            library("\tlibc.so.6 => /lib/libc.so.6 (0x01)"),
            Some("/lib/libc.so.6")
        );
        assert_eq!(
            library("\t/lib64/ld-linux-x86-64.so.2 (0x01)"),
            Some("/lib64/ld-linux-x86-64.so.2")
        );
        assert_eq!(library("\tlibx.so => not found"), None);
    }
}
