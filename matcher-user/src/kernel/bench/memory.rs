//! What the maps of this process take, by the kernel's own reckoning.

use std::{collections::BTreeMap, fs};

use aya::maps::MapInfo;

use super::super::{KernelError, error::chain};

/// A map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapMemory {
    /// Its name, cut to 15 bytes as the kernel does.
    pub name: String,
    /// Bytes (`memlock` in fdinfo; since Linux 6.4 what is in use, not what
    /// would fit).
    pub bytes: u64,
}

/// Every map that this process holds open, the largest first.
///
/// # Errors
/// /proc cannot be read.
pub fn maps_of_this_process() -> Result<Vec<MapMemory>, KernelError> {
    const FOLDER: &str = "/proc/self/fdinfo";
    let entries = fs::read_dir(FOLDER).map_err(|error| KernelError::Failed {
        action: format!("reading {FOLDER}"),
        reason: chain(&error),
    })?;
    let mut by_id = BTreeMap::new();
    for entry in entries.flatten() {
        // One that was closed meanwhile.
        let Ok(text) = fs::read_to_string(entry.path()) else {
            continue;
        };
        if let (Some(id), Some(bytes)) = (number(&text, "map_id:"), number(&text, "memlock:")) {
            by_id.insert(id, bytes);
        }
    }
    let mut maps: Vec<MapMemory> = by_id
        .into_iter()
        .map(|(id, bytes)| {
            let name = u32::try_from(id)
                .ok()
                .and_then(|id| MapInfo::from_id(id).ok())
                .and_then(|info| info.name_as_str().map(str::to_owned));
            MapMemory {
                name: name.unwrap_or_else(|| format!("map {id}")),
                bytes,
            }
        })
        .collect();
    maps.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    Ok(maps)
}

/// The number behind a key at the beginning of a line.
fn number(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_fdinfo() {
        let text = "pos:\t0\nmap_type:\t11\nmemlock:\t4096\nmap_id:\t17\n";
        assert_eq!(number(text, "memlock:"), Some(4096));
        assert_eq!(number(text, "map_id:"), Some(17));
        assert_eq!(number(text, "prog_id:"), None);
    }
}
