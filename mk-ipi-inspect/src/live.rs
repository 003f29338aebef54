// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens the memory that is to be inspected. On a Linux that runs mk-ipi's module, the module's folder in debugfs contains the
//! memory, and the address of the directory.

use mk_ipi_inspect::memory::OpenError;
use mk_ipi_inspect::Memory;
use std::path::Path;

/// The file in the module's folder that contains the memory. An offset in the file is a physical address.
const MEMORY: &str = "memory";
/// The file in the module's folder that lists, among other things, the address of the directory.
const STATISTICS: &str = "statistics";

/// Opens the memory at `path`. For `base` see [`Memory::open`]. If `path` is a folder, it must be that of the module. Then `base`
/// is not used. The address of the directory is returned too, if the module's list has it.
pub fn open(path: &Path, base: Option<u64>) -> Result<(Memory, Option<u64>), OpenError> {
    if !path.is_dir() {
        return Ok((Memory::open(path, base)?, None));
    }
    let statistics = std::fs::read_to_string(path.join(STATISTICS)).map_err(OpenError::Io)?;
    Ok((Memory::open(&path.join(MEMORY), None)?, directory_in(&statistics)))
}

/// Returns the address of the directory: START in the line `0xSTART..0xEND: the directory`.
fn directory_in(statistics: &str) -> Option<u64> {
    let line = statistics.lines().find(|line| line.ends_with(": the directory"))?;
    u64::from_str_radix(line.split_once("..")?.0.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_found_in_the_modules_list() {
        let list = "Stats {\n}\n0x10000000..0x10001000: the pool of instance 1\n0x13ff0000..0x13ff1000: the directory\n";
        assert_eq!(directory_in(list), Some(0x13ff_0000));
        assert_eq!(directory_in("0x1..0x2: the pool of instance 1\n"), None);
    }
}
