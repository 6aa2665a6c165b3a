/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * net/netmap_user.h: helpers for programs that use netmap rings, in the header alone: there is nothing to link.
 *
 * With NETMAP_WITH_LIBS defined before the first or a later #include, also the small library in the manner of
 * libpcap: nm_open(), nm_inject(), nm_nextpkt(), nm_dispatch(), nm_close(). It moves packets between rings and the
 * program, and makes no system call to do so: poll() or the sync ioctls between its calls do that. A descriptor
 * serves one thread at a time.
 */
#ifndef _NET_NETMAP_USER_H_
#define _NET_NETMAP_USER_H_

#include <ctype.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#ifndef _LINUX_IF_H /* the two cannot be had in this order */
#include <net/if.h>
#endif
#include <net/netmap.h>

#define NETMAP_DEVICE_NAME "/dev/netmap"

#ifndef likely
#define likely(x) __builtin_expect(!!(x), 1)
#endif
#ifndef unlikely
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif

/* ---------------------------------------------------------------------------------------------------------------------
 * From the start of the mapping to a buffer
 */

#define _NETMAP_OFFSET(type, ptr, offset) ((type)(void *)&((char *)(ptr))[(offset)])

/* The netmap_if of an fd: start of the mapping, nr_offset of the registration. */
#define NETMAP_IF(start, offset) _NETMAP_OFFSET(struct netmap_if *, start, offset)

/* Rings, by index: those of the NIC first, those of the host after them. */
#define NETMAP_TXRING(nifp, index) _NETMAP_OFFSET(struct netmap_ring *, nifp, (nifp)->ring_ofs[(index)])
#define NETMAP_RXRING(nifp, index)                   \
    _NETMAP_OFFSET(struct netmap_ring *, nifp,       \
        (nifp)->ring_ofs[(nifp)->ni_host_tx_rings + (nifp)->ni_tx_rings + (index)])

/* Address of a buffer, and back. */
#define NETMAP_BUF(ring, index) (&((char *)(ring))[(ring)->buf_ofs + (int64_t)(index) * (ring)->nr_buf_size])
#define NETMAP_BUF_IDX(ring, buf) (((const char *)(buf) - NETMAP_BUF(ring, 0)) / (ring)->nr_buf_size)

/* Start of a packet within its buffer, on rings opened with NETMAP_REQ_OPT_OFFSETS; 0 on all others. */
#define NETMAP_ROFFSET(ring, slot) ((ring)->offset_mask & (slot)->ptr)
#define NETMAP_WOFFSET(ring, slot, offset)                                   \
    do {                                                                     \
        (slot)->ptr ^= ((slot)->ptr ^ (uint64_t)(offset)) & (ring)->offset_mask; \
    } while (0)
#define NETMAP_BUF_OFFSET(ring, slot) (&NETMAP_BUF(ring, (slot)->buf_idx)[NETMAP_ROFFSET(ring, slot)])

/* The slot after slot i. */
static inline uint32_t
nm_ring_next(const struct netmap_ring *ring, uint32_t i)
{
    i++;
    return unlikely(i == ring->num_slots) ? 0 : i;
}

/* How many slots are the program's. */
static inline uint32_t
nm_ring_space(const struct netmap_ring *ring)
{
    uint32_t head = ring->head, tail = ring->tail;

    return tail < head ? ring->num_slots - head + tail : tail - head;
}

/* True while a transmit ring holds slots that were handed over and have not come back: all are back when tail is one
 * short of head. */
static inline int
nm_tx_pending(const struct netmap_ring *ring)
{
    return ring->head != nm_ring_next(ring, ring->tail);
}

/* Copy a packet. Source before destination, unlike memcpy(). */
static inline void
nm_pkt_copy(const void *src, void *dst, int len)
{
    if (likely(len > 0))
        memcpy(dst, src, (size_t)len);
}

/* ---------------------------------------------------------------------------------------------------------------------
 * Messages
 *
 * D(format, ...) prints time, function and line to stderr; RD(n, format, ...) at most n times a second at that place;
 * ND() nothing. A program that has its own defines ND, and D with it, before it includes this file.
 */
#ifndef ND
#define ND(...) \
    do {        \
    } while (0)
#define D(...) nm_debug_print(__func__, __LINE__, __VA_ARGS__)
#define RD(lps, ...)                                 \
    do {                                             \
        static struct nm_debug_rate nm_rate_;        \
        if (nm_debug_allowed(&nm_rate_, (int)(lps))) \
            D(__VA_ARGS__);                          \
    } while (0)

struct nm_debug_rate {
    int64_t second;
    int printed;
};

static inline int
nm_debug_allowed(struct nm_debug_rate *rate, int limit)
{
    struct timeval now;

    gettimeofday(&now, NULL);
    if (now.tv_sec != rate->second) {
        rate->second = now.tv_sec;
        rate->printed = 0;
    }
    if (rate->printed >= limit)
        return 0;
    rate->printed++;
    return 1;
}

static inline void __attribute__((__format__(__printf__, 3, 4)))
nm_debug_print(const char *function, int line, const char *format, ...)
{
    char text[1024];
    struct timeval now;
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    gettimeofday(&now, NULL);
    fprintf(stderr, "%03d.%06d %s [%d] %s\n", (int)(now.tv_sec % 1000), (int)now.tv_usec, function, line, text);
}
#endif /* ND */

#endif /* _NET_NETMAP_USER_H_ */

#if defined(NETMAP_WITH_LIBS) && !defined(HAVE_NETMAP_WITH_LIBS)
#define HAVE_NETMAP_WITH_LIBS

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---------------------------------------------------------------------------------------------------------------------
 * Types of the library
 */

/* One received packet. The first three fields are those of struct pcap_pkthdr. */
struct nm_pkthdr {
    struct timeval ts; /* of the sync that brought it */
    uint32_t caplen;   /* bytes that can be read from buf on */
    uint32_t len;      /* bytes of the whole packet */

    uint64_t flags; /* NM_MORE_PKTS */
    struct nm_desc *d;
    struct netmap_slot *slot; /* the first, if there are several */
    uint8_t *buf;
};

/* nm_pkthdr.flags: nm_dispatch() is going to deliver another one after this. */
#define NM_MORE_PKTS 1

/* The fields of struct pcap_stat. The library does not count; the program may. */
struct nm_stat {
    unsigned int ps_recv;
    unsigned int ps_drop;
    unsigned int ps_ifdrop;
};

#define NM_ERRBUF_SIZE 512

/* An open port. */
struct nm_desc {
    struct nm_desc *self; /* this descriptor, which tells it from other things that a pointer may point to */
    int fd;
    void *mem; /* the region, mapped by this descriptor if done_mmap, else by its parent */
    size_t memsize;
    int done_mmap;
    struct netmap_if *const nifp;
    uint16_t first_tx_ring, last_tx_ring, cur_tx_ring; /* the rings that are bound, and the next one to serve */
    uint16_t first_rx_ring, last_rx_ring, cur_rx_ring;
    struct nmreq req;     /* the registration, as answered */
    struct nm_pkthdr hdr; /* of nm_dispatch() */

    /* Any bound ring, to reach buffers by their index; and the addresses between which a pointer may be one to a
     * buffer. */
    struct netmap_ring *const some_ring;
    void *const buf_start;
    void *const buf_end;

    /* Room for what a libpcap replacement keeps. The library leaves all of it alone. */
    int snaplen;
    int promisc;
    int to_ms;
    char *errbuf;
    uint32_t if_flags;
    uint32_t if_reqcap;
    uint32_t if_curcap;
    struct nm_stat st;
    char msg[NM_ERRBUF_SIZE];
};

/* Of anything that may be a descriptor: take it as one, tell whether it is, get its fd. */
#define P2NMD(ptr) ((const struct nm_desc *)(ptr))
#define IS_NETMAP_DESC(ptr) (P2NMD(ptr) != NULL && P2NMD(ptr) == P2NMD(ptr)->self)
#define NETMAP_FD(ptr) (P2NMD(ptr)->fd)

/* Called for each packet, like a pcap_handler: argument of nm_dispatch(), header, data. */
typedef void (*nm_cb_t)(unsigned char *, const struct nm_pkthdr *, const unsigned char *);

/* Flags of nm_open(): what to take from the parent descriptor. The low 16 bits are for NETMAP_NO_TX_POLL and
 * NETMAP_DO_RX_POLL. */
enum {
    NM_OPEN_NO_MMAP = 0x040000,  /* without a parent: do not map at all */
    NM_OPEN_IFNAME = 0x080000,   /* nr_name, nr_ringid and nr_flags; the name given is not parsed */
    NM_OPEN_ARG1 = 0x100000,     /* nr_arg1 */
    NM_OPEN_ARG2 = 0x200000,     /* nr_arg2, the region */
    NM_OPEN_ARG3 = 0x400000,     /* nr_arg3, the extra buffers */
    NM_OPEN_RING_CFG = 0x800000  /* numbers of rings and slots */
};

/* A library of static functions: no program uses all of them, and none should be warned of the rest. */
#define NM_LIB_FUNCTION static __attribute__((__unused__))

/* Longest message of nm_parse(), with its NUL. */
#define NM_PARSE_ERRLEN 80

NM_LIB_FUNCTION struct nm_desc *nm_open(const char *, const struct nmreq *, uint64_t, const struct nm_desc *);
NM_LIB_FUNCTION int nm_close(struct nm_desc *);
NM_LIB_FUNCTION int nm_mmap(struct nm_desc *, const struct nm_desc *);
NM_LIB_FUNCTION int nm_inject(struct nm_desc *, const void *, size_t);
NM_LIB_FUNCTION int nm_dispatch(struct nm_desc *, int, nm_cb_t, unsigned char *);
NM_LIB_FUNCTION unsigned char *nm_nextpkt(struct nm_desc *, struct nm_pkthdr *);

/* ---------------------------------------------------------------------------------------------------------------------
 * Port names
 *
 *     netmap:IF[RINGS][OPTIONS]     a network interface
 *     valeS:P[RINGS][OPTIONS]       port P of switch S, both of letters, digits and underscores
 *
 *     RINGS    nothing: all rings of the NIC      -N  pair N of them    {N  pipe N, master side
 *              ^: the host rings   *: NIC and host rings                }N  pipe N, slave side
 *     OPTIONS  /FLAGS and @N, in any order; @N, at most once, asks for memory region N
 *     FLAGS    x  exclusive       z  monitor without copies   t  monitor transmit   r  monitor receive
 *              R  receive only    T  transmit only
 */

/* Set errno, unless strtol() did, and describe the fault. */
static inline int __attribute__((__format__(__printf__, 2, 3)))
nm_parse_failed(char *err, const char *format, ...)
{
    va_list args;

    if (errno == 0)
        errno = EINVAL;
    if (err != NULL) {
        va_start(args, format);
        vsnprintf(err, NM_PARSE_ERRLEN, format, args);
        va_end(args);
    }
    return -1;
}

/* True if all characters from s to e may appear in the names of switches and their ports. */
static inline int
nm_is_identifier(const char *s, const char *e)
{
    while (s < e && (*s == '_' || isalnum((unsigned char)*s)))
        s++;
    return s == e;
}

/* Put the parts of a port name into d->req. Returns 0, or -1 with errno set and a message in err, NM_PARSE_ERRLEN
 * bytes. */
NM_LIB_FUNCTION int
nm_parse(const char *ifname, struct nm_desc *d, char *err)
{
    const char *name, *port, *rest;
    uint32_t mode = 0, flags = 0;
    long ring = -1, region = 0;
    size_t name_len;
    char *end;

    errno = 0;

    /* The name that the engine gets: for a switch, all of it. */
    if (strncmp(ifname, NM_BDG_NAME, strlen(NM_BDG_NAME)) == 0) {
        name = ifname;
        port = strchr(ifname, ':');
        if (port == NULL)
            return nm_parse_failed(err, "a switch port needs a ':'");
        if (!nm_is_identifier(name + strlen(NM_BDG_NAME), port))
            return nm_parse_failed(err, "invalid name of a switch");
        port++;
        rest = port + strcspn(port, "-*^{}/@");
        if (!nm_is_identifier(port, rest))
            return nm_parse_failed(err, "invalid name of a switch port");
    } else if (strncmp(ifname, "netmap:", 7) == 0) {
        name = ifname + 7;
        rest = name + strcspn(name, "-*^{}/@");
    } else {
        return nm_parse_failed(err, "neither netmap: nor " NM_BDG_NAME);
    }
    name_len = (size_t)(rest - name);
    if (name_len >= sizeof(d->req.nr_name))
        return nm_parse_failed(err, "name longer than %d characters", (int)sizeof(d->req.nr_name) - 1);

    /* Rings. */
    switch (*rest) {
    case '^':
        mode = NR_REG_SW;
        break;
    case '*':
        mode = NR_REG_NIC_SW;
        break;
    case '-':
        mode = NR_REG_ONE_NIC;
        break;
    case '{':
        mode = NR_REG_PIPE_MASTER;
        break;
    case '}':
        mode = NR_REG_PIPE_SLAVE;
        break;
    default:
        break;
    }
    if (mode != 0)
        rest++;
    if (mode >= NR_REG_ONE_NIC) {
        if (*rest == '\0')
            return nm_parse_failed(err, "number missing at the end");
        ring = strtol(rest, &end, 10);
        if (ring < 0 || ring >= NETMAP_RING_MASK)
            return nm_parse_failed(err, "%ld is not within 0 to %d", ring, NETMAP_RING_MASK - 1);
        rest = end;
    }

    /* Options. */
    while (*rest != '\0') {
        char what = *rest++;

        if (what != '/' && what != '@')
            return nm_parse_failed(err, "unexpected '%c'", what);
        if (*rest == '\0')
            return nm_parse_failed(err, "nothing after the '%c'", what);
        if (what == '@') {
            if (region != 0)
                return nm_parse_failed(err, "more than one memory region");
            region = strtol(rest, &end, 10);
            if (region <= 0 || region > UINT16_MAX)
                return nm_parse_failed(err, "%ld is no memory region", region);
            rest = end;
            continue;
        }
        for (; *rest != '\0' && *rest != '@'; rest++) {
            switch (*rest) {
            case 'x':
                flags |= NR_EXCLUSIVE;
                break;
            case 'z':
                flags |= NR_ZCOPY_MON;
                break;
            case 't':
                flags |= NR_MONITOR_TX;
                break;
            case 'r':
                flags |= NR_MONITOR_RX;
                break;
            case 'R':
                flags |= NR_RX_RINGS_ONLY;
                break;
            case 'T':
                flags |= NR_TX_RINGS_ONLY;
                break;
            default:
                return nm_parse_failed(err, "unknown flag '%c'", *rest);
            }
        }
    }

    memcpy(d->req.nr_name, name, name_len);
    d->req.nr_name[name_len] = '\0';
    if (mode != 0)
        d->req.nr_flags &= ~(uint32_t)NR_REG_MASK; /* the name prevails over the request */
    else
        mode = NR_REG_ALL_NIC; /* a name without RINGS adds these to what the request has */
    d->req.nr_flags |= mode | flags;
    if (ring >= 0)
        d->req.nr_ringid = (uint16_t)((d->req.nr_ringid & ~NETMAP_RING_MASK) | ring);
    d->req.nr_arg2 = (uint16_t)region;
    d->self = d;
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------------------
 * Open and close
 */

/* Take from the parent what flags ask for. nr_arg1 and nr_arg3 get a default when they are not asked for. */
static inline void
nm_open_inherit(struct nmreq *req, const struct nmreq *parent, uint64_t flags)
{
    req->nr_arg1 = (flags & NM_OPEN_ARG1) ? parent->nr_arg1 : 4;
    req->nr_arg3 = (flags & NM_OPEN_ARG3) ? parent->nr_arg3 : 0;
    if (flags & NM_OPEN_ARG2)
        req->nr_arg2 = parent->nr_arg2;
    if (flags & NM_OPEN_RING_CFG) {
        req->nr_tx_rings = parent->nr_tx_rings;
        req->nr_rx_rings = parent->nr_rx_rings;
        req->nr_tx_slots = parent->nr_tx_slots;
        req->nr_rx_slots = parent->nr_rx_slots;
    }
    if (flags & NM_OPEN_IFNAME) {
        memcpy(req->nr_name, parent->nr_name, sizeof(req->nr_name));
        req->nr_ringid = parent->nr_ringid;
        req->nr_flags = parent->nr_flags;
    }
}

/* Which rings the registration bound. */
static inline void
nm_open_ring_range(struct nm_desc *d)
{
    uint16_t ring = d->req.nr_ringid & NETMAP_RING_MASK;
    uint16_t tx = d->req.nr_tx_rings, rx = d->req.nr_rx_rings;
    uint16_t tx0 = 0, tx1 = 0, rx0 = 0, rx1 = 0;

    switch (d->req.nr_flags & NR_REG_MASK) {
    case NR_REG_ALL_NIC:
        tx1 = (uint16_t)(tx - 1);
        rx1 = (uint16_t)(rx - 1);
        break;
    case NR_REG_NIC_SW: /* the host ring comes right after those of the NIC */
        tx1 = tx;
        rx1 = rx;
        break;
    case NR_REG_SW:
        tx0 = tx1 = tx;
        rx0 = rx1 = rx;
        break;
    case NR_REG_ONE_NIC:
        tx0 = tx1 = rx0 = rx1 = ring;
        break;
    case NR_REG_ONE_SW:
        tx0 = tx1 = (uint16_t)(tx + ring);
        rx0 = rx1 = (uint16_t)(rx + ring);
        break;
    default: /* the one pair of a pipe */
        break;
    }
    d->first_tx_ring = d->cur_tx_ring = tx0;
    d->first_rx_ring = d->cur_rx_ring = rx0;
    d->last_tx_ring = tx1;
    d->last_rx_ring = rx1;
}

/* The steps of nm_open(). Returns NULL, or what failed, with errno set; text has room for a message of nm_parse(). */
static inline const char *
nm_open_steps(struct nm_desc *d, const char *ifname, uint64_t flags, const struct nm_desc *parent, char *text)
{
    if (!(flags & NM_OPEN_IFNAME) && nm_parse(ifname, d, text) != 0)
        return text;

    d->fd = open(NETMAP_DEVICE_NAME, O_RDWR);
    if (d->fd < 0)
        return "cannot open " NETMAP_DEVICE_NAME;

    d->req.nr_version = NETMAP_API;
    d->req.nr_ringid &= NETMAP_RING_MASK;
    if (flags != 0 && IS_NETMAP_DESC(parent))
        nm_open_inherit(&d->req, &parent->req, flags);
    d->req.nr_ringid |= (uint16_t)(flags & (NETMAP_NO_TX_POLL | NETMAP_DO_RX_POLL));
    if (ioctl(d->fd, NIOCREGIF, &d->req) != 0)
        return "NIOCREGIF failed";
    nm_open_ring_range(d);

    if ((parent != NULL || !(flags & NM_OPEN_NO_MMAP)) && nm_mmap(d, parent) != 0)
        return "cannot map the region";
    return NULL;
}

/*
 * Open a port, bind its rings and map its memory. req, if not NULL, is where the registration starts from; the name
 * overrides its rings and its region. parent, if not NULL, lends its mapping when both ports live in the same region,
 * and must then be closed last; flags (NM_OPEN_*) take more from it.
 *
 * Returns NULL on failure: with errno 0 if the name is not one of netmap's, so that the caller may try it elsewhere;
 * else with errno set, after a message on stderr.
 */
NM_LIB_FUNCTION struct nm_desc *
nm_open(const char *ifname, const struct nmreq *req, uint64_t flags, const struct nm_desc *parent)
{
    char text[NM_PARSE_ERRLEN];
    const char *failed;
    struct nm_desc *d;
    int error;

    if (strncmp(ifname, "netmap:", 7) != 0 && strncmp(ifname, NM_BDG_NAME, strlen(NM_BDG_NAME)) != 0) {
        errno = 0;
        return NULL;
    }
    d = (struct nm_desc *)calloc(1, sizeof(struct nm_desc));
    if (d == NULL)
        return NULL;
    d->self = d;
    d->fd = -1;
    if (req != NULL)
        d->req = *req;

    failed = nm_open_steps(d, ifname, flags, parent, text);
    if (failed == NULL)
        return d;
    error = errno != 0 ? errno : EINVAL;
    D("%s: %s: %s", ifname, failed, strerror(error));
    nm_close(d);
    errno = error;
    return NULL;
}

/* Unmap, close and free. Returns 0, or EINVAL for what is not a descriptor. */
NM_LIB_FUNCTION int
nm_close(struct nm_desc *d)
{
    if (!IS_NETMAP_DESC(d))
        return EINVAL;
    if (d->done_mmap && d->mem != NULL)
        munmap(d->mem, d->memsize);
    if (d->fd >= 0)
        close(d->fd);
    d->self = NULL;
    free(d);
    return 0;
}

/* Map the region of d, or use the mapping of parent if it is of the same region. Returns 0, or EINVAL. */
NM_LIB_FUNCTION int
nm_mmap(struct nm_desc *d, const struct nm_desc *parent)
{
    struct netmap_if *nifp;
    struct netmap_ring *ring;
    void *start, *end;

    if (d->done_mmap)
        return 0;

    if (IS_NETMAP_DESC(parent) && parent->mem != NULL && parent->req.nr_arg2 == d->req.nr_arg2) {
        d->mem = parent->mem;
        d->memsize = parent->memsize;
    } else {
        void *mem = mmap(NULL, d->req.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, d->fd, 0);

        if (mem == MAP_FAILED)
            return EINVAL;
        d->mem = mem;
        d->memsize = d->req.nr_memsize;
        d->done_mmap = 1;
    }

    nifp = NETMAP_IF(d->mem, d->req.nr_offset);
    ring = NETMAP_RXRING(nifp, d->first_rx_ring);
    if ((void *)ring == (void *)nifp) /* only the transmit side is bound */
        ring = NETMAP_TXRING(nifp, d->first_tx_ring);
    start = NETMAP_BUF(ring, 0);
    end = (char *)d->mem + d->memsize;

    /* These are const for the program; the descriptor is fresh from calloc(), so that writing them is well defined. */
    memcpy((void *)(uintptr_t)&d->nifp, &nifp, sizeof(nifp));
    memcpy((void *)(uintptr_t)&d->some_ring, &ring, sizeof(ring));
    memcpy((void *)(uintptr_t)&d->buf_start, &start, sizeof(start));
    memcpy((void *)(uintptr_t)&d->buf_end, &end, sizeof(end));
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------------------
 * Packets
 */

/* True for the address that NETMAP_TXRING or NETMAP_RXRING gives for a ring that is not bound. */
static inline int
nm_ring_absent(const struct nm_desc *d, const struct netmap_ring *ring)
{
    return (const void *)ring == (const void *)d->nifp;
}

/* Write a packet into slots of one ring. Returns 0 if there is no room. */
static inline int
nm_inject_ring(struct netmap_ring *ring, const char *data, size_t size)
{
    uint32_t room = ring->nr_buf_size, first = ring->cur, last = first, i;
    size_t left;

    /* Find the last slot that the packet needs before any is written. */
    for (left = size;; left -= room) {
        if (last == ring->tail)
            return 0;
        if (left <= room)
            break;
        last = nm_ring_next(ring, last);
    }
    for (i = first;; i = nm_ring_next(ring, i)) {
        struct netmap_slot *slot = &ring->slot[i];

        slot->len = (uint16_t)(i == last ? left : room);
        slot->flags = i == last ? 0 : NS_MOREFRAG;
        nm_pkt_copy(data, NETMAP_BUF(ring, slot->buf_idx), slot->len);
        data += slot->len;
        if (i == last)
            break;
    }
    ring->head = ring->cur = nm_ring_next(ring, last);
    return 1;
}

/* Queue one packet on the first ring that has room, the last one used to begin with. Returns size, or 0 if none has. */
NM_LIB_FUNCTION int
nm_inject(struct nm_desc *d, const void *buf, size_t size)
{
    unsigned int tries = d->last_tx_ring - d->first_tx_ring + 1u, ri = d->cur_tx_ring;

    for (; tries > 0; tries--, ri++) {
        struct netmap_ring *ring;

        if (ri > d->last_tx_ring)
            ri = d->first_tx_ring;
        ring = NETMAP_TXRING(d->nifp, ri);
        if (!nm_ring_absent(d, ring) && nm_inject_ring(ring, (const char *)buf, size)) {
            d->cur_tx_ring = (uint16_t)ri;
            return (int)size;
        }
    }
    return 0;
}

/* Take the packet at cur off a receive ring that has one, and describe it. caplen covers the first buffer, and those
 * after it as long as they lie behind one another in memory. */
static inline void
nm_take_packet(struct netmap_ring *ring, struct nm_pkthdr *hdr)
{
    uint32_t i = ring->cur, room = ring->nr_buf_size, next;
    struct netmap_slot *slot = &ring->slot[i];
    uint8_t *buf = (uint8_t *)NETMAP_BUF(ring, slot->buf_idx);
    uint8_t *goes_on_at = slot->len == room ? buf + room : NULL;

    hdr->ts = ring->ts;
    hdr->slot = slot;
    hdr->buf = buf;
    hdr->len = hdr->caplen = slot->len;
    while ((slot->flags & NS_MOREFRAG) && (next = nm_ring_next(ring, i)) != ring->tail) {
        i = next;
        slot = &ring->slot[i];
        buf = (uint8_t *)NETMAP_BUF(ring, slot->buf_idx);
        hdr->len += slot->len;
        if (buf == goes_on_at) {
            hdr->caplen += slot->len;
            goes_on_at = slot->len == room ? buf + room : NULL;
        } else {
            goes_on_at = NULL;
        }
    }
    ring->head = ring->cur = nm_ring_next(ring, i);
}

/*
 * Call cb for received packets, cnt of them at most, or all that there are if cnt is 0 or -1. Returns how many. A
 * packet is delivered when it is known whether another follows, and its buffer belongs to the program until the next
 * sync.
 */
NM_LIB_FUNCTION int
nm_dispatch(struct nm_desc *d, int cnt, nm_cb_t cb, unsigned char *arg)
{
    unsigned int tries = d->last_rx_ring - d->first_rx_ring + 1u, ri = d->cur_rx_ring;
    struct nm_pkthdr *hdr = &d->hdr;
    int got = 0;

    if (cnt == 0)
        cnt = -1;
    hdr->d = d;
    hdr->buf = NULL;
    hdr->flags = NM_MORE_PKTS;
    for (; tries > 0 && got != cnt; tries--, ri++) {
        struct netmap_ring *ring;

        if (ri > d->last_rx_ring)
            ri = d->first_rx_ring;
        ring = NETMAP_RXRING(d->nifp, ri);
        if (nm_ring_absent(d, ring))
            continue;
        for (; ring->cur != ring->tail && got != cnt; got++) {
            if (hdr->buf != NULL)
                cb(arg, hdr, hdr->buf);
            nm_take_packet(ring, hdr);
            d->cur_rx_ring = (uint16_t)ri;
        }
    }
    if (hdr->buf != NULL) {
        hdr->flags = 0;
        cb(arg, hdr, hdr->buf);
    }
    return got;
}

/* The next received slot: its data, and time and length in hdr; NULL if there is none. A packet of several slots
 * comes in as many pieces; nm_dispatch() keeps them together. The data stays until the next sync. */
NM_LIB_FUNCTION unsigned char *
nm_nextpkt(struct nm_desc *d, struct nm_pkthdr *hdr)
{
    unsigned int tries = d->last_rx_ring - d->first_rx_ring + 1u, ri = d->cur_rx_ring;

    for (; tries > 0; tries--, ri++) {
        struct netmap_ring *ring;
        struct netmap_slot *slot;

        if (ri > d->last_rx_ring)
            ri = d->first_rx_ring;
        ring = NETMAP_RXRING(d->nifp, ri);
        if (nm_ring_absent(d, ring) || ring->cur == ring->tail)
            continue;
        slot = &ring->slot[ring->cur];
        hdr->ts = ring->ts;
        hdr->len = hdr->caplen = slot->len;
        ring->head = ring->cur = nm_ring_next(ring, ring->cur);
        d->cur_rx_ring = (uint16_t)ri;
        return (unsigned char *)NETMAP_BUF(ring, slot->buf_idx);
    }
    return NULL;
}

#endif /* NETMAP_WITH_LIBS && !HAVE_NETMAP_WITH_LIBS */
