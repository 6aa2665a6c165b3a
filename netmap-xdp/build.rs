//! Compiles the BPF programs that `xsk` embeds.

#[path = "../bpf/compile.rs"]
mod compile;

fn main() {
    compile::compile(&["xdp_redirect", "host_rings"]);
}
