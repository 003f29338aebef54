// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the device tree, by which firmware describes the machine (Devicetree Specification 0.4, chapter 5).

use crate::boot::Boot;
use crate::cpus::Cpus;
use core::ffi::CStr;
use mk_ipi_abi::{PhysAddr, PhysCpuId, PhysRange};

/// `FDT_MAGIC`.
const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
/// The largest number of bytes of a tree that are read. A tree is refused if its structure or its strings end after them.
const MAX_LEN: usize = 2 << 20;
/// The depth of the deepest nodes that are read. The root has depth 0.
const MAX_DEPTH: usize = 4;

/// A device tree in memory.
#[derive(Clone, Copy)]
pub struct Tree {
    address: u64,
    structure: &'static [u8],
    strings: &'static [u8],
}

/// A property of a node.
pub struct Property<'a> {
    /// The names of the node and of those above it, without the root.
    path: [&'a str; MAX_DEPTH],
    /// The number of names in `path`.
    depth: usize,
    /// The property's name.
    pub name: &'a str,
    /// The property's value.
    pub value: &'a [u8],
}

impl<'a> Property<'a> {
    /// Returns whether this is the property `name` of a node at `path`. A component of `path` that ends with `@` stands for any
    /// unit address.
    pub fn is(&self, path: &[&str], name: &str) -> bool {
        let fits = |(found, wanted): (&&str, &&str)| {
            found == wanted || (wanted.ends_with('@') && found.starts_with(wanted))
        };
        self.name == name && self.depth == path.len() && self.path.iter().zip(path).all(fits)
    }

    /// The unit address in the node's name, which is the hexadecimal number after the `@`.
    #[cfg(target_arch = "riscv64")]
    pub fn unit(&self) -> Option<u64> {
        let (_, unit) = self.path.get(self.depth.checked_sub(1)?)?.split_once('@')?;
        u64::from_str_radix(unit, 16).ok()
    }

    /// The value as big-endian words of 64 bits.
    pub fn longs(&self) -> impl Iterator<Item = u64> + 'a {
        self.value.chunks_exact(8).filter_map(|chunk| Some(u64::from_be_bytes(chunk.try_into().ok()?)))
    }

    /// The value as one number, of 32 or 64 bits.
    pub fn number(&self) -> Option<u64> {
        match self.value.len() {
            4 => Some(u32::from_be_bytes(self.value.try_into().ok()?).into()),
            8 => self.longs().next(),
            _ => None,
        }
    }
}

impl Tree {
    /// The tree at `address`. `None` if no valid tree begins there.
    ///
    /// # Safety
    ///
    /// At `address` there is mapped memory for a header. If the header has the magic number, the whole tree is mapped. No code
    /// writes this memory any more.
    pub unsafe fn at(address: u64) -> Option<Self> {
        let word = |n: usize| {
            // SAFETY: the caller keeps the safety rules of this function. `n` is below ten, the number of words of a header.
            // Only the first word is read before the magic number is found.
            let word = unsafe { (address as *const u32).add(n).read_volatile() };
            u32::from_be(word) as usize
        };
        if !address.is_multiple_of(8) || word(0) != MAGIC as usize {
            return None;
        }
        let total = word(1).min(MAX_LEN);
        // SAFETY: the caller keeps the safety rules of this function. The header says that the tree has at least this length.
        let bytes = unsafe { core::slice::from_raw_parts(address as *const u8, total) };
        let part = |at: usize, len: usize| bytes.get(at..at.checked_add(len)?);
        Some(Self { address, structure: part(word(2), word(9))?, strings: part(word(3), word(8))? })
    }

    /// Calls `f` with each property of the tree. Stops at the end of the tree, or at the first invalid token.
    pub fn each(&self, mut f: impl FnMut(&Property)) {
        let mut rest = self.structure;
        let (mut path, mut depth) = ([""; MAX_DEPTH], 0_usize);
        while let Some(token) = take_word(&mut rest) {
            match token {
                BEGIN_NODE => {
                    let Some(name) = CStr::from_bytes_until_nul(rest).ok().and_then(|n| n.to_str().ok())
                    else {
                        return;
                    };
                    // The path does not contain the root, whose name is empty.
                    if let Some(place) = depth.checked_sub(1).and_then(|at| path.get_mut(at)) {
                        *place = name;
                    }
                    depth += 1;
                    skip(&mut rest, name.len() + 1);
                }
                END_NODE => depth = depth.saturating_sub(1),
                PROP => {
                    let (Some(len), Some(name)) = (take_word(&mut rest), take_word(&mut rest)) else {
                        return;
                    };
                    let (Some(value), Some(name)) = (rest.get(..len as usize), self.string(name)) else {
                        return;
                    };
                    if (1..=MAX_DEPTH + 1).contains(&depth) {
                        f(&Property { path, depth: depth - 1, name, value });
                    }
                    skip(&mut rest, len as usize);
                }
                NOP => {}
                _ => return,
            }
        }
    }

    fn string(&self, at: u32) -> Option<&'static str> {
        CStr::from_bytes_until_nul(self.strings.get(at as usize..)?).ok()?.to_str().ok()
    }

    /// Reads the command line and the memory of the machine, for the machine's first kernel. `None` if the command line is too
    /// long, or there are too many pieces of memory.
    pub fn boot(&self) -> Option<Boot> {
        let mut boot = Boot::new(self.address);
        let mut is_whole = true;
        self.each(|property| {
            if property.is(&["chosen"], "bootargs") {
                let line = property.value.split(|byte| *byte == 0).next().unwrap_or_default();
                is_whole &= boot.set_cmdline(line).is_some();
            } else if property.is(&["memory@"], "reg") {
                // On QEMU's machines of arm64 and riscv64 addresses and lengths have two cells, which is 64 bits.
                let mut longs = property.longs();
                while let (Some(start), Some(len)) = (longs.next(), longs.next()) {
                    is_whole &= PhysRange::new(PhysAddr(start), len).is_some_and(|ram| boot.add_ram(ram));
                }
            }
        });
        is_whole.then_some(boot)
    }

    /// The machine's CPUs.
    pub fn cpus(&self) -> Cpus {
        let mut cpus = Cpus::none();
        self.each(|property| {
            if property.is(&["cpus", "cpu@"], "reg") {
                if let Some(id) = property.number() {
                    cpus.add(PhysCpuId(id));
                }
            }
        });
        cpus
    }
}

/// Takes the next big-endian word from the start of `rest`.
fn take_word(rest: &mut &[u8]) -> Option<u32> {
    let (word, behind) = rest.split_first_chunk::<4>()?;
    *rest = behind;
    Some(u32::from_be_bytes(*word))
}

/// Skips `len` bytes at the start of `rest`, and the padding after them up to a multiple of 4 bytes.
fn skip(rest: &mut &[u8], len: usize) {
    *rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
}

/// Why the device tree cannot be used.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
pub enum TreeError {
    /// No valid tree begins at this address.
    NoTree(u64),
    /// The tree does not contain this.
    Lacks(&'static str),
}

/// The device tree at the address in `boot`.
pub fn of(boot: &Boot) -> Result<Tree, TreeError> {
    // SAFETY: the machine's first kernel found a tree at this address, and passed the address on to the others. No kernel
    // writes the tree.
    unsafe { Tree::at(boot.firmware) }.ok_or(TreeError::NoTree(boot.firmware))
}

/// The machine's CPUs, from the device tree at the address in `boot`.
pub fn cpus(boot: &Boot) -> Result<Cpus, TreeError> {
    match of(boot)?.cpus() {
        cpus if cpus.ids().is_empty() => Err(TreeError::Lacks("CPUs")),
        cpus => Ok(cpus),
    }
}
