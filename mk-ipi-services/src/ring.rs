// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ring buffer of bytes, in memory that the caller supplies.

/// A queue of bytes. Its capacity is the length of the buffer.
pub struct Ring<B> {
    buffer: B,
    /// Index in the buffer of the oldest byte: below the length of the buffer, or 0.
    first: usize,
    /// Number of bytes in the queue, at most the length of the buffer.
    len: usize,
}

impl<B> core::fmt::Debug for Ring<B> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ring").field("first", &self.first).field("len", &self.len).finish_non_exhaustive()
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Ring<B> {
    /// Makes an empty queue in `buffer`.
    pub const fn new(buffer: B) -> Self {
        Self { buffer, first: 0, len: 0 }
    }

    /// The largest number of bytes that the queue can hold.
    pub fn capacity(&self) -> usize {
        self.buffer.as_ref().len()
    }

    /// Number of bytes in the queue.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the queue is empty.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many more bytes fit.
    pub fn room(&self) -> usize {
        self.capacity().saturating_sub(self.len)
    }

    /// Removes all bytes.
    pub fn clear(&mut self) {
        (self.first, self.len) = (0, 0);
    }

    /// Returns the buffer.
    pub fn into_buffer(self) -> B {
        self.buffer
    }

    /// Index in the buffer of byte number `at`, counted from the oldest.
    fn place(&self, at: usize) -> usize {
        let capacity = self.capacity();
        let place = self.first.saturating_add(at);
        if place < capacity {
            place
        } else {
            place.saturating_sub(capacity)
        }
    }

    /// Stores `bytes` in the buffer from byte number `at` on, counted from the oldest. After the end of the buffer it continues
    /// at the beginning. If there are more bytes than the buffer has, the others are ignored.
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let place = self.place(at);
        let (front, back) = self.buffer.as_mut().split_at_mut_checked(place).unwrap_or((&mut [], &mut []));
        let to = back.iter_mut().chain(front);
        to.zip(bytes).for_each(|(to, byte)| *to = *byte);
    }

    /// Adds as many bytes as fit. Returns their number.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        self.write(self.len, bytes.get(..count).unwrap_or(&[]));
        self.len = self.len.saturating_add(count);
        count
    }

    /// Adds all bytes, and drops the oldest ones to make room. If `bytes` is longer than the capacity, drops its first bytes too.
    /// Returns the number of dropped bytes.
    pub fn push_over(&mut self, bytes: &[u8]) -> usize {
        let too_many = bytes.len().saturating_sub(self.capacity());
        let bytes = bytes.get(too_many..).unwrap_or(&[]);
        let lost = bytes.len().saturating_sub(self.room());
        self.drop_first(lost);
        self.push(bytes);
        lost.saturating_add(too_many)
    }

    /// Replaces bytes of the queue by `bytes`, from byte number `at` on, counted from the oldest. Adds none: bytes for which
    /// there is no byte to replace are ignored.
    pub fn patch(&mut self, at: usize, bytes: &[u8]) {
        let most = self.len.saturating_sub(at);
        self.write(at, bytes.get(..bytes.len().min(most)).unwrap_or(&[]));
    }

    /// Copies bytes of the queue to `to`, from byte number `at` on, counted from the oldest, as many as fit. Returns their
    /// number. The bytes stay in the queue.
    pub fn copy(&self, at: usize, to: &mut [u8]) -> usize {
        let count = to.len().min(self.len.saturating_sub(at));
        let place = self.place(at);
        let (front, back) = self.buffer.as_ref().split_at_checked(place).unwrap_or((&[], &[]));
        to.iter_mut().take(count).zip(back.iter().chain(front)).for_each(|(to, byte)| *to = *byte);
        count
    }

    /// Drops the `count` oldest bytes, or all bytes if there are fewer.
    pub fn drop_first(&mut self, count: usize) {
        let count = count.min(self.len);
        self.first = self.place(count);
        self.len = self.len.saturating_sub(count);
    }

    /// Keeps the `len` oldest bytes, and drops the others.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::vec::Vec;

    #[test]
    fn it_is_what_a_queue_is_whatever_is_done_to_it() {
        for capacity in 0..9usize {
            let (mut ring, mut model) = (Ring::new(std::vec![0u8; capacity]), VecDeque::new());
            let mut seed = 1u32;
            for step in 0..4_000u32 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (what, count) = (seed >> 24 & 7, (seed >> 16 & 15) as usize);
                let bytes: Vec<u8> = (0..count).map(|i| (step as usize + i) as u8).collect();
                match what {
                    0 | 1 => {
                        let pushed = ring.push(&bytes);
                        assert_eq!(pushed, count.min(capacity - model.len()));
                        model.extend(&bytes[..pushed]);
                    }
                    2 | 3 => {
                        let before = model.len() + count;
                        model.extend(&bytes);
                        model = model.split_off(model.len().saturating_sub(capacity));
                        assert_eq!(ring.push_over(&bytes), before - model.len());
                    }
                    4 => {
                        let at = count / 2;
                        ring.patch(at, &bytes);
                        model.iter_mut().skip(at).zip(&bytes).for_each(|(to, byte)| *to = *byte);
                    }
                    5 => {
                        ring.truncate(count);
                        model.truncate(count);
                    }
                    _ => {
                        ring.drop_first(count);
                        model.drain(..count.min(model.len()));
                    }
                }
                assert_eq!((ring.len(), ring.room()), (model.len(), capacity - model.len()));
                let mut copy = [0xff; 12];
                let at = count / 4;
                let copied = ring.copy(at, &mut copy);
                assert!(model.iter().skip(at).eq(&copy[..copied]), "{capacity} {step} {what}");
            }
        }
    }
}
