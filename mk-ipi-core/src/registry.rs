// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handlers by message type. Dispatch takes no lock; unregistration waits for callbacks on other CPUs.

use crate::message::Message;
use crate::published::{Published, Ref, Serial, TakeError};
use crate::sync::{array_of, const_unless_loom, AtomicU32, Ordering};
use mk_ipi_abi::{Errno, MessageType};

/// A callback for messages. It is called for each message of the type that it was registered for.
///
/// It runs outside of the doorbell's interrupt, on the CPU that received the message, with no lock held. It may send,
/// register and look up. It may not unregister.
pub trait Handler: Send + Sync {
    /// Handles one message. The reference is valid until this returns.
    fn handle(&self, message: &Message<'_>);
}

impl<F: Fn(&Message<'_>) + Send + Sync + ?Sized> Handler for &F {
    fn handle(&self, message: &Message<'_>) {
        self(message);
    }
}

/// Identifies one registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "without it the handler cannot be unregistered"]
pub struct Handle {
    registry: usize,
    index: usize,
    serial: Serial,
}

impl Handle {
    /// The handle as a number, for an interface that gives numbers to its callers. The number does not name the registry
    /// ([`Endpoint::handle_from_bits`](crate::Endpoint::handle_from_bits)). Bits 63..32 serial, 31..0 index.
    #[expect(clippy::cast_possible_truncation, reason = "an index below the number of handlers")]
    pub const fn to_bits(self) -> u64 {
        (self.serial.0 as u64) << 32 | self.index as u32 as u64
    }
}

/// The registry has no room for another handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryFull;

impl core::fmt::Display for RegistryFull {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the registry has no room for another handler")
    }
}

impl core::error::Error for RegistryFull {}

impl RegistryFull {
    /// `ENOMEM`; the C call returns NULL (SPEC C-6).
    pub const fn errno(self) -> Errno {
        Errno::ENOMEM
    }
}

/// Why nothing was unregistered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnregisterError {
    /// This CPU is inside of a callback, or has a poller. Unregistration could wait for ever.
    InCallback,
    /// The handle's registration has ended already.
    Stale,
    /// The handle belongs to another registry.
    OtherRegistry,
}

impl core::fmt::Display for UnregisterError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::InCallback => f.write_str("this CPU is inside of a callback, or has a poller"),
            Self::Stale => f.write_str("the registration has ended already"),
            Self::OtherRegistry => f.write_str("the handle belongs to another registry"),
        }
    }
}

impl core::error::Error for UnregisterError {}

impl UnregisterError {
    /// `EDEADLK`, `ESTALE` or `EINVAL`.
    pub const fn errno(self) -> Errno {
        match self {
            Self::InCallback => Errno::EDEADLK,
            Self::Stale => Errno::ESTALE,
            Self::OtherRegistry => Errno::EINVAL,
        }
    }
}

#[derive(Debug)]
struct Entry<H> {
    msg_type: MessageType,
    handler: H,
}

/// A reference to the only handler for the type of the last message. The next message of that type needs no search.
#[derive(Debug)]
pub(crate) struct Recent<'a, H> {
    version: u32,
    entry: Option<Ref<'a, Entry<H>>>,
}

impl<H> Recent<'_, H> {
    pub(crate) const NONE: Self = Self { version: 0, entry: None };
}

#[cold]
fn forget<H>(recent: &mut Recent<'_, H>, version: u32) {
    *recent = Recent { version, entry: None };
}

/// A table of up to `N` handlers.
#[derive(Debug)]
pub(crate) struct Registry<H, const N: usize> {
    /// Changes with every registration that begins or ends.
    version: AtomicU32,
    /// The message type of each entry, under the same index. With these types a search skips most entries. They are hints, which
    /// may be out of date.
    types: [AtomicU32; N],
    entries: [Published<Entry<H>>; N],
}

impl<H: Handler, const N: usize> Registry<H, N> {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self { version: AtomicU32::new(0), types: array_of![AtomicU32::new(0); N], entries: array_of![Published::new(); N] }
        }
    }

    /// The same as `new`, but initializes the memory at `at`.
    ///
    /// # Safety
    ///
    /// `at` is valid for a write of a registry.
    #[cfg(not(loom))]
    pub(crate) unsafe fn new_in(at: *mut Self) {
        // SAFETY: `at` is valid for a write (the caller). These are all fields.
        unsafe {
            (&raw mut (*at).version).write(AtomicU32::new(0));
            crate::place::fill(&raw mut (*at).types, || AtomicU32::new(0));
            crate::place::fill(&raw mut (*at).entries, Published::new);
            // A field that is added must be written above.
            let Self { version: _, types: _, entries: _ } = &*at;
        }
    }

    /// The address of this registry. It distinguishes the handles of this registry from the handles of others.
    fn identity(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// The handle of this registry with these bits ([`Handle::to_bits`]).
    pub(crate) fn handle_from_bits(&self, bits: u64) -> Handle {
        let serial = Serial((bits >> 32) as u32);
        Handle { registry: self.identity(), index: (bits & 0xffff_ffff) as usize, serial }
    }

    pub(crate) fn register(&self, msg_type: MessageType, handler: H) -> Result<Handle, RegistryFull> {
        // Not `enumerate`, which counts with an overflow check.
        for (index, (ty, entry)) in (0..N).zip(self.types.iter().zip(&self.entries)) {
            if let Some(vacancy) = entry.claim() {
                ty.store(msg_type.0, Ordering::Relaxed);
                let serial = vacancy.publish(Entry { msg_type, handler });
                self.version.fetch_add(1, Ordering::Relaxed);
                return Ok(Handle { registry: self.identity(), index, serial });
            }
        }
        Err(RegistryFull)
    }

    /// Calls every handler of the message's type, in no defined order. Returns the number of handlers called.
    pub(crate) fn dispatch(&self, message: &Message<'_>) -> usize {
        let mut called = 0usize;
        for (ty, entry) in self.types.iter().zip(&self.entries) {
            if ty.load(Ordering::Relaxed) != message.msg_type.0 {
                continue;
            }
            // The hint may be out of date. The type in the entry decides.
            if let Some(entry) = entry.get().filter(|e| e.msg_type == message.msg_type) {
                entry.handler.handle(message);
                called = called.wrapping_add(1);
            }
        }
        called
    }

    /// The same as `dispatch`. If the type has only one handler, keeps a reference to it in `recent` for the next message.
    #[inline(always)]
    pub(crate) fn dispatch_recent<'a>(&'a self, recent: &mut Recent<'a, H>, message: &Message<'_>) -> usize {
        let version = self.version.load(Ordering::Relaxed);
        if let Some(entry) = &recent.entry {
            if recent.version == version && entry.msg_type == message.msg_type {
                entry.handler.handle(message);
                return 1;
            }
        }
        self.search(recent, version, message)
    }

    #[cold]
    fn search<'a>(&'a self, recent: &mut Recent<'a, H>, version: u32, message: &Message<'_>) -> usize {
        *recent = Recent { version, entry: None };
        let mut found = self
            .types
            .iter()
            .zip(&self.entries)
            .filter(|(ty, entry)| ty.load(Ordering::Relaxed) == message.msg_type.0 && entry.is_live());
        if let (Some((_, only)), None) = (found.next(), found.next()) {
            recent.entry = only.get().filter(|e| e.msg_type == message.msg_type);
        }
        match &recent.entry {
            Some(entry) => {
                entry.handler.handle(message);
                1
            }
            None => self.dispatch(message),
        }
    }

    /// Releases the handler in `recent` if a registration has begun or ended since it was stored. Otherwise `unregister` would
    /// wait for a poller that receives no message.
    #[inline(always)]
    pub(crate) fn freshen(&self, recent: &mut Recent<'_, H>) {
        let version = self.version.load(Ordering::Relaxed);
        if recent.version != version {
            forget(recent, version);
        }
    }

    /// Ends a registration: when this returns, the handler is not running and will not run again.
    ///
    /// Waits for callbacks on other CPUs. Calls `relax` between two checks.
    pub(crate) fn unregister(&self, handle: Handle, relax: impl Fn()) -> Result<(), UnregisterError> {
        if handle.registry != self.identity() {
            return Err(UnregisterError::OtherRegistry);
        }
        let entry = self.entries.get(handle.index).ok_or(UnregisterError::OtherRegistry)?;
        if !entry.close(Some(handle.serial)) {
            return Err(UnregisterError::Stale);
        }
        // A CPU that keeps the handler in a `Recent` releases it with its next `freshen`.
        self.version.fetch_add(1, Ordering::Relaxed);
        while let Err(TakeError::InUse(_)) = entry.take() {
            relax();
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::AtomicUsize;

    type Fn0<'a> = &'a (dyn Fn(&Message<'_>) + Send + Sync);

    fn message(ty: u32) -> Message<'static> {
        crate::message::of_type(ty, &[0])
    }

    #[test]
    fn each_handler_of_a_type_gets_each_message() {
        let n = AtomicUsize::new(0);
        let count = |_: &Message<'_>| {
            n.fetch_add(1, Ordering::Relaxed);
        };
        let r: Registry<Fn0<'_>, 3> = Registry::new();
        let a = r.register(MessageType(1), &count).unwrap();
        let _ = r.register(MessageType(1), &count).unwrap();
        let _ = r.register(MessageType(2), &count).unwrap();
        assert_eq!(r.register(MessageType(1), &count), Err(RegistryFull));
        assert_eq!([0, 1, 2, 3].map(|t| r.dispatch(&message(t))), [0, 2, 1, 0]);
        assert_eq!(n.load(Ordering::Relaxed), 3);
        assert_eq!(r.unregister(a, || ()), Ok(()));
        assert_eq!(r.dispatch(&message(1)), 1);
    }

    #[test]
    fn a_handle_ends_one_registration_once() {
        let nop = |_: &Message<'_>| ();
        let (r, other): (Registry<Fn0<'_>, 1>, Registry<Fn0<'_>, 1>) = (Registry::new(), Registry::new());
        let a = r.register(MessageType(1), &nop).unwrap();
        assert_eq!(other.unregister(a, || ()), Err(UnregisterError::OtherRegistry));
        assert_eq!(r.unregister(a, || ()), Ok(()));
        assert_eq!(r.unregister(a, || ()), Err(UnregisterError::Stale));
        let b = r.register(MessageType(1), &nop).unwrap();
        assert_eq!(
            r.unregister(a, || ()),
            Err(UnregisterError::Stale),
            "the new handler in the same entry stays"
        );
        assert_eq!(r.dispatch(&message(1)), 1);
        assert_eq!(r.unregister(b, || ()), Ok(()));
    }

    #[test]
    fn a_number_stands_for_one_registration() {
        let nop = |_: &Message<'_>| ();
        let (r, other): (Registry<Fn0<'_>, 2>, Registry<Fn0<'_>, 2>) = (Registry::new(), Registry::new());
        let a = r.register(MessageType(1), &nop).unwrap();
        let b = r.register(MessageType(1), &nop).unwrap();
        assert_eq!([a, b].map(|h| r.handle_from_bits(h.to_bits())), [a, b]);
        assert_ne!(other.handle_from_bits(a.to_bits()), a);
        assert_eq!(r.unregister(r.handle_from_bits(2), || ()), Err(UnregisterError::OtherRegistry));
        assert_eq!(r.unregister(b, || ()), Ok(()));
        let next = r.register(MessageType(1), &nop).unwrap();
        assert_eq!(r.unregister(r.handle_from_bits(b.to_bits()), || ()), Err(UnregisterError::Stale));
        assert_ne!(next.to_bits(), b.to_bits(), "the entry has another serial");
        assert_eq!(r.unregister(r.handle_from_bits(next.to_bits()), || ()), Ok(()));
    }

    #[test]
    fn the_only_handler_of_a_type_is_kept_until_the_registry_changes() {
        let nop = |_: &Message<'_>| ();
        let r: Registry<Fn0<'_>, 4> = Registry::new();
        let first = r.register(MessageType(1), &nop).unwrap();
        let _ = r.register(MessageType(2), &nop).unwrap();
        let mut recent = Recent::NONE;
        let mut dispatched = |ty| (r.dispatch_recent(&mut recent, &message(ty)), recent.entry.is_some());
        assert_eq!([1, 1, 2, 3].map(&mut dispatched), [(1, true), (1, true), (1, true), (0, false)]);
        assert_eq!(dispatched(1), (1, true));
        let second = r.register(MessageType(1), &nop).unwrap();
        assert_eq!([1, 2, 1].map(&mut dispatched), [(2, false), (1, true), (2, false)]);
        assert_eq!(r.unregister(second, || ()), Ok(()));
        assert_eq!([1, 1].map(&mut dispatched), [(1, true); 2]);
        // Closes the entry of type 1, which is the first step of `unregister`. Although `recent` still holds the entry, messages
        // of type 1 have no handler any more.
        assert!(r.entries[first.index].close(Some(first.serial)));
        r.version.fetch_add(1, Ordering::Relaxed);
        assert_eq!([1, 2].map(&mut dispatched), [(0, false), (1, true)]);
    }

    #[test]
    fn a_registry_is_made_in_place() {
        let nop = |_: &Message<'_>| ();
        let mut place = core::mem::MaybeUninit::<Registry<Fn0<'_>, 3>>::uninit();
        // SAFETY: `place` has room for a registry, and `new_in` initializes it.
        let r = unsafe {
            Registry::new_in(place.as_mut_ptr());
            place.assume_init_ref()
        };
        assert_eq!(r.dispatch(&message(1)), 0);
        let handles = [1, 2, 1].map(|ty| r.register(MessageType(ty), &nop).unwrap());
        assert_eq!(r.register(MessageType(1), &nop), Err(RegistryFull));
        assert_eq!([1, 2].map(|t| r.dispatch(&message(t))), [2, 1]);
        assert_eq!(handles.map(|h| r.unregister(h, || ())), [Ok(()); 3]);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    /// A handler whose state is freed after unregister. Loom detects an access to the state that is not ordered before the free.
    struct Freed(Arc<UnsafeCell<u32>>);
    // SAFETY: no handler runs while the cell is written. The model proves this.
    unsafe impl Send for Freed {}
    // SAFETY: as above.
    unsafe impl Sync for Freed {}
    impl Handler for Freed {
        fn handle(&self, _: &Message<'_>) {
            // SAFETY: the cell is only read here. Loom checks that nothing writes it at the same time.
            self.0.with(|v| assert_eq!(unsafe { *v }, 1));
        }
    }

    /// Register, dispatch on another CPU, unregister: no callback runs after unregister returned.
    #[test]
    fn loom_unregister_waits_for_the_callback() {
        loom::model(|| {
            let state = Arc::new(UnsafeCell::new(1));
            let registry: Arc<Registry<Freed, 1>> = Arc::new(Registry::new());
            let cpu = {
                let registry = registry.clone();
                thread::spawn(move || {
                    registry.dispatch(&crate::message::of_type(0, &[0]));
                })
            };
            let handle = registry.register(MessageType(0), Freed(state.clone())).unwrap();
            registry.unregister(handle, thread::yield_now).unwrap();
            // SAFETY: loom checks that no callback reads the state meanwhile. A kernel would free the handler's state here.
            state.with_mut(|v| unsafe { *v = 0 });
            cpu.join().unwrap();
        });
    }

    /// Two CPUs unregister the same handle: one succeeds, and the other gets an error.
    #[test]
    fn loom_unregister_twice() {
        loom::model(|| {
            let registry: Arc<Registry<Freed, 1>> = Arc::new(Registry::new());
            let handle = registry.register(MessageType(0), Freed(Arc::new(UnsafeCell::new(1)))).unwrap();
            let other = {
                let registry = registry.clone();
                thread::spawn(move || registry.unregister(handle, thread::yield_now).is_ok())
            };
            let mine = registry.unregister(handle, thread::yield_now).is_ok();
            assert!(mine != other.join().unwrap());
        });
    }
}
