//! The C headers: they say what `netmap_xdp::abi` says, compile without a warning wherever they may be used, and do what
//! programs expect. Nothing here needs netmap, a network or privileges, but gcc and clang, for C and C++, have to be there.

use netmap_xdp::abi;
use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Compilers and languages that the headers must please.
const MATRIX: &[(&str, &str, &[&str])] = &[
    ("gcc", "c", &["c11", "c17", "gnu11", "gnu17"]),
    ("clang", "c", &["c11", "c17", "gnu11", "gnu17"]),
    ("g++", "c++", &["c++11", "c++17", "gnu++17", "c++20"]),
    ("clang++", "c++", &["c++11", "c++17", "gnu++17", "c++20"]),
];
const STRICT: &[&str] = &["-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// What the headers have and the Rust side has no use for.
const C_ONLY: &str = "
    NETMAP_DEVICE_NAME /dev/netmap
    NM_BDG_NAME vale
    NM_IFRDATA_LEN 256
    NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS 2
    nmreq_opt_sync_kloop_eventfds 24
    nmreq_opt_sync_kloop_eventfds.nro_opt 0
    nmreq_opt_sync_kloop_eventfds.eventfds 24
    NM_MORE_PKTS 1
    NM_ERRBUF_SIZE 512
    NM_OPEN_NO_MMAP 262144
    NM_OPEN_IFNAME 524288
    NM_OPEN_ARG1 1048576
    NM_OPEN_ARG2 2097152
    NM_OPEN_ARG3 4194304
    NM_OPEN_RING_CFG 8388608
    nm_pkthdr 56
    nm_pkthdr.ts 0
    nm_pkthdr.caplen 16
    nm_pkthdr.len 20
    nm_pkthdr.flags 24
    nm_pkthdr.d 32
    nm_pkthdr.slot 40
    nm_pkthdr.buf 48
    nm_stat 12
    nm_stat.ps_recv 0
    nm_stat.ps_drop 4
    nm_stat.ps_ifdrop 8
    nm_desc 760
    nm_desc.self 0
    nm_desc.fd 8
    nm_desc.mem 16
    nm_desc.memsize 24
    nm_desc.done_mmap 32
    nm_desc.nifp 40
    nm_desc.first_tx_ring 48
    nm_desc.last_tx_ring 50
    nm_desc.cur_tx_ring 52
    nm_desc.first_rx_ring 54
    nm_desc.last_rx_ring 56
    nm_desc.cur_rx_ring 58
    nm_desc.req 60
    nm_desc.hdr 120
    nm_desc.some_ring 176
    nm_desc.buf_start 184
    nm_desc.buf_end 192
    nm_desc.snaplen 200
    nm_desc.promisc 204
    nm_desc.to_ms 208
    nm_desc.errbuf 216
    nm_desc.if_flags 224
    nm_desc.if_reqcap 228
    nm_desc.if_curcap 232
    nm_desc.st 236
    nm_desc.msg 248
";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn c_source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("c").join(name)
}

/// Where a test may put what it compiles; `name` differs between tests.
fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command that must succeed, and returns its stdout.
fn run_clean(command: &mut Command) -> Vec<u8> {
    let out = run(command);
    assert!(
        out.status.success(),
        "{command:?}: {}\n{}{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    out.stdout
}

/// A compiler with the headers in its path, all warnings on and none allowed.
fn compiler(name: &str) -> Command {
    let mut command = Command::new(name);
    command.args(STRICT).arg("-I").arg(repository().join("compat-c/include"));
    command
}

/// `name value` lines, by name.
fn parse_dump(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.trim().split_once(' '))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The same lines that `c/abi_dump.c` prints, from the Rust side.
fn rust_dump() -> BTreeMap<String, String> {
    let mut lines = parse_dump(C_ONLY);
    macro_rules! put {
        ($name:expr, $value:expr) => {
            assert!(lines.insert($name.to_string(), $value.to_string()).is_none(), "{} twice", $name)
        };
    }
    macro_rules! structures {
        ($($t:ident { $($f:ident),* $(,)? })*) => { $(
            put!(stringify!($t), size_of::<abi::$t>());
            $(put!(concat!(stringify!($t), ".", stringify!($f)), offset_of!(abi::$t, $f));)*
        )* };
    }
    macro_rules! constants {
        ($($c:ident)*) => { $(put!(stringify!($c), abi::$c as u128);)* };
    }

    structures! {
        netmap_slot { buf_idx, len, flags, ptr }
        netmap_ring {
            buf_ofs, num_slots, nr_buf_size, ringid, dir, head, cur, tail, flags, ts, offset_mask, buf_align, sem,
        }
        netmap_if {
            ni_name, ni_version, ni_flags, ni_tx_rings, ni_rx_rings, ni_bufs_head, ni_host_tx_rings, ni_host_rx_rings,
            ni_spare1,
        }
        timeval { tv_sec, tv_usec }
        nmreq {
            nr_name, nr_version, nr_offset, nr_memsize, nr_tx_slots, nr_rx_slots, nr_tx_rings, nr_rx_rings, nr_ringid,
            nr_cmd, nr_arg1, nr_arg2, nr_arg3, nr_flags, spare2,
        }
        nm_ifreq { nifr_name, data }
        nmreq_header { nr_version, nr_reqtype, nr_reserved, nr_name, nr_options, nr_body }
        nmreq_option { nro_next, nro_reqtype, nro_status, nro_size }
        nmreq_register {
            nr_offset, nr_memsize, nr_tx_slots, nr_rx_slots, nr_tx_rings, nr_rx_rings, nr_host_tx_rings,
            nr_host_rx_rings, nr_mem_id, nr_ringid, nr_mode, nr_extra_bufs, nr_flags,
        }
        nmreq_port_info_get {
            nr_memsize, nr_tx_slots, nr_rx_slots, nr_tx_rings, nr_rx_rings, nr_host_tx_rings, nr_host_rx_rings,
            nr_mem_id, pad,
        }
        nmreq_vale_attach { reg, port_index, pad1 }
        nmreq_vale_detach { port_index, pad1 }
        nmreq_vale_list { nr_bridge_idx, pad1, nr_port_idx }
        nmreq_port_hdr { nr_hdr_len, pad1 }
        nmreq_vale_newif { nr_tx_slots, nr_rx_slots, nr_tx_rings, nr_rx_rings, nr_mem_id, pad1 }
        nmreq_vale_polling { nr_mode, nr_first_cpu_id, nr_num_polling_cpus, pad1 }
        nmreq_pools_info {
            nr_memsize, nr_mem_id, pad1, nr_if_pool_offset, nr_if_pool_objtotal, nr_if_pool_objsize,
            nr_ring_pool_offset, nr_ring_pool_objtotal, nr_ring_pool_objsize, nr_buf_pool_offset,
            nr_buf_pool_objtotal, nr_buf_pool_objsize,
        }
        nmreq_sync_kloop_start { sleep_us, pad1 }
        nm_csb_atok { head, cur, appl_need_kick, sync_flags, pad }
        nm_csb_ktoa { hwcur, hwtail, kern_need_kick, pad }
        nmreq_opt_sync_kloop_mode { nro_opt, mode }
        nmreq_opt_extmem { nro_opt, nro_usrptr, nro_info }
        nmreq_opt_csb { nro_opt, csb_atok, csb_ktoa }
        nmreq_opt_offsets { nro_opt, nro_max_offset, nro_initial_offset, nro_offset_bits, nro_tx_align, nro_min_gap }
    }
    // The arrays at the end, which Rust reaches by size.
    put!("netmap_ring.slot", size_of::<abi::netmap_ring>());
    put!("netmap_if.ring_ofs", size_of::<abi::netmap_if>());

    constants! {
        NETMAP_API NETMAP_MIN_API NETMAP_MAX_API NM_CACHE_ALIGN IFNAMSIZ NETMAP_REQ_IFNAMSIZ NETMAP_REQ_MAXSIZE
        NETMAP_MAX_FRAGS
        NS_BUF_CHANGED NS_REPORT NS_FORWARD NS_NO_LEARN NS_INDIRECT NS_MOREFRAG NS_TXMON NS_PORT_SHIFT NS_PORT_MASK
        NR_TIMESTAMP NR_FORWARD NI_PRIV_MEM
        NR_MONITOR_TX NR_MONITOR_RX NR_ZCOPY_MON NR_EXCLUSIVE NR_RX_RINGS_ONLY NR_TX_RINGS_ONLY NR_ACCEPT_VNET_HDR
        NR_DO_RX_POLL NR_NO_TX_POLL
        NR_REG_DEFAULT NR_REG_ALL_NIC NR_REG_SW NR_REG_NIC_SW NR_REG_ONE_NIC NR_REG_PIPE_MASTER NR_REG_PIPE_SLAVE
        NR_REG_NULL NR_REG_ONE_SW NR_REG_MASK
        NETMAP_REQ_REGISTER NETMAP_REQ_PORT_INFO_GET NETMAP_REQ_VALE_ATTACH NETMAP_REQ_VALE_DETACH
        NETMAP_REQ_VALE_LIST NETMAP_REQ_PORT_HDR_SET NETMAP_REQ_PORT_HDR_GET NETMAP_REQ_VALE_NEWIF
        NETMAP_REQ_VALE_DELIF NETMAP_REQ_VALE_POLLING_ENABLE NETMAP_REQ_VALE_POLLING_DISABLE
        NETMAP_REQ_POOLS_INFO_GET NETMAP_REQ_SYNC_KLOOP_START NETMAP_REQ_SYNC_KLOOP_STOP NETMAP_REQ_CSB_ENABLE
        NETMAP_REQ_OPT_EXTMEM NETMAP_REQ_OPT_CSB NETMAP_REQ_OPT_SYNC_KLOOP_MODE NETMAP_REQ_OPT_OFFSETS
        NETMAP_REQ_OPT_MAX
        NM_OPT_SYNC_KLOOP_DIRECT_TX NM_OPT_SYNC_KLOOP_DIRECT_RX
        NETMAP_POLLING_MODE_SINGLE_CPU NETMAP_POLLING_MODE_MULTI_CPU
        NETMAP_HW_RING NETMAP_SW_RING NETMAP_NO_TX_POLL NETMAP_DO_RX_POLL NETMAP_RING_MASK
        NETMAP_BDG_ATTACH NETMAP_BDG_DETACH NETMAP_BDG_REGOPS NETMAP_BDG_LIST NETMAP_BDG_VNET_HDR NETMAP_BDG_NEWIF
        NETMAP_BDG_DELIF NETMAP_PT_HOST_CREATE NETMAP_PT_HOST_DELETE NETMAP_BDG_POLLING_ON NETMAP_BDG_POLLING_OFF
        NETMAP_VNET_HDR_GET NETMAP_BDG_HOST
        NIOCCTRL NIOCTXSYNC NIOCRXSYNC NIOCGINFO NIOCREGIF NIOCCONFIG
    }
    lines
}

#[test]
fn c_and_rust_have_the_same_abi() {
    let rust = rust_dump();
    assert_eq!(rust["NETMAP_DEVICE_NAME"], abi::NETMAP_DEVICE_NAME);
    for &(name, language, standards) in MATRIX {
        let program = scratch(&format!("abi_dump-{name}"));
        run_clean(
            compiler(name)
                .args(["-x", language, &format!("-std={}", standards[0])])
                .arg(c_source("abi_dump.c"))
                .arg("-o")
                .arg(&program),
        );
        let c = parse_dump(&String::from_utf8(run_clean(&mut Command::new(&program))).unwrap());
        let names: std::collections::BTreeSet<_> = c.keys().chain(rust.keys()).collect();
        let differences: Vec<_> = names
            .into_iter()
            .filter(|&key| c.get(key) != rust.get(key))
            .map(|key| format!("{key}: C has {:?}, Rust has {:?}", c.get(key), rust.get(key)))
            .collect();
        assert!(differences.is_empty(), "{name}:\n{}", differences.join("\n"));
    }
}

/// Each header is the first and only one that a file includes.
#[test]
fn headers_compile_without_a_warning() {
    std::thread::scope(|scope| {
        for &(name, language, standards) in MATRIX {
            scope.spawn(move || {
                for standard in standards {
                    for header in ["netmap.h", "netmap_legacy.h", "netmap_user.h", "netmap_virt.h"] {
                        for define in ["-UNETMAP_WITH_LIBS", "-DNETMAP_WITH_LIBS"] {
                            run_clean(compiler(name).args([
                                &format!("-std={standard}"),
                                define,
                                "-include",
                                &format!("net/{header}"),
                                "-x",
                                language,
                                "-c",
                                "/dev/null",
                                "-o",
                                "/dev/null",
                            ]));
                        }
                    }
                }
            });
        }
    });
}

/// The checks themselves are in the C file.
#[test]
fn macros_and_library_behave() {
    for name in ["gcc", "clang"] {
        let program = scratch(&format!("user_macros-{name}"));
        run_clean(compiler(name).arg("-std=gnu11").arg(c_source("user_macros.c")).arg("-o").arg(&program));
        run_clean(&mut Command::new(&program));
    }
}

#[test]
fn examples_compile_and_explain_themselves() {
    for name in ["nm-recv", "nm-send", "nm-forward"] {
        let program = scratch(name);
        for cc in ["clang", "gcc"] {
            let source = repository().join("compat-c/examples").join(name).with_extension("c");
            run_clean(compiler(cc).arg(source).arg("-o").arg(&program));
        }
        let help = run_clean(Command::new(&program).arg("-h"));
        assert!(String::from_utf8(help).unwrap().starts_with(&format!("usage: {name} -i PORT")));
        assert_eq!(run(&mut Command::new(&program)).status.code(), Some(2));

        let foreign = run(Command::new(&program).args(["-i", "eth0"]).args((name == "nm-forward").then_some("-ieth1")));
        assert_eq!(foreign.status.code(), Some(1));
        assert_eq!(String::from_utf8(foreign.stderr).unwrap(), "eth0: not a netmap name\n");
    }
}

#[test]
fn pattern_is_the_documented_one() {
    let program = scratch("pattern");
    run_clean(
        compiler("cc")
            .arg("-I")
            .arg(repository().join("compat-c/examples"))
            .arg(c_source("pattern.c"))
            .arg("-o")
            .arg(&program),
    );
    let out = run_clean(&mut Command::new(&program));

    let mut expected = Vec::new();
    for seq in [0, 1, 255, 256, 65537, 0x1234_5678_9abc_def0_u64] {
        for len in [28, 60, 1514, 9000_u16] {
            expected.extend(len.to_be_bytes());
            expected.extend([0xff; 6]);
            expected.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
            expected.extend(0x4e4d_5844_u32.to_be_bytes());
            expected.extend(seq.to_be_bytes());
            expected.extend(len.to_be_bytes());
            expected
                .extend((28..u64::from(len)).map(|i| (seq.wrapping_mul(31).wrapping_add(i * 7) + (seq >> 8)) as u8));
        }
    }
    assert!(out == expected, "the frames of pattern.h differ from the format");
}
