// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about the instance table, about calls with bad arguments, and about shared pages.

use crate::env::{Env, Steps, TYPE};
use crate::{check, Failed, Outcome};
use mk_ipi_core::abi::rfc_v2::{PfnError, MK_PFN_IPI_TYPE};
use mk_ipi_core::abi::{Incarnation, InstanceId, Pfn, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::platform::Doorbell;
use mk_ipi_core::sync::{Ordering, Word};
use mk_ipi_core::{
    AddError, DestroyError, InstanceConfig, LinkConfig, LookupError, MapPfnError, SendError, SlotPolicy,
};

/// An instance id that no kernel of the machine has.
const NOBODY: InstanceId = InstanceId::new(200);

/// Returns the configuration of a link with this many exclusive slots.
const fn slots(slots: u32) -> LinkConfig {
    LinkConfig::RfcV2 { slots, policy: SlotPolicy::Exclusive }
}

/// Returns a configuration of instance `NOBODY` with these CPUs. It has one slot, and its doorbell CPU is CPU 0.
fn config(cpus: &[PhysCpuId]) -> InstanceConfig<'_> {
    InstanceConfig {
        id: NOBODY,
        incarnation: Incarnation::FIRST,
        cpus,
        doorbell_cpu: PhysCpuId(0),
        vector: Vector::RFC_V2,
        link: slots(1),
        one_doorbell: false,
    }
}

pub(crate) fn a_bad_send_writes_nothing<E: Env>(env: &'static E) -> Outcome {
    let snapshot = || {
        env.with_slot(env.next(), |s| s.iter().map(|w| w.load(Ordering::Relaxed)).fold(0, u64::wrapping_add))
    };
    let before = snapshot()?;
    let stats = env.endpoint().stats();
    env.step()?;
    let to = E::id(env.next());
    let send = |to, payload: &[u8]| env.endpoint().send(to, TYPE, payload);
    check!(send(to, &[]) == Err(SendError::Empty), "an empty message is refused");
    check!(send(to, &[0; 257]) == Err(SendError::TooLong), "a message of 257 bytes is refused");
    let unknown = Err(SendError::Instance(LookupError::Unknown));
    check!(send(InstanceId::new(250), &[1]) == unknown, "a message to an unknown instance is refused");
    for id in [-1, 256, i32::MIN, i32::MAX] {
        check!(InstanceId::try_from(id).is_err(), "a number that is not 0 to 255 is not an instance id");
    }
    let cpu = PhysCpuId(1 << 33);
    let named = env.endpoint().send_to_cpu(to, cpu, TYPE, &[1]);
    check!(named == Err(SendError::NotItsCpu(cpu)), "a CPU that is not the receiver's is refused");
    env.linger();
    check!(snapshot()? == before, "a refused send writes nothing");
    let now = env.endpoint().stats();
    check!(
        now.refused == stats.refused + 4 && now.interrupts == stats.interrupts,
        "each refusal is counted, and no doorbell rings"
    );
    Ok(())
}

pub(crate) fn an_unreachable_cpu_is_refused<E: Env>(env: &'static E) -> Outcome {
    let platform = env.endpoint().platform();
    for cpu in [1 << 32, u64::MAX] {
        check!(
            platform.check(PhysCpuId(cpu), Vector::RFC_V2).is_err(),
            "`check` refuses a CPU that no doorbell can reach"
        );
        check!(
            platform.ring(PhysCpuId(cpu), Vector::RFC_V2).is_err(),
            "`ring` refuses a CPU that no doorbell can reach"
        );
    }
    let (cpu, vector) = env.doorbell_of(env.next())?;
    check!(platform.check(cpu, vector).is_ok(), "`check` accepts a peer's CPU");
    Ok(())
}

pub(crate) fn a_bad_instance_is_refused<E: Env>(env: &'static E) -> Outcome {
    let page = env.page_of(env.me());
    let attach = |config: &InstanceConfig<'_>, range| env.endpoint().attach_instance(config, Some(range));
    let good = [PhysCpuId(0)];
    let at = |start, len| PhysRange::new(PhysAddr(start), len).ok_or(Failed("a range is valid"));
    let start = page.start().0;
    check!(
        attach(&config(&good), at(start + 8, 272)?) == Err(AddError::Misaligned),
        "a misaligned region is refused"
    );
    check!(
        attach(&config(&good), at(start, 271)?) == Err(AddError::TooSmall(272)),
        "a region smaller than one slot is refused"
    );
    let two = InstanceConfig { link: slots(2), ..config(&good) };
    check!(
        attach(&two, at(start, 543)?) == Err(AddError::TooSmall(544)),
        "a region smaller than its two slots is refused"
    );
    for cpu in [1, 255, u64::MAX] {
        let cpus = [PhysCpuId(cpu)];
        let beyond = InstanceConfig { doorbell_cpu: PhysCpuId(cpu), ..config(&cpus) };
        check!(
            attach(&beyond, page) == Err(AddError::BeyondRegion(PhysCpuId(cpu))),
            "a CPU id that is not below the number of slots is refused"
        );
    }
    check!(attach(&config(&[]), page) == Err(AddError::BadCpus), "an instance without a CPU is refused");
    let absent = InstanceConfig { link: slots(8), ..config(&[PhysCpuId(3)]) };
    check!(attach(&absent, page) == Err(AddError::BadCpus), "a doorbell CPU that is not listed is refused");
    let taken = InstanceConfig { id: E::id(env.next()), ..config(&good) };
    check!(attach(&taken, page) == Err(AddError::Exists), "an id that is in use is refused");
    check!(env.endpoint().instance(NOBODY).is_err(), "a refused attachment leaves no instance behind");
    Ok(())
}

pub(crate) fn an_instance_in_use_is_not_destroyed<E: Env>(env: &'static E) -> Outcome {
    let page = env.page_of(env.me());
    let cpus = [PhysCpuId(0)];
    let endpoint = env.endpoint();
    check!(
        endpoint.destroy_instance(InstanceId::new(251)) == Err(DestroyError::Unknown),
        "an unknown instance cannot be destroyed"
    );
    check!(endpoint.attach_instance(&config(&cpus), Some(page)).is_ok(), "an instance can be attached");
    let held = endpoint.instance(NOBODY).map_err(|_| Failed("an attached instance can be found"))?;
    check!(
        held.region().map(PhysRange::start) == Some(page.start()),
        "an instance has the region that it was attached with"
    );
    check!(
        endpoint.destroy_instance(NOBODY) == Err(DestroyError::InUse(1)),
        "an instance that is held cannot be destroyed"
    );
    let gone = LookupError::Destroyed;
    check!(
        endpoint.instance(NOBODY).is_err_and(|e| e == gone),
        "an instance that is about to be destroyed cannot be looked up"
    );
    check!(
        endpoint.send(NOBODY, TYPE, &[1]) == Err(SendError::Instance(gone)),
        "a send to an instance that is about to be destroyed is refused"
    );
    check!(held.words().len() == 34, "the memory of an instance that is held stays mapped");
    drop(held);
    check!(endpoint.destroy_instance(NOBODY).is_ok(), "an instance that nothing holds can be destroyed");
    check!(
        endpoint.destroy_instance(NOBODY) == Err(DestroyError::Unknown),
        "an instance can be destroyed only once"
    );
    check!(
        endpoint.attach_instance(&config(&cpus), Some(page)).is_ok(),
        "an instance with the same id can be attached again"
    );
    check!(endpoint.destroy_instance(NOBODY).is_ok(), "an instance that was attached again can be destroyed");
    Ok(())
}

pub(crate) fn a_destroyed_instance_takes_no_messages<E: Env>(env: &'static E) -> Outcome {
    let cpus = [PhysCpuId(0)];
    let endpoint = env.endpoint();
    check!(
        endpoint.attach_instance(&config(&cpus), None).is_ok(),
        "an instance can be attached without a region"
    );
    check!(
        endpoint.send(NOBODY, TYPE, &[1]) == Err(SendError::NoRegion),
        "a send to an instance without a region is refused"
    );
    check!(endpoint.destroy_instance(NOBODY).is_ok(), "an instance without a region can be destroyed");
    let gone = Err(SendError::Instance(LookupError::Destroyed));
    check!(
        endpoint.send(NOBODY, TYPE, &[1]) == gone,
        "a send to a destroyed instance says that it was destroyed"
    );
    Ok(())
}

pub(crate) fn a_pfn_arrives<E: Env>(env: &'static E) -> Outcome {
    let before = env.inbox().count();
    let record = |env: &'static E, m: &mk_ipi_core::Message<'_>| {
        let page = env.page_of((env.me() + env.kernels() - 1) % env.kernels());
        if m.pfn() == Ok(Pfn(page.start().0 / 4096)) {
            env.inbox().push(m);
        }
    };
    let handle = env.register(MK_PFN_IPI_TYPE, record).ok_or(Failed("a handler can be registered"))?;
    env.step()?;
    let pfn = Pfn(env.page_of(env.me()).start().0 / 4096);
    let sent = env.until(|| env.endpoint().send_pfn(E::id(env.next()), pfn) != Err(SendError::Busy));
    check!(
        sent && env.until(|| env.inbox().count() == before + 1),
        "the page number that the previous kernel sent arrives"
    );
    let got = env.inbox().get(before);
    check!(
        got.is_some_and(|r| r.len == 8 && r.msg_type == MK_PFN_IPI_TYPE),
        "a PFN message has eight bytes and type 0x80000001"
    );
    env.step()?;
    env.unlisten(handle)
}

pub(crate) fn a_shared_page_is_mapped_and_no_other<E: Env>(env: &'static E) -> Outcome {
    let pfn_of = |k| Pfn(env.page_of(k).start().0 / 4096);
    let mapped = |pfn| env.endpoint().map_pfn(pfn).map_err(|_| Failed("a shared page can be mapped"));
    let mine = mapped(pfn_of(env.me()))?;
    check!(mine.words().len() == 512, "a mapped page has 4,096 bytes");
    mine.words()[511].store(900 + env.me() as u64, Ordering::SeqCst);
    env.step()?;
    let theirs = mapped(pfn_of(env.next()))?;
    check!(
        theirs.words()[511].load(Ordering::SeqCst) == 900 + env.next() as u64,
        "a peer reads what was written to the page"
    );
    drop(theirs);
    env.step()?;
    let refused = |pfn| env.endpoint().map_pfn(Pfn(pfn)).err();
    check!(
        refused(1 << 40) == Some(MapPfnError::OutOfRange(Pfn(1 << 40))),
        "a page number that no CPU can address is refused"
    );
    check!(
        refused(u64::MAX) == Some(MapPfnError::OutOfRange(Pfn(u64::MAX))),
        "the largest page number is refused"
    );
    let foreign = (1 << 40) - 1;
    check!(
        refused(foreign) == Some(MapPfnError::NotShared(Pfn(foreign))),
        "a page that `peer_may_share` does not allow is refused"
    );
    env.step()?;
    // `map_page_of` must refuse a message of another type.
    let handle = env.register(TYPE, |env, m| {
        if env.endpoint().map_page_of(m).err() == Some(MapPfnError::NotAPfn(PfnError::WrongType(TYPE))) {
            env.inbox().push(m);
        }
    });
    let handle = handle.ok_or(Failed("a handler can be registered"))?;
    let before = env.inbox().count();
    env.step()?;
    env.send(env.next(), 8, 8)?;
    check!(
        env.until(|| env.inbox().count() == before + 1),
        "`map_page_of` refuses a message of another type"
    );
    env.step()?;
    env.unlisten(handle)
}
