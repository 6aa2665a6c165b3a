//! The few `bpf` commands that loaders leave to us: links on interfaces, the name of a program, and what the calling
//! thread may do.

use crate::sys::{Errno, Fd, retry, syscall};
use std::os::fd::{AsRawFd, RawFd};

const PROG_GET_FD_BY_ID: usize = 13;
const OBJ_GET_INFO_BY_FD: usize = 15;
const MAP_GET_FD_BY_ID: usize = 14;
const PROG_QUERY: usize = 16;
const LINK_CREATE: usize = 28;
const LINK_GET_FD_BY_ID: usize = 30;
const LINK_GET_NEXT_ID: usize = 31;
const LINK_DETACH: usize = 34;

const LINK_TYPE_XDP: u32 = 6;
const LINK_TYPE_TCX: u32 = 11;
const ATTACH_TYPE_XDP: u32 = 37;
const ATTACH_TYPE_TCX_INGRESS: u32 = 46;
const ATTACH_TYPE_TCX_EGRESS: u32 = 47;
/// Classifiers of an interface that are looked at.
const CLASSIFIERS: usize = 64;
/// Most maps that a program of ours has, and then some.
const MAPS: usize = 16;

/// Bytes of `struct bpf_map_info` and `struct bpf_prog_info`.
const MAP_NAME: std::ops::Range<usize> = 24..40;
const PROG_NAME: std::ops::Range<usize> = 64..80;

/// Generic mode, for [`xdp_link`].
pub const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
/// Native mode, for [`xdp_link`].
pub const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// A `bpf` command with the attribute words that matter to it; the kernel takes the others as zero.
///
/// # Safety
/// `attr` is what `command` asks for; pointers in it are valid for what the kernel reads and writes.
pub(super) unsafe fn bpf(command: usize, attr: &mut [u32]) -> Result<usize, Errno> {
    // SAFETY: the length is the slice's own, the rest is the caller's promise.
    retry(|| unsafe { syscall(libc::SYS_bpf, [command, attr.as_mut_ptr() as usize, size_of_val(attr), 0, 0, 0]) })
}

/// Puts an XDP program on an interface of the calling thread's network namespace, for as long as somebody holds the
/// link (`BPF_LINK_CREATE`, since 5.9).
pub fn xdp_link(program: RawFd, ifindex: u32, flags: u32) -> Result<Fd, Errno> {
    let mut attr = [program as u32, ifindex, ATTACH_TYPE_XDP, flags];
    // SAFETY: link_create is four integers here; the descriptor is new and ours.
    unsafe { bpf(LINK_CREATE, &mut attr).map(|raw| Fd::from_raw_high(raw as RawFd)) }
}

/// Which way packets go that a tcx program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tcx {
    /// Into the stack.
    Ingress,
    /// Out of it.
    Egress,
}

/// Puts a classifier on an interface of the calling thread's network namespace, behind those that are there, for as long as
/// somebody holds the link (`BPF_LINK_CREATE`, `BPF_TCX_*`, since 6.6).
pub fn tcx_link(program: RawFd, ifindex: u32, way: Tcx) -> Result<Fd, Errno> {
    let kind = match way {
        Tcx::Ingress => ATTACH_TYPE_TCX_INGRESS,
        Tcx::Egress => ATTACH_TYPE_TCX_EGRESS,
    };
    let mut attr = [program as u32, ifindex, kind, 0];
    // SAFETY: link_create is four integers here; the descriptor is new and ours.
    unsafe { bpf(LINK_CREATE, &mut attr).map(|raw| Fd::from_raw_high(raw as RawFd)) }
}

/// The links that hold classifiers called `name` on an interface of the calling thread's network namespace, by their ids; none
/// where the kernel has no tcx, or does not tell. Takes CAP_SYS_ADMIN.
pub fn tcx_links(ifindex: u32, way: Tcx, name: &str) -> Vec<u32> {
    let (mut programs, mut links) = ([0u32; CLASSIFIERS], [0u32; CLASSIFIERS]);
    let [programs_at, links_at] = [programs.as_mut_ptr(), links.as_mut_ptr()].map(|at| words(at as u64));
    let kind = match way {
        Tcx::Ingress => ATTACH_TYPE_TCX_INGRESS,
        Tcx::Egress => ATTACH_TYPE_TCX_EGRESS,
    };
    // Interface, type, two flags, programs, how many, padding, flags of programs, links, flags of links, revision.
    let mut attr = [ifindex, kind, 0, 0, 0, 0, CLASSIFIERS as u32, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    attr[4..6].copy_from_slice(&programs_at);
    attr[10..12].copy_from_slice(&links_at);
    // SAFETY: both pointers lead to as many integers as the count says.
    if unsafe { bpf(PROG_QUERY, &mut attr) }.is_err() {
        return Vec::new();
    }
    let all = programs.into_iter().zip(links).take((attr[6] as usize).min(CLASSIFIERS));
    all.filter(|&(program, link)| link != 0 && program_name(program).as_deref() == Some(name)).map(|(_, l)| l).collect()
}

/// Takes off what the link of this id holds, whoever has it open.
pub fn detach_by_id(link: u32) -> Result<(), Errno> {
    link_detach(by_id(LINK_GET_FD_BY_ID, link)?.as_raw_fd())
}

/// Takes a link's program off, whoever else holds the link (`BPF_LINK_DETACH`, since 5.9).
pub fn link_detach(link: RawFd) -> Result<(), Errno> {
    // SAFETY: link_detach is one integer.
    unsafe { bpf(LINK_DETACH, &mut [link as u32]).map(drop) }
}

/// An integer as the two words that it is in memory.
pub(super) fn words(n: u64) -> [u32; 2] {
    let b = n.to_ne_bytes();
    [0, 4].map(|at| u32::from_ne_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]))
}

/// The head of what the kernel tells of a program, map or link (`BPF_OBJ_GET_INFO_BY_FD`). Counts in it are inputs too, so
/// it comes zeroed.
pub(super) fn object_info(fd: RawFd, info: &mut [u32]) -> Result<(), Errno> {
    let [low, high] = words(info.as_mut_ptr() as u64);
    let mut attr = [fd as u32, size_of_val(info) as u32, low, high];
    // SAFETY: the attribute is descriptor, length, and a pointer to that many bytes.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr).map(drop) }
}

/// Index of the interface that an XDP or tcx link is on; 0 once that is gone, or the link detached. `EINVAL`: a link of
/// another kind.
pub fn link_interface(link: RawFd) -> Result<u32, Errno> {
    // The head of `struct bpf_link_info`: type, id, program, padding, and for these two the interface.
    let mut info = [0u32; 6];
    object_info(link, &mut info)?;
    if matches!(info[0], LINK_TYPE_XDP | LINK_TYPE_TCX) { Ok(info[4]) } else { Err(Errno(libc::EINVAL)) }
}

/// An XDP program that somebody else loaded and attached by a link.
#[derive(Debug)]
pub struct Found {
    /// The program.
    pub program: Fd,
    /// What holds it on its interface.
    pub link: Fd,
    /// Its id.
    pub link_id: u32,
    /// Its maps, and their ids.
    pub maps: Vec<(u32, Fd)>,
}

/// The object of an id, by the command that opens it.
fn by_id(command: usize, id: u32) -> Result<Fd, Errno> {
    // SAFETY: these commands take one integer here; the descriptor is new and ours.
    unsafe { bpf(command, &mut [id, 0, 0]).map(|raw| Fd::from_raw_high(raw as RawFd)) }
}

/// Fills `info` with what the kernel says of an object; it may hold pointers to more room.
fn info_of(fd: &Fd, info: &mut [u64]) -> Result<(), Errno> {
    let at = (info.as_mut_ptr() as u64).to_ne_bytes();
    let half = |n: usize| u32::from_ne_bytes([at[n], at[n + 1], at[n + 2], at[n + 3]]);
    let mut attr = [fd.as_raw_fd() as u32, size_of_val(info) as u32, half(0), half(4)];
    // SAFETY: the attribute is descriptor, length, and a pointer to that many bytes; both callers' pointers lead to room of
    // the size that they tell.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

/// Loads XDP code for one device, of whose driver it calls functions (`BPF_F_XDP_DEV_BOUND_ONLY`, Linux 6.3).
pub fn load_for_device(name: &str, code: &[[u8; 8]], ifindex: u32) -> Result<Fd, Errno> {
    const PROG_LOAD: usize = 5;
    const PROG_TYPE_XDP: u32 = 6;
    const XDP_HAS_FRAGS: u32 = 1 << 5;
    const XDP_DEV_BOUND_ONLY: u32 = 1 << 6;
    let licence = c"Dual BSD/GPL";
    let mut short = [0u8; 16];
    let len = name.len().min(short.len() - 1);
    short[..len].copy_from_slice(&name.as_bytes()[..len]);
    // `union bpf_attr` of BPF_PROG_LOAD: type, count, two addresses, log (level, size, address), kernel version, flags, name,
    // interface, expected attach type.
    let mut attr = vec![PROG_TYPE_XDP, code.len() as u32];
    attr.extend(words(code.as_ptr() as u64));
    attr.extend(words(licence.as_ptr() as u64));
    attr.extend([0, 0, 0, 0, 0, XDP_HAS_FRAGS | XDP_DEV_BOUND_ONLY]);
    attr.extend(short.chunks_exact(4).map(|c| u32::from_ne_bytes([c[0], c[1], c[2], c[3]])));
    attr.extend([ifindex, ATTACH_TYPE_XDP]);
    // SAFETY: the addresses are of the code and the licence, which outlive the call.
    unsafe { bpf(PROG_LOAD, &mut attr).map(|fd| Fd::from_raw_high(fd as i32)) }
}

/// The program of this id with its link and its maps; `ENOENT` if no link attaches it. Takes CAP_SYS_ADMIN.
pub fn find_attached(prog_id: u32) -> Result<Found, Errno> {
    let program = by_id(PROG_GET_FD_BY_ID, prog_id)?;
    let mut ids = [0u32; MAPS];
    // `struct bpf_prog_info`: the number of maps wanted in the second half of word 6, where to in word 7.
    let mut info = [0u64; PROG_NAME.end / 8];
    let words = [0u32, MAPS as u32].map(u32::to_ne_bytes).concat();
    info[6] = u64::from_ne_bytes(std::array::from_fn(|i| words[i]));
    info[7] = ids.as_mut_ptr() as u64;
    info_of(&program, &mut info)?;
    let maps = ids.into_iter().filter(|&id| id != 0);
    let maps = maps.map(|id| by_id(MAP_GET_FD_BY_ID, id).map(|fd| (id, fd))).collect::<Result<_, _>>()?;
    let mut at = 0;
    loop {
        let mut attr = [at, 0, 0];
        // SAFETY: three integers, the second of which the kernel writes. ENOENT ends the list.
        unsafe { bpf(LINK_GET_NEXT_ID, &mut attr) }?;
        at = attr[1];
        // It may be gone by now.
        let Ok(link) = by_id(LINK_GET_FD_BY_ID, at) else { continue };
        let mut head = [0u64; 4];
        let seen = info_of(&link, &mut head).is_ok();
        let words: Vec<u32> = head.iter().flat_map(|w| [*w as u32, (*w >> 32) as u32]).collect();
        let words: Vec<u32> =
            if cfg!(target_endian = "little") { words } else { words.chunks(2).flat_map(|w| [w[1], w[0]]).collect() };
        if seen && words[0] == LINK_TYPE_XDP && words[2] == prog_id {
            return Ok(Found { program, link, link_id: at, maps });
        }
    }
}

/// Other processes that have a link open, and those that have any of the maps. By looking at every descriptor of every process,
/// as far as the caller may.
pub fn holders(link: u32, maps: &[u32]) -> [Vec<u32>; 2] {
    let mut found = [Vec::new(), Vec::new()];
    let own = crate::sys::process_id();
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in all.filter_map(|e| e.file_name().to_string_lossy().parse::<u32>().ok()).filter(|&pid| pid != own) {
        for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let target = std::fs::read_link(fd.path()).unwrap_or_default();
            if !target.to_string_lossy().starts_with("anon_inode:bpf") {
                continue;
            }
            let path = format!("/proc/{pid}/fdinfo/{}", fd.file_name().to_string_lossy());
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let number = |key: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(key))?;
                line.trim().parse::<u32>().ok()
            };
            let which = if number("link_id:") == Some(link) {
                0
            } else if number("map_id:").is_some_and(|id| maps.contains(&id)) {
                1
            } else {
                continue;
            };
            if found[which].last() != Some(&pid) {
                found[which].push(pid);
            }
        }
    }
    found
}

/// Name of a map, as the kernel has it: 15 letters at most.
pub fn map_name(map: RawFd) -> Result<String, Errno> {
    let mut info = [0u32; MAP_NAME.end / 4];
    object_info(map, &mut info)?;
    let bytes: Vec<u8> = info.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = bytes[MAP_NAME].split(|&b| b == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Id of a loaded program, as `bpftool prog` shows it.
pub fn program_id(program: RawFd) -> Result<u32, Errno> {
    // The head of `struct bpf_prog_info`: type, id.
    let mut info = [0u32; 2];
    object_info(program, &mut info)?;
    Ok(info[1])
}

/// Name of a loaded program, where the caller may ask (CAP_SYS_ADMIN) and it has one.
pub fn program_name(id: u32) -> Option<String> {
    // SAFETY: prog_id is one integer; the descriptor is new and ours.
    let program = unsafe { bpf(PROG_GET_FD_BY_ID, &mut [id]).map(|raw| Fd::from_raw(raw as RawFd)) }.ok()?;
    let mut info = [0u32; PROG_NAME.end / 4];
    object_info(program.as_raw_fd(), &mut info).ok()?;
    let bytes: Vec<u8> = info.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = bytes[PROG_NAME].split(|&b| b == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty())
}

/// Waits until no CPU runs a BPF program that began before: what it read may be written then. Where the kernel does not
/// allow to wait for that, it does not.
pub fn let_programs_end() {
    // SAFETY: takes integers. It is `synchronize_rcu`.
    let _ = unsafe { syscall(libc::SYS_membarrier, [libc::MEMBARRIER_CMD_GLOBAL as usize, 0, 0, 0, 0, 0]) };
}

/// The capabilities that loading an XDP program takes and the calling thread lacks.
pub fn missing_capabilities() -> Vec<&'static str> {
    // Those that cannot be told are left to the load itself.
    effective().map_or_else(Vec::new, missing)
}

/// The same and what sockets take besides: all that an engine with NICs needs.
pub fn missing_to_bind() -> Vec<&'static str> {
    let Some(caps) = effective() else { return Vec::new() };
    let mut lacking = missing(caps);
    lacking.extend((!has(caps, CAP_NET_RAW)).then_some("CAP_NET_RAW"));
    lacking
}

/// Whether the limit of locked memory does not count for the calling thread.
pub fn may_lock_memory() -> bool {
    effective().is_some_and(|caps| has(caps, CAP_IPC_LOCK))
}

fn effective() -> Option<[u32; 2]> {
    const VERSION_3: u32 = 0x2008_0522;
    let mut header = [VERSION_3, 0];
    let mut data = [0u32; 6]; // effective, permitted, inheritable; twice, 32 capabilities each
    // SAFETY: version 3 fills two structures of three words.
    let asked =
        unsafe { syscall(libc::SYS_capget, [header.as_mut_ptr() as usize, data.as_mut_ptr() as usize, 0, 0, 0, 0]) };
    asked.ok().map(|_| [data[0], data[3]])
}

fn has(effective: [u32; 2], cap: u32) -> bool {
    effective[cap as usize / 32] & (1 << (cap % 32)) != 0
}

fn missing(effective: [u32; 2]) -> Vec<&'static str> {
    let has = |cap| has(effective, cap);
    let mut lacking = Vec::new();
    if !has(CAP_NET_ADMIN) {
        lacking.push("CAP_NET_ADMIN");
    }
    if !has(CAP_BPF) && !has(CAP_SYS_ADMIN) {
        lacking.push("CAP_BPF");
    }
    lacking
}

/// Release of the running kernel, as two numbers; zeros if it cannot be told.
pub fn kernel_version() -> (u32, u32) {
    let mut names = std::mem::MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: uname fills the structure; all zero bytes are a valid one to start from.
    let release = unsafe {
        if syscall(libc::SYS_uname, [names.as_mut_ptr() as usize, 0, 0, 0, 0, 0]).is_err() {
            return (0, 0);
        }
        names.assume_init().release
    };
    parse_release(release.iter().map(|&c| c as u8))
}

fn parse_release(release: impl Iterator<Item = u8>) -> (u32, u32) {
    let text: Vec<u8> = release.take_while(|&b| b != 0).collect();
    let mut numbers = text
        .split(|b| !b.is_ascii_digit())
        .map(|digits| digits.iter().fold(0u32, |n, d| n.saturating_mul(10).saturating_add(u32::from(d - b'0'))));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        for (text, want) in
            [("6.18.44-x", (6, 18)), ("5.9", (5, 9)), ("5.15-rc1", (5, 15)), ("", (0, 0)), ("x", (0, 0))]
        {
            assert_eq!(parse_release(text.bytes()), want, "{text}");
        }
    }

    #[test]
    fn missing_capabilities_are_named() {
        let bit = |cap: u32| 1u64 << cap;
        let ask = |caps: u64| missing([caps as u32, (caps >> 32) as u32]);
        assert_eq!(ask(0), ["CAP_NET_ADMIN", "CAP_BPF"]);
        assert_eq!(ask(bit(CAP_NET_ADMIN)), ["CAP_BPF"]);
        assert_eq!(ask(bit(CAP_BPF)), ["CAP_NET_ADMIN"]);
        assert!(ask(bit(CAP_NET_ADMIN) | bit(CAP_BPF)).is_empty());
        assert!(ask(bit(CAP_NET_ADMIN) | bit(CAP_SYS_ADMIN)).is_empty());
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn a_program_that_does_not_exist_has_no_name() {
        assert_eq!(program_name(u32::MAX), None);
        assert!(kernel_version() > (0, 0));
    }
}
