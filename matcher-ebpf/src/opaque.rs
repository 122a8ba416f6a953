//! Values of which the compiler knows nothing, so that it leaves the instructions
//! as the verifier needs them.

/// The same value.
#[inline(always)]
pub(crate) fn opaque(mut value: usize) -> usize {
    // SAFETY: moves a register to itself. (Without any instruction the debug
    // information has a line of no length, which the kernel refuses.)
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack, preserves_flags));
    }
    value
}

/// A constant of the object file, which the loader has patched.
#[inline(always)]
pub(crate) fn patched<T: Copy>(constant: &'static T) -> T {
    // SAFETY: a reference; volatile, since the compiler would take the value for
    // known.
    unsafe { core::ptr::read_volatile(constant) }
}
