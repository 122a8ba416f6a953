//! The eBPF object file: the built-in one or a file, checked before use.

use std::{borrow::Cow, fs, path::Path};

use matcher_common::abi::ABI_VERSION;
use object::{Architecture, Object as _, ObjectSection as _, ObjectSymbol as _};

use super::KernelError;

/// The symbol through which an object tells its ABI version.
const ABI_SYMBOL: &str = "MATCHER_ABI_VERSION";

#[repr(align(8))]
struct Aligned<Bytes: ?Sized>(Bytes);

/// `include_bytes!` alone would leave the ELF file misaligned.
static BUILT_IN: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("MATCHER_EBPF_OBJECT")));

/// An object file with the ABI of this build.
pub struct Object {
    /// Where it came from, for messages.
    pub origin: String,
    bytes: Cow<'static, [u8]>,
}

impl Object {
    /// The object that was built into this binary.
    pub fn built_in() -> Result<Self, KernelError> {
        Self::checked(
            "the built-in eBPF object".into(),
            Cow::Borrowed(&BUILT_IN.0),
        )
    }

    /// An object file from disk.
    pub fn from_file(path: &Path) -> Result<Self, KernelError> {
        let origin = path.display().to_string();
        match fs::read(path) {
            Ok(bytes) => Self::checked(origin, Cow::Owned(bytes)),
            Err(error) => Err(KernelError::Object {
                path: origin,
                reason: format!("cannot be read: {error}"),
            }),
        }
    }

    /// The file if one is given, else the built-in object.
    pub fn open(path: Option<&Path>) -> Result<Self, KernelError> {
        match path {
            Some(path) => Self::from_file(path),
            None => Self::built_in(),
        }
    }

    fn checked(origin: String, bytes: Cow<'static, [u8]>) -> Result<Self, KernelError> {
        match abi_version(&bytes) {
            Ok(ABI_VERSION) => Ok(Self { origin, bytes }),
            Ok(other) => Err(KernelError::Object {
                path: origin,
                reason: format!(
                    "has ABI version {other}, this matcher has {ABI_VERSION}; use the object \
                     file of the same release"
                ),
            }),
            Err(reason) => Err(KernelError::Object {
                path: origin,
                reason,
            }),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn abi_version(bytes: &[u8]) -> Result<u32, String> {
    let file = object::File::parse(bytes)
        .map_err(|error| format!("is not an eBPF object file: {error}"))?;
    if file.architecture() != Architecture::Bpf {
        return Err(format!(
            "is an object file for {:?}, not for eBPF",
            file.architecture()
        ));
    }
    let missing = || format!("is not an eBPF object of matcher: it has no {ABI_SYMBOL}");
    let symbol = file
        .symbols()
        .find(|symbol| symbol.name() == Ok(ABI_SYMBOL))
        .ok_or_else(missing)?;
    let section = symbol
        .section_index()
        .and_then(|index| file.section_by_index(index).ok())
        .ok_or_else(missing)?;
    let value = section
        .data_range(symbol.address(), 4)
        .ok()
        .flatten()
        .and_then(|bytes| bytes.first_chunk::<4>())
        .ok_or_else(missing)?;
    Ok(u32::from_le_bytes(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(bytes: &[u8]) -> String {
        abi_version(bytes).unwrap_err()
    }

    #[test]
    fn the_built_in_object_has_our_abi() {
        assert_eq!(abi_version(&BUILT_IN.0), Ok(ABI_VERSION));
    }

    #[test]
    fn what_is_not_our_object_is_refused_with_a_reason() {
        assert!(reason(b"").contains("not an eBPF object file"));
        assert!(reason(b"hello").contains("not an eBPF object file"));
        let cut = BUILT_IN.0.get(..2000).unwrap();
        assert!(!reason(cut).is_empty());
        let host = fs::read("/proc/self/exe").unwrap();
        assert!(reason(&host).contains("not for eBPF"));
    }
}
