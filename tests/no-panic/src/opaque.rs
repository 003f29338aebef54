// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values about which the compiler cannot know anything, and a platform that returns such values.

use core::hint::black_box;
use core::marker::PhantomData;
use core::mem::size_of;
use core::ptr::NonNull;
use mk_ipi_abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::platform::*;
use mk_ipi_core::sync::{AtomicU64, Ordering, Word};
use zerocopy::FromBytes;

/// All values come from here, by volatile reads.
static SOURCE: [u64; 64] = [0; 64];
/// Shared memory of a length that `black_box` hides.
static WORDS: [AtomicU64; 4096] = [const { AtomicU64::new(0) }; 4096];
static HOSTILE_WORDS: [HostileWord; 4096] = [const { HostileWord(0) }; 4096];
static CPUS: [PhysCpuId; 64] = [PhysCpuId(0); 64];
static PAYLOADS: [&[u8]; 64] = [&[0; 8192]; 64];

/// Any value of a type for which all bits are valid.
pub fn any<T: FromBytes>() -> T {
    const { assert!(size_of::<T>() <= size_of::<[u64; 64]>() && align_of::<T>() <= align_of::<u64>()) };
    // SAFETY: SOURCE is long enough and aligned (asserted above), and any bytes are valid for a type that is `FromBytes`.
    unsafe { (&raw const SOURCE).cast::<T>().read_volatile() }
}

/// True or false.
pub fn maybe() -> bool {
    any::<u8>() & 1 != 0
}

/// The value, or `None`.
pub fn option<T>(value: T) -> Option<T> {
    maybe().then_some(value)
}

/// Uses a value, so that the compiler cannot remove its computation.
pub fn sink<T>(value: T) {
    drop(black_box(value));
}

/// Bytes of any length.
pub fn bytes() -> &'static [u8] {
    black_box(zerocopy::IntoBytes::as_bytes(&SOURCE))
}

/// Shared memory of any length.
pub fn words() -> &'static [AtomicU64] {
    black_box(&WORDS)
}

/// Shared memory that changes between any two reads.
pub fn hostile_words() -> &'static [HostileWord] {
    black_box(&HOSTILE_WORDS)
}

/// Any number of payloads, of any length.
pub fn payloads() -> &'static [&'static [u8]] {
    black_box(&PAYLOADS)
}

/// Any number of CPUs.
pub fn cpus() -> &'static [PhysCpuId] {
    black_box(&CPUS)
}

/// An array for any number of CPUs.
pub fn cpu_room(room: &mut [PhysCpuId; 64]) -> &mut [PhysCpuId] {
    black_box(room)
}

/// Any instance.
pub fn instance() -> InstanceId {
    InstanceId::new(any())
}

/// Any range; `None` if the numbers are not a valid range.
pub fn range() -> Option<PhysRange> {
    PhysRange::new(PhysAddr(any()), any())
}

/// Any vector; `None` if the number is not a valid vector.
pub fn vector() -> Option<Vector> {
    Vector::new(any())
}

/// A word that can have another value at each load.
#[derive(Debug)]
pub struct HostileWord(u64);

impl Word for HostileWord {
    fn load(&self, _: Ordering) -> u64 {
        self.0 ^ any::<u64>()
    }
    fn store(&self, value: u64, _: Ordering) {
        sink(value);
    }
    fn compare_exchange(&self, current: u64, new: u64, _: Ordering) -> Result<u64, u64> {
        sink((current, new));
        if maybe() {
            Ok(any())
        } else {
            Err(any())
        }
    }
}

/// A word type with memory of its own.
pub trait HasMemory: Word + Sized {
    /// Memory of any length.
    fn memory() -> &'static [Self];
}

impl HasMemory for AtomicU64 {
    fn memory() -> &'static [Self] {
        words()
    }
}

impl HasMemory for HostileWord {
    fn memory() -> &'static [Self] {
        hostile_words()
    }
}

/// A platform whose methods return any value that their types allow.
#[derive(Debug)]
pub struct Opaque<W>(PhantomData<W>);

impl<W> Opaque<W> {
    /// Makes the platform.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

/// Any result of a doorbell.
pub fn rung() -> Result<(), DoorbellError> {
    match any::<u8>() {
        0 => Ok(()),
        1 => Err(DoorbellError::Stuck),
        2 => Err(DoorbellError::Refused(any())),
        3 => vector().map_or(Ok(()), |v| Err(DoorbellError::NoSuchVector(v))),
        _ => Err(DoorbellError::Unreachable(PhysCpuId(any()))),
    }
}

// SAFETY: this code is never run, and the requirements of the trait are about running code.
unsafe impl<W: HasMemory> Doorbell for Opaque<W> {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        sink((cpu, vector));
        rung()
    }
    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        sink((cpu, vector));
        rung()
    }
    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.ring(cpu, vector)
    }
}

// SAFETY: as above.
unsafe impl<W: HasMemory> ThisCpu for Opaque<W> {
    fn physical_id(&self) -> PhysCpuId {
        PhysCpuId(any())
    }
    fn index(&self) -> usize {
        any()
    }
}

// SAFETY: as above.
unsafe impl<W: HasMemory> LocalInterrupts for Opaque<W> {
    type State = u64;
    fn disable(&self) -> u64 {
        any()
    }
    fn restore(&self, state: u64) {
        sink(state);
    }
}

// SAFETY: as above. The mapping is a static.
unsafe impl<W: HasMemory> PhysMemory for Opaque<W> {
    type Word = W;
    fn map(&self, range: PhysRange, access: Access) -> Result<Mapping<W>, MapError> {
        sink((range, access));
        match any::<u8>() {
            // SAFETY: as above.
            0 => Ok(unsafe { Mapping::new(NonNull::from(W::memory())) }),
            1 => Err(MapError::Misaligned),
            2 => Err(MapError::NoMemory),
            _ => Err(MapError::NotAllowed),
        }
    }
    unsafe fn unmap(&self, mapping: Mapping<W>) {
        sink(mapping.as_ptr());
        sink(mapping);
    }
    fn peer_may_share(&self, page: PhysRange) -> bool {
        sink(page);
        maybe()
    }
}

// SAFETY: as above.
unsafe impl<W: HasMemory> InstancePool for Opaque<W> {
    fn alloc(&self, instance: InstanceId, len: u64) -> Result<PhysAddr, PoolError> {
        sink((instance, len));
        match any::<u8>() {
            0 => Ok(PhysAddr(any())),
            1 => Err(PoolError::NoPool),
            _ => Err(PoolError::Exhausted),
        }
    }
    unsafe fn free(&self, instance: InstanceId, range: PhysRange) {
        sink((instance, range));
    }
}

impl<W: HasMemory> DeferredWork for Opaque<W> {
    fn schedule(&self) {
        sink(());
    }
}

// The methods of this trait that `sync.rs` calls are the defaults.
impl<W: HasMemory> Observer for Opaque<W> {}
