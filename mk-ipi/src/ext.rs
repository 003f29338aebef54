// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trait for endpoints of any size, and the trait with the calls of this crate.

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

/// The word type of the shared memory that an endpoint accesses.
pub(crate) type WordOf<E> = <<E as AnyEndpoint>::Platform as PhysMemory>::Word;

mod sealed {
    pub trait Sealed {}
}

/// An [`Endpoint`] with any constant parameters (numbers of CPUs, handlers, messages and instances), for code that works with all
/// of them. Only `Endpoint` implements this trait.
///
/// Each method calls the endpoint's method of the same name.
pub trait AnyEndpoint: sealed::Sealed {
    /// The kernel and its architecture.
    type Platform: Platform;
    /// The type of a handler.
    type Handler: Handler;
    /// The number of instances for which the endpoint has room. Their ids are below this number.
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
    /// Registers `handler` for the message type of `T`.
    ///
    /// The handler type of the endpoint must be [`DynHandler`](crate::typed::DynHandler), or another type that can be made from a
    /// reference to a [`TypedHandler`].
    ///
    /// # Errors
    /// [`RegistryFull`] if the endpoint has no room for another handler.
    fn register_typed<T: TypedMessage, F>(
        &self,
        handler: &'static TypedHandler<T, F>,
    ) -> Result<Handle, RegistryFull>
    where
        Self::Handler: From<&'static TypedHandler<T, F>>,
    {
        self.register(T::TYPE, handler.into())
    }

    /// Sends `value` to `to`, and returns the number of the message. It may be called in the same contexts as [`Endpoint::send`].
    ///
    /// # Errors
    /// The errors of [`Endpoint::send`]. For example, `TooLong` if a `T` is longer than the longest message to that peer, and
    /// `Empty` for a `T` of 0 bytes on RFC v2.
    fn send_typed<T: TypedMessage>(&self, to: InstanceId, value: &T) -> Result<u64, SendError> {
        self.send(to, T::TYPE, value.as_bytes())
    }

    /// Sends like [`Endpoint::send`]. If there is no space, or the peer has not answered this life of ours yet, it tries again
    /// until `deadline`. It tries at least once, and once more after each wait. To wait, it calls
    /// [`ThisCpu::relax`](mk_ipi_core::platform::ThisCpu::relax).
    ///
    /// Call it from a task with interrupts on ([`blocking`](crate::blocking)). On the native link it asks the receiver for the
    /// event [`PeerEvent::Space`](mk_ipi_core::platform::PeerEvent::Space). The observer can get this event even after the call
    /// has returned. Ignore it then.
    ///
    /// # Errors
    /// [`WaitError`] says why the message was not sent.
    fn send_blocking(
        &self,
        to: InstanceId,
        msg_type: MessageType,
        payload: &[u8],
        mut deadline: Deadline<impl FnMut() -> u64>,
    ) -> Result<u64, WaitError> {
        blocking::send(self, (to, msg_type, payload), &mut deadline)
    }

    /// Returns a future that sends. If there is no space, or the peer has not answered this life of ours yet, the future is
    /// pending, and other tasks can run. Its output is the number of the message.
    ///
    /// `waiters` keeps the waker of the task while the task waits. Your observer must pass the peer events of this endpoint to
    /// `waiters`: see [`asynchronous`](crate::asynchronous). If the future is dropped before it is ready, it has sent nothing.
    fn send_async<'a, const N: usize>(
        &'a self,
        waiters: &'a Waiters<N>,
        to: InstanceId,
        msg_type: MessageType,
        payload: &'a [u8],
    ) -> SendFuture<'a, Self, N> {
        SendFuture::new(self, waiters, (to, msg_type, payload))
    }

    /// Returns an iterator over the other kernels in the table of instances, in the order of their ids, with the state of each.
    fn peers(&self) -> Peers<'_, Self> {
        Peers::new(self)
    }

    /// Returns what this kernel knows of the kernel `id`. `None` if `id` is not in the table of instances, or is this kernel.
    fn peer(&self, id: InstanceId) -> Option<PeerInfo> {
        peers::peer(self, id)
    }

    /// Makes this kernel the host of the machine, according to `plan`. The call sets the identity of this kernel, makes a
    /// region for each instance from the pool of that instance, and writes the directory. The directory lists this kernel as
    /// running, and every other instance as starting. The call returns the writer of the directory, for later changes. May
    /// sleep.
    ///
    /// The call first checks the complete plan. If a later step fails, it undoes the steps before it. Then the memory of the
    /// directory has no valid stamp, so no kernel accepts it as a directory. Before the call, register the handlers and install
    /// the doorbell's vector. No other task may use the endpoint until the call returns.
    ///
    /// The directory stays mapped as long as the kernel runs. See [`bring_up`](crate::bring_up).
    ///
    /// # Errors
    /// [`HostError`] says which step failed, and why.
    fn bring_up_host(
        &self,
        plan: &HostPlan<'_>,
    ) -> Result<DirectoryWriter<'static, WordOf<Self>>, HostError> {
        bring_up::host::start(self, plan)
    }

    /// Brings up a kernel that a host has started. The command line names the kernel's region (`mk_ipi_shared=`) and the
    /// directory (`mk_ipi_directory=`). The call maps the directory read-only, and joins ([`Endpoint::join_and`]). May sleep.
    ///
    /// If the host is changing an entry of the directory, the call waits, at most until `deadline`, and tries again. It calls
    /// `left_out` for each other live instance that could not be added, with the reason. Each try calls `left_out` again.
    /// Before the call, register the handlers and install the doorbell's vector. After the call, every other CPU of this kernel
    /// must call [`Endpoint::poll`] once.
    ///
    /// # Errors
    /// [`SpawnedError`] says which step failed, and why. The call then leaves nothing mapped, and the endpoint is unchanged.
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
