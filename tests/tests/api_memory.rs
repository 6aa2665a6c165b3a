//! Where a port of the Rust API lives, and where packets begin in its buffers: all that a name can say of it.

use netmap_xdp::api::{Builder, Error, Port};
use netmap_xdp_tests::{Veth, needs_root, wait_until};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file of `size` bytes of zeroes that goes with this.
struct Backing(PathBuf);

impl Backing {
    fn new(dir: &Path, size: u64) -> Backing {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = dir.join(format!("nmx-api-memory-{}-{number}", std::process::id()));
        std::fs::File::create(&path).and_then(|f| f.set_len(size)).unwrap();
        Backing(path)
    }

    /// On the disk where things are built.
    fn on_disk(size: u64) -> Backing {
        Backing::new(Path::new(env!("CARGO_TARGET_TMPDIR")), size)
    }

    fn port(&self, name: &str) -> String {
        format!("netmap:{name}@extmem={}", self.0.display())
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn open(name: &str) -> Port {
    Port::open(name).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[track_caller]
fn refused(name: &str, errno: i32, words: &str) {
    let e: Error = Port::open(name).map(drop).expect_err(name);
    assert_eq!(e.errno, errno, "{e}");
    assert!(e.message.contains(words), "{e}");
}

/// The one packet that waits.
fn receive(port: &mut Port) -> (Vec<u8>, usize) {
    port.sync_rx().unwrap();
    let mut rx = port.rx(0);
    assert_eq!(rx.available(), 1);
    let slot = rx.slot(0).unwrap();
    let mut bytes = vec![0; slot.len()];
    slot.read_at(0, &mut bytes);
    let offset = slot.offset();
    rx.release(1);
    (bytes, offset)
}

#[test]
fn ports_of_a_switch_share_a_region_by_name_or_by_id() {
    let mut a = open("valeshare:a");
    let alone = open("valeshare:alone");
    assert_ne!(a.mem_id(), alone.mem_id());
    let mut b = open("valeshare:b@share=valeshare:a");
    let c = open(&format!("valeshare:c@{}", a.mem_id()));
    let d = Builder::new("valeshare:d").mem_id(a.mem_id()).open().unwrap();
    assert_eq!([b.mem_id(), c.mem_id(), d.mem_id()], [a.mem_id(); 3]);
    // The same region: buffers can be exchanged.
    let (mine, theirs) = (a.tx(0).slot(0).unwrap().buf_idx(), b.tx(0).slot(0).unwrap().buf_idx());
    a.tx(0).slot(0).unwrap().swap_into(&b.tx(0).slot(0).unwrap()).unwrap();
    assert_eq!((a.tx(0).slot(0).unwrap().buf_idx(), b.tx(0).slot(0).unwrap().buf_idx()), (theirs, mine));
    refused(
        &format!("valeshare:e@{}@share=valeshare:alone", a.mem_id()),
        libc::EINVAL,
        "is not that of valeshare:alone",
    );
    refused("netmap:share{1@share=netmap:nobody9", libc::ENXIO, "nobody9");
    refused("valeshare:e@60000", libc::EINVAL, "no region has memory id 60000");
}

#[test]
fn a_region_can_lie_in_a_file_on_a_disk() {
    let file = Backing::on_disk(16 << 20);
    let (mut a, mut b) = (open(&file.port("disk{1")), open(&file.port("disk}1")));
    assert_eq!(a.mem_id(), b.mem_id(), "the same file is the same region");
    let packet = b"a packet that is written to a file on a disk, where it can be found";
    assert!(a.tx(0).push(packet));
    a.sync_tx().unwrap();
    assert_eq!(receive(&mut b), (packet.to_vec(), 0));
    let bytes = std::fs::read(&file.0).unwrap();
    assert!(bytes.windows(packet.len()).any(|w| w == packet), "what the rings hold is in the file");
    refused("netmap:disk{2@extmem=/nonexistent/file", libc::ENOENT, "/nonexistent/file");
    refused(&Backing::on_disk(8192).port("disk{2"), libc::ENOMEM, "too few for these pools");
    refused(&Backing::on_disk(0).port("disk{2"), libc::EINVAL, "cannot map it");
}

#[test]
fn a_nic_takes_memory_that_the_kernel_can_lock_and_says_so_of_a_disk() {
    needs_root!();
    let pair = Veth::new().build();
    let shm = Backing::new(Path::new("/dev/shm"), 32 << 20);
    let (mut a, mut b) = (pair.a.ns.run(|| open(&shm.port("veth0"))), pair.b.ns.run(|| open(&shm.port("veth1"))));
    assert_eq!(a.mem_id(), b.mem_id());
    let mut frame = [0xff; 60];
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    assert!(a.tx(0).push(&frame));
    let arrived = wait_until(Duration::from_secs(10), || {
        a.sync_tx().unwrap();
        b.sync_rx().unwrap();
        let rx = b.rx(0);
        (0..rx.available()).any(|i| {
            let mut bytes = [0; 60];
            rx.slot(i).unwrap().read_at(0, &mut bytes);
            bytes == frame
        })
    });
    assert!(arrived);
    drop((a, b));
    pair.assert_no_xdp();
    let disk = Backing::on_disk(32 << 20);
    pair.a.ns.run(|| refused(&disk.port("veth0"), libc::EOPNOTSUPP, "tmpfs"));
    // The refusal leaves nothing behind: the same name without the file works.
    pair.a.ns.run(|| drop(open("netmap:veth0")));
    pair.assert_no_xdp();
}

#[test]
fn packets_begin_where_their_slots_say() {
    let (mut a, mut b) = (open("netmap:begin{1@offset:initial=64,bits=16"), open("netmap:begin}1"));
    {
        let mut tx = a.tx(0);
        let slot = tx.slot(0).unwrap();
        assert_eq!((slot.offset(), slot.capacity()), (64, a_buffer() - 64));
        assert!(slot.set_offset(32) && !slot.set_offset(65), "64 is the largest");
        assert_eq!(slot.offset(), 32);
        assert!(tx.push(&[7; 100]));
        assert!(tx.push(&[8; 100]));
    }
    a.sync_tx().unwrap();
    b.sync_rx().unwrap();
    let starts: Vec<_> = (0..2).map(|i| b.rx(0).slot(i).map(|s| (s.offset(), s.len())).unwrap()).collect();
    assert_eq!(starts, [(32, 100), (64, 100)]);
    let mut bytes = [0; 100];
    b.rx(0).slot(1).unwrap().read_at(0, &mut bytes);
    assert_eq!(bytes, [8; 100]);
    // Past the buffer's end there is nothing to read or write.
    let (at, mut less) = (b.rx(0).slot(1).unwrap().capacity() - 3, [0; 8]);
    {
        let rx = b.rx(0);
        let slot = rx.slot(1).unwrap();
        assert_eq!((slot.write_at(at, &[9; 8]), slot.read_at(at, &mut less)), (3, 3));
        assert_eq!(less, [9, 9, 9, 0, 0, 0, 0, 0]);
        for beyond in [at + 3, at + 4, usize::MAX] {
            assert_eq!((slot.write_at(beyond, &[9; 8]), slot.read_at(beyond, &mut less)), (0, 0));
            assert_eq!((slot.write_at(beyond, &[]), slot.read_at(beyond, &mut [])), (0, 0));
        }
    }
    // A packet keeps its offset when it goes on, and cannot where there are none.
    let (mut c, mut plain) = (Builder::new("netmap:begin{2").offsets(0, 128).open().unwrap(), open("netmap:begin{3"));
    assert!(b.rx(0).slot(0).unwrap().swap_into(&plain.tx(0).slot(0).unwrap()).is_err());
    b.rx(0).slot(0).unwrap().swap_into(&c.tx(0).slot(0).unwrap()).unwrap();
    let slot_offset = c.tx(0).slot(0).unwrap().offset();
    assert_eq!(slot_offset, 32);
    refused("netmap:begin{4@offset=5000", libc::EINVAL, "do not lie in buffers");
}

fn a_buffer() -> usize {
    open("netmap:size{1").buf_size()
}
