/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nm-loops: the C contender of the `nic` benchmark, a plain netmap program: sends, receives or forwards as fast as it
 * goes, in batches of 64, and prints what it did in a span of time. The loops are those of benches/src/worker.rs.
 *
 * usage: nm-loops tx|rx|forward DEV[,DEV] CORE MILLISECONDS
 */
#define _GNU_SOURCE
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <time.h>

#define BATCH 64u
#define LENGTH 60u
#define WARM_UP 100000000u

static const uint8_t header[14] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5};

static uint64_t packets, window, warm, start, start_cpu, start_packets, seen;

static uint64_t
read_clock(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Whether the loop is to go on; when not, the result is printed. */
static inline int
goes_on(void)
{
    uint64_t t = read_clock(CLOCK_MONOTONIC);

    if (start == 0) {
        if (t >= warm) {
            start = t;
            start_cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID);
            start_packets = packets;
        }
    } else if (t >= start + window) {
        printf("packets=%" PRIu64 " ns=%" PRIu64 " cpu=%" PRIu64 "\n", packets - start_packets, t - start,
            read_clock(CLOCK_PROCESS_CPUTIME_ID) - start_cpu);
        return 0;
    }
    return 1;
}

static uint32_t
least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static struct nm_desc *
open_port(const char *dev, const struct nm_desc *parent)
{
    char name[64];
    struct nm_desc *d;

    snprintf(name, sizeof(name), "netmap:%s", dev);
    d = nm_open(name, NULL, parent != NULL ? NM_OPEN_NO_MMAP : 0, parent);
    if (d == NULL) {
        perror(name);
        exit(1);
    }
    return d;
}

static void
wait_for(int fd, short events, int millis)
{
    struct pollfd p = {.fd = fd, .events = events, .revents = 0};

    poll(&p, 1, millis);
}

static void
transmit(struct nm_desc *d)
{
    struct netmap_ring *ring = NETMAP_TXRING(d->nifp, 0);
    uint32_t i, n, head, fresh = ring->num_slots;

    while (goes_on()) {
        n = least(nm_ring_space(ring), BATCH);
        head = ring->head;
        for (i = 0; i < n; i++) {
            struct netmap_slot *slot = &ring->slot[head];

            if (fresh > 0) {
                uint8_t *buf = (uint8_t *)NETMAP_BUF(ring, slot->buf_idx);

                memset(buf, 0, LENGTH);
                memcpy(buf, header, sizeof(header));
                fresh--;
            }
            slot->len = LENGTH;
            slot->flags = 0;
            head = nm_ring_next(ring, head);
        }
        ring->head = ring->cur = head;
        packets += n;
        if (n > 0)
            ioctl(d->fd, NIOCTXSYNC, NULL);
        else
            wait_for(d->fd, POLLOUT, 1);
    }
}

static void
receive(struct nm_desc *d)
{
    struct netmap_ring *ring = NETMAP_RXRING(d->nifp, 0);
    uint32_t i, n, head;

    while (goes_on()) {
        wait_for(d->fd, POLLIN, 100);
        n = least(nm_ring_space(ring), BATCH);
        head = ring->head;
        for (i = 0; i < n; i++) {
            uint64_t first;

            memcpy(&first, NETMAP_BUF(ring, ring->slot[head].buf_idx), sizeof(first));
            seen ^= first;
            head = nm_ring_next(ring, head);
        }
        ring->head = ring->cur = head;
        packets += n;
    }
}

static void
forward(struct nm_desc *a, struct nm_desc *b)
{
    struct netmap_ring *rx = NETMAP_RXRING(a->nifp, 0), *tx = NETMAP_TXRING(b->nifp, 0);
    uint32_t i, n, waiting, in, out, idx;

    while (goes_on()) {
        ioctl(a->fd, NIOCRXSYNC, NULL);
        waiting = nm_ring_space(rx);
        n = least(least(waiting, nm_ring_space(tx)), BATCH);
        in = rx->head;
        out = tx->head;
        for (i = 0; i < n; i++) {
            struct netmap_slot *from = &rx->slot[in], *to = &tx->slot[out];

            idx = to->buf_idx;
            to->buf_idx = from->buf_idx;
            from->buf_idx = idx;
            to->len = from->len;
            to->flags = NS_BUF_CHANGED;
            from->flags = NS_BUF_CHANGED;
            in = nm_ring_next(rx, in);
            out = nm_ring_next(tx, out);
        }
        rx->head = rx->cur = in;
        tx->head = tx->cur = out;
        packets += n;
        if (n > 0)
            ioctl(b->fd, NIOCTXSYNC, NULL);
        else if (waiting == 0)
            wait_for(a->fd, POLLIN, 1);
        else
            wait_for(b->fd, POLLOUT, 1);
    }
}

int
main(int argc, char **argv)
{
    struct nm_desc *a, *b = NULL;
    char *second;
    cpu_set_t set;

    if (argc != 5) {
        fprintf(stderr, "usage: nm-loops tx|rx|forward DEV[,DEV] CORE MILLISECONDS\n");
        return 2;
    }
    CPU_ZERO(&set);
    CPU_SET((size_t)atoi(argv[3]), &set);
    sched_setaffinity(0, sizeof(set), &set);
    window = strtoull(argv[4], NULL, 10) * 1000000u;

    second = strchr(argv[2], ',');
    if (second != NULL)
        *second++ = '\0';
    a = open_port(argv[2], NULL);
    if (second != NULL)
        b = open_port(second, a);
    warm = read_clock(CLOCK_MONOTONIC) + WARM_UP;
    if (strcmp(argv[1], "tx") == 0)
        transmit(a);
    else if (strcmp(argv[1], "rx") == 0)
        receive(a);
    else if (b != NULL)
        forward(a, b);
    if (b != NULL)
        nm_close(b);
    nm_close(a);
    return seen == 1;
}
