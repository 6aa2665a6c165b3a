//! libFuzzer around the target.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: {
        if let Some(library) = std::env::var_os("NETMAP_FUZZ_LIBRARY") {
            netmap_xdp_fuzz::use_library(std::path::Path::new(&library));
        }
    },
    |data: &[u8]| netmap_xdp_fuzz::names(data)
);
