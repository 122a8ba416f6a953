//! `cargo xtask kernels`: does the program load and match on older kernels?
//!
//! A distribution's kernel is booted in an emulator with nothing but the agent, a feed and a
//! small capture; the agent replays the capture through the program in that kernel. No interface
//! and no hardware acceleration is needed.

mod capture;
mod debian;
mod initramfs;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile};
use crate::setup::{self, Need};
use crate::{process, progress, workspace};

use initramfs::Initramfs;

/// Emulated, a boot takes some seconds; loaded machines take longer.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// The first process of the guest; its last line gives the exit status of `matcher`.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t bpf none /sys/fs/bpf
/bin/busybox ip link set lo up
echo 'guest: kernel' $(/bin/busybox uname -r)
/bin/matcher replay --json --no-guards --feed plain:/test/feed.txt \\
    --subscribers 203.0.113.0/24,2001:db8:1::/48 --opt-out /test/opt-out.txt /test/capture.pcap
echo 'guest: exit' $?
/bin/busybox poweroff -f
";

/// C&C entries of both families, one with a port.
const FEED: &str = "198.51.100.23\n2001:db8:c2::/64\n198.51.100.80:443\n";
/// One subscriber who must not be matched.
const OPT_OUT: &str = "203.0.113.9\n";

/// Options of `cargo xtask kernels`.
#[derive(clap::Args)]
pub struct Args {
    /// Series of Debian's kernels, such as 6.1 or 6.12
    #[arg(default_values = ["6.1"])]
    series: Vec<String>,
}

/// Runs `cargo xtask kernels`.
pub fn run(args: Args) -> Result<()> {
    setup::ensure(Need::Emulator)?;
    let matcher = build::matcher(Profile::Debug)?;
    let initrd = workspace::target_dir().join("kernels/initramfs.cpio");
    image(&matcher, &initrd)?;
    let mut failed = Vec::new();
    for series in &args.series {
        let began = Instant::now();
        let result = debian::kernel(series).and_then(|kernel| boot(series, &kernel, &initrd));
        match result.and_then(|said| judge(&said)) {
            Ok(release) => {
                let seconds = began.elapsed().as_secs_f64();
                println!("{series:<6} ok     {release} ({seconds:.1} s)");
            }
            Err(error) => {
                println!("{series:<6} FAILED {error:#}");
                failed.push(series.as_str());
            }
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("failed on kernel {}", failed.join(", "))
    }
}

/// Writes the guest's file system.
fn image(matcher: &Path, to: &Path) -> Result<()> {
    let busybox = process::on_path("busybox").context("busybox is missing")?;
    let mut image = Initramfs::new();
    for folder in ["dev", "proc", "sys", "tmp", "run", "test"] {
        image.folder(folder);
    }
    image.program("bin/busybox", &busybox)?;
    image.program("bin/matcher", matcher)?;
    image.file("init", 0o755, INIT.as_bytes());
    image.file("test/feed.txt", 0o644, FEED.as_bytes());
    image.file("test/opt-out.txt", 0o644, OPT_OUT.as_bytes());
    image.file("test/capture.pcap", 0o644, &capture::pcap());
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(to, image.finish()).with_context(|| format!("cannot write {}", to.display()))
}

/// Boots the kernel and gives what the guest wrote to its serial console.
fn boot(series: &str, kernel: &Path, initrd: &Path) -> Result<String> {
    let log = workspace::target_dir().join(format!("kernels/{series}.log"));
    let mut qemu = Command::new("qemu-system-x86_64");
    // Emulated: nested virtualisation is there on few machines and broken on some of those.
    qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024"]);
    qemu.args([
        "-display",
        "none",
        "-nodefaults",
        "-no-reboot",
        "-serial",
        "stdio",
    ]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1"]);
    progress::logged(
        &format!("booting Linux {series}"),
        &mut qemu,
        &log,
        BOOT_LIMIT,
    )?;
    let said = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// The guest's kernel release, if the guest saw exactly the hits that it must see.
fn judge(said: &str) -> Result<String> {
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    let after = |mark: &str| lines.iter().find_map(|line| line.strip_prefix(mark));
    let Some(release) = after("guest: kernel ") else {
        bail!("the guest did not come up:\n{said}");
    };
    match after("guest: exit ") {
        Some("0") => {}
        Some(status) => bail!("{release}: `matcher replay` ended with status {status}:\n{said}"),
        None => bail!("{release}: `matcher replay` did not end:\n{said}"),
    }
    let hits: Vec<&str> = lines
        .into_iter()
        .filter(|line| line.starts_with('{'))
        .collect();
    let complete = hits.len() == capture::HITS.len()
        && hits
            .iter()
            .zip(capture::HITS)
            .all(|(line, (packet, remote))| {
                line.contains(&format!("\"packet\":{packet},"))
                    && line.contains(&format!("\"remote_ip\":\"{remote}\""))
            });
    if complete {
        return Ok(release.to_owned());
    }
    bail!(
        "{release}: expected hits of the packets {:?}, saw:\n{said}",
        capture::HITS
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(status: &str, hits: &[(u32, &str)]) -> String {
        let mut said = "noise\r\nguest: kernel 6.1.0-x\r\n".to_owned();
        for (packet, remote) in hits {
            said += &format!(
                "{{\"capture\":\"x\",\"packet\":{packet},\"remote_ip\":\"{remote}\"}}\r\n"
            );
        }
        said + &format!("guest: exit {status}\r\n")
    }

    #[test]
    fn a_guest_that_saw_every_hit_is_fine() {
        assert_eq!(judge(&guest("0", &capture::HITS)).unwrap(), "6.1.0-x");
    }

    #[test]
    fn a_missing_or_surplus_hit_a_bad_status_or_no_end_is_not() {
        let mut more = capture::HITS.to_vec();
        more.push((9, "198.51.100.23"));
        for said in [
            guest("0", &capture::HITS[1..]),
            guest("0", &more),
            guest("1", &capture::HITS),
            guest("0", &capture::HITS).replace("guest: exit", "panic"),
            "Kernel panic".to_owned(),
        ] {
            assert!(judge(&said).is_err(), "{said}");
        }
    }
}
