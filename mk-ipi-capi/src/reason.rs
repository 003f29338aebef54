// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a call failed, in more detail than an error number.

use crate::args::TOLD;
use crate::error::mk_ipi_strerror;
use crate::instance::{at, mk_ipi, Instance};
use core::ffi::{c_char, c_int, CStr};
use mk_ipi_core::abi::boot_param::BootParamError;
use mk_ipi_core::abi::native::StampError;
use mk_ipi_core::abi::Errno;
use mk_ipi_core::platform::{DoorbellError, MapError, PoolError, ThisCpu};
use mk_ipi_core::sync::{AtomicU32, AtomicUsize, Ordering};
use mk_ipi_core::{AddError, DestroyError, JoinError, LookupError, SendError, UnregisterError};

/// Declares an enum of the texts, and the texts themselves.
macro_rules! texts {
    ($($name:ident = $text:literal,)*) => {
        /// A text. Its number fits into 8 bits.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Text { $($name),* }

        const TEXTS: &[&CStr] = &[$($text),*];
    };
}

texts! {
    None = c"no error",
    Empty = c"RFC v2 cannot carry a message of no bytes",
    TooLong = c"the message is longer than the link allows",
    NoIdentity = c"the identity of this kernel is not set yet (mk_ipi_identify)",
    SenderBeyondField = c"the physical id of this CPU does not fit into a slot",
    Unknown = c"there is no such instance",
    Destroyed = c"the instance is destroyed",
    NoRegion = c"the instance has no region",
    NotItsCpu = c"the CPU cannot be rung for this instance",
    Busy = c"the slot holds an unread message, or another sender is filling it",
    ClaimLost = c"the host has cleared the claim of this sender",
    Full = c"the lane is full",
    Unanswered = c"the receiver has not answered this life yet",
    Contended = c"other CPUs took each position that was tried",
    Quarantined = c"the receiver refuses this life, because it broke the protocol",
    Broken = c"the words of the receiver contradict each other, or it does not know this life any more",
    RegionGone = c"the region of the receiver was created again",
    NotNative = c"the call needs a native link",
    Unreachable = c"the interrupt controller cannot address the CPU",
    NoSuchVector = c"the interrupt controller has no interrupt for the vector",
    Stuck = c"the interrupt controller stays busy",
    Refused = c"the interrupt controller refused the doorbell",
    Exists = c"the instance is in the table already",
    BeyondTable = c"the table has no place for the instance: its id is not below MK_IPI_MAX_INSTANCES",
    Overlaps = c"the region overlaps the region of another instance",
    BadCpus = c"the doorbell CPU is not listed, or its id has more than 48 bits",
    BeyondRegion = c"the region has no slot for one of the CPUs",
    Misaligned = c"the region does not begin on a page boundary",
    TooSmall = c"the region is too small",
    NoPool = c"the instance has no memory pool",
    Exhausted = c"the memory pool of the instance has no piece of this size left",
    MapMisaligned = c"the memory does not begin on a page boundary, or its length is not a multiple of 8",
    MapNoMemory = c"the mapping needs memory or address space, and none is left",
    MapNotAllowed = c"the kernel does not allow this memory to be mapped",
    NoLane = c"the region has no lane for this kernel",
    Mkipi0nn = c"the region belongs to a peer that uses another protocol, MKIPI0nn",
    NoStamp = c"this memory is not a native region: its first word is wrong",
    StampVersion = c"a native region of this version is not supported",
    StampGeometry = c"a native region cannot have the numbers of lanes and lines, the message length or the size in this stamp",
    OtherGeometry = c"the region has other numbers of lanes or lines, or another message length, than the config",
    InUse = c"calls still use the instance",
    Mapped = c"another kernel still has the region mapped",
    NotListed = c"no live instance of the directory has its region at this address",
    Changing = c"the host is changing the entry of an instance",
    Following = c"another call follows the directory now, or has added an instance",
    Ringing = c"another CPU is still ringing a doorbell of a former entry",
    Entry = c"the entry of the instance cannot be used",
    InCallback = c"this CPU is inside of a callback, or has a poller",
    Stale = c"the registration has ended already",
    OtherRegistry = c"the handle belongs to another instance of the library",
    NoValue = c"the boot parameter has no value",
    NotANumber = c"the value of the boot parameter is not a number with at most one suffix",
    ZeroAddress = c"the address in the boot parameter is 0",
    NotAPage = c"the address in the boot parameter is not on a page boundary",
    BeyondMemory = c"the number in the boot parameter is not below 2^52",
}

/// An error of mk-ipi-core that has an error number and a text for C.
pub(crate) trait Why: Copy {
    /// The error number and the text.
    fn why(self) -> (Errno, Text);
}

impl Why for SendError {
    fn why(self) -> (Errno, Text) {
        let text = match self {
            Self::Empty => Text::Empty,
            Self::TooLong => Text::TooLong,
            Self::NoIdentity => Text::NoIdentity,
            Self::SenderBeyondField => Text::SenderBeyondField,
            Self::Instance(e) => e.why().1,
            Self::NoRegion => Text::NoRegion,
            Self::NotItsCpu(_) => Text::NotItsCpu,
            Self::Busy => Text::Busy,
            Self::ClaimLost => Text::ClaimLost,
            Self::Full => Text::Full,
            Self::Unanswered => Text::Unanswered,
            Self::Contended => Text::Contended,
            Self::Quarantined => Text::Quarantined,
            Self::Broken => Text::Broken,
            Self::RegionGone => Text::RegionGone,
            Self::NotNative => Text::NotNative,
            Self::Unreachable(e) | Self::NotRung(e) => match e {
                DoorbellError::Unreachable(_) => Text::Unreachable,
                DoorbellError::NoSuchVector(_) => Text::NoSuchVector,
                DoorbellError::Stuck => Text::Stuck,
                DoorbellError::Refused(_) => Text::Refused,
            },
        };
        (self.errno(), text)
    }
}

impl Why for LookupError {
    fn why(self) -> (Errno, Text) {
        let text = match self {
            Self::Unknown => Text::Unknown,
            Self::Destroyed => Text::Destroyed,
        };
        (self.errno(), text)
    }
}

impl Why for MapError {
    fn why(self) -> (Errno, Text) {
        let text = match self {
            Self::Misaligned => Text::MapMisaligned,
            Self::NoMemory => Text::MapNoMemory,
            Self::NotAllowed => Text::MapNotAllowed,
        };
        (self.errno(), text)
    }
}

impl Why for AddError {
    fn why(self) -> (Errno, Text) {
        let text = match self {
            Self::Exists => Text::Exists,
            Self::BeyondTable(_) => Text::BeyondTable,
            Self::Overlaps(_) => Text::Overlaps,
            Self::BadCpus => Text::BadCpus,
            Self::BeyondRegion(_) => Text::BeyondRegion,
            Self::Misaligned => Text::Misaligned,
            Self::TooSmall(_) => Text::TooSmall,
            Self::Pool(PoolError::NoPool) => Text::NoPool,
            Self::Pool(PoolError::Exhausted) => Text::Exhausted,
            Self::Map(e) => e.why().1,
            Self::NoIdentity => Text::NoIdentity,
            Self::NoLane(_) => Text::NoLane,
            Self::Stamp(StampError::Mkipi0nn { .. }) => Text::Mkipi0nn,
            Self::Stamp(StampError::NoStamp { .. }) => Text::NoStamp,
            Self::Stamp(StampError::Version(_)) => Text::StampVersion,
            Self::Stamp(StampError::Geometry { .. } | StampError::Size(_)) => Text::StampGeometry,
            Self::Stamp(StampError::TooSmall(_)) => Text::TooSmall,
            Self::Geometry(_) => Text::OtherGeometry,
        };
        (self.errno(), text)
    }
}

impl Why for DestroyError {
    fn why(self) -> (Errno, Text) {
        let text = match self {
            Self::Unknown => Text::Unknown,
            Self::InUse(_) => Text::InUse,
            Self::Mapped(..) => Text::Mapped,
            Self::Map(e) => e.why().1,
        };
        (self.errno(), text)
    }
}

impl Why for JoinError {
    fn why(self) -> (Errno, Text) {
        let text = match self {
            Self::NotListed(_) => Text::NotListed,
            Self::Instance(_, e) => e.why().1,
            Self::Changing(_) => Text::Changing,
            Self::InUse(_) => Text::InUse,
            Self::Busy => Text::Following,
            Self::Ringing => Text::Ringing,
            Self::Entry(..) => Text::Entry,
        };
        (self.errno(), text)
    }
}

impl Why for UnregisterError {
    fn why(self) -> (Errno, Text) {
        let text = match self {
            Self::InCallback => Text::InCallback,
            Self::Stale => Text::Stale,
            Self::OtherRegistry => Text::OtherRegistry,
        };
        (self.errno(), text)
    }
}

impl Why for BootParamError {
    fn why(self) -> (Errno, Text) {
        let text = match self {
            Self::Empty => Text::NoValue,
            Self::NotANumber | Self::Garbage(_) => Text::NotANumber,
            Self::Zero => Text::ZeroAddress,
            Self::Misaligned(_) => Text::NotAPage,
            Self::Overflow | Self::OutOfRange(_) => Text::BeyondMemory,
        };
        (self.errno(), text)
    }
}

/// The last failure on a CPU: bits 15..8 are the error number, 7..0 the number of the text; 0 before the first failure. It is one
/// word, so that an interrupt never sees the error number of one failure with the text of another.
#[derive(Debug)]
pub(crate) struct LastError(AtomicU32);

impl Instance {
    /// Stores a failure as the last one on this CPU. Returns its error number with the bit [`TOLD`], so that `keep_number` does
    /// not store it again.
    #[cold]
    #[inline(never)]
    pub(crate) fn because(&self, error: impl Why) -> Errno {
        let (errno, text) = error.why();
        self.keep(errno, text);
        Errno(errno.0 | TOLD)
    }

    /// Stores a failure that has an error number and no text, unless the bit [`TOLD`] says that it is stored already. Returns the
    /// error number without that bit.
    #[cold]
    #[inline(never)]
    pub(crate) fn keep_number(&self, errno: Errno) -> Errno {
        if errno.0 & TOLD == 0 {
            self.keep(errno, Text::None);
        }
        Errno(errno.0 & !TOLD)
    }

    fn keep(&self, errno: Errno, text: Text) {
        if let Some(LastError(last)) = self.last_errors.get(self.end.platform().index()) {
            last.store((errno.0.unsigned_abs() & 0xff) << 8 | text as u32, Ordering::Relaxed);
        }
    }

    /// The text of the last failure on this CPU. `None` if that failure had another error number, or has no text.
    fn last_error(&self, errno: u32) -> Option<&'static CStr> {
        let LastError(last) = self.last_errors.get(self.end.platform().index())?;
        let last = last.load(Ordering::Relaxed);
        let text = (last & 0xff) as usize;
        TEXTS.get(text).copied().filter(|_| last >> 8 == errno && text != Text::None as usize)
    }
}

/// Why the last `mk_ipi_init` returned -EINVAL: the address of a constant text, or 0.
static INIT: AtomicUsize = AtomicUsize::new(0);

/// Stores the reason why `mk_ipi_init` fails with `EINVAL`.
pub(crate) fn keep_init(text: &'static CStr) {
    INIT.store(text.as_ptr().expose_provenance(), Ordering::Relaxed);
}

/// Returns a text that says why the last call for `mk` on this CPU failed, in more detail than `mk_ipi_strerror`. `error` is the
/// result of that call. If the last failure on this CPU had another error number, or if there are no details, the text is that of
/// `mk_ipi_strerror`. If `mk` is not an instance of the library because `mk_ipi_init` failed, the text says why `mk_ipi_init`
/// failed.
///
/// The library stores one failure for each CPU. Call this on the CPU on which the call failed, before that CPU makes another
/// call, and do not migrate in between. If a call in an interrupt handler fails in between, it replaces the stored failure. Then
/// the text is that of the handler's failure if both error numbers are the same.
///
/// `mk_ipi_fini` and `mk_ipi_set_default` store no failure. Calls without an argument `mk` store none either, except
/// `multikernel_send_ipi_data` and `mk_send_pfn`: they store it for the default instance. The text is constant, and the result is
/// never NULL. Context: any.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_last_error(mk: *mut mk_ipi, error: c_int) -> *const c_char {
    let number = error.unsigned_abs();
    // SAFETY: the caller.
    let text = match unsafe { at(mk) } {
        Ok(instance) => instance.last_error(number).map(CStr::as_ptr),
        Err(_) if number == Errno::EINVAL.0.unsigned_abs() => {
            let text = core::ptr::with_exposed_provenance(INIT.load(Ordering::Relaxed));
            Some(text).filter(|text: &*const c_char| !text.is_null())
        }
        Err(_) => None,
    };
    text.unwrap_or_else(|| mk_ipi_strerror(error))
}
