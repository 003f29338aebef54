// SPDX-License-Identifier: MIT OR Apache-2.0
//! The generations of links: how the link to an instance is made and removed. Each generation has a folder of its own, and a
//! variant of [`LinkConfig`] and [`Link`].

use crate::native::{create, OwnRegion, PeerRegion, Receiver, RegionError, Sender, Watch};
use crate::platform::{Access, MapError, Mapping, PhysMemory, PoolError};
use crate::rfc_v2::SlotPolicy;
use crate::sync::{Ordering, Word};
use mk_ipi_abi::directory::Layout;
use mk_ipi_abi::native::{Geometry, StampError};
use mk_ipi_abi::rfc_v2::region_size;
use mk_ipi_abi::{Errno, Incarnation, InstanceId, PhysCpuId, PhysRange};

/// The generation of an instance's region, and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkConfig {
    /// Generation RFC v2.
    RfcV2 {
        /// Number of slots: `NR_CPUS` of the instance's kernel. The physical ids of its CPUs are below this number.
        slots: u32,
        /// What a sender does if the slot holds an unread message.
        policy: SlotPolicy,
    },
    /// The native link. A region that is created gets this geometry; `None` stands for the default geometry of 16 lanes. A region
    /// that is attached must have this geometry in its stamp; `None` accepts any geometry.
    Native(Option<Geometry>),
}

/// Why an instance was not added to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// The id is in the table already.
    Exists,
    /// The table has no place for this id.
    BeyondTable(InstanceId),
    /// The region overlaps the region of this instance.
    Overlaps(InstanceId),
    /// The doorbell CPU is not in the list of CPUs, or its id has more than 48 bits.
    BadCpus,
    /// This CPU has no slot in a region of that size (SPEC H-6).
    BeyondRegion(PhysCpuId),
    /// The region does not begin on a page boundary.
    Misaligned,
    /// The region is too small for its slots. This is how many bytes are needed.
    TooSmall(u64),
    /// The pool returned no memory.
    Pool(PoolError),
    /// The memory could not be mapped.
    Map(MapError),
    /// A native link needs our own identity. Call [`identify`](crate::Endpoint::identify) first.
    NoIdentity,
    /// The native region has no lane for our own instance. This is our instance.
    NoLane(InstanceId),
    /// The memory holds no native region that this build can use.
    Stamp(StampError),
    /// The native region has another geometry than the config. This is the geometry found.
    Geometry(Geometry),
}

impl core::fmt::Display for AddError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Exists => f.write_str("the instance is in the table already"),
            Self::BeyondTable(id) => write!(f, "the table has no place for instance {}", id.get()),
            Self::Overlaps(id) => write!(f, "the region overlaps the region of instance {}", id.get()),
            Self::BadCpus => f.write_str("the doorbell CPU is not listed, or its id has more than 48 bits"),
            Self::BeyondRegion(cpu) => write!(f, "the region has no slot for CPU {:#x}", cpu.0),
            Self::Misaligned => f.write_str("the region does not begin on a page boundary"),
            Self::TooSmall(needed) => write!(f, "the region needs {needed} bytes, and is smaller"),
            Self::Pool(e) => write!(f, "{e}"),
            Self::Map(e) => write!(f, "{e}"),
            Self::NoIdentity => {
                f.write_str("a native link needs the identity of this kernel, and it is not set yet")
            }
            Self::NoLane(id) => write!(f, "the region has no lane for instance {}", id.get()),
            Self::Stamp(e) => write!(f, "{e}"),
            Self::Geometry(found) => write!(
                f,
                "the region has {} lanes of {} lines for messages of {} bytes, and the config has another geometry",
                found.lanes(),
                found.lines(),
                found.max_len()
            ),
        }
    }
}

impl core::error::Error for AddError {}

impl AddError {
    /// The error number of the C calls (SPEC C-1): `EEXIST` if the id is in the table, `ENODEV` without a pool, `ENOMEM` if
    /// memory, a mapping or a place in the table is missing, `EPROTO` for memory without a stamp that this build can read, else
    /// `EINVAL`.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Exists => Errno::EEXIST,
            Self::BadCpus
            | Self::BeyondRegion(_)
            | Self::Misaligned
            | Self::TooSmall(_)
            | Self::Overlaps(_) => Errno::EINVAL,
            Self::NoIdentity | Self::NoLane(_) | Self::Geometry(_) => Errno::EINVAL,
            Self::Stamp(e) => e.errno(),
            Self::Pool(e) => e.errno(),
            Self::Map(_) | Self::BeyondTable(_) => Errno::ENOMEM,
        }
    }
}

impl From<RegionError> for AddError {
    fn from(e: RegionError) -> Self {
        match e {
            RegionError::Misaligned => Self::Misaligned,
            RegionError::Map(e) => Self::Map(e),
            RegionError::Stamp(e) => Self::Stamp(e),
            RegionError::NoLane(id) => Self::NoLane(id),
        }
    }
}

impl LinkConfig {
    /// Size in bytes of a region that is made with this config.
    pub(crate) const fn region_len(self) -> u64 {
        match self {
            Self::RfcV2 { slots, .. } => region_size(slots),
            Self::Native(geometry) => geometry_or_default(geometry).total_size(),
        }
    }

    /// The part of `given` that the region uses. For a native region this is `given`, because only the stamp says how large the
    /// region is.
    pub(crate) fn region_in(self, given: PhysRange) -> Result<PhysRange, AddError> {
        if !given.start().is_page_aligned() {
            return Err(AddError::Misaligned);
        }
        match self {
            Self::Native(_) => Ok(given),
            Self::RfcV2 { .. } => {
                let needed = self.region_len();
                let range = PhysRange::new(given.start(), needed).filter(|_| needed <= given.len());
                range.ok_or(AddError::TooSmall(needed))
            }
        }
    }

    /// The first of `cpus` for which such a region has no slot.
    pub(crate) fn unreachable(self, cpus: &[PhysCpuId]) -> Option<PhysCpuId> {
        match self {
            Self::RfcV2 { slots, .. } => cpus.iter().copied().find(|cpu| cpu.0 >= u64::from(slots)),
            Self::Native(_) => None,
        }
    }
}

const fn geometry_or_default(geometry: Option<Geometry>) -> Geometry {
    const DEFAULT: Geometry = match Geometry::default_for(16) {
        Some(geometry) => geometry,
        None => panic!("16 lanes are within bounds"),
    };
    match geometry {
        Some(geometry) => geometry,
        None => DEFAULT,
    }
}

/// The link to an instance: one variant for each generation.
#[expect(
    clippy::large_enum_variant,
    reason = "it lies in the instance's place in the table; nothing allocates"
)]
#[derive(Debug)]
pub(crate) enum Link<W> {
    /// No region: nothing can be sent.
    None,
    /// The slots of the instance.
    RfcV2 { slots: Mapping<W>, policy: SlotPolicy },
    /// Our lane in the region of the instance. For our own region also the receiver's end of all lanes.
    Native { sender: Sender<W>, own: Option<OwnRegion<W>>, watch: Watch },
}

/// Our identity and the settings of our receiver, which a native link needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Me<'a, const LANES: usize> {
    pub(crate) id: InstanceId,
    pub(crate) incarnation: Incarnation,
    /// The receiver's end of our own region.
    pub(crate) receiver: &'a Receiver<LANES>,
    /// Whether the messages that our former lives left unread are discarded. Their senders are told.
    pub(crate) discard: bool,
    /// Our doorbell as a `BELL` word; 0 for the doorbell in the directory.
    pub(crate) bell: u64,
}

impl<W: Word> Link<W> {
    /// Makes an empty region of `config` at `range`, which nobody uses yet.
    pub(crate) fn create<P: PhysMemory<Word = W>>(
        platform: &P,
        config: LinkConfig,
        range: PhysRange,
    ) -> Result<(), AddError> {
        match config {
            LinkConfig::RfcV2 { .. } => {
                let slots = map_whole(platform, range).map_err(AddError::Map)?;
                slots.words().iter().for_each(|word| word.store(0, Ordering::Relaxed));
                // SAFETY: `slots` came from `map` above, and nothing is borrowed from it any more.
                unsafe { platform.unmap(slots) };
                Ok(())
            }
            LinkConfig::Native(geometry) => Ok(create(platform, range, geometry_or_default(geometry))?),
        }
    }

    /// Makes the link of `config` to the region of `id` at `range`. Returns also the exact length of the
    /// region. On an error nothing stays mapped.
    pub(crate) fn connect<P: PhysMemory<Word = W>, const LANES: usize>(
        platform: &P,
        me: Option<Me<'_, LANES>>,
        id: InstanceId,
        config: LinkConfig,
        range: PhysRange,
    ) -> Result<(Self, u64), AddError> {
        match config {
            LinkConfig::RfcV2 { policy, .. } => {
                let slots = map_whole(platform, range).map_err(AddError::Map)?;
                Ok((Self::RfcV2 { slots, policy }, range.len()))
            }
            LinkConfig::Native(wanted) => {
                Self::connect_native(platform, me.ok_or(AddError::NoIdentity)?, id, wanted, range)
            }
        }
    }

    fn connect_native<P: PhysMemory<Word = W>, const LANES: usize>(
        platform: &P,
        me: Me<'_, LANES>,
        id: InstanceId,
        wanted: Option<Geometry>,
        range: PhysRange,
    ) -> Result<(Self, u64), AddError> {
        let region = PeerRegion::map(platform, range, me.id)?;
        let found = region.geometry();
        if wanted.is_some_and(|wanted| wanted != found) {
            region.unmap(platform);
            return Err(AddError::Geometry(found));
        }
        let own = if id == me.id {
            match OwnRegion::map(platform, range) {
                Ok(own) => Some(own),
                Err(e) => {
                    region.unmap(platform);
                    return Err(e.into());
                }
            }
        } else {
            None
        };
        if let Some(own) = &own {
            me.receiver.begin(own, me.incarnation, me.discard, me.bell);
        }
        let sender = Sender::begin(region, me.incarnation);
        let watch = Watch::new(&sender);
        Ok((Self::Native { sender, own, watch }, found.total_size()))
    }

    /// Unmaps what `connect` mapped.
    pub(crate) fn disconnect<P: PhysMemory<Word = W>>(self, platform: &P) {
        match self {
            Self::None => {}
            // SAFETY: `slots` came from `map` of this platform. The entry of the instance has no users, and gets no new ones.
            Self::RfcV2 { slots, .. } => unsafe { platform.unmap(slots) },
            Self::Native { sender, own, .. } => {
                sender.into_region().unmap(platform);
                if let Some(own) = own {
                    own.unmap(platform);
                }
            }
        }
    }

    /// The layout of the region; `None` without a region.
    pub(crate) const fn layout(&self) -> Option<Layout> {
        match self {
            Self::None => None,
            Self::RfcV2 { .. } => Some(Layout::RfcV2),
            Self::Native { .. } => Some(Layout::Native),
        }
    }

    /// The words and the policy of the slots, if the region has slots.
    pub(crate) fn slots(&self) -> Option<(&[W], SlotPolicy)> {
        match self {
            Self::RfcV2 { slots, policy } => Some((slots.words(), *policy)),
            _ => None,
        }
    }

    /// Our lane, and the `Watch` of the receiver, if the region is native.
    #[inline(always)]
    pub(crate) fn lane(&self) -> Option<(&Sender<W>, &Watch)> {
        match self {
            Self::Native { sender, watch, .. } => Some((sender, watch)),
            _ => None,
        }
    }

    /// The receiver's end of the region, if it is native and our own.
    #[inline(always)]
    pub(crate) fn own_region(&self) -> Option<&OwnRegion<W>> {
        match self {
            Self::Native { own, .. } => own.as_ref(),
            _ => None,
        }
    }
}

/// Maps the whole range, whose length is a multiple of 8 bytes.
fn map_whole<P: PhysMemory>(platform: &P, range: PhysRange) -> Result<Mapping<P::Word>, MapError> {
    let mapping = platform.map(range, Access::ReadWrite)?;
    if (mapping.words().len() as u64).checked_mul(8) == Some(range.len()) {
        return Ok(mapping);
    }
    // SAFETY: `mapping` came from `map` above, and nothing is borrowed from it any more.
    unsafe { platform.unmap(mapping) };
    Err(MapError::Misaligned)
}
