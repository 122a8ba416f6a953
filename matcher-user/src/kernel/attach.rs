//! Attaching to interfaces.

use aya::programs::{ProgramError, XdpMode, links::FdLink};
use rustix::io::Errno;

use super::{KernelError, error::chain, error::root_errno, pins::Pins};

/// How the program sits on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before a socket buffer is made.
    Native,
    /// In the network stack: works everywhere, at a fraction of the speed.
    Generic,
}

impl Mode {
    /// The word for it in configuration and status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Native, else generic with a warning.
    Auto,
    /// This one or none.
    Only(Mode),
}

/// A done attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Interface index.
    pub ifindex: u32,
    /// How.
    pub mode: Mode,
    /// Why it is not native although that was tried.
    pub fallback: Option<String>,
}

/// Index of an interface of this network namespace.
pub fn ifindex(name: &str) -> Result<u32, KernelError> {
    let missing = || KernelError::NoInterface { name: name.into() };
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )
    .map_err(|errno| KernelError::from_source("opening a socket", std::io::Error::from(errno)))?;
    rustix::net::netdevice::name_to_index(&socket, name).map_err(|_| missing())
}

/// Name of an interface of this network namespace.
pub fn name(ifindex: u32) -> Option<String> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )
    .ok()?;
    rustix::net::netdevice::index_to_name(&socket, ifindex).ok()
}

/// Attaches the pinned program and pins the link.
pub fn attach(pins: &Pins, name: &str, wanted: Wanted) -> Result<Attached, KernelError> {
    let ifindex = ifindex(name)?;
    match wanted {
        Wanted::Only(mode) => {
            attach_in(pins, name, ifindex, mode)?;
            Ok(Attached {
                ifindex,
                mode,
                fallback: None,
            })
        }
        Wanted::Auto => match attach_in(pins, name, ifindex, Mode::Native) {
            Ok(()) => Ok(Attached {
                ifindex,
                mode: Mode::Native,
                fallback: None,
            }),
            Err(KernelError::Unsupported(reason)) => {
                attach_in(pins, name, ifindex, Mode::Generic)?;
                Ok(Attached {
                    ifindex,
                    mode: Mode::Generic,
                    fallback: Some(reason),
                })
            }
            Err(error) => Err(error),
        },
    }
}

fn attach_in(pins: &Pins, name: &str, ifindex: u32, mode: Mode) -> Result<(), KernelError> {
    let mut xdp = pins.xdp()?;
    let flags = match mode {
        Mode::Native => XdpMode::Driver,
        Mode::Generic => XdpMode::Skb,
    };
    let link = xdp
        .attach_to_if_index(ifindex, flags)
        .map_err(|error| refused(name, mode, error))?;
    let link = xdp
        .take_link(link)
        .map_err(|error| KernelError::from_source(format!("attaching to {name}"), error))?;
    let link: FdLink = link
        .try_into()
        .map_err(|error: aya::programs::links::LinkError| {
            // Without a BPF link there is nothing to pin.
            KernelError::Unsupported(format!(
                "{name}: this driver takes no BPF link in {} mode ({})",
                mode.name(),
                chain(&error)
            ))
        })?;
    link.pin(pins.link(ifindex))
        .map_err(|error| KernelError::from_source(format!("pinning the link of {name}"), error))?;
    Ok(())
}

fn refused(name: &str, mode: Mode, error: ProgramError) -> KernelError {
    match root_errno(&error) {
        Some(Errno::BUSY | Errno::EXIST) => KernelError::Occupied { name: name.into() },
        Some(Errno::NODEV) => KernelError::NoInterface { name: name.into() },
        Some(Errno::PERM | Errno::ACCESS) => {
            KernelError::from_source(format!("attaching to {name}"), error)
        }
        Some(Errno::OPNOTSUPP) => KernelError::Unsupported(format!(
            "the driver of {name} does not support XDP in {} mode",
            mode.name()
        )),
        // Which other errors a driver gives is the driver's choice: EINVAL and
        // the like where the MTU, the rings or offloads do not fit.
        _ => KernelError::Unsupported(format!(
            "the driver of {name} does not take an XDP program in {} mode ({}){}",
            mode.name(),
            chain(&error),
            match mode {
                Mode::Native => {
                    "; an MTU beyond one page without multi-buffer support, or LRO, are usual \
                     causes (`ip -d link show`, `ethtool -k`)"
                }
                Mode::Generic => "",
            }
        )),
    }
}
