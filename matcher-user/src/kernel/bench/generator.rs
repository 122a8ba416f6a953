//! Packets into an interface, as fast as one CPU makes them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions};

use super::{super::KernelError, Baselines, count_of, fill};

/// Frames that the kernel hands on together.
const BATCH: u32 = 64;
/// The IPv4 header in an Ethernet frame without tags.
const IPV4: std::ops::Range<usize> = 14..34;

/// Live frames (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18): a program in the
/// kernel writes the next addresses into each and redirects it to an interface.
pub struct Generator {
    baselines: Baselines,
    frame: Vec<u8>,
}

/// A run of the generator.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// How long it took, with everything that the receiving side did meanwhile
    /// on the same CPU.
    pub elapsed: Duration,
}

impl Generator {
    /// `frame` is Ethernet and IPv4 without options; its addresses will come
    /// from `flows`, round and round, and its header checksum will be right.
    ///
    /// # Errors
    /// The file is not the baselines object, `flows` is empty, the frame is
    /// too short, or the kernel refuses.
    pub fn load(object: &Path, flows: &[[u8; 8]], frame: &[u8]) -> Result<Self, KernelError> {
        let count = count_of(object, flows.len())?;
        let header = frame.get(IPV4).ok_or_else(|| KernelError::Failed {
            action: "generating packets".into(),
            reason: format!("a frame of {} bytes has no IPv4 header", frame.len()),
        })?;
        let sum = header_sum(header);
        let mut baselines = Baselines::load(object, |loader| {
            loader
                .override_global("FLOWS", &count, true)
                .override_global("HEADER_SUM", &sum, true)
                .map_max_entries("FLOWS_V4", count);
        })?;
        fill(baselines.array("FLOWS_V4")?, flows)?;
        baselines.verified("generate_v4")?;
        Ok(Self {
            baselines,
            frame: frame.to_vec(),
        })
    }

    /// Sends to this interface from now on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn aim(&mut self, ifindex: u32) -> Result<(), KernelError> {
        self.baselines
            .array::<u32>("GENERATE_TO")?
            .set(0, ifindex, 0)
            .map_err(|error| KernelError::from_source("aiming the generator", error))
    }

    /// Sends so many packets out of an interface of the calling thread's
    /// network namespace. Returns when the kernel has handed on the last.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn run(&mut self, packets: u32) -> Result<Passed, KernelError> {
        let frame = self.frame.clone();
        let xdp = self.baselines.verified("generate_v4")?;
        let start = Instant::now();
        xdp.test_run(TestRunOptions {
            data_in: Some(&frame),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        })
        .map_err(|error| KernelError::from_source("generating packets", error))?;
        Ok(Passed {
            elapsed: start.elapsed(),
        })
    }
}

/// Sum of the words of an IPv4 header without checksum and addresses, in the
/// machine's byte order (RFC 1071: any order does, if it is one).
fn header_sum(header: &[u8]) -> u32 {
    const WORDS_BEFORE_CHECKSUM: usize = 5;
    header
        .chunks_exact(2)
        .take(WORDS_BEFORE_CHECKSUM)
        .filter_map(|word| word.try_into().ok())
        .map(|word| u32::from(u16::from_ne_bytes(word)))
        .sum()
}
