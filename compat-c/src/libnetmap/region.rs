//! Regions: each is mapped once per context, however many ports use it.
//!
//! The list of a context is walked and changed under its lock, mapping and unmapping included, so that a region in the list
//! is always mapped.

use super::types::{Context, Port, Region};
use libc::{EINVAL, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE};
use netmap_xdp::abi::netmap_if;
use netmap_xdp::sys::Errno;
use std::cell::Cell;
use std::ptr;

impl Context {
    /// The regions of the list.
    fn regions(&self) -> impl Iterator<Item = &Region> {
        // SAFETY: null or in the list, and the caller holds the lock.
        let at = |region: *const Region| unsafe { region.as_ref() };
        std::iter::successors(at(self.mem_descs.get()), move |region| at(region.next.get()))
    }
}

/// `nmport_mmap`.
pub fn map(port: &Port) -> Result<(), Errno> {
    if port.mmap_done.get() != 0 {
        return Err(port.fail(EINVAL, format_args!("the port is mapped already")));
    }
    if port.register_done.get() == 0 {
        return Err(port.fail(EINVAL, format_args!("the port has to be registered before it is mapped")));
    }
    let ctx = port.context();
    let region = {
        let _locked = ctx.locked();
        let known = ctx.regions().find(|region| region.mem_id == port.reg.get().nr_mem_id).map(ptr::from_ref);
        let region = match known {
            Some(region) => region,
            None => add(port, ctx)?,
        };
        // SAFETY: in the list, and we hold the lock.
        let refcount = unsafe { &(*region).refcount };
        refcount.set(refcount.get() + 1);
        region
    };
    port.mem.set(region);
    // SAFETY: the port counts as a user of the region, so it stays.
    find_rings(port, unsafe { &*region }).inspect_err(|_| unmap(port))?;
    port.mmap_done.set(1);
    Ok(())
}

/// Maps the region of a port and puts it into the list, which is locked.
fn add(port: &Port, ctx: &Context) -> Result<*const Region, Errno> {
    let at = ctx.room::<Region>(format_args!("the region of {}", port.name()))?;
    // SAFETY: null or the option of the port.
    let extmem = unsafe { port.extmem.get().as_ref() };
    let (mem, size) = match extmem {
        Some(option) => (option.nro_usrptr as *mut _, option.nro_info.nr_memsize as usize),
        None => {
            let size = port.reg.get().nr_memsize as usize;
            // SAFETY: a new mapping, wherever there is room.
            let mem =
                unsafe { crate::mmap(ptr::null_mut(), size, PROT_READ | PROT_WRITE, MAP_SHARED, port.fd.get(), 0) };
            if mem == MAP_FAILED {
                let errno = Errno::last();
                // SAFETY: from this context, and not used.
                unsafe { ctx.free(at.cast()) };
                return Err(port.fail(errno.0, format_args!("cannot map the region: {errno}")));
            }
            (mem, size)
        }
    };
    let first = ctx.mem_descs.get();
    let region = Region {
        mem_id: port.reg.get().nr_mem_id,
        refcount: Cell::new(0),
        mem,
        size,
        is_extmem: extmem.is_some().into(),
        next: Cell::new(first),
        prev: Cell::new(ptr::null()),
    };
    // SAFETY: memory for a region.
    unsafe { at.write(region) };
    // SAFETY: null or in the list, which is locked.
    if let Some(first) = unsafe { first.as_ref() } {
        first.prev.set(at);
    }
    ctx.mem_descs.set(at);
    Ok(at)
}

/// `nmport_undo_mmap`.
pub fn unmap(port: &Port) {
    let at = port.mem.replace(ptr::null());
    if at.is_null() {
        return;
    }
    let ctx = port.context();
    {
        let _locked = ctx.locked();
        // SAFETY: the port counts as a user of the region until here.
        let region = unsafe { &*at };
        region.refcount.set(region.refcount.get() - 1);
        if region.refcount.get() <= 0 {
            remove(region, ctx);
            // SAFETY: from this context, and off the list; it holds nothing to be dropped.
            unsafe { ctx.free(at.cast_mut().cast()) };
        }
    }
    port.mmap_done.set(0);
    port.nifp.set(ptr::null_mut());
    for ring in [
        &port.first_tx_ring,
        &port.last_tx_ring,
        &port.first_rx_ring,
        &port.last_rx_ring,
        &port.cur_tx_ring,
        &port.cur_rx_ring,
    ] {
        ring.set(0);
    }
}

/// Takes a region that nobody uses off the list, which is locked, and unmaps it.
fn remove(region: &Region, ctx: &Context) {
    let (next, prev) = (region.next.get(), region.prev.get());
    // SAFETY: null or in the list, which is locked.
    if let Some(next) = unsafe { next.as_ref() } {
        next.prev.set(prev);
    }
    // SAFETY: null or in the list, which is locked.
    match unsafe { prev.as_ref() } {
        Some(prev) => prev.next.set(next),
        None => ctx.mem_descs.set(next),
    }
    if region.is_extmem == 0 {
        // SAFETY: mapped by `add`, and nobody uses it any more.
        unsafe { crate::munmap(region.mem, region.size) };
    }
}

/// Finds the netmap_if of a port in its region, and the intervals of rings that it has bound.
fn find_rings(port: &Port, region: &Region) -> Result<(), Errno> {
    let register = port.reg.get();
    let outside = || port.fail(EINVAL, format_args!("the table of rings lies outside of the region"));
    let offset = usize::try_from(register.nr_offset).map_err(|_| outside())?;
    let room = region.size.checked_sub(offset).ok_or_else(outside)?;
    if room < size_of::<netmap_if>() || region.mem.is_null() {
        return Err(outside());
    }
    let nifp = region.mem.wrapping_byte_add(offset).cast::<netmap_if>();
    // SAFETY: within the region. Others may write there, hence the volatile reads.
    let (host_tx, host_rx) = unsafe {
        ((&raw const (*nifp).ni_host_tx_rings).read_volatile(), (&raw const (*nifp).ni_host_rx_rings).read_volatile())
    };
    let tx = usize::from(register.nr_tx_rings) + host_tx as usize;
    let rx = usize::from(register.nr_rx_rings) + host_rx as usize;
    if tx.max(rx) > usize::from(u16::MAX) || size_of::<netmap_if>() + (tx + rx) * size_of::<i64>() > room {
        return Err(outside());
    }
    let bound = |ring: usize| {
        let table = nifp.wrapping_add(1).cast::<i64>();
        // SAFETY: within the table, which lies within the region.
        unsafe { table.wrapping_add(ring).read_volatile() != 0 }
    };
    let (first_tx, last_tx) = interval(tx, bound);
    let (first_rx, last_rx) = interval(rx, |ring| bound(tx + ring));
    port.nifp.set(nifp);
    port.first_tx_ring.set(first_tx);
    port.cur_tx_ring.set(first_tx);
    port.last_tx_ring.set(last_tx);
    port.first_rx_ring.set(first_rx);
    port.cur_rx_ring.set(first_rx);
    port.last_rx_ring.set(last_rx);
    Ok(())
}

/// The first run of bound rings among `count`, by its first and last; the first is above the last if there is none.
fn interval(count: usize, bound: impl Fn(usize) -> bool) -> (u16, u16) {
    let first = (0..count).find(|&ring| bound(ring)).unwrap_or(count).max(usize::from(count == 0));
    let end = (first..count).find(|&ring| !bound(ring)).unwrap_or(count.max(first));
    (first as u16, (end - 1) as u16)
}
