//! `nmctx_ferror(ctx, format, ...)`.
//!
//! Stable Rust cannot define a function with variable arguments, so the entry is a few lines of assembly: it stores the
//! argument registers as the C calling convention of the machine has them in a `va_list`, and passes that on to
//! [`format_and_say`], which hands it to `vsnprintf`. The program's `double`s arrive like its integers.

use super::context::{LONGEST_MESSAGE, TOO_LONG};
use super::types::Context;
use crate::guard::contained;
use libc::{c_char, c_int, c_void, size_t};
use std::arch::naked_asm;
use std::ffi::CStr;

unsafe extern "C" {
    /// A `va_list` argument is a pointer on the machines that we serve: it is an array type on x86-64, and larger than two
    /// registers on 64-bit ARM.
    fn vsnprintf(text: *mut c_char, room: size_t, format: *const c_char, arguments: *mut c_void) -> c_int;
}

/// Formats a message as printf does and hands it to the context.
///
/// # Safety
/// `ctx` is a context, and the further arguments are what `format` says.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmctx_ferror(ctx: *mut Context, format: *const c_char) {
    // Frame: at 0 the register save area (6 integer registers, then 8 vector registers if al says that there may be any),
    // at 176 the va_list: offsets of the next integer and vector argument in that area, then where the arguments on the
    // stack begin, and the area.
    naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "sub rsp, 208",
        "mov [rsp + 16], rdx",
        "mov [rsp + 24], rcx",
        "mov [rsp + 32], r8",
        "mov [rsp + 40], r9",
        "test al, al",
        "je 2f",
        "movaps [rsp + 48], xmm0",
        "movaps [rsp + 64], xmm1",
        "movaps [rsp + 80], xmm2",
        "movaps [rsp + 96], xmm3",
        "movaps [rsp + 112], xmm4",
        "movaps [rsp + 128], xmm5",
        "movaps [rsp + 144], xmm6",
        "movaps [rsp + 160], xmm7",
        "2:",
        "mov dword ptr [rsp + 176], 16",
        "mov dword ptr [rsp + 180], 48",
        "lea rax, [rbp + 16]",
        "mov [rsp + 184], rax",
        "mov [rsp + 192], rsp",
        "lea rdx, [rsp + 176]",
        "call {format}",
        "leave",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
        format = sym format_and_say,
    )
}

/// Formats a message as printf does and hands it to the context.
///
/// # Safety
/// `ctx` is a context, and the further arguments are what `format` says.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmctx_ferror(ctx: *mut Context, format: *const c_char) {
    // Frame: at 16 the integer registers that are left (6), at 64 the vector registers (8), at 192 the va_list: where the
    // arguments on the stack begin, the ends of both areas, and what is left of each, in bytes and negative.
    naked_asm!(
        ".cfi_startproc",
        "stp x29, x30, [sp, #-256]!",
        ".cfi_def_cfa_offset 256",
        ".cfi_offset x29, -256",
        ".cfi_offset x30, -248",
        "mov x29, sp",
        "stp x2, x3, [sp, #16]",
        "stp x4, x5, [sp, #32]",
        "stp x6, x7, [sp, #48]",
        "stp q0, q1, [sp, #64]",
        "stp q2, q3, [sp, #96]",
        "stp q4, q5, [sp, #128]",
        "stp q6, q7, [sp, #160]",
        "add x9, sp, #256",
        "str x9, [sp, #192]",
        "add x9, sp, #64",
        "str x9, [sp, #200]",
        "add x9, sp, #192",
        "str x9, [sp, #208]",
        "mov w9, #-48",
        "str w9, [sp, #216]",
        "mov w9, #-128",
        "str w9, [sp, #220]",
        "add x2, sp, #192",
        "bl {format}",
        "ldp x29, x30, [sp], #256",
        ".cfi_restore x29",
        ".cfi_restore x30",
        ".cfi_def_cfa_offset 0",
        "ret",
        ".cfi_endproc",
        format = sym format_and_say,
    )
}

/// The second half of [`nmctx_ferror`].
///
/// # Safety
/// As there; `arguments` is a `va_list` of the further arguments.
unsafe extern "C" fn format_and_say(ctx: *mut Context, format: *const c_char, arguments: *mut c_void) {
    contained((), || {
        // SAFETY: null or a context, as promised by the program.
        let ctx = unsafe { ctx.as_ref() }?;
        if ctx.verbose.get() == 0 || format.is_null() {
            return None;
        }
        let mut text = [0u8; LONGEST_MESSAGE];
        // SAFETY: the buffer has that size; the format and its arguments are the program's.
        let len = unsafe { vsnprintf(text.as_mut_ptr().cast(), text.len(), format, arguments) };
        ctx.say(match CStr::from_bytes_until_nul(&text) {
            Ok(text) if len > 0 && (len as usize) < LONGEST_MESSAGE => text,
            _ if len > 0 => TOO_LONG,
            _ => c"libnetmap: a message that could not be formatted",
        });
        Some(Ok(()))
    });
}
