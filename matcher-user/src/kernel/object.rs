//! The eBPF object file: the built-in one or a file, checked before use.

use std::{borrow::Cow, fs, ops::Range, path::Path};

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

    /// The object with other sizes of a value, in bytes, for the maps of these
    /// names: the loader can only set numbers of entries.
    pub(super) fn with_value_sizes(&self, sizes: &[(&str, u32)]) -> Result<Vec<u8>, KernelError> {
        let mut bytes = self.bytes.to_vec();
        for (name, size) in sizes {
            value_size_place(&self.bytes, name)
                .and_then(|place| bytes.get_mut(place))
                .ok_or_else(|| KernelError::Object {
                    path: self.origin.clone(),
                    reason: format!("has no map {name}"),
                })?
                .copy_from_slice(&size.to_le_bytes());
        }
        Ok(bytes)
    }
}

/// Where the file has the size of a value of a map: the third word of its
/// definition (`struct bpf_map_def`, of which the "maps" section is full).
fn value_size_place(bytes: &[u8], name: &str) -> Option<Range<usize>> {
    let file = object::File::parse(bytes).ok()?;
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name))?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    if section.name() != Ok("maps") {
        return None;
    }
    let (start, _) = section.file_range()?;
    let place = usize::try_from(start.checked_add(symbol.address())?).ok()?;
    let place = place.checked_add(2 * size_of::<u32>())?;
    Some(place..place.checked_add(size_of::<u32>())?)
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
    fn a_map_gets_its_value_size_and_no_other_map_changes() {
        let object = Object::built_in().unwrap();
        let sizes = |bytes: &[u8]| {
            let maps = aya_obj::Object::parse(bytes).unwrap().maps;
            let sizes = maps
                .iter()
                .map(|(name, map)| (name.clone(), map.value_size()));
            sizes.collect::<std::collections::BTreeMap<_, _>>()
        };
        let mut expected = sizes(object.bytes.as_ref());
        expected.insert("CLASSES_V4".into(), 1 << 20);
        expected.insert("CC_FILTER_V6".into(), 3 << 24);
        let changed = [("CLASSES_V4", 1 << 20), ("CC_FILTER_V6", 3 << 24)];
        let bytes = object.with_value_sizes(&changed).unwrap();
        assert_eq!(sizes(&bytes), expected);

        let error = object.with_value_sizes(&[("NO_SUCH_MAP", 8)]).unwrap_err();
        assert!(
            error.to_string().contains("has no map NO_SUCH_MAP"),
            "{error}"
        );
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
