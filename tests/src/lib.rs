//! What the integration tests share: private network namespaces joined by a veth pair, commands inside them with bounded
//! time, the built artefacts, skips that are counted, and a check that nothing stays behind.
//!
//! Everything is undone on drop, on a panic too: running commands are killed, namespaces deleted. What a killed test process
//! left behind is swept by the next one. The devices of the caller's own namespace are never touched.
//!
//! ```no_run
//! use netmap_xdp_tests::{Cmd, Veth, needs_root, tool};
//! use std::time::Duration;
//!
//! fn packets_arrive() {
//!     needs_root!();
//!     let pair = Veth::new().queues(2).build();
//!     let receiver = pair.b.command(tool("pkt-gen")).args(["-i", "netmap:veth1", "-f", "rx", "-n", "10"]).spawn();
//!     pair.b.wait_xdp(Duration::from_secs(5));
//!     pair.a.command(tool("pkt-gen")).args(["-i", "netmap:veth0", "-f", "tx", "-n", "10"]).run().expect_success();
//!     assert_eq!(receiver.wait(Duration::from_secs(5)).expect_success().field("received"), Some(10));
//!     pair.assert_no_xdp();
//! }
//! ```

mod artefacts;
mod daemon;
mod netns;
mod process;
mod program;
mod skip;
mod status;

pub use artefacts::{c_program, cdylib, compile_c, tool, workspace};
pub use daemon::{Daemons, daemons_at, open_files};
pub use netns::{End, Namespace, Pair, Veth, Xdp, namespaces_of, real_nics, wire, wire_mtu};
pub use process::{Cmd, Finished, Running, patient, wait_until};
pub use program::{Program, Redirect};
pub use skip::{is_root, skipped};
pub use status::{list, mappings};
