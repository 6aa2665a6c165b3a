//! Messages between client and netmapd: what can be read is what would be written.

use netmap_xdp::proto::{Assembly, FromEngine, Reader, ToEngine, Wire, Writer, open};
use netmap_xdp::sys::{Fd, sealed_memfd};
use std::sync::{Arc, LazyLock};

static FILES: LazyLock<Vec<Arc<Fd>>> = LazyLock::new(|| {
    let file = || Arc::new(sealed_memfd(c"fuzz", 4096).expect("a memfd"));
    (0..3).map(|_| file()).collect()
});

fn there_and_back<M: Wire>(bytes: &[u8], files: &[Arc<Fd>]) {
    let mut reader = Reader::new(bytes, files);
    let Ok(message) = M::take(&mut reader) else { return };
    if reader.end().is_err() {
        return;
    }
    let mut once = Writer::default();
    message.put(&mut once);
    // The numbers of descriptors follow the order of their use, so the second time it is the same.
    let mut reader = Reader::new(&once.bytes, &once.fds);
    let again = M::take(&mut reader).expect("what was written can be read");
    reader.end().expect("all of it");
    let mut twice = Writer::default();
    again.put(&mut twice);
    assert_eq!(once.bytes, twice.bytes);
    assert_eq!(once.bytes.len(), bytes.len());
}

/// Reads a message of either side, and a piece of one.
pub fn wire(data: &[u8]) {
    let Some((&how, bytes)) = data.split_first() else { return };
    let files = &FILES[..usize::from(how % 4).min(FILES.len())];
    match how / 4 % 3 {
        0 => there_and_back::<ToEngine>(bytes, files),
        1 => there_and_back::<FromEngine>(bytes, files),
        _ => {
            let mut assembly = Assembly::default();
            for piece in bytes.chunks(64) {
                let Ok((_, rest)) = open(piece) else { continue };
                let _ = assembly.add(rest, vec![]);
            }
            let _ = assembly.finish::<FromEngine>();
        }
    }
}
