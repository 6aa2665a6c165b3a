//! AF_XDP: the UMEM's addresses, the four rings of a socket, sockets, and the XDP program that steers queues into them.
//!
//! The engine makes sockets and programs; clients get socket descriptors and map the rings. Knows nothing of netmap rings:
//! the two meet in `port`.

mod aya_loader;
mod geometry;
mod host;
pub mod loaded;
pub mod program;
mod queue;
mod rings;
mod socket;
mod stamped;
mod steering;

pub use geometry::{Chunks, Geometry, HEADERS, TxDesc, TxPlan, mtu_that_fits};
pub use host::{Cut, HostLink, HostLinkPlan, clean_host_filter, end_cuts, host_survivors};
pub use program::{
    AttachError, AttachMode, ClassifierPlan, Inherited, Loader, Program, QueueCounters, embedded, is_our_program,
};
pub use queue::{Completion, Desc, Fill, Queue, QueueError, Rx, Tx, TxBatch, Walk, fill_size};
pub use rings::Rings;
pub use socket::{BindError, Socket, SocketPlan, Umem};
pub use steering::{Action, IMAGE_SIZE, Steering, SteeringError};
