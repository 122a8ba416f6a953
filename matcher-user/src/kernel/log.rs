//! Messages of a program that was built with the feature `kernel-log`. For
//! debugging only: they cost time on every packet.

use std::thread;

use aya::programs::Xdp;
use aya_log::EbpfLogger;
use rustix::event::{PollFd, PollFlags, poll};

/// Writes the program's messages into our log until the process ends. A
/// program built without the feature has none, which is said once.
pub(super) fn follow(xdp: &Xdp) {
    let started = xdp
        .info()
        .map_err(|error| error.to_string())
        .and_then(|info| EbpfLogger::init_from_id(info.id()).map_err(|error| error.to_string()));
    let mut logger = match started {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!("the kernel program sends no messages: {error}");
            return;
        }
    };
    thread::spawn(move || {
        loop {
            // Interrupted: look, and wait again.
            let _ = poll(&mut [PollFd::new(&logger, PollFlags::IN)], None);
            logger.flush();
        }
    });
}
