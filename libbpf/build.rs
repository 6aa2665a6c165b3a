//! Compiles the BPF program that `dispatcher` embeds.

#[path = "../bpf/compile.rs"]
mod compile;

fn main() {
    compile::compile(&["xdp_dispatcher"]);
}
