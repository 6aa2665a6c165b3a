/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * net/netmap.h: the netmap API, version 14, for Linux.
 *
 * What a program and the engine share: the layout of rings and slots in the mapped region, and the requests of the
 * control device. Nothing here moves a packet. Helpers for programs are in net/netmap_user.h.
 *
 * Names, numbers and layouts are netmap's and never change; tests/tests/abi.rs compares them with the Rust side.
 * Unlike the original, this file needs no other header included before it.
 */
#ifndef _NET_NETMAP_H_
#define _NET_NETMAP_H_

#include <linux/ioctl.h>
#include <stdint.h>
#include <sys/time.h>
#include <sys/types.h>
#ifndef IFNAMSIZ /* <linux/if.h> has it too, and cannot be followed by <net/if.h> */
#include <net/if.h>
#endif
#ifndef IFNAMSIZ /* <net/if.h> keeps the name to itself in strict ISO modes */
#define IFNAMSIZ 16
#endif

/* Arrays at the end of structures are C, and C++ compilers have them too, but clang++ wants to be asked. */
#if defined(__clang__) && defined(__cplusplus)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wc99-extensions"
#endif

/* Version that requests carry, and the range that NIOCCTRL accepts. */
#define NETMAP_API 14
#define NETMAP_MIN_API 14
#define NETMAP_MAX_API 15

/* Alignment that keeps the two sides of a structure on cache lines of their own. */
#define NM_CACHE_ALIGN 128

/* ---------------------------------------------------------------------------------------------------------------------
 * The mapped region
 *
 * mmap() of a netmap fd gives one region; nr_offset of the registration leads to the netmap_if of the fd:
 *
 *    netmap_if --ring_ofs[k]--> netmap_ring --slot[i].buf_idx--> buffer
 *
 * Nothing in it is a pointer. Each step is an offset from the object before it, so that every process may map the
 * region where it likes. All ports with the same memory id live in one region and may exchange buffers by exchanging
 * buf_idx.
 */

struct netmap_slot {
    uint32_t buf_idx; /* which buffer; 0 and 1 are never valid */
    uint16_t len;     /* bytes of the packet in this buffer */
    uint16_t flags;   /* NS_* */
    uint64_t ptr;     /* NS_INDIRECT: address of the data; with offsets: where the packet starts; else the program's */
};

/* netmap_slot.flags */
#define NS_BUF_CHANGED 0x0001 /* buf_idx is another one than before; whoever exchanges a buffer sets it */
#define NS_REPORT 0x0002      /* transmit: complete this slot without delay */
#define NS_FORWARD 0x0004     /* receive, with NR_FORWARD: on release, hand the packet to the other side, NIC or host */
#define NS_NO_LEARN 0x0008    /* VALE: take no notice of the source address */
#define NS_INDIRECT 0x0010    /* VALE transmit: the data is not in the buffer but where ptr says */
#define NS_MOREFRAG 0x0020    /* the next slot continues this packet */
#define NS_TXMON 0x0040       /* monitor: the packet was seen in a transmit ring */

/* The upper byte of flags: VALE transmit, a port to send to whatever the switch learned; VALE receive, how many slots
 * the packet has. */
#define NS_PORT_SHIFT 8
#define NS_PORT_MASK 0xff00
#define NS_RFRAGS(_slot) (((_slot)->flags & NS_PORT_MASK) >> NS_PORT_SHIFT)

/* Most slots that one packet may take. */
#define NETMAP_MAX_FRAGS 64

/*
 * A ring. The slots from head up to, not including, tail are the program's; all others are the engine's. The program
 * hands slots over by advancing head: filled ones on a transmit ring, emptied ones on a receive ring. cur, somewhere
 * from head to tail, is where it goes to sleep: poll() returns once tail has passed it. The engine moves tail, and
 * only within calls that the program makes.
 */
struct netmap_ring {
    const int64_t buf_ofs;      /* from here to buffer 0, in bytes */
    const uint32_t num_slots;   /* length of slot[] */
    const uint32_t nr_buf_size; /* what a buffer holds, and the distance from one to the next */
    const uint16_t ringid;      /* index among its kind */
    const uint16_t dir;         /* 0 transmit, 1 receive */

    uint32_t head; /* program: first slot it keeps */
    uint32_t cur;  /* program: wakeup point */
    uint32_t tail; /* engine: first slot it keeps */

    uint32_t flags; /* program: NR_TIMESTAMP, NR_FORWARD */

    struct timeval ts; /* engine: time of the last sync */

    const uint64_t offset_mask; /* bits of slot.ptr that hold an offset; 0 unless NETMAP_REQ_OPT_OFFSETS was used */
    const uint64_t buf_align;   /* alignment that a transmitted packet must have within its buffer */

    uint8_t __attribute__((__aligned__(NM_CACHE_ALIGN))) sem[128]; /* the program may put a lock here */

    __extension__ struct netmap_slot slot[];
};

/* netmap_ring.flags */
#define NR_TIMESTAMP 0x0002 /* store the time in ts at every sync */
#define NR_FORWARD 0x0004   /* honour NS_FORWARD */

/* True when no slot is the program's: nothing received, or no room to send. */
static inline int
nm_ring_empty(const struct netmap_ring *ring)
{
    return ring->tail == ring->head;
}

/* The rings of one fd, to be read only, but for ni_bufs_head. */
struct netmap_if {
    char ni_name[IFNAMSIZ];
    const uint32_t ni_version;
    const uint32_t ni_flags; /* NI_PRIV_MEM */

    const uint32_t ni_tx_rings; /* rings of the NIC; host rings are counted apart */
    const uint32_t ni_rx_rings;

    uint32_t ni_bufs_head; /* first extra buffer; the first uint32_t of each is the index of the next, or 0 */

    const uint32_t ni_host_tx_rings;
    const uint32_t ni_host_rx_rings;

    uint32_t ni_spare1[3];

    /* Distance of each ring from this structure: NIC transmit, host transmit, NIC receive, host receive. 0 for a ring
     * that the fd did not ask for. */
    __extension__ const ssize_t ring_ofs[];
};

/* netmap_if.ni_flags */
#define NI_PRIV_MEM 0x1 /* the port has a region of its own */

/* ---------------------------------------------------------------------------------------------------------------------
 * Control
 *
 * ioctl(fd, NIOCCTRL, &header): the header names a port and a request, and points to the body of that request and to
 * a list of options. NIOCTXSYNC and NIOCRXSYNC hand slots over in both directions, without waiting. The requests of
 * older programs are in netmap_legacy.h.
 */

#include "netmap_legacy.h"

/* Longest port name, with its NUL. */
#define NETMAP_REQ_IFNAMSIZ 64

/* Most bytes of a request with its options. */
#define NETMAP_REQ_MAXSIZE 4096

/* A port with this prefix belongs to a VALE switch. */
#define NM_BDG_NAME "vale"

struct nmreq_option {
    uint64_t nro_next;    /* address of the next option, 0 for the last */
    uint32_t nro_reqtype; /* NETMAP_REQ_OPT_* */
    uint32_t nro_status;  /* out: 0, or the errno of this option */
    uint64_t nro_size;    /* bytes of an option that ends in an array; 0 for the others */
};

struct nmreq_header {
    uint16_t nr_version;  /* in: NETMAP_API; out: what the engine speaks */
    uint16_t nr_reqtype;  /* NETMAP_REQ_* */
    uint32_t nr_reserved; /* 0 */
    char nr_name[NETMAP_REQ_IFNAMSIZ];
    uint64_t nr_options; /* address of the first option, or 0 */
    uint64_t nr_body;    /* address of the body, or 0 */
};

#define NIOCTXSYNC _IO('i', 148)
#define NIOCRXSYNC _IO('i', 149)
#define NIOCCTRL _IOWR('i', 151, struct nmreq_header)

/* nmreq_header.nr_reqtype. "Any fd": the fd need not be registered. */
enum {
    NETMAP_REQ_REGISTER = 1,              /* nmreq_register: bind the fd to rings of a port */
    NETMAP_REQ_PORT_INFO_GET = 2,         /* nmreq_port_info_get: describe a port, any fd */
    NETMAP_REQ_VALE_ATTACH = 3,           /* nmreq_vale_attach: put a NIC on a switch, any fd */
    NETMAP_REQ_VALE_DETACH = 4,           /* nmreq_vale_detach: take it off again, any fd */
    NETMAP_REQ_VALE_LIST = 5,             /* nmreq_vale_list: walk switches and their ports, any fd */
    NETMAP_REQ_PORT_HDR_SET = 6,          /* nmreq_port_hdr: length of the virtio-net header, any fd */
    NETMAP_REQ_PORT_HDR_GET = 7,          /* nmreq_port_hdr */
    NETMAP_REQ_VALE_NEWIF = 8,            /* nmreq_vale_newif: make a switch port that outlives its users */
    NETMAP_REQ_VALE_DELIF = 9,            /* no body: delete such a port */
    NETMAP_REQ_VALE_POLLING_ENABLE = 10,  /* nmreq_vale_polling: serve an attached port by busy threads */
    NETMAP_REQ_VALE_POLLING_DISABLE = 11, /* nmreq_vale_polling: end them */
    NETMAP_REQ_POOLS_INFO_GET = 12,       /* nmreq_pools_info: where a region keeps what, any fd */
    NETMAP_REQ_SYNC_KLOOP_START = 13,     /* nmreq_sync_kloop_start: sync in this call until told to stop */
    NETMAP_REQ_SYNC_KLOOP_STOP = 14,      /* no body: tell it */
    NETMAP_REQ_CSB_ENABLE = 15            /* no body: exchange cursors through the CSB option's memory */
};

/* nmreq_option.nro_reqtype */
enum {
    NETMAP_REQ_OPT_EXTMEM = 1,              /* nmreq_opt_extmem, for REGISTER */
    NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS = 2, /* nmreq_opt_sync_kloop_eventfds, for SYNC_KLOOP_START */
    NETMAP_REQ_OPT_CSB = 3,                 /* nmreq_opt_csb, for REGISTER and CSB_ENABLE */
    NETMAP_REQ_OPT_SYNC_KLOOP_MODE = 4,     /* nmreq_opt_sync_kloop_mode, for SYNC_KLOOP_START */
    NETMAP_REQ_OPT_OFFSETS = 5,             /* nmreq_opt_offsets, for REGISTER */
    NETMAP_REQ_OPT_MAX = 6                  /* one more than the last of them */
};

/* Body of NETMAP_REQ_REGISTER. */
struct nmreq_register {
    uint64_t nr_offset;        /* out: the netmap_if, from the start of the region */
    uint64_t nr_memsize;       /* out: bytes to map */
    uint32_t nr_tx_slots;      /* in: slots wished for, 0 for any; out: slots there are. So for all the counts below */
    uint32_t nr_rx_slots;
    uint16_t nr_tx_rings;
    uint16_t nr_rx_rings;
    uint16_t nr_host_tx_rings;
    uint16_t nr_host_rx_rings;
    uint16_t nr_mem_id;        /* in: region wished for, 0 for any; out: region it is in */
    uint16_t nr_ringid;        /* NR_REG_ONE_NIC, NR_REG_ONE_SW: which ring */
    uint32_t nr_mode;          /* NR_REG_* */
    uint32_t nr_extra_bufs;    /* in: extra buffers wished for; out: got */
    uint64_t nr_flags;         /* NR_* below */
};

/* nmreq_register.nr_mode: which rings */
enum {
    NR_REG_DEFAULT = 0,     /* for requests from before there were modes */
    NR_REG_ALL_NIC = 1,     /* all of the NIC */
    NR_REG_SW = 2,          /* those of the host */
    NR_REG_NIC_SW = 3,      /* both */
    NR_REG_ONE_NIC = 4,     /* one pair of the NIC */
    NR_REG_PIPE_MASTER = 5, /* deprecated: a name with a brace says it */
    NR_REG_PIPE_SLAVE = 6,  /* deprecated */
    NR_REG_NULL = 7,        /* rings that nothing is behind */
    NR_REG_ONE_SW = 8       /* one pair of the host */
};

/* nmreq_register.nr_flags. Monitors see the rings that mode and ringid select. */
#define NR_MONITOR_TX 0x100       /* see what they send */
#define NR_MONITOR_RX 0x200       /* see what they receive */
#define NR_ZCOPY_MON 0x400        /* see it without a copy */
#define NR_EXCLUSIVE 0x800        /* share the rings with nobody */
#define NR_RX_RINGS_ONLY 0x2000   /* bind only the receive side */
#define NR_TX_RINGS_ONLY 0x4000   /* bind only the transmit side */
#define NR_ACCEPT_VNET_HDR 0x8000 /* the program copes with virtio-net headers in front of frames */
#define NR_DO_RX_POLL 0x10000     /* poll() syncs receive rings even when not asked for POLLIN */
#define NR_NO_TX_POLL 0x20000     /* poll() syncs transmit rings only when asked for POLLOUT */

/* Body of NETMAP_REQ_PORT_INFO_GET. All out, but nr_mem_id, which may ask for a region. */
struct nmreq_port_info_get {
    uint64_t nr_memsize;
    uint32_t nr_tx_slots;
    uint32_t nr_rx_slots;
    uint16_t nr_tx_rings;
    uint16_t nr_rx_rings;
    uint16_t nr_host_tx_rings;
    uint16_t nr_host_rx_rings;
    uint16_t nr_mem_id;
    uint16_t pad[3];
};

/* Body of NETMAP_REQ_VALE_ATTACH, with "valeS:IF" as the name in the header. */
struct nmreq_vale_attach {
    struct nmreq_register reg; /* how to open the NIC */
    uint32_t port_index;       /* out: its number on the switch */
    uint32_t pad1;
};

/* Body of NETMAP_REQ_VALE_DETACH. */
struct nmreq_vale_detach {
    uint32_t port_index; /* out: the number it had */
    uint32_t pad1;
};

/* Body of NETMAP_REQ_VALE_LIST: a name asks for its numbers; no name asks for the first port from these numbers on. */
struct nmreq_vale_list {
    uint16_t nr_bridge_idx;
    uint16_t pad1;
    uint32_t nr_port_idx;
};

/* Body of NETMAP_REQ_PORT_HDR_SET and NETMAP_REQ_PORT_HDR_GET. */
struct nmreq_port_hdr {
    uint32_t nr_hdr_len; /* bytes */
    uint32_t pad1;
};

/* Body of NETMAP_REQ_VALE_NEWIF. */
struct nmreq_vale_newif {
    uint32_t nr_tx_slots;
    uint32_t nr_rx_slots;
    uint16_t nr_tx_rings;
    uint16_t nr_rx_rings;
    uint16_t nr_mem_id;
    uint16_t pad1;
};

/* Body of NETMAP_REQ_VALE_POLLING_ENABLE and NETMAP_REQ_VALE_POLLING_DISABLE. */
struct nmreq_vale_polling {
    uint32_t nr_mode; /* NETMAP_POLLING_MODE_* */
    uint32_t nr_first_cpu_id;
    uint32_t nr_num_polling_cpus;
    uint32_t pad1;
};

/* nmreq_vale_polling.nr_mode */
#define NETMAP_POLLING_MODE_SINGLE_CPU 1 /* one thread for all rings */
#define NETMAP_POLLING_MODE_MULTI_CPU 2  /* one thread on each CPU */

/* Body of NETMAP_REQ_POOLS_INFO_GET, and the geometry of NETMAP_REQ_OPT_EXTMEM. Offsets are from the start of the
 * region. */
struct nmreq_pools_info {
    uint64_t nr_memsize;
    uint16_t nr_mem_id;
    uint16_t pad1[3];
    uint64_t nr_if_pool_offset;
    uint32_t nr_if_pool_objtotal;
    uint32_t nr_if_pool_objsize;
    uint64_t nr_ring_pool_offset;
    uint32_t nr_ring_pool_objtotal;
    uint32_t nr_ring_pool_objsize;
    uint64_t nr_buf_pool_offset;
    uint32_t nr_buf_pool_objtotal;
    uint32_t nr_buf_pool_objsize;
};

/* Option NETMAP_REQ_OPT_EXTMEM: build the region in memory that the program brings. */
struct nmreq_opt_extmem {
    struct nmreq_option nro_opt;
    uint64_t nro_usrptr;              /* address of that memory */
    struct nmreq_pools_info nro_info; /* in: how to divide it; out: how it was divided */
};

/* Option NETMAP_REQ_OPT_OFFSETS: packets need not start where their buffers do. */
struct nmreq_opt_offsets {
    struct nmreq_option nro_opt;
    uint64_t nro_max_offset;     /* in: largest offset the program uses; out: largest that is obeyed */
    uint64_t nro_initial_offset; /* put into all slots at first */
    uint32_t nro_offset_bits;    /* low bits of slot.ptr that hold it, 0 for all of them; out: may be more */
    uint32_t nro_tx_align;       /* alignment wished for the start of a transmitted packet */
    uint64_t nro_min_gap;        /* 0 */
};

/* ---------------------------------------------------------------------------------------------------------------------
 * Sync loop and CSB
 *
 * A thread may lend itself to the engine as a loop that syncs rings (NETMAP_REQ_SYNC_KLOOP_START). The cursors then
 * travel through two arrays with one entry per ring, transmit rings first, instead of the netmap_ring: each side
 * writes one array and reads the other.
 */

/* Body of NETMAP_REQ_SYNC_KLOOP_START. */
struct nmreq_sync_kloop_start {
    uint32_t sleep_us; /* pause when there is nothing to do */
    uint32_t pad1;
};

/* Application to kernel side. */
struct nm_csb_atok {
    uint32_t head;
    uint32_t cur;
    uint32_t appl_need_kick; /* the program asks to be notified */
    uint32_t sync_flags;
    uint32_t pad[12];
};

/* Kernel side to application. */
struct nm_csb_ktoa {
    uint32_t hwcur;          /* slots before it are done with */
    uint32_t hwtail;         /* what tail is in a netmap_ring */
    uint32_t kern_need_kick; /* the loop asks to be notified */
    uint32_t pad[13];
};

/* Option NETMAP_REQ_OPT_CSB: addresses of the two arrays. */
struct nmreq_opt_csb {
    struct nmreq_option nro_opt;
    uint64_t csb_atok;
    uint64_t csb_ktoa;
};

/* Option NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS: one pair for each ring, in the order of the CSB. With any ioeventfd
 * negative the loop sleeps instead; a ring whose irqfd is negative never notifies. */
struct nmreq_opt_sync_kloop_eventfds {
    struct nmreq_option nro_opt;
    __extension__ struct {
        int32_t ioeventfd; /* program to loop */
        int32_t irqfd;     /* loop to program */
    } eventfds[];
};

/* Option NETMAP_REQ_OPT_SYNC_KLOOP_MODE. */
struct nmreq_opt_sync_kloop_mode {
    struct nmreq_option nro_opt;
    uint32_t mode; /* NM_OPT_SYNC_KLOOP_DIRECT_* */
};

/* nmreq_opt_sync_kloop_mode.mode: sync where the notification arrives, not in the loop. */
#define NM_OPT_SYNC_KLOOP_DIRECT_TX 1
#define NM_OPT_SYNC_KLOOP_DIRECT_RX 2

/* What was stored before is visible to all before anything stored after. */
static inline void
nm_stst_barrier(void)
{
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

/* What is loaded after is no older than anything loaded before. */
static inline void
nm_ldld_barrier(void)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
}

/*
 * Publish the cursors of a ring in the CSB, after what was written to its slots. The loop reads head first and cur
 * second; as cur is written first here, it can pair a head only with a cur at least as new, and so never finds head
 * beyond cur.
 */
static inline void
nm_sync_kloop_appl_write(struct nm_csb_atok *atok, uint32_t cur, uint32_t head)
{
    nm_stst_barrier();
    __atomic_store_n(&atok->cur, cur, __ATOMIC_RELAXED);
    nm_stst_barrier();
    __atomic_store_n(&atok->head, head, __ATOMIC_RELAXED);
}

/* Fetch the loop's cursors from the CSB. hwtail comes first, as the loop writes it last; slots may be read
 * afterwards. */
static inline void
nm_sync_kloop_appl_read(struct nm_csb_ktoa *ktoa, uint32_t *hwtail, uint32_t *hwcur)
{
    *hwtail = __atomic_load_n(&ktoa->hwtail, __ATOMIC_RELAXED);
    nm_ldld_barrier();
    *hwcur = __atomic_load_n(&ktoa->hwcur, __ATOMIC_RELAXED);
    nm_ldld_barrier();
}

#if defined(__clang__) && defined(__cplusplus)
#pragma clang diagnostic pop
#endif

#endif /* _NET_NETMAP_H_ */
