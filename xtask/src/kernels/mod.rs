//! `cargo xtask kernels`: does the program load and match on older kernels?
//!
//! A distribution's kernel is booted in an emulator with nothing but the agent, a feed, a small
//! capture and the tests of the program ([`guest_tests`]). The agent replays the capture through
//! the program in that kernel, then the tests run. No interface and no hardware acceleration is
//! needed.

mod capture;
mod debian;
mod guest_tests;
mod initramfs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile};
use crate::setup::{self, Need};
use crate::{process, progress, workspace};

use initramfs::Initramfs;

/// Emulated, a boot takes some seconds and the tests a minute or two; loaded machines take longer.
const BOOT_LIMIT: Duration = Duration::from_secs(900);

/// The first process of the guest. It says how each thing that it ran ended. Left out is what takes
/// minutes in an emulator and asks nothing more of the kernel: the longest of all lists.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t bpf none /sys/fs/bpf
/bin/busybox ip link set lo up
echo 'guest: kernel' $(/bin/busybox uname -r)
/bin/matcher replay --json --no-guards --feed plain:/test/feed.txt \\
    --subscribers 203.0.113.0/24,2001:db8:1::/48 --opt-out /test/opt-out.txt /test/capture.pcap
echo 'guest: exit' $?
/bin/verified_instructions | /bin/busybox sed 's/^/guest: verified /'
for test in /tests/*; do
    $test --test-threads 1 --skip a_hundred_thousand 2>&1
    echo \"guest: test $? $test\"
done
/bin/busybox poweroff -f
";

/// C&C entries of both families, one with a port.
const FEED: &str = "198.51.100.23\n2001:db8:c2::/64\n198.51.100.80:443\n";
/// One subscriber who must not be matched.
const OPT_OUT: &str = "203.0.113.9\n";

/// The oldest that is supported, and the one of Debian 13.
pub const SERIES: [&str; 2] = ["6.1", "6.12"];

/// Options of `cargo xtask kernels`.
#[derive(clap::Args)]
pub struct Args {
    /// Series of Debian's kernels, such as 6.1 or 6.12
    #[arg(default_values = SERIES)]
    series: Vec<String>,
}

/// What came of one kernel.
enum Outcome {
    Ok(Guest),
    Failed(anyhow::Error),
    /// It was not booted, and why.
    NotRun(String),
}

/// What a guest that saw every hit said of itself.
#[derive(Debug, PartialEq, Eq)]
struct Guest {
    release: String,
    /// Programs, with the instructions that the verifier walked.
    verified: Vec<(String, String)>,
    /// Tests that ran.
    tests: u64,
}

/// Runs `cargo xtask kernels`.
pub fn run(args: Args) -> Result<()> {
    setup::ensure(Need::Emulator)?;
    let series: Vec<&str> = args.series.iter().map(String::as_str).collect();
    match boot_all(&series)? {
        not_run if not_run.is_empty() => Ok(()),
        not_run => bail!("not run: {}", not_run.join("; ")),
    }
}

/// Boots each series and prints what came of it. Gives what could not be booted on this machine,
/// and why.
///
/// # Errors
/// When the program does not do on some kernel what it must.
pub fn boot_all(series: &[&str]) -> Result<Vec<String>> {
    let matcher = build::matcher(Profile::Debug)?;
    let verified = verified_instructions()?;
    let initrd = workspace::target_dir().join("kernels/initramfs.cpio");
    image(&matcher, &verified, &guest_tests::build()?, &initrd)?;
    let (mut failed, mut not_run) = (Vec::new(), Vec::new());
    for series in series {
        let began = Instant::now();
        match outcome(series, &initrd) {
            Outcome::Ok(guest) => {
                let seconds = began.elapsed().as_secs_f64();
                println!(
                    "{series:<6} ok      {}, {} tests ({seconds:.1} s)",
                    guest.release, guest.tests
                );
                for (program, walked) in guest.verified {
                    println!("       {program:<9} {walked:>9} instructions walked by the verifier");
                }
            }
            Outcome::Failed(error) => {
                println!("{series:<6} FAILED  {error:#}");
                failed.push(*series);
            }
            Outcome::NotRun(reason) => {
                println!("{series:<6} not run: {reason}");
                not_run.push(format!("{series}: {reason}"));
            }
        }
    }
    if failed.is_empty() {
        Ok(not_run)
    } else {
        bail!("failed on kernel {}", failed.join(", "))
    }
}

fn outcome(series: &str, initrd: &Path) -> Outcome {
    let kernel = match debian::kernel(series) {
        Ok(kernel) => kernel,
        // Closed networks, and machines without apt.
        Err(error) => return Outcome::NotRun(format!("{error:#}")),
    };
    match boot(series, &kernel, initrd).and_then(|said| judge(&said)) {
        Ok(guest) => Outcome::Ok(guest),
        Err(error) => Outcome::Failed(error),
    }
}

/// The program that tells what the verifier walked; built as `matcher` is.
fn verified_instructions() -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--package", "matcher-user", "--example", VERIFIED]);
    process::run(cargo.env("MATCHER_EBPF_OBJECT", build::object()?))?;
    Ok(workspace::target_dir()
        .join("debug/examples")
        .join(VERIFIED))
}

const VERIFIED: &str = "verified_instructions";

/// Writes the guest's file system.
fn image(matcher: &Path, verified: &Path, tests: &[PathBuf], to: &Path) -> Result<()> {
    let busybox = process::on_path("busybox").context("busybox is missing")?;
    let mut image = Initramfs::new();
    for folder in ["dev", "proc", "sys", "tmp", "run", "test"] {
        image.folder(folder);
    }
    image.program("bin/busybox", &busybox)?;
    image.program("bin/matcher", matcher)?;
    image.program("bin/verified_instructions", verified)?;
    for test in tests {
        let name = test.file_name().context("a test without a name")?;
        image.program(&format!("tests/{}", name.to_string_lossy()), test)?;
    }
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
    // Both CPUs in one thread: side by side one of them now and then meets an instruction that the
    // other has patched already (`int3` of a static branch), and the kernel panics as it boots.
    qemu.args(["-accel", "tcg,thread=single"]);
    qemu.args(["-cpu", "max", "-smp", "2", "-m", "2048"]);
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

/// What the guest said, if it saw exactly the hits that it must see.
fn judge(said: &str) -> Result<Guest> {
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
    let verified: Vec<(String, String)> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("guest: verified ")?.split_once(' '))
        .map(|(program, walked)| (program.to_owned(), walked.to_owned()))
        .collect();
    if verified.is_empty() {
        bail!("{release}: nothing was said of the verifier:\n{said}");
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
        return Ok(Guest {
            release: release.to_owned(),
            verified,
            tests: guest_tests::judge(said).with_context(|| release.to_owned())?,
        });
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
        said + &format!(
            "guest: exit {status}\r\nguest: verified matcher 39868\r\n\
             test result: ok. 3 passed; 0 failed\r\nguest: test 0 /tests/decision\r\n"
        )
    }

    #[test]
    fn a_guest_that_saw_every_hit_is_fine() {
        let judged = judge(&guest("0", &capture::HITS)).unwrap();
        assert_eq!(judged.release, "6.1.0-x");
        assert_eq!(
            judged.verified,
            [("matcher".to_owned(), "39868".to_owned())]
        );
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
            guest("0", &capture::HITS).replace("guest: verified", "error:"),
            "Kernel panic".to_owned(),
        ] {
            assert!(judge(&said).is_err(), "{said}");
        }
    }
}
