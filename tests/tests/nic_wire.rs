//! What an interface has to do in every mode, on a wire between two of them: a veth pair, or the two interfaces that
//! `NMX_NICS=eth0,eth1` names, in the modes of `NMX_MODES` and with `NMX_MTU`. `make vm-nics` runs this on emulated
//! cards, zero-copy among them.
//!
//! A card may lose its link for seconds when a program is attached to it, so each test waits until frames arrive first. Frames
//! have 60 bytes at least, since cards fill up shorter ones.

mod nic_common;

use netmap_xdp::api::{Interest, Port, wait_many};
use netmap_xdp_tests::{
    Cmd, End, Pair, Veth, c_program, is_root, patient, real_nics, skipped, wait_until, wire, wire_mtu,
};
use nic_common::*;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Until a link is back.
const LINK: Duration = Duration::from_secs(20);
const MODE: &str = "NETMAP_XDP_MODE";

/// The modes that the interfaces have; of zero-copy a veth pair knows nothing.
fn modes() -> Vec<String> {
    let modes = std::env::var("NMX_MODES").unwrap_or_else(|_| "native,generic".into());
    modes.split(',').map(String::from).collect()
}

/// Goes on in a process per mode, by the setting that is made of it.
fn in_each(here: &str, setting: impl Fn(&str) -> &str) -> bool {
    if !is_root() {
        skipped("needs root for network namespaces and XDP");
        return false;
    }
    modes().iter().any(|mode| is_alone(here, &[(MODE, setting(mode)), ("NETMAP_XDP_ENGINE", "embedded")]))
}

macro_rules! each_mode {
    ($setting:expr) => {{
        fn here() {}
        if !in_each(std::any::type_name_of_val(&here), $setting) {
            return;
        }
    }};
}

fn mode() -> String {
    std::env::var(MODE).expect("a mode")
}

/// Bytes of the longest frame.
fn longest() -> usize {
    wire_mtu() as usize + 14
}

/// What a port says of the mode of that name.
fn told(mode: &str) -> &str {
    if mode == "zerocopy" { "zero-copy" } else { mode }
}

/// Sends frames both ways until some have arrived at both ends and no more come; false if that takes too long, or a port has
/// failed.
fn settled(a: &mut Port, b: &mut Port) -> bool {
    let (probe, deadline) = (frame(1 << 40, 60), Instant::now() + patient(LINK));
    let (mut arrived, mut quiet) = ([false; 2], 0);
    while quiet < 3 {
        let open = arrived != [true; 2];
        for port in [&mut *a, &mut *b] {
            if open {
                // Where there is no room, enough are under way.
                push(&mut port.tx(0), &probe);
            }
            if port.sync_tx().is_err() {
                return false;
            }
        }
        let ready = wait_many(&mut [(a, Interest::READ), (b, Interest::READ)], Some(patient(SECOND / 20)));
        let Ok(ready) = ready else { return false };
        if Instant::now() > deadline || ready.iter().any(|r| r.error) {
            return false;
        }
        quiet = if open || ready.iter().any(|r| r.read) { 0 } else { quiet + 1 };
        for (port, arrived) in [&mut *a, &mut *b].into_iter().zip(&mut arrived) {
            *arrived |= take_all(port).contains(&probe);
        }
    }
    true
}

/// What waits in any ring of a port.
fn take_all(port: &mut Port) -> Vec<Vec<u8>> {
    (0..port.rx_count()).flat_map(|ring| take(port, ring)).collect()
}

/// Both ends, open and with a link.
fn ready(pair: &Pair) -> (Port, Port) {
    let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    assert!(settled(&mut a, &mut b), "no frame crosses: {:?} {:?}", a.drops(), b.drops());
    (a, b)
}

/// Of each AF_XDP socket of this process, whether the kernel says that it is zero-copy (`XDP_OPTIONS`).
fn sockets() -> Vec<bool> {
    const XDP_OPTIONS: i32 = 8;
    let fds = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let fds = fds.filter_map(|f| f.file_name().to_str()?.parse::<i32>().ok());
    let options = |fd| {
        let (mut flags, mut len) = (0u32, 4);
        // SAFETY: both pointers are to locals of the sizes told; any descriptor may be asked.
        let r = unsafe { libc::getsockopt(fd, libc::SOL_XDP, XDP_OPTIONS, (&raw mut flags).cast(), &raw mut len) };
        (r == 0).then_some(flags & 1 != 0)
    };
    fds.filter_map(options).collect()
}

#[test]
fn frames_of_every_length_cross_both_ways_byte_by_byte() {
    each_mode!(|mode| mode);
    let pair = wire();
    let (mut a, mut b) = ready(&pair);
    assert_eq!((a.mode().as_str(), b.mode().as_str()), (told(&mode()), told(&mode())));
    let sockets = sockets();
    assert!(!sockets.is_empty() && sockets.iter().all(|&zero| zero == (mode() == "zerocopy")), "{sockets:?}");
    let every: Vec<_> = (60..=longest() as u64).map(|len| frame(len, len as usize)).collect();
    carry(&mut a, 0, &mut b, 0, &every);
    carry(&mut b, 0, &mut a, 0, &every);
    // Round and round the rings.
    carry(&mut a, 0, &mut b, 0, &frames(3000, 60, longest()));
    carry(&mut b, 0, &mut a, 0, &frames(3000, 60, longest()));
    assert_eq!((a.drops(), b.drops()), (vec![], vec![]));
    drop((a, b));
    assert_all_buffers_returned();
    pair.assert_no_xdp();
}

#[test]
fn frames_are_forwarded_by_exchange_to_an_interface_of_another_mode() {
    // Forced, zero-copy would be asked of the veth pair too.
    each_mode!(|mode| if mode == "zerocopy" { "auto" } else { mode });
    let (pair, beyond) = (wire(), Veth::new().build());
    let (mut source, mut inner) = ready(&pair);
    let (mut outer, mut sink) = (open(&beyond.a, "netmap:{}"), open(&beyond.b, "netmap:{}"));
    let (mode, zero) = (mode(), mode() == "auto");
    assert_eq!(inner.mode(), if zero { "zero-copy" } else { told(&mode) });
    assert_eq!(outer.mode(), if zero { "native" } else { told(&mode) });
    assert_eq!(inner.mem_id(), outer.mem_id());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let both = &mut [(&mut inner, Interest::READ), (&mut outer, Interest::READ)];
                assert!(!wait_many(both, Some(SECOND / 20)).unwrap().iter().any(|r| r.error));
                exchange(&mut inner, &mut outer);
                exchange(&mut outer, &mut inner);
            }
        });
        carry(&mut source, 0, &mut sink, 0, &frames(3000, 60, longest()));
        carry(&mut sink, 0, &mut source, 0, &frames(3000, 60, longest()));
        stop.store(true, Relaxed);
    });
    assert_eq!((inner.drops(), outer.drops()), (vec![], vec![]));
    drop((source, sink, inner, outer));
    assert_all_buffers_returned();
    pair.assert_no_xdp();
}

/// Hands what waits in one port's first ring to the other, buffer for buffer.
fn exchange(from: &mut Port, to: &mut Port) {
    let (mut rx, mut tx) = (from.rx(0), to.tx(0));
    let n = rx.available().min(tx.space());
    for i in 0..n {
        let (received, free) = (rx.slot(i).unwrap(), tx.slot(i).unwrap());
        received.swap_into(&free).unwrap();
    }
    rx.release(n);
    tx.advance(n);
    drop((rx, tx));
    to.sync_tx().unwrap();
}

#[test]
fn a_killed_program_leaves_nothing_and_the_next_one_binds() {
    each_mode!(|mode| mode);
    let pair = wire();
    for end in [&pair.a, &pair.b] {
        let address = if end.dev == pair.a.dev { "10.77.0.1/24" } else { "10.77.0.2/24" };
        end.command("ip").args(["addr", "add", address, "dev", end.dev]).run().expect_success();
    }
    let program = c_program("nm-recv");
    for _ in 0..2 {
        let port = format!("netmap:{}", pair.b.dev);
        let mut victim = pair.b.command(&program).preload().args(["-i", &port, "-t", "600"]).spawn();
        victim.wait_for("ready", SOON);
        pair.b.wait_xdp(SOON);
        victim.signal(libc::SIGKILL);
        victim.wait(SOON);
        pair.b.assert_no_xdp();
        assert!(wait_until(LINK, || ping(&pair.a, "10.77.0.2")), "the hosts do not hear each other");
    }
    let (mut a, mut b) = ready(&pair);
    carry(&mut a, 0, &mut b, 0, &frames(500, 60, longest()));
}

/// What a driver may do to an interface under a program, by `ethtool` or `ip`.
fn mishaps(end: &End) -> Vec<(&'static str, Vec<Cmd>)> {
    let ip = |args: &[&str]| end.command("ip").args(["link", "set", "dev", end.dev]).args(args);
    let ethtool = |what: &str, args: &[&str]| end.command("ethtool").args([what, end.dev]).args(args);
    vec![
        ("down and up", vec![ip(&["down"]), ip(&["up"])]),
        ("another MTU", [wire_mtu() - 100, wire_mtu()].map(|mtu| ip(&["mtu", &mtu.to_string()])).into()),
        ("renegotiation", vec![ethtool("-r", &[])]),
        (
            "rings of another size",
            vec![ethtool("-G", &["rx", "128", "tx", "128"]), ethtool("-G", &["rx", "256", "tx", "256"])],
        ),
        ("another number of queues", vec![ethtool("-L", &["combined", "1"]), ethtool("-L", &["combined", "2"])]),
    ]
}

#[test]
fn a_driver_that_resets_is_survived_or_said() {
    each_mode!(|mode| mode);
    let pair = wire();
    let names: Vec<_> = mishaps(&pair.b).into_iter().map(|(name, _)| name).collect();
    for (n, name) in names.into_iter().enumerate() {
        let (mut a, mut b) = ready(&pair);
        let done: Vec<_> = mishaps(&pair.b).remove(n).1.into_iter().map(|c| c.run().success()).collect();
        let goes_on = settled(&mut a, &mut b);
        println!("{}: {name} (done: {done:?}): the port {}", mode(), if goes_on { "goes on" } else { "ended" });
        if goes_on {
            carry(&mut a, 0, &mut b, 0, &frames(500, 60, longest()));
            carry(&mut b, 0, &mut a, 0, &frames(500, 60, longest()));
        } else {
            let ended = b.wait(Interest::READ, Some(Duration::ZERO));
            assert!(ended.is_err() || ended.is_ok_and(|r| r.error), "{name}: no frame crosses, and no port says so");
        }
        drop((a, b));
        assert_all_buffers_returned();
    }
    pair.assert_no_xdp();
}

/// The driver of a real interface and what it knows it by, for `bind` and `unbind`.
fn driver(dev: &str) -> (PathBuf, String) {
    let device = fs::canonicalize(format!("/sys/class/net/{dev}/device")).expect("the device of an interface");
    let name = device.file_name().expect("a device has a name").to_string_lossy().into_owned();
    (fs::canonicalize(device.join("driver")).expect("its driver"), name)
}

#[test]
fn a_driver_that_lets_go_of_its_device_ends_the_port() {
    each_mode!(|mode| mode);
    let sysfs = real_nics().map(|[_, b]| driver(b));
    let pair = wire();
    let (a, mut b) = ready(&pair);
    match &sysfs {
        Some((driver, device)) => fs::write(driver.join("unbind"), device).unwrap(),
        None => pair
            .b
            .command("ip")
            .args(["link", "del", pair.b.dev])
            .run()
            .expect_success()
            .success()
            .then_some(())
            .unwrap(),
    }
    let said = wait_until(SOON, || b.wait(Interest::READ, Some(SECOND / 10)).map_or(true, |r| r.error));
    assert!(said, "the interface is gone, and the port does not say so");
    drop((a, b));
    assert_all_buffers_returned();
    // First the other interface goes home, or it would find its name taken.
    drop(pair);
    if let Some((driver, device)) = sysfs {
        fs::write(driver.join("bind"), device).unwrap();
    }
}

#[test]
fn zero_copy_is_not_used_where_it_would_cut_frames() {
    // Without a card that does so, nothing but the mode that works is seen here.
    each_mode!(|_| "auto");
    let pair = wire();
    let driver =
        real_nics().map(|_| pair.a.command("ethtool").args(["-i", pair.a.dev]).run().stdout).unwrap_or_default();
    let cuts = wire_mtu() > 1006 && ["driver: igb\n", "driver: igc\n"].iter().any(|d| driver.contains(d));
    let (mut a, mut b) = ready(&pair);
    if cuts {
        assert_eq!((a.mode().as_str(), b.mode().as_str()), ("native", "native"));
    }
    carry(&mut a, 0, &mut b, 0, &[frame(1, longest()), frame(2, 60), frame(3, longest())]);
}
