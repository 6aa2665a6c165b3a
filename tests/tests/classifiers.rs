//! The classifiers of host rings, by whichever library they are loaded: what each does with a packet, alone on an interface.

use netmap_xdp::sys::Fd;
use netmap_xdp::sys::netdev::{NetDev, bpf};
use netmap_xdp::xsk::{Loader, embedded};
use netmap_xdp_tests::{Pair, Veth, needs_root};
use std::os::fd::AsRawFd;

const NAMES: [&str; 5] = ["netmap_host_cut", "netmap_host_out", "netmap_host_lax", "netmap_host_in", "netmap_tap_out"];

fn loaders() -> [&'static dyn Loader; 2] {
    [embedded(), &netmap_xdp_libbpf::LOADER]
}

fn reaches(pair: &Pair) -> bool {
    pair.a.command("ping").args(["-c", "1", "-W", "1", "10.61.0.2"]).run().success()
}

#[test]
fn they_are_loaded_by_name_and_kept_out_of_the_way() {
    needs_root!();
    for loader in loaders() {
        let loaded = loader.load_classifiers(&NAMES, &[0; 32]).unwrap();
        let named = |fd: &Fd| bpf::program_name(bpf::program_id(fd.as_raw_fd()).unwrap()).unwrap();
        assert_eq!(loaded.iter().map(named).collect::<Vec<_>>(), NAMES, "{}", loader.name());
        assert!(loaded.iter().all(|fd| fd.as_raw_fd() >= 512), "{}: in the way of the program", loader.name());
        let absent = loader.load_classifiers(&["netmap_nothing"], &[0; 32]).unwrap_err();
        assert_eq!(absent.errno.0, libc::ENOENT, "{absent}");
    }
}

#[test]
fn they_follow_their_constants() {
    needs_root!();
    let pair = Veth::new().addresses("10.61.0.1/24", "10.61.0.2/24").build();
    let nic = pair.a.ns.run(|| NetDev::by_name("veth0").unwrap());
    let mut marked = [0; 32];
    marked[8] = 7;
    for loader in loaders() {
        // A ping bears no mark, and so passes where 0 is the mark.
        for (name, plan, passes) in
            [("netmap_tap_out", [0; 32], true), ("netmap_tap_out", marked, false), ("netmap_host_cut", [0; 32], false)]
        {
            let program = &loader.load_classifiers(&[name], &plan).unwrap()[0];
            let link = pair.a.ns.run(|| bpf::tcx_link(program.as_raw_fd(), nic.ifindex, bpf::Tcx::Egress)).unwrap();
            assert_eq!(reaches(&pair), passes, "{}: {name} {plan:?}", loader.name());
            drop(link);
            assert!(reaches(&pair), "{}: {name} stays", loader.name());
        }
    }
}
