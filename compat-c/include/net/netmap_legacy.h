/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * net/netmap_legacy.h: the request that programs made before NIOCCTRL, and that nm_open() still makes.
 *
 * net/netmap.h includes this file; programs include that one.
 */
#ifndef _NET_NETMAP_LEGACY_H_
#define _NET_NETMAP_LEGACY_H_

#include <net/netmap.h>

/*
 * One structure for everything. With nr_cmd 0, NIOCGINFO describes the port and NIOCREGIF binds the fd to it; else
 * nr_cmd says what NIOCREGIF does.
 */
struct nmreq {
    char nr_name[IFNAMSIZ];
    uint32_t nr_version;  /* in: NETMAP_API or one of the older versions; out: what the engine speaks */
    uint32_t nr_offset;   /* out: the netmap_if, from the start of the region */
    uint32_t nr_memsize;  /* out: bytes to map */
    uint32_t nr_tx_slots; /* in: wished for, 0 for any; out: there are. So for all the counts below */
    uint32_t nr_rx_slots;
    uint16_t nr_tx_rings;
    uint16_t nr_rx_rings;
    uint16_t nr_ringid;   /* a ring number, and the flags below */
    uint16_t nr_cmd;      /* NETMAP_BDG_* and the like */
    uint16_t nr_arg1;     /* depends on nr_cmd */
    uint16_t nr_arg2;     /* in: region wished for, 0 for any; out: region it is in */
    uint32_t nr_arg3;     /* in: extra buffers wished for; out: got */
    uint32_t nr_flags;    /* one NR_REG_*, and NR_* flags */
    uint32_t spare2[1];
};

/* nmreq.nr_ringid */
#define NETMAP_RING_MASK 0x0fff  /* bits of the number */
#define NETMAP_NO_TX_POLL 0x1000 /* poll() syncs transmit rings only when asked for POLLOUT */
#define NETMAP_SW_RING 0x2000    /* with nr_flags 0: the host rings */
#define NETMAP_HW_RING 0x4000    /* with nr_flags 0: the numbered pair of NIC rings */
#define NETMAP_DO_RX_POLL 0x8000 /* poll() syncs receive rings even when not asked for POLLIN */

/* nmreq.nr_flags: the bits that hold the mode */
#define NR_REG_MASK 0xf

/* nmreq.nr_cmd */
#define NETMAP_BDG_ATTACH 1       /* put a NIC on a switch */
#define NETMAP_BDG_DETACH 2       /* take it off */
#define NETMAP_BDG_REGOPS 3       /* (only ever within the kernel) */
#define NETMAP_BDG_LIST 4         /* walk switches and their ports */
#define NETMAP_BDG_VNET_HDR 5     /* set the length of the virtio-net header, nr_arg1 */
#define NETMAP_BDG_NEWIF 6        /* make a switch port that outlives its users */
#define NETMAP_BDG_DELIF 7        /* delete it */
#define NETMAP_PT_HOST_CREATE 8   /* (of netmap passthrough, withdrawn) */
#define NETMAP_PT_HOST_DELETE 9   /* (likewise) */
#define NETMAP_BDG_POLLING_ON 10  /* serve a switch port by busy threads */
#define NETMAP_BDG_POLLING_OFF 11 /* end them */
#define NETMAP_VNET_HDR_GET 12    /* get the length of the virtio-net header */

/* nmreq.nr_arg1 of NETMAP_BDG_ATTACH */
#define NETMAP_BDG_HOST 1 /* the host rings too */

/* Argument of NIOCCONFIG: bytes for the module that runs a switch. */
#define NM_IFRDATA_LEN 256
struct nm_ifreq {
    char nifr_name[IFNAMSIZ];
    char data[NM_IFRDATA_LEN];
};

#define NIOCGINFO _IOWR('i', 145, struct nmreq)
#define NIOCREGIF _IOWR('i', 146, struct nmreq)
#define NIOCCONFIG _IOWR('i', 150, struct nm_ifreq)

#endif /* _NET_NETMAP_LEGACY_H_ */
