// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several messages at once, on the native link (SPEC N-8).

use super::base::Endpoint;
use super::error::SendError;
use crate::instance::InstanceRef;
use crate::platform::Platform;
use crate::registry::Handler;
use mk_ipi_abi::{InstanceId, MessageType};

impl<
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > Endpoint<P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    /// As [`send`](Self::send) on the native link, but without a doorbell. After the last of several messages call
    /// [`flush`](Self::flush). Until then they may wait. Posts of handlers are flushed when the handlers have returned.
    #[inline]
    pub fn post(&self, to: InstanceId, msg_type: MessageType, payload: &[u8]) -> Result<u64, SendError> {
        match self.instance(to) {
            Ok(instance) => self.post_held(&instance, msg_type, payload),
            Err(e) => Err(self.count_unsent(SendError::Instance(e))),
        }
    }

    /// As [`post`](Self::post), to an instance that the caller holds already.
    #[inline]
    pub fn post_held(
        &self,
        to: &InstanceRef<'_, P::Word>,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<u64, SendError> {
        self.post_all(to, msg_type, &[payload]).map(|(_, number)| number)
    }

    /// As [`post`](Self::post), for several messages of one type. Posts as many as there is space for, from the first on, and gives their
    /// number. Takes the lines of all messages at once.
    ///
    /// # Errors
    /// `Full` if there is no space for the first, `TooLong` if any is too long.
    pub fn post_many(
        &self,
        to: InstanceId,
        msg_type: MessageType,
        payloads: &[&[u8]],
    ) -> Result<usize, SendError> {
        let instance = self.instance(to).map_err(SendError::Instance)?;
        self.post_many_held(&instance, msg_type, payloads)
    }

    /// As [`post_many`](Self::post_many), to an instance that the caller holds already.
    #[inline]
    pub fn post_many_held(
        &self,
        to: &InstanceRef<'_, P::Word>,
        msg_type: MessageType,
        payloads: &[&[u8]],
    ) -> Result<usize, SendError> {
        self.post_all(to, msg_type, payloads).map(|(count, _)| count)
    }

    #[inline(always)]
    fn post_all(
        &self,
        to: &InstanceRef<'_, P::Word>,
        msg_type: MessageType,
        payloads: &[&[u8]],
    ) -> Result<(usize, u64), SendError> {
        let posted = self.on_lane(&to.0, |sender, cpu| sender.post(msg_type, cpu, payloads, self.swap()))?;
        self.busy.posted.add(to.0.id);
        Ok(posted)
    }

    /// As [`post_many`](Self::post_many). Then rings the receiver if it wants to be rung.
    pub fn send_many(
        &self,
        to: InstanceId,
        msg_type: MessageType,
        payloads: &[&[u8]],
    ) -> Result<usize, SendError> {
        let instance = self.instance(to).map_err(SendError::Instance)?;
        let sent = self.post_many_held(&instance, msg_type, payloads)?;
        self.flush(to)?;
        Ok(sent)
    }
}
