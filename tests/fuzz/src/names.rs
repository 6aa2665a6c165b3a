//! Port names: what the parser of the Rust API understands, libnetmap understands in the same way.

use netmap_xdp::abi::{nmreq_header, nmreq_register};
use netmap_xdp::ctl::Spec;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::OnceLock;

/// Start of libnetmap's `struct nmport_d`.
#[repr(C)]
struct PortHead {
    header: nmreq_header,
    register: nmreq_register,
}

/// Start of libnetmap's `struct nmctx`.
#[repr(C)]
struct Context {
    verbose: c_int,
    error: Option<extern "C" fn(*mut Context, *const c_char)>,
}

/// libnetmap's parser, in a library that was loaded.
pub struct Parser {
    prepare: unsafe extern "C" fn(*const c_char) -> *mut PortHead,
    undo: unsafe extern "C" fn(*mut PortHead),
}

static LIBRARY: OnceLock<Parser> = OnceLock::new();

extern "C" fn silent(_: *mut Context, _: *const c_char) {}

/// Loads libnetmap, with which [`names`] compares from then on.
///
/// # Panics
/// If it is not there, or not libnetmap.
pub fn use_library(path: &Path) {
    LIBRARY.get_or_init(|| {
        let path = CString::new(path.as_os_str().as_encoded_bytes()).expect("a path");
        // SAFETY: a path; the library is ours and stays loaded, and the functions have the prototypes of its header.
        unsafe {
            let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            assert!(!library.is_null(), "{path:?} cannot be loaded");
            let find = |name: &CStr| -> *mut c_void {
                let at = libc::dlsym(library, name.as_ptr());
                assert!(!at.is_null(), "{name:?} is not in {path:?}");
                at
            };
            let context: unsafe extern "C" fn() -> *mut Context = std::mem::transmute(find(c"nmctx_get"));
            (*context()).error = Some(silent);
            Parser {
                prepare: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char) -> *mut PortHead>(
                    find(c"nmport_prepare"),
                ),
                undo: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut PortHead)>(find(
                    c"nmport_undo_prepare",
                )),
            }
        }
    });
}

impl Parser {
    /// Name, mode, ring, flags, memory id, slots and rings; nothing if the name is refused.
    fn parse(&self, text: &str) -> Option<(Vec<u8>, nmreq_register)> {
        let text = CString::new(text).ok()?;
        // SAFETY: a C string; what comes back is a port or nothing, and is given back.
        unsafe {
            let port = (self.prepare)(text.as_ptr());
            if port.is_null() {
                return None;
            }
            let name = (*port).header.nr_name.to_vec();
            let register = (*port).register;
            (self.undo)(port);
            Some((name, register))
        }
    }
}

/// Parses a name both ways.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let ours = Spec::parse(text);
    if let Err(e) = &ours {
        assert!(e.at <= text.len() && !e.message.is_empty() && !e.to_string().is_empty());
    }
    // These open files and ask for other ports; offsets the Rust API does not know.
    let acts = ["share", "extmem", "offset"].iter().any(|word| text.contains(word));
    let Some(library) = LIBRARY.get().filter(|_| !acts && !text.contains('\0')) else { return };
    match (ours, library.parse(text)) {
        (Ok(ours), Some((name, theirs))) => {
            let r = ours.register();
            assert_eq!(name, ours.port_name.to_field(), "{text:?}");
            assert_eq!((theirs.nr_mode, theirs.nr_ringid), (ours.mode.raw(), r.ring_id), "{text:?}");
            assert_eq!((theirs.nr_flags, theirs.nr_mem_id), (r.flags, r.mem_id), "{text:?}");
            assert_eq!((theirs.nr_tx_slots, theirs.nr_rx_slots), (r.tx_slots, r.rx_slots), "{text:?}");
            assert_eq!((theirs.nr_tx_rings, theirs.nr_rx_rings), (r.tx_rings, r.rx_rings), "{text:?}");
            assert_eq!(
                (theirs.nr_host_tx_rings, theirs.nr_host_rx_rings),
                (r.host_tx_rings, r.host_rx_rings),
                "{text:?}"
            );
        }
        (Ok(_), None) => panic!("{text:?}: libnetmap refuses what the Rust parser understands"),
        // As upstream's, it is more lenient: numbers in options end where digits do.
        (Err(_), _) => {}
    }
}
