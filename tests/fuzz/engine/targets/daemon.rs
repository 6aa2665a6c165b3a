//! libFuzzer around the target.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netmap_xdp_fuzz::daemon(data));
