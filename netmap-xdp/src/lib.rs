//! The netmap API on stock Linux kernels, carried by AF_XDP.
//!
//! # Layers
//!
//! A module uses only the layers below its own; `tests/tests/layers.rs` reads the `use` lines and fails on an edge that
//! goes up or sideways.
//!
//! | layer | modules | job |
//! |---|---|---|
//! | L0 | [`sync`], [`index`], [`abi`], [`sys`] | atomics, the two kinds of ring index, netmap.h facts, system calls |
//! | L1 | [`shm`] | mapped memory that others write: checked offsets, layout, allocation |
//! | L2 | [`ring`], [`xsk`] | netmap cursors and private ring state; AF_XDP sockets and the XDP program |
//! | L3 | [`port`] | what a sync does, per kind of port |
//! | L4 | [`ctl`] | an untrusted request becomes a typed one; an error becomes an errno |
//! | L5 | [`engine`] | the registry: regions, ports, grants |
//! | L6 | [`proto`] | what client and daemon say to each other |
//! | L7 | [`client`], [`daemon`] | netmap file descriptors of this process, waiting; the engine for all processes |
//! | L8 | [`api`] | the safe Rust API |
//!
//! The interposed C symbols live in the crate in `compat-c/`, not here: an exported `close` in a library crate would
//! interpose every Rust program that links it.
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "plain C data: raw pointers are never followed here, only layouts are asserted")]
pub mod abi;
pub mod index;
pub mod sync;
#[expect(unsafe_code, reason = "the system calls themselves")]
pub mod sys;

#[allow(unsafe_code, reason = "views of mapped memory")]
pub mod shm;

pub mod ring;
#[allow(unsafe_code, reason = "the rings that the kernel maps")]
pub mod xsk;

pub mod port;

pub mod ctl;

pub mod engine;

pub mod proto;

pub mod daemon;

pub mod client;

pub mod api;
