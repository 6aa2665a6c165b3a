/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Checks what programs see of net/netmap_user.h: ring arithmetic, addresses, port names, and the small library.
 *
 * nm_open() talks to a device made of four functions below, so that neither netmap nor privileges are needed: a port
 * with two rings and one host ring per side, eight slots each, in a region of small buffers. Prints what is wrong and
 * exits 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int fake_open(const char *path, int flags);
static int fake_ioctl(int fd, unsigned long request, void *arg);
static void *fake_mmap(void *addr, size_t len, int prot, int flags, int fd, long offset);
static int fake_munmap(void *addr, size_t len);
static int fake_close(int fd);

#define open fake_open
#define ioctl fake_ioctl
#define mmap fake_mmap
#define munmap fake_munmap
#define close fake_close
#include <net/netmap_user.h> /* first without, then with the library: both must work in one file */
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

static int failures;

#define CHECK(ok)                                                             \
    do {                                                                      \
        if (!(ok)) {                                                          \
            printf("%s:%d: %s: not %s\n", __FILE__, __LINE__, __func__, #ok); \
            failures++;                                                       \
        }                                                                     \
    } while (0)

/* ---- the device ---- */

#define SLOTS 8u
#define RINGS 3u /* two of the NIC, one of the host */
#define BUF_SIZE 128u
#define NIFP_OFFSET 64u
#define RING_SIZE (sizeof(struct netmap_ring) + SLOTS * sizeof(struct netmap_slot))
#define RINGS_OFFSET 1024u
#define BUFS_OFFSET (RINGS_OFFSET + 2 * RINGS * RING_SIZE)
#define BUFS (2 + 2 * RINGS * SLOTS)
#define REGION_SIZE (BUFS_OFFSET + BUFS * BUF_SIZE)

static char region[REGION_SIZE] __attribute__((__aligned__(NM_CACHE_ALIGN)));
static struct nmreq asked; /* the last registration */
static int opened, mapped, refuse_with, one_way;

static void
put(const void *field, const void *value, size_t size)
{
    memcpy((void *)(uintptr_t)field, value, size);
}

#define PUT(field, value)                      \
    do {                                       \
        __typeof__(field) value_ = (value);    \
        put(&(field), &value_, sizeof(value_)); \
    } while (0)

static void
reset_region(void)
{
    struct netmap_if *nifp = NETMAP_IF(region, NIFP_OFFSET);
    uint32_t k, s, buf = 2;

    memset(region, 0, sizeof(region));
    PUT(nifp->ni_tx_rings, RINGS - 1);
    PUT(nifp->ni_rx_rings, RINGS - 1);
    PUT(nifp->ni_host_tx_rings, 1);
    PUT(nifp->ni_host_rx_rings, 1);
    for (k = 0; k < 2 * RINGS; k++) {
        size_t at = RINGS_OFFSET + k * RING_SIZE;
        struct netmap_ring *ring = (struct netmap_ring *)(void *)(region + at);
        int rx = k >= RINGS;

        PUT(nifp->ring_ofs[k], rx && one_way ? 0 : (ssize_t)(at - NIFP_OFFSET));
        PUT(ring->buf_ofs, (int64_t)(BUFS_OFFSET - at));
        PUT(ring->num_slots, SLOTS);
        PUT(ring->nr_buf_size, BUF_SIZE);
        PUT(ring->ringid, (uint16_t)(k % RINGS));
        PUT(ring->dir, (uint16_t)rx);
        ring->tail = rx ? 0 : SLOTS - 1;
        for (s = 0; s < SLOTS; s++)
            ring->slot[s].buf_idx = buf++;
    }
}

static int
fake_open(const char *path, int flags)
{
    CHECK(strcmp(path, "/dev/netmap") == 0);
    CHECK((flags & O_ACCMODE) == O_RDWR);
    opened++;
    return 1000;
}

static int
fake_ioctl(int fd, unsigned long request, void *arg)
{
    struct nmreq *req = (struct nmreq *)arg;

    CHECK(fd == 1000);
    CHECK(request == NIOCREGIF);
    asked = *req;
    if (refuse_with != 0) {
        errno = refuse_with;
        return -1;
    }
    reset_region();
    req->nr_tx_rings = req->nr_rx_rings = RINGS - 1;
    req->nr_offset = NIFP_OFFSET;
    req->nr_memsize = REGION_SIZE;
    if (req->nr_arg2 == 0)
        req->nr_arg2 = 1;
    return 0;
}

static void *
fake_mmap(void *addr, size_t len, int prot, int flags, int fd, long offset)
{
    CHECK(addr == NULL && fd == 1000 && offset == 0);
    CHECK(len == REGION_SIZE);
    CHECK(prot == (PROT_READ | PROT_WRITE) && flags == MAP_SHARED);
    mapped++;
    return region;
}

static int
fake_munmap(void *addr, size_t len)
{
    CHECK(addr == region && len == REGION_SIZE);
    mapped--;
    errno = EBADF; /* a call that leaves a stale errno behind must not hide the true one */
    return 0;
}

static int
fake_close(int fd)
{
    CHECK(fd == 1000);
    opened--;
    errno = EIO;
    return 0;
}

/* ---- rings and addresses ---- */

static void
ring_arithmetic(void)
{
    struct netmap_ring *ring;
    uint32_t head, tail;

    one_way = 0;
    reset_region();
    ring = NETMAP_TXRING(NETMAP_IF(region, NIFP_OFFSET), 0);
    for (head = 0; head < SLOTS; head++) {
        CHECK(nm_ring_next(ring, head) == (head + 1) % SLOTS);
        for (tail = 0; tail < SLOTS; tail++) {
            ring->head = ring->cur = head;
            ring->tail = tail;
            CHECK(nm_ring_space(ring) == (tail + SLOTS - head) % SLOTS);
            CHECK(!!nm_ring_empty(ring) == (head == tail));
            CHECK(!!nm_tx_pending(ring) == ((tail + 1) % SLOTS != head));
        }
    }
}

static void
addresses(void)
{
    struct netmap_if *nifp = NETMAP_IF(region, NIFP_OFFSET);
    struct netmap_ring *ring;
    struct netmap_slot *slot;
    unsigned int k;

    reset_region();
    for (k = 0; k < RINGS; k++) {
        CHECK(NETMAP_TXRING(nifp, k)->ringid == k && NETMAP_TXRING(nifp, k)->dir == 0);
        CHECK(NETMAP_RXRING(nifp, k)->ringid == k && NETMAP_RXRING(nifp, k)->dir == 1);
    }
    CHECK(NETMAP_RXRING(nifp, 1 & 3)->ringid == 1); /* an argument that is an expression */

    ring = NETMAP_RXRING(nifp, 1);
    CHECK(NETMAP_BUF(ring, 0) == region + BUFS_OFFSET);
    CHECK(NETMAP_BUF(ring, 5) == NETMAP_BUF(NETMAP_TXRING(nifp, 0), 5));
    CHECK(NETMAP_BUF(ring, 2 + 3) - NETMAP_BUF(ring, 0) == 5 * BUF_SIZE);
    CHECK(NETMAP_BUF_IDX(ring, NETMAP_BUF(ring, 7)) == 7);
    CHECK(NETMAP_BUF_IDX(ring, NETMAP_BUF(ring, 7) + BUF_SIZE - 1) == 7);

    slot = &ring->slot[0];
    slot->ptr = 0x1122334455667788;
    CHECK(NETMAP_ROFFSET(ring, slot) == 0);
    NETMAP_WOFFSET(ring, slot, 64);
    CHECK(slot->ptr == 0x1122334455667788);
    CHECK(NETMAP_BUF_OFFSET(ring, slot) == NETMAP_BUF(ring, slot->buf_idx));
    PUT(ring->offset_mask, 0xffff);
    CHECK(NETMAP_ROFFSET(ring, slot) == 0x7788);
    NETMAP_WOFFSET(ring, slot, 0x10000 + 64);
    CHECK(slot->ptr == 0x1122334455660040);
    CHECK(NETMAP_BUF_OFFSET(ring, slot) == NETMAP_BUF(ring, slot->buf_idx) + 64);

    slot->flags = 0x0320;
    CHECK(NS_RFRAGS(slot) == 3);
}

static void
packet_copy_writes_no_more_than_asked(void)
{
    static const int lengths[] = {0, 1, 60, 63, 64, 65, 128, 1000, 1024, 1500};
    char from[2048], to[2048];
    size_t k;
    int i;

    for (i = 0; i < (int)sizeof(from); i++)
        from[i] = (char)(i * 7 + 1);
    for (k = 0; k < sizeof(lengths) / sizeof(lengths[0]); k++) {
        memset(to, 0x55, sizeof(to));
        nm_pkt_copy(from, to, lengths[k]);
        CHECK(memcmp(from, to, (size_t)lengths[k]) == 0);
        CHECK(to[lengths[k]] == 0x55);
    }
    memset(to, 0x55, sizeof(to));
    nm_pkt_copy(from, to, -64);
    CHECK(to[0] == 0x55);
}

static void
csb_cursors_cross(void)
{
    struct nm_csb_atok atok;
    struct nm_csb_ktoa ktoa;
    uint32_t hwcur = 0, hwtail = 0;

    memset(&atok, 0, sizeof(atok));
    memset(&ktoa, 0, sizeof(ktoa));
    nm_sync_kloop_appl_write(&atok, 5, 3);
    CHECK(atok.cur == 5 && atok.head == 3);
    ktoa.hwcur = 7;
    ktoa.hwtail = 9;
    nm_sync_kloop_appl_read(&ktoa, &hwtail, &hwcur);
    CHECK(hwcur == 7 && hwtail == 9);
}

/* ---- names ---- */

static const struct {
    const char *port;
    int error; /* 0: the rest is what comes of it */
    const char *name;
    uint32_t flags;
    uint16_t ring, region;
} names[] = {
    {"netmap:eth0", 0, "eth0", NR_REG_ALL_NIC, 0, 0},
    {"netmap:", 0, "", NR_REG_ALL_NIC, 0, 0},
    {"netmap:abcdefghijklmno", 0, "abcdefghijklmno", NR_REG_ALL_NIC, 0, 0},
    {"netmap:abcdefghijklmnop", EINVAL, "", 0, 0, 0},
    {"netmap:eth0.100", 0, "eth0.100", NR_REG_ALL_NIC, 0, 0},
    {"netmap:eth0^", 0, "eth0", NR_REG_SW, 0, 0},
    {"netmap:eth0*", 0, "eth0", NR_REG_NIC_SW, 0, 0},
    {"netmap:eth0-0", 0, "eth0", NR_REG_ONE_NIC, 0, 0},
    {"netmap:eth0-13", 0, "eth0", NR_REG_ONE_NIC, 13, 0},
    {"netmap:eth0-4094", 0, "eth0", NR_REG_ONE_NIC, 4094, 0},
    {"netmap:eth0-4095", EINVAL, "", 0, 0, 0},
    {"netmap:eth0--1", EINVAL, "", 0, 0, 0},
    {"netmap:eth0-99999999999999999999", ERANGE, "", 0, 0, 0},
    {"netmap:eth0-", EINVAL, "", 0, 0, 0},
    {"netmap:eth0-x", EINVAL, "", 0, 0, 0},
    {"netmap:eth0-3x", EINVAL, "", 0, 0, 0},
    {"netmap:eth0^3", EINVAL, "", 0, 0, 0},
    {"netmap:eth0*^", EINVAL, "", 0, 0, 0},
    {"netmap:p{7", 0, "p", NR_REG_PIPE_MASTER, 7, 0},
    {"netmap:p}7", 0, "p", NR_REG_PIPE_SLAVE, 7, 0},
    {"netmap:p{", EINVAL, "", 0, 0, 0},
    {"netmap:p{word", EINVAL, "", 0, 0, 0},
    {"netmap:eth0/x", 0, "eth0", NR_REG_ALL_NIC | NR_EXCLUSIVE, 0, 0},
    {"netmap:eth0-1/zt", 0, "eth0", NR_REG_ONE_NIC | NR_ZCOPY_MON | NR_MONITOR_TX, 1, 0},
    {"netmap:eth0*/rRT", 0, "eth0", NR_REG_NIC_SW | NR_MONITOR_RX | NR_RX_RINGS_ONLY | NR_TX_RINGS_ONLY, 0, 0},
    {"netmap:eth0/", EINVAL, "", 0, 0, 0},
    {"netmap:eth0/q", EINVAL, "", 0, 0, 0},
    {"netmap:eth0/x/R", EINVAL, "", 0, 0, 0},
    {"netmap:eth0@2", 0, "eth0", NR_REG_ALL_NIC, 0, 2},
    {"netmap:eth0/x@2", 0, "eth0", NR_REG_ALL_NIC | NR_EXCLUSIVE, 0, 2},
    {"netmap:eth0/@2", 0, "eth0", NR_REG_ALL_NIC, 0, 2},
    {"netmap:eth0@2/x", 0, "eth0", NR_REG_ALL_NIC | NR_EXCLUSIVE, 0, 2},
    {"netmap:eth0-1@2/x", 0, "eth0", NR_REG_ONE_NIC | NR_EXCLUSIVE, 1, 2},
    {"netmap:eth0@0", EINVAL, "", 0, 0, 0},
    {"netmap:eth0@-1", EINVAL, "", 0, 0, 0},
    {"netmap:eth0@65536", EINVAL, "", 0, 0, 0},
    {"netmap:eth0@", EINVAL, "", 0, 0, 0},
    {"netmap:eth0@word", EINVAL, "", 0, 0, 0},
    {"netmap:eth0@1@2", EINVAL, "", 0, 0, 0},
    {"netmap:eth0@1x", EINVAL, "", 0, 0, 0},
    {"vale0:p1", 0, "vale0:p1", NR_REG_ALL_NIC, 0, 0},
    {"vale:p1", 0, "vale:p1", NR_REG_ALL_NIC, 0, 0},
    {"vale_x1:y_2", 0, "vale_x1:y_2", NR_REG_ALL_NIC, 0, 0},
    {"vale0:p1{3/x@4", 0, "vale0:p1", NR_REG_PIPE_MASTER | NR_EXCLUSIVE, 3, 4},
    {"vale0:p1-2", 0, "vale0:p1", NR_REG_ONE_NIC, 2, 0},
    {"vale0:", 0, "vale0:", NR_REG_ALL_NIC, 0, 0},
    {"vale0", EINVAL, "", 0, 0, 0},
    {"vale+:p", EINVAL, "", 0, 0, 0},
    {"vale0{1:p", EINVAL, "", 0, 0, 0},
    {"vale0:p.1", EINVAL, "", 0, 0, 0},
    {"vale0:abcdefghij", EINVAL, "", 0, 0, 0},
};

static void
names_are_parsed(void)
{
    size_t k;

    refuse_with = ENXIO; /* the device has the last word; errno tells whether it was asked */
    for (k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
        char text[NM_PARSE_ERRLEN] = "";
        struct nm_desc d;
        int error, good;

        memset(&asked, 0, sizeof(asked));
        errno = 0;
        CHECK(nm_open(names[k].port, NULL, 0, NULL) == NULL);
        error = errno;
        if (names[k].error == 0)
            good = error == ENXIO && strcmp(asked.nr_name, names[k].name) == 0 && asked.nr_flags == names[k].flags &&
                asked.nr_ringid == names[k].ring && asked.nr_arg2 == names[k].region && asked.nr_version == NETMAP_API;
        else
            good = error == names[k].error && asked.nr_version == 0;
        if (!good) {
            printf("%s: errno %d, name '%s', flags 0x%x, ring %d, region %d\n", names[k].port, error, asked.nr_name,
                asked.nr_flags, asked.nr_ringid, asked.nr_arg2);
            failures++;
        }
        CHECK(opened == 0 && mapped == 0);

        memset(&d, 0, sizeof(d));
        CHECK(nm_parse(names[k].port, &d, text) == (names[k].error == 0 ? 0 : -1));
        CHECK((names[k].error == 0) == (text[0] == '\0'));
    }
    refuse_with = 0;
}

static void
foreign_names_leave_errno_0(void)
{
    static const char *const foreign[] = {"eth0", "", "pcap:eth0", "netmap", "Netmap:eth0", "val0:p"};
    size_t k;

    for (k = 0; k < sizeof(foreign) / sizeof(foreign[0]); k++) {
        errno = EBUSY;
        CHECK(nm_open(foreign[k], NULL, 0, NULL) == NULL);
        CHECK(errno == 0);
        CHECK(opened == 0);
    }
}

/* ---- opening ---- */

static void
rings_follow_the_mode(void)
{
    static const struct {
        const char *port;
        int first, last;
    } modes[] = {
        {"netmap:x", 0, 1},
        {"netmap:x*", 0, 2},
        {"netmap:x^", 2, 2},
        {"netmap:x-1", 1, 1},
        {"netmap:x{5", 0, 0},
    };
    size_t k;

    for (k = 0; k < sizeof(modes) / sizeof(modes[0]); k++) {
        struct nm_desc *d = nm_open(modes[k].port, NULL, NETMAP_NO_TX_POLL, NULL);

        CHECK(d != NULL);
        if (d == NULL)
            continue;
        CHECK(IS_NETMAP_DESC(d) && NETMAP_FD(d) == 1000);
        CHECK(asked.nr_ringid & NETMAP_NO_TX_POLL);
        CHECK(d->first_tx_ring == modes[k].first && d->last_tx_ring == modes[k].last);
        CHECK(d->first_rx_ring == modes[k].first && d->last_rx_ring == modes[k].last);
        CHECK(d->cur_tx_ring == modes[k].first && d->cur_rx_ring == modes[k].first);
        CHECK(d->mem == region && d->memsize == REGION_SIZE && d->done_mmap);
        CHECK(d->nifp == NETMAP_IF(region, NIFP_OFFSET));
        CHECK(d->some_ring == NETMAP_RXRING(d->nifp, d->first_rx_ring));
        CHECK(d->buf_start == region + BUFS_OFFSET && d->buf_end == region + REGION_SIZE);
        CHECK(nm_close(d) == 0);
        CHECK(opened == 0 && mapped == 0);
    }
}

static void
the_request_is_a_starting_point(void)
{
    struct nmreq req;
    struct nm_desc *d;

    memset(&req, 0, sizeof(req));
    req.nr_tx_slots = 512;
    req.nr_arg1 = 9;
    req.nr_arg3 = 17;
    req.nr_flags = NR_REG_ALL_NIC | NR_ACCEPT_VNET_HDR;
    req.nr_ringid = 3;
    d = nm_open("netmap:x-1", &req, 0, NULL);
    CHECK(d != NULL);
    nm_close(d);
    CHECK(asked.nr_tx_slots == 512 && asked.nr_arg1 == 9 && asked.nr_arg3 == 17);
    CHECK(asked.nr_flags == (NR_REG_ONE_NIC | NR_ACCEPT_VNET_HDR));
    CHECK(asked.nr_ringid == 1);
}

static void
a_parent_lends_its_mapping_and_more(void)
{
    struct nm_desc *a = nm_open("netmap:x-1", NULL, 0, NULL), *b;

    CHECK(a != NULL && mapped == 1);
    if (a == NULL)
        return;
    b = nm_open("netmap:y", NULL, NM_OPEN_NO_MMAP, a);
    CHECK(b != NULL && mapped == 1);
    CHECK(b->mem == a->mem && !b->done_mmap && b->nifp == a->nifp);
    CHECK(asked.nr_arg1 == 4 && asked.nr_arg3 == 0);
    nm_close(b);
    CHECK(mapped == 1);

    b = nm_open("netmap:y@5", NULL, NM_OPEN_NO_MMAP, a); /* another region: it needs a mapping of its own */
    CHECK(b != NULL && mapped == 2 && b->done_mmap);
    nm_close(b);

    a->req.nr_arg1 = 6;
    a->req.nr_arg3 = 8;
    a->req.nr_rx_slots = 99;
    b = nm_open("netmap:y", NULL,
        NM_OPEN_IFNAME | NM_OPEN_ARG1 | NM_OPEN_ARG2 | NM_OPEN_ARG3 | NM_OPEN_RING_CFG | NETMAP_DO_RX_POLL, a);
    CHECK(b != NULL);
    CHECK(strcmp(asked.nr_name, "x") == 0 && asked.nr_ringid == (1 | NETMAP_DO_RX_POLL));
    CHECK(asked.nr_flags == NR_REG_ONE_NIC);
    CHECK(asked.nr_arg1 == 6 && asked.nr_arg2 == a->req.nr_arg2 && asked.nr_arg3 == 8 && asked.nr_rx_slots == 99);
    nm_close(b);
    nm_close(a);
    CHECK(opened == 0 && mapped == 0);

    b = nm_open("netmap:y", NULL, NM_OPEN_NO_MMAP, NULL);
    CHECK(b != NULL && b->mem == NULL && b->nifp == NULL && mapped == 0);
    nm_close(b);
}

static void
close_refuses_what_is_not_a_descriptor(void)
{
    struct nm_desc d;

    memset(&d, 0, sizeof(d));
    CHECK(nm_close(NULL) == EINVAL);
    CHECK(nm_close(&d) == EINVAL);
    CHECK(opened == 0);
}

/* ---- packets ---- */

static void
inject_fills_the_rings_in_turn(void)
{
    struct nm_desc *d = nm_open("netmap:x", NULL, 0, NULL);
    char packet[3 * BUF_SIZE];
    struct netmap_ring *ring;
    size_t k;

    CHECK(d != NULL);
    if (d == NULL)
        return;
    for (k = 0; k < sizeof(packet); k++)
        packet[k] = (char)(k * 5 + 3);
    ring = NETMAP_TXRING(d->nifp, 0);

    ring->slot[0].flags = NS_REPORT;
    CHECK(nm_inject(d, packet, 60) == 60);
    CHECK(ring->head == 1 && ring->cur == 1 && ring->slot[0].len == 60 && ring->slot[0].flags == 0);
    CHECK(memcmp(NETMAP_BUF(ring, ring->slot[0].buf_idx), packet, 60) == 0);

    CHECK(nm_inject(d, packet, 2 * BUF_SIZE + 10) == 2 * BUF_SIZE + 10);
    CHECK(ring->head == 4 && ring->cur == 4);
    CHECK(ring->slot[1].flags == NS_MOREFRAG && ring->slot[2].flags == NS_MOREFRAG && ring->slot[3].flags == 0);
    CHECK(ring->slot[1].len == BUF_SIZE && ring->slot[2].len == BUF_SIZE && ring->slot[3].len == 10);
    CHECK(memcmp(NETMAP_BUF(ring, ring->slot[3].buf_idx), packet + 2 * BUF_SIZE, 10) == 0);

    CHECK(nm_inject(d, packet, 3 * BUF_SIZE) == 3 * BUF_SIZE); /* exactly the three slots that are left */
    CHECK(ring->head == 7 && ring->slot[6].len == BUF_SIZE && d->cur_tx_ring == 0);

    CHECK(nm_inject(d, packet, 60) == 60); /* no room: the other ring */
    CHECK(ring->head == 7 && d->cur_tx_ring == 1);
    ring = NETMAP_TXRING(d->nifp, 1);
    CHECK(ring->head == 1);

    ring->head = ring->cur = ring->tail; /* no room at all */
    CHECK(nm_inject(d, packet, 60) == 0);
    CHECK(nm_inject(d, packet, 0) == 0);
    CHECK(ring->head == ring->tail);
    nm_close(d);
}

/* What the callback saw. */
static struct {
    uint32_t len, caplen, more;
    char first;
} seen[2 * SLOTS];
static int n_seen;

static void
see(unsigned char *arg, const struct nm_pkthdr *hdr, const unsigned char *data)
{
    CHECK(arg == (unsigned char *)&n_seen);
    CHECK(data == hdr->buf && IS_NETMAP_DESC(hdr->d));
    CHECK(hdr->ts.tv_sec == 42);
    CHECK(NETMAP_BUF(hdr->d->some_ring, hdr->slot->buf_idx) == (const char *)data);
    seen[n_seen].len = hdr->len;
    seen[n_seen].caplen = hdr->caplen;
    seen[n_seen].more = hdr->flags & NM_MORE_PKTS;
    seen[n_seen].first = (char)data[0];
    n_seen++;
}

/* Let a slot arrive. */
static void
arrive(struct netmap_ring *ring, char first, uint16_t len, uint16_t flags)
{
    struct netmap_slot *slot = &ring->slot[ring->tail];

    NETMAP_BUF(ring, slot->buf_idx)[0] = first;
    slot->len = len;
    slot->flags = flags;
    ring->tail = nm_ring_next(ring, ring->tail);
    ring->ts.tv_sec = 42;
}

static void
dispatch_delivers_packets(void)
{
    struct nm_desc *d = nm_open("netmap:x", NULL, 0, NULL);
    struct netmap_ring *r0, *r1;

    CHECK(d != NULL);
    if (d == NULL)
        return;
    r0 = NETMAP_RXRING(d->nifp, 0);
    r1 = NETMAP_RXRING(d->nifp, 1);
    CHECK(nm_dispatch(d, 0, see, (unsigned char *)&n_seen) == 0 && n_seen == 0);

    r0->head = r0->cur = r0->tail = 6; /* wraps in the middle of a packet */
    arrive(r0, 'a', 60, 0);
    arrive(r0, 'b', BUF_SIZE, NS_MOREFRAG);
    arrive(r0, '-', 20, 0); /* slot 0, whose buffer does not follow that of slot 7 */
    arrive(r0, 'c', BUF_SIZE, NS_MOREFRAG);
    arrive(r0, '-', 30, 0);
    arrive(r1, 'd', 70, 0);
    CHECK(nm_dispatch(d, -1, see, (unsigned char *)&n_seen) == 4);
    CHECK(n_seen == 4);
    CHECK(seen[0].first == 'a' && seen[0].len == 60 && seen[0].caplen == 60 && seen[0].more);
    CHECK(seen[1].first == 'b' && seen[1].len == BUF_SIZE + 20 && seen[1].caplen == BUF_SIZE && seen[1].more);
    CHECK(seen[2].first == 'c' && seen[2].len == BUF_SIZE + 30 && seen[2].caplen == BUF_SIZE + 30 && seen[2].more);
    CHECK(seen[3].first == 'd' && seen[3].len == 70 && !seen[3].more);
    CHECK(r0->head == 3 && r0->cur == 3 && r1->head == 1 && r1->cur == 1 && d->cur_rx_ring == 1);

    n_seen = 0;
    arrive(r1, 'e', 60, 0);
    arrive(r1, 'f', 60, 0);
    CHECK(nm_dispatch(d, 1, see, (unsigned char *)&n_seen) == 1);
    CHECK(n_seen == 1 && seen[0].first == 'e' && !seen[0].more && r1->head == 2);

    n_seen = 0;
    arrive(r1, 'g', 60, NS_MOREFRAG); /* a packet without an end must not lead past tail */
    CHECK(nm_dispatch(d, 0, see, (unsigned char *)&n_seen) == 2);
    CHECK(n_seen == 2 && seen[1].len == 60 && r1->head == r1->tail);
    nm_close(d);
}

static void
nextpkt_visits_all_rings(void)
{
    struct nm_desc *d = nm_open("netmap:x", NULL, 0, NULL);
    struct nm_pkthdr hdr;
    unsigned char *p;

    CHECK(d != NULL);
    if (d == NULL)
        return;
    CHECK(nm_nextpkt(d, &hdr) == NULL);
    arrive(NETMAP_RXRING(d->nifp, 1), 'a', 60, 0);
    p = nm_nextpkt(d, &hdr);
    CHECK(p != NULL && *p == 'a' && hdr.len == 60 && hdr.caplen == 60 && hdr.ts.tv_sec == 42 && d->cur_rx_ring == 1);
    arrive(NETMAP_RXRING(d->nifp, 0), 'b', 61, 0);
    p = nm_nextpkt(d, &hdr);
    CHECK(p != NULL && *p == 'b' && hdr.len == 61 && d->cur_rx_ring == 0);
    CHECK(nm_nextpkt(d, &hdr) == NULL);
    nm_close(d);
}

static void
a_port_open_one_way_has_nothing_on_the_other(void)
{
    struct nm_pkthdr hdr;
    struct nm_desc *d;

    one_way = 1;
    d = nm_open("netmap:x/T", NULL, 0, NULL);
    CHECK(d != NULL);
    if (d != NULL) {
        CHECK(d->some_ring == NETMAP_TXRING(d->nifp, 0));
        CHECK(d->buf_start == region + BUFS_OFFSET);
        CHECK(nm_nextpkt(d, &hdr) == NULL);
        CHECK(nm_dispatch(d, 0, see, NULL) == 0);
        CHECK(nm_inject(d, "x", 1) == 1);
    }
    nm_close(d);
    one_way = 0;
}

int
main(void)
{
    ring_arithmetic();
    addresses();
    packet_copy_writes_no_more_than_asked();
    csb_cursors_cross();
    names_are_parsed();
    foreign_names_leave_errno_0();
    rings_follow_the_mode();
    the_request_is_a_starting_point();
    a_parent_lends_its_mapping_and_more();
    close_refuses_what_is_not_a_descriptor();
    inject_fills_the_rings_in_turn();
    dispatch_delivers_packets();
    nextpkt_visits_all_rings();
    a_port_open_one_way_has_nothing_on_the_other();
    ND("nothing %s", "at all");
    RD(1, "and this once");
    return failures != 0;
}
