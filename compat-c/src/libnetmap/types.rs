//! The structures of `libnetmap.h`, with the layout that C gives them. Fields keep their C names, types get ours.
//!
//! Fields that change are `Cell`s: see the module's head. `tests/c/libnetmap_layout.c` compares the offsets with the
//! header.

use libc::{c_char, c_int, c_uint, c_void, size_t};
use netmap_xdp::abi::{netmap_if, nmreq_header, nmreq_opt_extmem, nmreq_register};
use netmap_xdp::sync::AtomicU32;
use std::cell::Cell;
use std::mem::{offset_of, size_of};

/// `nmctx_error_cb`: takes a message.
pub type ErrorCallback = Option<unsafe extern "C-unwind" fn(*mut Context, *const c_char)>;
/// `nmctx_malloc_cb`.
pub type MallocCallback = Option<unsafe extern "C-unwind" fn(*mut Context, size_t) -> *mut c_void>;
/// `nmctx_free_cb`.
pub type FreeCallback = Option<unsafe extern "C-unwind" fn(*mut Context, *mut c_void)>;
/// `nmctx_lock_cb`: locks if the number is not 0, else unlocks.
pub type LockCallback = Option<unsafe extern "C-unwind" fn(*mut Context, c_int)>;

/// `struct nmctx`: how the library reports, allocates and locks, and the regions it has mapped.
#[repr(C)]
pub struct Context {
    /// 0: no messages.
    pub verbose: Cell<c_int>,
    pub error: Cell<ErrorCallback>,
    pub malloc: Cell<MallocCallback>,
    pub free: Cell<FreeCallback>,
    /// None: no locking.
    pub lock: Cell<LockCallback>,
    /// First of the regions. Changed under the lock only.
    pub mem_descs: Cell<*const Region>,
}

/// `struct nmem_d`: a region that is mapped, in the list of its context.
#[repr(C)]
pub struct Region {
    pub mem_id: u16,
    /// How many ports use it.
    pub refcount: Cell<c_int>,
    pub mem: *mut c_void,
    pub size: size_t,
    /// The memory is the program's; not to be unmapped here.
    pub is_extmem: c_int,
    pub next: Cell<*const Region>,
    pub prev: Cell<*const Region>,
}

/// `struct nmport_d`: a port.
#[repr(C)]
pub struct Port {
    pub hdr: Cell<nmreq_header>,
    pub reg: Cell<nmreq_register>,
    pub mem: Cell<*const Region>,
    pub ctx: Cell<*const Context>,
    pub register_done: Cell<c_int>,
    pub mmap_done: Cell<c_int>,
    /// The extmem option, one of those that `hdr` points to.
    pub extmem: Cell<*mut nmreq_opt_extmem>,
    /// -1 if not open.
    pub fd: Cell<c_int>,
    pub nifp: Cell<*mut netmap_if>,
    pub first_tx_ring: Cell<u16>,
    pub last_tx_ring: Cell<u16>,
    pub first_rx_ring: Cell<u16>,
    pub last_rx_ring: Cell<u16>,
    /// Where the next packet goes first.
    pub cur_tx_ring: Cell<u16>,
    pub cur_rx_ring: Cell<u16>,
    /// What to undo in the end, the latest first. C programs do not look inside.
    pub clist: Cell<*mut super::cleanup::Cleanup>,
}

/// Keys that an option can have.
pub const MAX_KEYS: usize = 16;

/// `NMREQ_OPTK_ALLOWEMPTY`: the key may stand without a value.
pub const KEY_ALLOW_EMPTY: c_uint = 1;
/// `NMREQ_OPTK_MUSTSET`: the key is mandatory.
pub const KEY_MUST_SET: c_uint = 2;
/// `NMREQ_OPTK_DEFAULT`: the key that `option=value` sets.
pub const KEY_DEFAULT: c_uint = 4;
/// `NMREQ_OPTF_DISABLED`: the option is refused.
pub const OPTION_DISABLED: c_uint = 1;
/// `NMREQ_OPTF_ALLOWEMPTY`: the option may stand alone.
pub const OPTION_ALLOW_EMPTY: c_uint = 2;

/// `struct nmreq_opt_key`: a key of an option.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OptionKey {
    /// Null behind the last key.
    pub key: *const c_char,
    /// Where its value goes in [`ParseContext::keys`].
    pub id: c_int,
    /// `NMREQ_OPTK_*`.
    pub flags: c_uint,
}

/// `nmreq_opt_parser_cb`: takes the values of an option; negative on failure, with errno set.
pub type ParserCallback = Option<unsafe extern "C-unwind" fn(*mut ParseContext) -> c_int>;

/// `struct nmreq_opt_parser`: an option, in a list of them.
#[repr(C, align(16))]
pub struct OptionParser {
    pub prefix: *const c_char,
    pub parse: ParserCallback,
    /// Id of the default key, or -1.
    pub default_key: c_int,
    pub nr_keys: c_int,
    /// `NMREQ_OPTF_*`.
    pub flags: AtomicU32,
    pub next: *const OptionParser,
    pub keys: [OptionKey; MAX_KEYS],
}

// SAFETY: what changes is atomic, and what the pointers of the library's own parsers lead to is never changed.
unsafe impl Sync for OptionParser {}

/// `struct nmreq_parse_ctx`: what a parser gets.
#[repr(C)]
pub struct ParseContext {
    pub ctx: *const Context,
    /// The one that was given to `nmreq_options_decode`.
    pub token: *mut c_void,
    /// Values by key id, null where there is none. They live as long as the call.
    pub keys: [*const c_char; MAX_KEYS],
}

const _: () = {
    assert!(size_of::<Context>() == 48);
    assert!(offset_of!(Context, error) == 8);
    assert!(offset_of!(Context, lock) == 32);
    assert!(offset_of!(Context, mem_descs) == 40);

    assert!(size_of::<Region>() == 48);
    assert!(offset_of!(Region, refcount) == 4);
    assert!(offset_of!(Region, mem) == 8);
    assert!(offset_of!(Region, is_extmem) == 24);
    assert!(offset_of!(Region, next) == 32);

    assert!(size_of::<Port>() == 216);
    assert!(offset_of!(Port, reg) == 88);
    assert!(offset_of!(Port, mem) == 144);
    assert!(offset_of!(Port, ctx) == 152);
    assert!(offset_of!(Port, register_done) == 160);
    assert!(offset_of!(Port, mmap_done) == 164);
    assert!(offset_of!(Port, extmem) == 168);
    assert!(offset_of!(Port, fd) == 176);
    assert!(offset_of!(Port, nifp) == 184);
    assert!(offset_of!(Port, first_tx_ring) == 192);
    assert!(offset_of!(Port, cur_rx_ring) == 202);
    assert!(offset_of!(Port, clist) == 208);

    assert!(size_of::<OptionKey>() == 16);
    assert!(size_of::<OptionParser>() == 304);
    assert!(offset_of!(OptionParser, default_key) == 16);
    assert!(offset_of!(OptionParser, flags) == 24);
    assert!(offset_of!(OptionParser, next) == 32);
    assert!(offset_of!(OptionParser, keys) == 40);
    assert!(size_of::<ParseContext>() == 144);
    assert!(offset_of!(ParseContext, keys) == 16);
};
