//! Requests: an `ioctl` number, and an image of the memory that it points at.

use crate::Bytes;
use netmap_xdp::abi::*;
use netmap_xdp::ctl::{
    Call, OptionAnswer, Pools, PortInfoReply, PortName, RegisterReply, Reply, Request, RingCounts, ValeListReply,
    interp_ringid, try_decode,
};
use netmap_xdp::sys::{Errno, FakeMem};

/// Where the program's memory starts, and how much there is.
const AT: u64 = 0x10_0000;
const SIZE: usize = 8192;

/// Turns an address of the image into one of the memory, mostly.
fn place(raw: u64) -> u64 {
    match raw >> 56 {
        0..=0xf0 if raw != 0 => AT + raw % (SIZE as u64),
        _ => raw,
    }
}

fn answer(call: &mut Call, from: &mut Bytes<'_>) -> Result<Reply, Errno> {
    let mut status = || match from.byte() {
        0..128 => Ok(()),
        n => Err(Errno(i32::from(n) - 127)),
    };
    let (extmem, csb, offsets) = (status(), status(), status());
    if let Request::Register(register) = &call.request {
        let _ = register.kind();
        let counts = RingCounts { tx: from.word(), rx: from.word(), host_tx: from.word(), host_rx: from.word() };
        if let Ok(selection) = interp_ringid(register.mode, register.flags, register.ring_id, counts) {
            assert!(u32::from(selection.tx.end) <= u32::from(counts.tx) + u32::from(counts.host_tx));
            assert!(u32::from(selection.rx.end) <= u32::from(counts.rx) + u32::from(counts.host_rx));
        }
        call.answer_option(OptionAnswer::Extmem(extmem.map(|()| Pools::default())));
        call.answer_option(OptionAnswer::Offsets(offsets.map(|()| 7)));
    }
    call.answer_option(OptionAnswer::Csb(csb));
    call.answer_option(OptionAnswer::KloopEventfds(extmem));
    call.answer_option(OptionAnswer::KloopMode(offsets));
    Ok(match from.byte() % 6 {
        0 => Reply::Done,
        1 => Reply::Register(RegisterReply { offset: from.value(), ..RegisterReply::default() }),
        2 => Reply::PortInfo(PortInfoReply { memsize: from.value(), ..PortInfoReply::default() }),
        3 => Reply::ValeList(ValeListReply { name: Some(PortName::from_field(from.piece())), bridge: 1, port: 2 }),
        4 => Reply::HdrLen(from.value() as u32),
        _ => return Err(Errno(i32::from(from.byte()) + 1)),
    })
}

/// Decodes a request, answers it somehow, and finishes it.
pub fn request(data: &[u8]) {
    let mut from = Bytes::new(data);
    let cmd = from.pick(&[NIOCCTRL, NIOCCTRL, NIOCCTRL, NIOCREGIF, NIOCGINFO, NIOCCONFIG, NIOCTXSYNC, 0]);
    let (offset, choices) = (u64::from(from.word()) % 256, from.array::<24>());
    let mut image = from.rest().to_vec();
    image.truncate(SIZE);
    image.resize(SIZE, 0);
    // Links lead into the memory more often than chance would have it: those of the header, and one in each of 24 bytes.
    let links = (72..=80).step_by(8).chain((88..SIZE - 8).step_by(24));
    for link in links.map(|l| l + offset as usize).filter(|l| l + 8 <= SIZE) {
        let raw = u64::from_le_bytes(image[link..link + 8].try_into().expect("eight bytes"));
        image[link..link + 8].copy_from_slice(&place(raw).to_le_bytes());
    }
    let mem = FakeMem::new();
    if choices[0] & 3 == 3 {
        mem.map_read_only(AT, &image);
    } else {
        mem.map(AT, &image);
    }
    match try_decode(&mem, cmd, AT + offset) {
        Ok(mut call) => {
            let mut from = Bytes::new(&choices);
            let outcome = answer(&mut call, &mut from);
            let (unsupported, succeeded) = (call.unsupported_option().is_some(), outcome.is_ok());
            match call.finish(&mem, outcome) {
                Ok(()) => assert!(succeeded && !unsupported),
                Err(errno) => assert!(errno.0 > 0),
            }
        }
        Err(failure) => assert!(failure.errno.0 > 0 && !failure.message.is_empty()),
    }
}
