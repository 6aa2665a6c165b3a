//! netmapd: the engine for all processes of a machine, behind a Unix socket.
//!
//! ```text
//! server   the edge: epoll, connections, bounded queues, idle exit, socket activation
//! core     sessions, netmap descriptors, grants, permissions, reaping; knows no epoll
//! policy   who may bind what
//! config   the configuration file
//! start    lock, socket, going to the background
//! ```
//! One thread. Nothing waits for a client: what it does not read is queued within bounds, and who lets that stand is
//! dropped. Packets never pass through here.

mod config;
mod core;
mod policy;
mod quiet;
mod server;
mod start;

#[cfg(test)]
mod tests;

pub use self::config::{Config, buf_size};
pub use self::core::{Core, Outcome, Registry};
pub use self::policy::{Policy, Rule, Subject, What, Who};
pub use self::server::{Limits, Server};
pub use self::start::{Options, run};
pub use crate::sys::guard;
