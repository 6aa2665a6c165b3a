//! The dispatcher that libxdp loads, ours (`bpf/xdp_dispatcher.bpf.c`) in the place of its own: libxdp-sys builds libxdp 1.4.3,
//! whatever its version says, and with that one's dispatcher kernels since 6.13 refuse programs that move the packet's ends.
//!
//! libxdp finds the object by the names of its first byte and of the first byte behind it, which lie in a member of their own
//! of its archive; a linker does not take that member when it knows the names already. Constant data; any thread.

use std::arch::global_asm;

global_asm!(
    ".section .rodata.xdp_dispatcher, \"a\"",
    ".balign 16",
    ".globl _binary_xdp_dispatcher_o_start",
    "_binary_xdp_dispatcher_o_start:",
    concat!(".incbin \"", env!("OUT_DIR"), "/xdp_dispatcher.bpf.o\""),
    ".globl _binary_xdp_dispatcher_o_end",
    "_binary_xdp_dispatcher_o_end:",
    ".byte 0",
    ".previous",
    options(raw)
);

unsafe extern "C" {
    static _binary_xdp_dispatcher_o_start: u8;
    static _binary_xdp_dispatcher_o_end: u8;
}

/// The object. Whoever asks for it makes the linker take ours, so libxdp is not called before.
pub(crate) fn object() -> &'static [u8] {
    let (start, end) = (&raw const _binary_xdp_dispatcher_o_start, &raw const _binary_xdp_dispatcher_o_end);
    // SAFETY: both are addresses of one piece of constant data, see above, be it ours or libxdp's.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

#[cfg(test)]
mod tests {
    use super::object;

    #[test]
    fn libxdp_gets_our_dispatcher() {
        // Pulls libxdp in, as chaining does.
        crate::chain::quieten();
        assert!(object() == include_bytes!(concat!(env!("OUT_DIR"), "/xdp_dispatcher.bpf.o")));
    }
}
