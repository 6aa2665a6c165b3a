/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Prints the ABI that the headers declare, one "name value" per line: sizes of structures, offsets of their fields,
 * constants and ioctl numbers. tests/tests/abi.rs compares the lines with the Rust side. It compiles as C and as C++,
 * and against the original's headers too.
 */
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>
#include <stddef.h>

#define T(type) printf("%s %zu\n", #type, sizeof(struct type));
#define F(type, field) printf("%s.%s %zu\n", #type, #field, offsetof(struct type, field));
#define C(name) printf("%s %llu\n", #name, (unsigned long long)(name));

/* S(type, fields): one structure of up to 15 fields. */
#define S1(t, f) F(t, f)
#define S2(t, f, ...) F(t, f) S1(t, __VA_ARGS__)
#define S3(t, f, ...) F(t, f) S2(t, __VA_ARGS__)
#define S4(t, f, ...) F(t, f) S3(t, __VA_ARGS__)
#define S5(t, f, ...) F(t, f) S4(t, __VA_ARGS__)
#define S6(t, f, ...) F(t, f) S5(t, __VA_ARGS__)
#define S7(t, f, ...) F(t, f) S6(t, __VA_ARGS__)
#define S8(t, f, ...) F(t, f) S7(t, __VA_ARGS__)
#define S9(t, f, ...) F(t, f) S8(t, __VA_ARGS__)
#define S10(t, f, ...) F(t, f) S9(t, __VA_ARGS__)
#define S11(t, f, ...) F(t, f) S10(t, __VA_ARGS__)
#define S12(t, f, ...) F(t, f) S11(t, __VA_ARGS__)
#define S13(t, f, ...) F(t, f) S12(t, __VA_ARGS__)
#define S14(t, f, ...) F(t, f) S13(t, __VA_ARGS__)
#define S15(t, f, ...) F(t, f) S14(t, __VA_ARGS__)
#define S(n, t, ...) T(t) S##n(t, __VA_ARGS__)

static void
structures(void)
{
    S(4, netmap_slot, buf_idx, len, flags, ptr)
    S(14, netmap_ring, buf_ofs, num_slots, nr_buf_size, ringid, dir, head, cur, tail, flags, ts, offset_mask, buf_align,
        sem, slot)
    S(10, netmap_if, ni_name, ni_version, ni_flags, ni_tx_rings, ni_rx_rings, ni_bufs_head, ni_host_tx_rings,
        ni_host_rx_rings, ni_spare1, ring_ofs)
    S(2, timeval, tv_sec, tv_usec)

    S(15, nmreq, nr_name, nr_version, nr_offset, nr_memsize, nr_tx_slots, nr_rx_slots, nr_tx_rings, nr_rx_rings,
        nr_ringid, nr_cmd, nr_arg1, nr_arg2, nr_arg3, nr_flags, spare2)
    S(2, nm_ifreq, nifr_name, data)

    S(6, nmreq_header, nr_version, nr_reqtype, nr_reserved, nr_name, nr_options, nr_body)
    S(4, nmreq_option, nro_next, nro_reqtype, nro_status, nro_size)
    S(13, nmreq_register, nr_offset, nr_memsize, nr_tx_slots, nr_rx_slots, nr_tx_rings, nr_rx_rings, nr_host_tx_rings,
        nr_host_rx_rings, nr_mem_id, nr_ringid, nr_mode, nr_extra_bufs, nr_flags)
    S(9, nmreq_port_info_get, nr_memsize, nr_tx_slots, nr_rx_slots, nr_tx_rings, nr_rx_rings, nr_host_tx_rings,
        nr_host_rx_rings, nr_mem_id, pad)
    S(3, nmreq_vale_attach, reg, port_index, pad1)
    S(2, nmreq_vale_detach, port_index, pad1)
    S(3, nmreq_vale_list, nr_bridge_idx, pad1, nr_port_idx)
    S(2, nmreq_port_hdr, nr_hdr_len, pad1)
    S(6, nmreq_vale_newif, nr_tx_slots, nr_rx_slots, nr_tx_rings, nr_rx_rings, nr_mem_id, pad1)
    S(4, nmreq_vale_polling, nr_mode, nr_first_cpu_id, nr_num_polling_cpus, pad1)
    S(12, nmreq_pools_info, nr_memsize, nr_mem_id, pad1, nr_if_pool_offset, nr_if_pool_objtotal, nr_if_pool_objsize,
        nr_ring_pool_offset, nr_ring_pool_objtotal, nr_ring_pool_objsize, nr_buf_pool_offset, nr_buf_pool_objtotal,
        nr_buf_pool_objsize)
    S(2, nmreq_sync_kloop_start, sleep_us, pad1)
    S(5, nm_csb_atok, head, cur, appl_need_kick, sync_flags, pad)
    S(4, nm_csb_ktoa, hwcur, hwtail, kern_need_kick, pad)
    S(2, nmreq_opt_sync_kloop_eventfds, nro_opt, eventfds)
    S(2, nmreq_opt_sync_kloop_mode, nro_opt, mode)
    S(3, nmreq_opt_extmem, nro_opt, nro_usrptr, nro_info)
    S(3, nmreq_opt_csb, nro_opt, csb_atok, csb_ktoa)
    S(6, nmreq_opt_offsets, nro_opt, nro_max_offset, nro_initial_offset, nro_offset_bits, nro_tx_align, nro_min_gap)

    S(7, nm_pkthdr, ts, caplen, len, flags, d, slot, buf)
    S(3, nm_stat, ps_recv, ps_drop, ps_ifdrop)
    S(14, nm_desc, self, fd, mem, memsize, done_mmap, nifp, first_tx_ring, last_tx_ring, cur_tx_ring, first_rx_ring,
        last_rx_ring, cur_rx_ring, req, hdr)
    S11(nm_desc, some_ring, buf_start, buf_end, snaplen, promisc, to_ms, errbuf, if_flags, if_reqcap, if_curcap, st)
    F(nm_desc, msg)
}

static void
constants(void)
{
    C(NETMAP_API) C(NETMAP_MIN_API) C(NETMAP_MAX_API) C(NM_CACHE_ALIGN) C(IFNAMSIZ) C(NETMAP_REQ_IFNAMSIZ)
    C(NETMAP_REQ_MAXSIZE) C(NETMAP_MAX_FRAGS) C(NM_IFRDATA_LEN)

    C(NS_BUF_CHANGED) C(NS_REPORT) C(NS_FORWARD) C(NS_NO_LEARN) C(NS_INDIRECT) C(NS_MOREFRAG) C(NS_TXMON)
    C(NS_PORT_SHIFT) C(NS_PORT_MASK)
    C(NR_TIMESTAMP) C(NR_FORWARD) C(NI_PRIV_MEM)

    C(NR_MONITOR_TX) C(NR_MONITOR_RX) C(NR_ZCOPY_MON) C(NR_EXCLUSIVE) C(NR_RX_RINGS_ONLY) C(NR_TX_RINGS_ONLY)
    C(NR_ACCEPT_VNET_HDR) C(NR_DO_RX_POLL) C(NR_NO_TX_POLL)
    C(NR_REG_DEFAULT) C(NR_REG_ALL_NIC) C(NR_REG_SW) C(NR_REG_NIC_SW) C(NR_REG_ONE_NIC) C(NR_REG_PIPE_MASTER)
    C(NR_REG_PIPE_SLAVE) C(NR_REG_NULL) C(NR_REG_ONE_SW) C(NR_REG_MASK)

    C(NETMAP_REQ_REGISTER) C(NETMAP_REQ_PORT_INFO_GET) C(NETMAP_REQ_VALE_ATTACH) C(NETMAP_REQ_VALE_DETACH)
    C(NETMAP_REQ_VALE_LIST) C(NETMAP_REQ_PORT_HDR_SET) C(NETMAP_REQ_PORT_HDR_GET) C(NETMAP_REQ_VALE_NEWIF)
    C(NETMAP_REQ_VALE_DELIF) C(NETMAP_REQ_VALE_POLLING_ENABLE) C(NETMAP_REQ_VALE_POLLING_DISABLE)
    C(NETMAP_REQ_POOLS_INFO_GET) C(NETMAP_REQ_SYNC_KLOOP_START) C(NETMAP_REQ_SYNC_KLOOP_STOP) C(NETMAP_REQ_CSB_ENABLE)
    C(NETMAP_REQ_OPT_EXTMEM) C(NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS) C(NETMAP_REQ_OPT_CSB)
    C(NETMAP_REQ_OPT_SYNC_KLOOP_MODE) C(NETMAP_REQ_OPT_OFFSETS) C(NETMAP_REQ_OPT_MAX)
    C(NM_OPT_SYNC_KLOOP_DIRECT_TX) C(NM_OPT_SYNC_KLOOP_DIRECT_RX)
    C(NETMAP_POLLING_MODE_SINGLE_CPU) C(NETMAP_POLLING_MODE_MULTI_CPU)

    C(NETMAP_HW_RING) C(NETMAP_SW_RING) C(NETMAP_NO_TX_POLL) C(NETMAP_DO_RX_POLL) C(NETMAP_RING_MASK)
    C(NETMAP_BDG_ATTACH) C(NETMAP_BDG_DETACH) C(NETMAP_BDG_REGOPS) C(NETMAP_BDG_LIST) C(NETMAP_BDG_VNET_HDR)
    C(NETMAP_BDG_NEWIF) C(NETMAP_BDG_DELIF) C(NETMAP_PT_HOST_CREATE) C(NETMAP_PT_HOST_DELETE) C(NETMAP_BDG_POLLING_ON)
    C(NETMAP_BDG_POLLING_OFF) C(NETMAP_VNET_HDR_GET) C(NETMAP_BDG_HOST)

    C(NIOCCTRL) C(NIOCTXSYNC) C(NIOCRXSYNC) C(NIOCGINFO) C(NIOCREGIF) C(NIOCCONFIG)

    C(NM_MORE_PKTS) C(NM_ERRBUF_SIZE) C(NM_OPEN_NO_MMAP) C(NM_OPEN_IFNAME) C(NM_OPEN_ARG1) C(NM_OPEN_ARG2)
    C(NM_OPEN_ARG3) C(NM_OPEN_RING_CFG)

    printf("NETMAP_DEVICE_NAME %s\n", NETMAP_DEVICE_NAME);
    printf("NM_BDG_NAME %s\n", NM_BDG_NAME);
}

int
main(void)
{
    structures();
    constants();
    return 0;
}
