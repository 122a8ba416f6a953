//! Programs that `cargo xtask bench` holds the product against.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

/// Nothing at all: what the harness itself costs.
#[xdp(frags)]
fn empty(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Ethernet and the addresses of IPv4 or IPv6, folded into the return value
/// so that they are really read. The yardstick for later work: never change.
#[xdp(frags)]
fn parse_min(context: XdpContext) -> u32 {
    let start = context.data();
    let end = context.data_end();
    if start + 14 > end {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: inside the packet, as just compared.
    let ether_type = unsafe { *((start + 12) as *const [u8; 2]) };
    let mut folded = 0u8;
    match u16::from_be_bytes(ether_type) {
        0x0800 => {
            if start + 34 > end {
                return xdp_action::XDP_PASS;
            }
            // SAFETY: inside the packet, as just compared.
            let addresses = unsafe { *((start + 26) as *const [u8; 8]) };
            for byte in addresses {
                folded |= byte;
            }
        }
        0x86dd => {
            if start + 54 > end {
                return xdp_action::XDP_PASS;
            }
            // SAFETY: inside the packet, as just compared.
            let addresses = unsafe { *((start + 22) as *const [u8; 32]) };
            for byte in addresses {
                folded |= byte;
            }
        }
        _ => return xdp_action::XDP_PASS,
    }
    if folded == 0 {
        xdp_action::XDP_DROP
    } else {
        xdp_action::XDP_PASS
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: a program with a panic path does not load.
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
