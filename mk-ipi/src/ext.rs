// SPDX-License-Identifier: MIT OR Apache-2.0
//! An endpoint of any size, and the calls of this crate as methods of it.

use crate::asynchronous::{SendFuture, Waiters};
use crate::blocking::{self, Deadline, WaitError};
use crate::bring_up::{self, HostError, HostPlan, Spawned, SpawnedError};
use crate::peers::{self, PeerInfo, Peers};
use crate::typed::{TypedHandler, TypedMessage};
use mk_ipi_core::abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysRange};
use mk_ipi_core::directory::{Directory, DirectoryWriter};
use mk_ipi_core::platform::{PhysMemory, Platform};
use mk_ipi_core::{
    AddError, DestroyError, Endpoint, Handle, Handler, InstanceConfig, InstanceRef, JoinError, LaneStats,
    LookupError, RegistryFull, SendError,
};

/// The words of shared memory of an endpoint.
pub(crate) type WordOf<E> = <<E as AnyEndpoint>::Platform as PhysMemory>::Word;

mod sealed {
    pub trait Sealed {}
}

/// An [`Endpoint`] of any size, for code that works with all sizes. Only `Endpoint` implements this trait.
///
/// Each method calls the endpoint's method of the same name.
pub trait AnyEndpoint: sealed::Sealed {
    /// The kernel and its architecture.
    type Platform: Platform;
    /// The type of a handler.
    type Handler: Handler;
    /// The endpoint has room for instances whose ids are below this number.
    fn max_instances(&self) -> usize;
    /// See [`Endpoint::platform`].
    fn platform(&self) -> &Self::Platform;
    /// See [`Endpoint::identity`].
    fn identity(&self) -> Option<(InstanceId, Incarnation)>;
    /// See [`Endpoint::identify`].
    fn identify(&self, instance: InstanceId, incarnation: Incarnation);
    /// See [`Endpoint::forget_identity`].
    fn forget_identity(&self);
    /// See [`Endpoint::register`].
    fn register(&self, msg_type: MessageType, handler: Self::Handler) -> Result<Handle, RegistryFull>;
    /// See [`Endpoint::instance`].
    fn instance(&self, id: InstanceId) -> Result<InstanceRef<'_, WordOf<Self>>, LookupError>;
    /// See [`Endpoint::create_instance`].
    fn create_instance(&self, config: &InstanceConfig<'_>) -> Result<PhysRange, AddError>;
    /// See [`Endpoint::destroy_instance`].
    fn destroy_instance(&self, id: InstanceId) -> Result<(), DestroyError>;
    /// See [`Endpoint::join_and`].
    fn join_and(
        &self,
        shared: PhysAddr,
        directory: &Directory<'_, WordOf<Self>>,
        left_out: impl FnMut(InstanceId, JoinError),
    ) -> Result<usize, JoinError>;
    /// See [`Endpoint::send`].
    fn send(&self, to: InstanceId, msg_type: MessageType, payload: &[u8]) -> Result<u64, SendError>;
    /// See [`Endpoint::want_space`].
    fn want_space(&self, to: InstanceId, len: usize) -> Result<bool, SendError>;
    /// See [`Endpoint::lane_stats`].
    fn lane_stats(&self, to: InstanceId) -> Result<LaneStats, SendError>;
}

impl<
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > sealed::Sealed for Endpoint<P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
}

impl<
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > AnyEndpoint for Endpoint<P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    type Platform = P;
    type Handler = H;
    fn max_instances(&self) -> usize {
        INSTANCES
    }
    fn platform(&self) -> &P {
        self.platform()
    }
    fn identity(&self) -> Option<(InstanceId, Incarnation)> {
        self.identity()
    }
    fn identify(&self, instance: InstanceId, incarnation: Incarnation) {
        self.identify(instance, incarnation);
    }
    fn forget_identity(&self) {
        self.forget_identity();
    }
    fn register(&self, msg_type: MessageType, handler: H) -> Result<Handle, RegistryFull> {
        self.register(msg_type, handler)
    }
    fn instance(&self, id: InstanceId) -> Result<InstanceRef<'_, P::Word>, LookupError> {
        self.instance(id)
    }
    fn create_instance(&self, config: &InstanceConfig<'_>) -> Result<PhysRange, AddError> {
        self.create_instance(config)
    }
    fn destroy_instance(&self, id: InstanceId) -> Result<(), DestroyError> {
        self.destroy_instance(id)
    }
    fn join_and(
        &self,
        shared: PhysAddr,
        directory: &Directory<'_, P::Word>,
        left_out: impl FnMut(InstanceId, JoinError),
    ) -> Result<usize, JoinError> {
        self.join_and(shared, directory, left_out)
    }
    fn send(&self, to: InstanceId, msg_type: MessageType, payload: &[u8]) -> Result<u64, SendError> {
        self.send(to, msg_type, payload)
    }
    fn want_space(&self, to: InstanceId, len: usize) -> Result<bool, SendError> {
        self.want_space(to, len)
    }
    fn lane_stats(&self, to: InstanceId) -> Result<LaneStats, SendError> {
        self.lane_stats(to)
    }
}

/// The calls of this crate, as methods of every [`Endpoint`].
pub trait EndpointExt: AnyEndpoint {
    /// Registers `handler`, which is called for each message that is a `T`. Keep it in a `static`.
    ///
    /// The endpoint's handlers must be [`DynHandler`](crate::typed::DynHandler), or a type of yours that can be made from such
    /// a reference.
    ///
    /// # Errors
    /// [`RegistryFull`] if the endpoint has no place for a handler.
    fn register_typed<T: TypedMessage, F>(
        &self,
        handler: &'static TypedHandler<T, F>,
    ) -> Result<Handle, RegistryFull>
    where
        Self::Handler: From<&'static TypedHandler<T, F>>,
    {
        self.register(T::TYPE, handler.into())
    }

    /// Sends `value` to `to`, and returns the message's number. It may be called in the same contexts as [`Endpoint::send`].
    ///
    /// # Errors
    /// Those of `send`: for example `TooLong` if a `T` is longer than a message to that peer may be, or `Empty` for a `T` of 0
    /// bytes on RFC v2.
    fn send_typed<T: TypedMessage>(&self, to: InstanceId, value: &T) -> Result<u64, SendError> {
        self.send(to, T::TYPE, value.as_bytes())
    }

    /// Sends as [`Endpoint::send`] does, but waits until `deadline` for space, or for the peer's first answer. It tries at
    /// least once, and once more after the last wait. Between two tries it calls
    /// [`ThisCpu::relax`](mk_ipi_core::platform::ThisCpu::relax).
    ///
    /// Call it from a task with interrupts on ([`blocking`](crate::blocking)). On the native link the receiver learns that this
    /// sender waits. So the platform can be told [`PeerEvent::Space`](mk_ipi_core::platform::PeerEvent::Space), even after this
    /// has returned; ignore the event then.
    ///
    /// # Errors
    /// [`WaitError`].
    fn send_blocking(
        &self,
        to: InstanceId,
        msg_type: MessageType,
        payload: &[u8],
        mut deadline: Deadline<impl FnMut() -> u64>,
    ) -> Result<u64, WaitError> {
        blocking::send(self, (to, msg_type, payload), &mut deadline)
    }

    /// A future that waits for space, or for the peer's first answer, and sends. It does not hold the CPU. Its output is the
    /// message's number.
    ///
    /// `waiters` keeps the task's waker while the task waits. It must be told of this endpoint's peer events: see
    /// [`asynchronous`](crate::asynchronous). If the future is dropped before it was ready, it has sent nothing.
    fn send_async<'a, const N: usize>(
        &'a self,
        waiters: &'a Waiters<N>,
        to: InstanceId,
        msg_type: MessageType,
        payload: &'a [u8],
    ) -> SendFuture<'a, Self, N> {
        SendFuture::new(self, waiters, (to, msg_type, payload))
    }

    /// The other kernels in the table of instances, in the order of their ids, with the state of each.
    fn peers(&self) -> Peers<'_, Self> {
        Peers::new(self)
    }

    /// What is known of one other kernel. `None` if `id` is not in the table of instances, or is this kernel.
    fn peer(&self, id: InstanceId) -> Option<PeerInfo> {
        peers::peer(self, id)
    }

    /// Makes this kernel the host of the machine, as `plan` says. It identifies the kernel, makes a region for each instance
    /// from that instance's pool, and writes the directory, in which every other instance is listed as starting. Returns the
    /// writer of the directory, for later changes. May sleep.
    ///
    /// The whole plan is checked before anything is done. If a later step fails, everything is undone; then the directory's
    /// memory has no valid stamp, and no kernel takes it for a directory. Before the call, register the handlers and install
    /// the doorbell's vector. No other task may use the endpoint until the call returns.
    ///
    /// The directory stays mapped for as long as the kernel lives. See [`bring_up`](crate::bring_up).
    ///
    /// # Errors
    /// [`HostError`] says what is wrong.
    fn bring_up_host(
        &self,
        plan: &HostPlan<'_>,
    ) -> Result<DirectoryWriter<'static, WordOf<Self>>, HostError> {
        bring_up::host::start(self, plan)
    }

    /// Brings up a kernel that a host has started. It finds the kernel's region and the directory by the command line
    /// (`mk_ipi_shared=`, `mk_ipi_directory=`), maps the directory read-only, and joins. May sleep.
    ///
    /// While the host changes an entry, this waits, at most until `deadline`. `left_out` is called with each other live
    /// instance that could not be added, and the reason; it is called again in each try. Before the call, register the handlers
    /// and install the doorbell's vector. After the call, every other CPU of this kernel must call [`Endpoint::poll`] once.
    ///
    /// # Errors
    /// [`SpawnedError`]. Then nothing stays mapped, and the endpoint is as it was before.
    fn bring_up_spawned(
        &self,
        command_line: &[u8],
        mut deadline: Deadline<impl FnMut() -> u64>,
        left_out: impl FnMut(InstanceId, JoinError),
    ) -> Result<Spawned<WordOf<Self>>, SpawnedError> {
        bring_up::spawned::start(self, command_line, &mut deadline, left_out)
    }
}

impl<E: AnyEndpoint> EndpointExt for E {}
