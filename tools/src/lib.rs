//! The tools of netmap-xdp: `pkt-gen` (generate, receive, measure), `bridge` (move packets between two ports) `vale-ctl`
//! (switches) and `nmx` (what there is, how fast it runs, whether it will work).
//!
//! All are ordinary users of the safe Rust API and know nothing of AF_XDP. What decides (frames, sizes, pacing,
//! verification, options) is pure and takes time and randomness as arguments; what moves packets is thin around it.
//!
//! | module | job |
//! |---|---|
//! | [`options`], [`config`], [`units`] | what the user typed, checked, and how numbers are read and shown |
//! | [`checksum`], [`addr`], [`frame`], [`sizes`], [`pcap`], [`source`] | the frames to send |
//! | [`pattern`] | the self-describing test frames and their verifier |
//! | [`pacing`] | when to send |
//! | [`open`], [`signal`], [`cpu`], [`stats`] | ports, Ctrl-C, pinning, counters |
//! | [`tx`], [`rx`], [`ping`], [`forward`] | the loops |
//! | [`pktgen`], [`bridge`], [`valectl`], [`nmx`] | the programs |
#![deny(unsafe_code)]

pub mod addr;
pub mod bridge;
pub mod checksum;
pub mod config;
#[expect(unsafe_code, reason = "sched_setaffinity has no safe wrapper in std")]
pub mod cpu;
pub mod forward;
pub mod frame;
pub mod nmx;
pub mod open;
pub mod options;
pub mod pacing;
pub mod pattern;
pub mod pcap;
pub mod ping;
pub mod pktgen;
pub mod rx;
#[expect(unsafe_code, reason = "sigaction has no safe wrapper in std")]
pub mod signal;
pub mod sizes;
pub mod source;
pub mod stats;
pub mod tx;
pub mod units;
pub mod valectl;
