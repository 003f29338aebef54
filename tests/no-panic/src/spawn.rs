// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of mk-ipi-spawn, with any files, addresses and lists.

use crate::opaque::{any, bytes, cpus, maybe, range, sink};
use core::hint::black_box;
use mk_ipi_abi::{PhysAddr, PhysCpuId};
use mk_ipi_spawn::acpi;
use mk_ipi_spawn::image::Image;
use mk_ipi_spawn::start_info::{Kind, StartInfo};

pub fn call_all() {
    let mut room = [0; 8192];
    image();
    tables(black_box(&mut room));
    start_page(black_box(&mut room));
}

fn image() {
    match Image::parse(bytes()) {
        Ok(image) => {
            sink((image.extent(), image.entry(), image.relocation(), image.place(PhysAddr(any()))));
            image.segments().for_each(sink);
        }
        Err(error) => sink((error, error == black_box(error))),
    }
}

fn tables(room: &mut [u8]) {
    sink(acpi::len(any()));
    sink(acpi::write(room, PhysAddr(any()), PhysCpuId(any()), cpus().iter().copied()));
}

fn start_page(room: &mut [u8]) {
    let mut info = match StartInfo::new(room, PhysAddr(any())) {
        Ok(info) => info,
        Err(error) => return sink((error, error == black_box(error))),
    };
    sink((info.address(), info.rsdp(PhysAddr(any()))));
    if let Some(range) = range() {
        let kind = if maybe() { Kind::Ram } else { Kind::Reserved };
        sink((info.initramfs(range), info.memory(range, kind)));
    }
    let text = core::str::from_utf8(bytes()).unwrap_or_default();
    sink(info.command_line(format_args!("{text} mk_ipi_shared={:#x}", any::<u64>())));
}
