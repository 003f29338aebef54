// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of `mk_ipi_core::sync`, and those of `mk_ipi_core::platform`.

use crate::opaque::{any, maybe, option, sink, HasMemory, HostileWord, Opaque};
use mk_ipi_abi::{Incarnation, PhysCpuId};
use mk_ipi_core::platform::{DoorbellError, MapError, Observer, Peer, PeerEvent, PoolError, ThisCpu};
use mk_ipi_core::sync::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use mk_ipi_core::sync::{fence, spin_hint, AtomicBool, AtomicU32, AtomicU64, AtomicUsize, UnsafeCell, Word};

pub fn call_all() {
    let flag = AtomicBool::new(maybe());
    flag.store(maybe(), Release);
    sink((flag.load(Acquire), flag.swap(maybe(), AcqRel)));
    let word = AtomicU32::new(any());
    word.store(any(), Relaxed);
    sink((word.load(Relaxed), word.fetch_add(any(), SeqCst), word.fetch_sub(any(), Relaxed)));
    let size = AtomicUsize::new(any());
    size.store(any(), SeqCst);
    sink((size.load(SeqCst), size.fetch_add(any(), Relaxed)));
    let long = AtomicU64::new(any());
    long.store(any(), Relaxed);
    sink((long.fetch_add(any(), Acquire), long.fetch_sub(any(), Release), long.fetch_xor(any(), Relaxed)));
    sink((long.swap(any(), AcqRel), long.fetch_or(any(), Relaxed), long.fetch_and(any(), Relaxed)));
    sink(long.fetch_max(any(), Release));
    sink((long.load(Relaxed), long.compare_exchange(any(), any(), Acquire)));
    sink(long.fetch_update(AcqRel, |_| option(any())));
    let cell = UnsafeCell::new(any::<u64>());
    sink((cell.with(|at| at.addr()), cell.with_mut(|at| at.addr())));
    fence(Acquire);
    fence(SeqCst);
    spin_hint();
    accessor::<AtomicU64>();
    accessor::<HostileWord>();
    platform();
}

fn accessor<W: HasMemory>() {
    for word in W::memory() {
        word.store(any(), Release);
        sink((Word::load(word, Acquire), word.compare_exchange(any(), any(), AcqRel)));
        sink(word.load_acquire());
        word.will_read();
        word.will_write();
    }
}

fn platform() {
    let errors = [DoorbellError::Refused(any()), DoorbellError::Stuck];
    errors.iter().for_each(|e| sink(e.errno()));
    sink(crate::opaque::rung().map_err(DoorbellError::errno));
    let map_errors = [MapError::Misaligned, MapError::NoMemory, MapError::NotAllowed];
    sink(map_errors.get(any::<usize>()).map(|e| e.errno()));
    sink([PoolError::NoPool, PoolError::Exhausted].get(any::<usize>()).map(|e| e.errno()));
    let platform = Opaque::<AtomicU64>::new();
    platform.relax();
    if let Some(range) = crate::opaque::range() {
        platform.region_added(crate::opaque::instance(), range);
        platform.region_removed(crate::opaque::instance(), range);
        platform.stop();
    }
    if let Some(ours) = Incarnation::new(any()) {
        let peer = Peer { id: crate::opaque::instance(), theirs: Incarnation::new(any()), ours };
        platform.peer_event(peer, PeerEvent::Suspect);
        sink(platform.peer_has_cpu(peer.id, PhysCpuId(any())));
    }
}
