//! select as a poll: descriptor sets become an array, and the answers become sets again by the rules of Linux.
//!
//! Differences that remain, for calls with a netmap fd among the descriptors:
//! - Descriptors from FD_SETSIZE on are not looked at. Programs pass the largest possible number as the count although their
//!   sets end there, and nothing tells those from programs with larger sets.
//! - A descriptor with nothing but a hang-up, of which only writability or exceptions were asked, is no longer waited for.

use crate::wait::plausible;
use libc::{
    EBADF, FD_SETSIZE, POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDBAND, POLLRDNORM, POLLWRBAND,
    POLLWRNORM, c_int, c_short, fd_set, pollfd,
};
use netmap_xdp::sys::Errno;
use std::time::{Duration, Instant};

/// What is asked for a descriptor in the read, write and exception set.
const ASKED: [c_short; 3] = [POLLIN | POLLRDNORM | POLLRDBAND, POLLOUT | POLLWRNORM | POLLWRBAND, POLLPRI];
/// What counts as an answer.
const ANSWER: [c_short; 3] = [ASKED[0] | POLLHUP | POLLERR, ASKED[1] | POLLERR, ASKED[2]];

const WORD: usize = u64::BITS as usize;
const WORDS: usize = FD_SETSIZE / WORD;

/// The sets of a call.
pub struct Sets {
    /// Null where the program gave none.
    sets: [*mut u64; 3],
    /// How many descriptors are looked at.
    count: usize,
}

impl Sets {
    /// The sets of a call, unless libc refuses them or there is nothing in them.
    ///
    /// # Safety
    /// The pointers are valid for `count` descriptors, or null, or such that [`plausible`] knows them to be bad.
    pub unsafe fn new(count: c_int, sets: [*mut fd_set; 3]) -> Option<Sets> {
        if count <= 0 || sets.iter().any(|set| !set.is_null() && !plausible(*set)) {
            return None;
        }
        Some(Sets { sets: sets.map(|set| set.cast()), count: (count as usize).min(FD_SETSIZE) })
    }

    /// How many words the kernel reads and writes for this count.
    fn words(&self) -> usize {
        self.count.div_ceil(WORD)
    }

    /// A word of a set, without the descriptors past the count.
    fn word(&self, set: usize, i: usize) -> u64 {
        if self.sets[set].is_null() {
            return 0;
        }
        // SAFETY: within the first `count` descriptors of a set that is not null, as `new` was promised.
        let word = unsafe { self.sets[set].add(i).read_unaligned() };
        if (i + 1) * WORD > self.count { word & ((1 << (self.count % WORD)) - 1) } else { word }
    }

    /// Whether `what` holds for a descriptor in any of the sets.
    pub fn any(&self, what: impl Fn(c_int) -> bool) -> bool {
        (0..self.words()).any(|i| bits((0..3).fold(0, |all, set| all | self.word(set, i)), i).any(&what))
    }

    /// Puts what is asked of each descriptor in `fds`; returns how many there are.
    fn gather(&self, fds: &mut [pollfd; FD_SETSIZE]) -> usize {
        let mut n = 0;
        for i in 0..self.words() {
            let asked = [self.word(0, i), self.word(1, i), self.word(2, i)];
            for fd in bits(asked[0] | asked[1] | asked[2], i) {
                let bit = 1 << (fd as usize % WORD);
                let events = (0..3).filter(|&set| asked[set] & bit != 0).fold(0, |all, set| all | ASKED[set]);
                fds[n] = pollfd { fd, events, revents: 0 };
                n += 1;
            }
        }
        n
    }

    /// Writes the answers to the sets; the sets are zero but for those.
    fn scatter(&self, answers: &[[u64; WORDS]; 3]) {
        for (set, answers) in self.sets.iter().zip(answers) {
            if !set.is_null() {
                for (i, word) in answers[..self.words()].iter().enumerate() {
                    // SAFETY: as in `word`.
                    unsafe { set.add(i).write_unaligned(*word) };
                }
            }
        }
    }
}

/// The descriptors of word number `i`.
fn bits(mut word: u64, i: usize) -> impl Iterator<Item = c_int> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some((i * WORD + bit) as c_int)
    })
}

/// Which sets say yes to a descriptor of which `fd.events` were asked.
fn answers(fd: &pollfd) -> impl Iterator<Item = usize> {
    let (events, revents) = (fd.events, fd.revents);
    (0..3).filter(move |&set| events & ASKED[set] != 0 && revents & ANSWER[set] != 0)
}

/// Waits with `poll` and answers in the sets. They stay as they are if that fails, and if nothing was found and this is not the
/// `last` slice of a wait.
pub fn wait(
    sets: &Sets,
    timeout: Option<Duration>,
    last: bool,
    mut poll: impl FnMut(&mut [pollfd], Option<Duration>) -> Option<Result<c_int, Errno>>,
) -> Option<Result<c_int, Errno>> {
    let mut fds = [pollfd { fd: -1, events: 0, revents: 0 }; FD_SETSIZE];
    let n = sets.gather(&mut fds);
    let fds = &mut fds[..n];
    let start = Instant::now();
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
        match poll(fds, left)? {
            Err(errno) => return Some(Err(errno)),
            Ok(ready) => {
                // A number that is not open fails the whole call.
                if fds.iter().any(|fd| fd.fd >= 0 && fd.revents & POLLNVAL != 0) {
                    return Some(Err(Errno(EBADF)));
                }
                let mut yes = [[0u64; WORDS]; 3];
                let mut count = 0;
                for fd in fds.iter().filter(|fd| fd.fd >= 0) {
                    for set in answers(fd) {
                        yes[set][fd.fd as usize / WORD] |= 1 << (fd.fd as usize % WORD);
                        count += 1;
                    }
                }
                if count > 0 || ready <= 0 {
                    if count > 0 || last {
                        sets.scatter(&yes);
                    }
                    return Some(Ok(count));
                }
                // poll reports a hang-up always, select does not: wait for the others.
                for fd in fds.iter_mut().filter(|fd| fd.revents != 0) {
                    fd.fd = -1;
                }
            }
        }
    }
}
