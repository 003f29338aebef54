// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sends several messages with one doorbell, on the native link (SPEC N-8).

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
    /// The same as [`send`](Self::send) on the native link, but without a doorbell. Call [`flush`](Self::flush) after the last of
    /// several messages. Until then it is not certain that the receiver reads them. Messages that a handler posts are flushed at
    /// the end of the run of deferred work that called the handler; a poller flushes them within 384 calls.
    #[inline]
    pub fn post(&self, to: InstanceId, msg_type: MessageType, payload: &[u8]) -> Result<u64, SendError> {
        match self.instance(to) {
            Ok(instance) => self.post_held(&instance, msg_type, payload),
            Err(e) => Err(self.count_unsent(SendError::Instance(e))),
        }
    }

    /// The same as [`post`](Self::post), to an instance to which the caller already has a reference.
    #[inline]
    pub fn post_held(
        &self,
        to: &InstanceRef<'_, P::Word>,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<u64, SendError> {
        self.post_all(to, msg_type, &[payload]).map(|(_, number)| number)
    }

    /// The same as [`post`](Self::post), for several messages of one type. Posts as many of them as fit into the lane, beginning
    /// with the first. Returns how many messages were posted. The lines of all these messages are taken with one atomic
    /// operation.
    ///
    /// # Errors
    /// `Full` if the first message does not fit, `TooLong` if any of them is too long; otherwise the same errors as
    /// [`post`](Self::post).
    pub fn post_many(
        &self,
        to: InstanceId,
        msg_type: MessageType,
        payloads: &[&[u8]],
    ) -> Result<usize, SendError> {
        let instance = self.instance(to).map_err(SendError::Instance)?;
        self.post_many_held(&instance, msg_type, payloads)
    }

    /// The same as [`post_many`](Self::post_many), to an instance to which the caller already has a reference.
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

    /// The same as [`post_many`](Self::post_many). Afterwards rings the receiver if it wants to be rung.
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
