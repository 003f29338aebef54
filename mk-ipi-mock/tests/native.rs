// SPDX-License-Identifier: MIT OR Apache-2.0
//! The native link between kernels of a machine (SPEC chapter N).
#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use mk_ipi_abi::native::Geometry;
use mk_ipi_abi::{InstanceId, MessageType};
use mk_ipi_core::SendError;
use mk_ipi_mock::{Callback, Machine, Mode};
use std::sync::{Arc, Mutex};

const TYPE: MessageType = MessageType(7);

fn id(kernel: usize) -> InstanceId {
    InstanceId::new(u8::try_from(kernel).unwrap())
}

fn all_to_all(mode: Mode, messages: u64) {
    let machine = [0, 4, 9].iter().fold(Machine::builder(), |b, cpu| b.kernel(&[*cpu])).mode(mode).build();
    let links: [_; 3] = machine.link_native(Geometry::new(3, 8).unwrap());
    let seen: Vec<_> = (0..3).map(|_| Arc::new(Mutex::new(vec![vec![]; 3]))).collect();
    for (link, seen) in links.iter().zip(&seen) {
        let seen = seen.clone();
        let handler = Callback::new(move |m| {
            let from = m.sender().unwrap().index();
            let n = u64::from_le_bytes(m.payload()[..8].try_into().unwrap());
            assert_eq!(m.payload().len(), 8 + (n % 249) as usize);
            seen.lock().unwrap()[from].push(n);
        });
        let _ = link.register(TYPE, handler).unwrap();
    }
    let run = machine.run(|cpu| {
        let me = cpu.kernel();
        for n in 0..messages {
            let mut payload = [7; 256];
            payload[..8].copy_from_slice(&n.to_le_bytes());
            for to in (0..3).filter(|to| *to != me) {
                while links[me].send(id(to), TYPE, &payload[..8 + (n % 249) as usize]) == Err(SendError::Full)
                {
                    cpu.relax();
                }
            }
        }
        while seen[me].lock().unwrap().iter().map(Vec::len).sum::<usize>() < 2 * messages as usize {
            cpu.relax();
        }
    });
    run.unwrap();
    for (me, seen) in seen.iter().enumerate() {
        for (from, numbers) in seen.lock().unwrap().iter().enumerate().filter(|(from, _)| *from != me) {
            assert_eq!(*numbers, (0..messages).collect::<Vec<_>>(), "{from} to {me}");
        }
    }
}

#[test]
fn everything_arrives_once_and_in_order_under_every_seed() {
    for seed in 0..60 {
        all_to_all(Mode::Stepped { seed }, 40);
    }
}

#[test]
fn everything_arrives_once_and_in_order_on_threads() {
    all_to_all(Mode::Free, 20_000);
}
