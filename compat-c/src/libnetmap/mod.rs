//! libnetmap: the C library that opens ports by name (`nmport_open("netmap:eth0-2/R")`), as `libnetmap.h` declares it.
//!
//! A program that was compiled against the original's header, or ours, links with this library and runs: functions,
//! structures and the language of names are the same. What the library opens and maps goes through the shims of this
//! crate, as if the program itself had called `open`, `ioctl`, `mmap` and `close`; so it makes no difference whether the
//! program is linked with the library or runs with it preloaded.
//!
//! | file | job |
//! |---|---|
//! | `exports` | the table of all functions, and the border that each call crosses |
//! | `types` | the structures that C programs see |
//! | `context` | contexts: messages, memory, the lock; the default context |
//! | `variadic` | `nmctx_ferror`, which takes arguments like printf |
//! | `name` | port names: which port, which rings |
//! | `options` | option lists of requests; `@option` in names, by parsers of the library or of the program |
//! | `parsers` | the parsers of the library: share, extmem, conf, offset |
//! | `port` | the life of a port: new, parse, register, open, clone, close |
//! | `cleanup` | what a port has to undo in the end: extmem and offsets |
//! | `region` | mapped regions, one per memory id and context |
//! | `inject` | sending a packet |
//!
//! # Who owns what
//! Descriptors, options and regions are allocated with the functions of a context (malloc and free by default), belong to
//! the program and are freed by it through this API. The only data of the library are the default context and whether an
//! option is enabled. Fields that programs write are `Cell`s behind shared references, since callbacks may come back and
//! change them; a port belongs to one thread at a time, the list of regions of a context to whoever holds its lock.
//!
//! # Names
//! `netmap_xdp::ctl` has a parser of the same language for Rust programs, which refuses nonsense and says where it is. This
//! one keeps to the original, byte by byte: it stops where the original stops, takes numbers as `atoi` does, hands option
//! values to callbacks as C strings, and gives the same errno.
//!
//! # Differences from the original
//! - The default context is thread-safe from the start, and so is a copy of it: the lock is one for all.
//! - NULL where a port, a context or a string is expected fails with EINVAL, or does nothing.
//! - After a failed `nmport_parse`, or `nmport_undo_parse`, a port is as `nmport_new` made it, so that another name can be
//!   tried; the original leaves a zeroed header that can no longer be registered.
//! - A failed `nmport_mmap` leaks nothing. Ring tables and packets that would lie outside of the mapping are refused.
//! - A key without `=value` at the end of an option is an error; the original reads behind the end of the string.
//! - `nmport_inject` honours packet offsets, and never touches a full ring.
//! - A port without any transmit (or receive) ring has an empty interval of them.

mod cleanup;
mod context;
mod exports;
mod inject;
mod name;
mod options;
mod parsers;
mod port;
mod region;
mod types;
mod variadic;
