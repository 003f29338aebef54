// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trait [`Env`], which a backend implements, and the helper functions of the cases.

use crate::inbox::{payload, Inbox};
use crate::{check, Case, Outcome};
use mk_ipi_core::abi::{InstanceId, MessageType, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::platform::{Doorbell, LocalInterrupts, Peer, PeerEvent, PhysMemory, Platform};
use mk_ipi_core::sync::{Ordering, Word};
use mk_ipi_core::{
    DestroyError, Endpoint, Handle, Handler, InstanceConfig, LinkConfig, Message, SendError, SlotPolicy,
    UnregisterError,
};

/// The endpoint that the suite tests. The queue of each CPU has only 8 places, so that a case can fill it.
pub type TestEndpoint<E> = Endpoint<<E as Env>::Platform, TestHandler<E>, 4, 16, 8>;
/// The type of a word in memory that the platform of `E` has mapped.
pub(crate) type WordOf<E> = <<E as Env>::Platform as PhysMemory>::Word;

/// A handler that a case registers. It holds a reference to the [`Env`] of its kernel.
#[derive(Debug)]
pub struct TestHandler<E: 'static> {
    env: &'static E,
    action: Action<E>,
}

#[derive(Debug)]
enum Action<E: 'static> {
    Call(fn(&'static E, &Message<'_>)),
    /// Tries to unregister this handle. Stores 1 to the inbox's note if the error is `InCallback`, else 2.
    Unregister(Handle),
}

impl<E> TestHandler<E> {
    pub(crate) const fn new(env: &'static E, action: fn(&'static E, &Message<'_>)) -> Self {
        Self { env, action: Action::Call(action) }
    }

    pub(crate) const fn unregister(env: &'static E, handle: Handle) -> Self {
        Self { env, action: Action::Unregister(handle) }
    }
}

impl<E: Env> Handler for TestHandler<E> {
    fn handle(&self, message: &Message<'_>) {
        match self.action {
            Action::Call(action) => action(self.env, message),
            Action::Unregister(handle) => {
                let refused = self.env.endpoint().unregister(handle) == Err(UnregisterError::InCallback);
                self.env.inbox().note.store(if refused { 1 } else { 2 }, Ordering::Relaxed);
            }
        }
    }
}

/// One kernel of the machine that is tested.
pub trait Env: Sync + Sized {
    /// The backend.
    type Platform: Platform;
    /// The number of calls of [`pause`](Self::pause) after which a wait fails. Choose a number of calls that takes about 2
    /// seconds.
    const PATIENCE: u64;
    /// A second interrupt vector of this kernel. Its handler counts the interrupt, and calls the endpoint's `on_interrupt`.
    const SPARE_VECTOR: Vector;

    /// This kernel's endpoint. Before [`run`](crate::run) the kernel calls `identify` on it, and installs handlers that call its
    /// `on_interrupt`: for the vector in [`config_of`](Self::config_of), and for [`SPARE_VECTOR`](Self::SPARE_VECTOR). The suite
    /// attaches the instances.
    fn endpoint(&'static self) -> &'static TestEndpoint<Self>;
    /// The configuration with which the suite attaches `kernel`: first incarnation, exclusive slots, one CPU. `slots` is the
    /// highest physical CPU id of all kernels that take part, plus 1.
    fn config_of(&self, kernel: usize) -> InstanceConfig<'_>;
    /// Memory for the slots of `kernel`. All kernels map it. It begins on a page boundary, and has 272 bytes for each slot in
    /// [`config_of`](Self::config_of).
    fn region_of(&self, kernel: usize) -> PhysRange;
    /// Memory for a native region of `kernel`: [`NATIVE_LEN`](crate::NATIVE_LEN) bytes that begin on a page boundary. All kernels
    /// map it, and nothing else uses it.
    fn native_region_of(&self, kernel: usize) -> PhysRange;
    /// Calls `f` with each event about a peer that the core reported to this kernel's `Observer` since the last call: each event
    /// once, in the order of the reports.
    fn peer_events(&self, f: &mut dyn FnMut(Peer, PeerEvent));
    /// How often the core called `Observer::stop` at this kernel. In this test `stop` only counts its calls, and must not stop
    /// the kernel.
    fn stops(&self) -> u64;
    /// How often the handler of [`SPARE_VECTOR`](Self::SPARE_VECTOR) was called.
    fn spare_interrupts(&self) -> u64;
    /// This kernel's inbox. It is made by [`Inbox::new`], and only the suite uses it.
    fn inbox(&self) -> &Inbox;
    /// The number of this kernel, which is also its instance id.
    fn me(&self) -> usize;
    /// The number of kernels that take part. They are instances `0..kernels()`.
    fn kernels(&self) -> usize;
    /// A page of `kernel` that its peers may map, and that the tests may write. The platform's `peer_may_share` allows these
    /// pages, and refuses all others.
    fn page_of(&self, kernel: usize) -> PhysRange;
    /// Writes this kernel's control word, with release ordering.
    fn post(&self, value: u64);
    /// Reads a kernel's control word, with acquire ordering.
    fn posted(&self, kernel: usize) -> u64;
    /// The suite calls this in each iteration of a wait loop. If interrupts are on, it takes pending interrupts, and runs the
    /// deferred work that is scheduled.
    ///
    /// The suite also calls it with interrupts off, so that a kernel receives nothing for a while. Then it must take no
    /// interrupt and run no deferred work. It only lets the other kernels run. If `72 lines are too few` is your first failure,
    /// check this function, and then [`restore`](mk_ipi_core::platform::LocalInterrupts::restore).
    fn pause(&self);
    /// Returns true if this case must be run. All kernels of the machine must return the same. To run one case alone, return true
    /// for this case only.
    fn wants(&self, case: &Case) -> bool {
        let _ = case;
        true
    }
    /// Reports how a case ended at this kernel.
    fn report(&self, case: &Case, outcome: Outcome);
}

/// The type of message that the suite's recording handler is registered for.
pub(crate) const TYPE: MessageType = MessageType(0x4000_0001);

/// Helper functions of all cases.
pub(crate) trait Steps: Env {
    fn begin_case(&self, number: usize) {
        // A kernel that fails a case begins the next case earlier than the others. This number is larger than every step of the
        // case before, so the others do not wait for this kernel in that case.
        self.inbox().progress.store((number as u64) << 32, Ordering::Relaxed);
        self.post((number as u64) << 32);
    }

    /// Waits until all kernels come to this step. The others do not wait for a kernel that has failed this case and has begun
    /// the next one (see `begin_case`).
    fn step(&self) -> Outcome {
        let step = self.inbox().progress.fetch_add(1, Ordering::Relaxed) + 1;
        self.post(step);
        check!(
            self.until(|| (0..self.kernels()).all(|k| self.posted(k) >= step)),
            "the others come to this step"
        );
        Ok(())
    }

    /// Waits until `condition` holds. Returns false if it does not hold in time.
    fn until(&self, mut condition: impl FnMut() -> bool) -> bool {
        (0..Self::PATIENCE).any(|_| {
            let met = condition();
            if !met {
                self.pause();
            }
            met
        })
    }

    /// Waits for 200 iterations. Cases call it before they check that an interrupt or deferred work did not come.
    fn linger(&self) {
        (0..200).for_each(|_| self.pause());
    }

    fn id(kernel: usize) -> InstanceId {
        InstanceId::new(kernel as u8)
    }

    fn next(&self) -> usize {
        (self.me() + 1) % self.kernels()
    }

    fn register(&'static self, ty: MessageType, action: fn(&'static Self, &Message<'_>)) -> Option<Handle> {
        self.endpoint().register(ty, TestHandler::new(self, action)).ok()
    }

    /// Registers the handler that records each message of type [`TYPE`] in the inbox.
    fn listen(&'static self) -> Result<Handle, crate::Failed> {
        self.register(TYPE, |env, m| env.inbox().push(m)).ok_or(crate::Failed("a handler can be registered"))
    }

    fn unlisten(&'static self, handle: Handle) -> Outcome {
        check!(self.endpoint().unregister(handle).is_ok(), "a handler can be unregistered");
        Ok(())
    }

    /// Sends the payload of `seed` and `len` (see [`payload`]), and tries again while the slot is busy. It does not check for
    /// other errors: if one occurs, the case fails at the receiver, which waits for the message.
    fn send(&'static self, to: usize, seed: u64, len: usize) -> Outcome {
        let sent = self.until(|| self.try_send(to, seed, len) != Err(SendError::Busy));
        check!(sent, "a busy slot becomes free");
        Ok(())
    }

    fn try_send(&'static self, to: usize, seed: u64, len: usize) -> Result<u64, SendError> {
        self.endpoint().send(Self::id(to), TYPE, &payload(seed, len)[..len])
    }

    /// Rings the doorbell of `kernel` without sending a message.
    fn ring(&'static self, kernel: usize) -> Outcome {
        let (cpu, vector) = self.doorbell_of(kernel)?;
        check!(self.endpoint().platform().ring(cpu, vector).is_ok(), "the doorbell rings");
        Ok(())
    }

    fn doorbell_of(&'static self, kernel: usize) -> Result<(PhysCpuId, Vector), crate::Failed> {
        let instance = self.endpoint().instance(Self::id(kernel));
        let instance = instance.map_err(|_| crate::Failed("every kernel is attached"))?;
        Ok((instance.doorbell_cpu(), instance.vector()))
    }

    /// Calls `f` with the words of the slot of `kernel`'s doorbell CPU.
    fn with_slot<R>(
        &'static self,
        kernel: usize,
        f: impl Fn(&[WordOf<Self>]) -> R,
    ) -> Result<R, crate::Failed> {
        let missing = crate::Failed("every kernel has a region that contains its slot");
        let instance = self.endpoint().instance(Self::id(kernel)).map_err(|_| missing)?;
        let first = instance.doorbell_cpu().0 as usize * 34;
        instance.words().get(first..first + 34).map(f).ok_or(missing)
    }

    /// Writes one word of the slot of `kernel`'s doorbell CPU. Every kernel that has the slot mapped can do this.
    fn scribble(&'static self, kernel: usize, word: usize, value: u64) -> Outcome {
        self.with_slot(kernel, |slot| slot[word].store(value, Ordering::SeqCst))
    }

    fn slot_word(&'static self, kernel: usize, word: usize) -> Result<u64, crate::Failed> {
        self.with_slot(kernel, |slot| slot[word].load(Ordering::SeqCst))
    }

    /// Runs `f` with this CPU's interrupts off.
    fn undisturbed<R>(&'static self, f: impl FnOnce() -> R) -> R {
        let state = self.endpoint().platform().disable();
        let result = f();
        self.endpoint().platform().restore(state);
        result
    }

    /// Attaches every instance again, with slots of this policy. All kernels must call this in the same step.
    fn set_policy(&'static self, policy: SlotPolicy) -> Outcome {
        self.step()?;
        for kernel in 0..self.kernels() {
            let LinkConfig::RfcV2 { slots, .. } = self.config_of(kernel).link else {
                return Err(crate::Failed("`config_of` describes slots"));
            };
            self.detach(kernel)?;
            self.attach(kernel, LinkConfig::RfcV2 { slots, policy }, self.region_of(kernel))?;
        }
        self.step()
    }

    fn attach(&'static self, kernel: usize, link: LinkConfig, region: PhysRange) -> Outcome {
        let config = InstanceConfig { link, ..self.config_of(kernel) };
        let attached = self.endpoint().attach_instance(&config, Some(region));
        check!(attached.is_ok(), "an instance can be attached again");
        Ok(())
    }

    /// Destroys an instance, if it is attached.
    fn detach(&'static self, kernel: usize) -> Outcome {
        let gone = self.endpoint().destroy_instance(Self::id(kernel));
        check!(matches!(gone, Ok(()) | Err(DestroyError::Unknown)), "an instance can be destroyed");
        Ok(())
    }

    /// Prepares a case: identifies this kernel as its first incarnation again, attaches all instances with exclusive slots, and
    /// empties the slot of this kernel's doorbell CPU.
    fn fresh(&'static self) -> Outcome {
        self.step()?;
        self.inbox().note.store(0, Ordering::Relaxed);
        let me = (Self::id(self.me()), self.config_of(self.me()).incarnation);
        if self.endpoint().identity() != Some(me) {
            self.endpoint().identify(me.0, me.1);
        }
        self.set_policy(SlotPolicy::Exclusive)?;
        self.scribble(self.me(), 1, 0)?;
        self.step()
    }

    /// Waits until the interrupts and the deferred work of this case are over, so that the next case can begin.
    fn quiet(&'static self) -> Outcome {
        self.step()?;
        self.linger();
        self.step()
    }
}

impl<E: Env> Steps for E {}
