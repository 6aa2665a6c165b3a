/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nm-forward: carry packets between two netmap ports, both ways.
 *
 * When both ports live in the same memory region a packet is forwarded by exchanging the buffers of two slots, and no
 * byte of it is touched; else, or with -c, it is copied. A port and its host rings ("netmap:eth0" and "netmap:eth0^")
 * put the host back on a network that netmap took.
 */
#define _GNU_SOURCE
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <time.h>

/* One direction. */
struct path {
    struct nm_desc *from, *to;
    uint64_t packets;
    uint64_t dropped; /* too long for the buffers of the other side */
};

static int copy;

static volatile sig_atomic_t stop;

static void
on_signal(int sig)
{
    (void)sig;
    stop = 1;
}

static double
now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Slots of the packet at i, and its longest piece; 0 if its end has not come yet. */
static uint32_t
packet_slots(const struct netmap_ring *ring, uint32_t i, uint32_t *longest)
{
    uint32_t n;

    *longest = 0;
    for (n = 1; i != ring->tail; n++, i = nm_ring_next(ring, i)) {
        if (ring->slot[i].len > *longest)
            *longest = ring->slot[i].len;
        if (!(ring->slot[i].flags & NS_MOREFRAG))
            return n;
    }
    return 0;
}

static void
move_slot(struct netmap_ring *rx, struct netmap_slot *in, struct netmap_ring *tx, struct netmap_slot *out)
{
    uint16_t more = in->flags & NS_MOREFRAG;

    out->len = in->len;
    if (copy) {
        nm_pkt_copy(NETMAP_BUF(rx, in->buf_idx), NETMAP_BUF(tx, out->buf_idx), in->len);
        out->flags = more;
    } else {
        uint32_t idx = out->buf_idx;

        out->buf_idx = in->buf_idx;
        in->buf_idx = idx;
        out->flags = NS_BUF_CHANGED | more;
        in->flags = NS_BUF_CHANGED;
    }
}

/* Move whole packets from one ring to another, until one has nothing left or the other no room. */
static void
move_ring(struct path *p, struct netmap_ring *rx, struct netmap_ring *tx)
{
    uint32_t in = rx->head, out = tx->head, space = nm_ring_space(tx), slots, longest, k;
    int blocked = 0;

    while ((slots = packet_slots(rx, in, &longest)) != 0) {
        int fits = longest <= tx->nr_buf_size;

        blocked = fits && slots > space;
        if (blocked)
            break;
        for (k = 0; k < slots; k++, in = nm_ring_next(rx, in)) {
            if (!fits)
                continue;
            move_slot(rx, &rx->slot[in], tx, &tx->slot[out]);
            out = nm_ring_next(tx, out);
        }
        if (fits) {
            p->packets++;
            space -= slots;
        } else {
            p->dropped++;
        }
    }
    /* What is left on either side is not enough: it must not wake us up before there is more. */
    rx->head = in;
    rx->cur = slots == 0 ? rx->tail : in;
    tx->head = out;
    tx->cur = blocked ? tx->tail : out;
}

/* Receive rings take the transmit rings in turn. A flow stays in order as long as its ring has room. */
static void
move_port(struct path *p)
{
    struct nm_desc *from = p->from, *to = p->to;
    unsigned int rings = to->last_tx_ring - to->first_tx_ring + 1u, ri, k;

    for (ri = from->first_rx_ring; ri <= from->last_rx_ring; ri++) {
        struct netmap_ring *rx = NETMAP_RXRING(from->nifp, ri);

        for (k = 0; k < rings && !nm_ring_empty(rx); k++) {
            unsigned int ti = to->first_tx_ring + (ri - from->first_rx_ring + k) % rings;

            move_ring(p, rx, NETMAP_TXRING(to->nifp, ti));
        }
    }
}

static int
has_received(const struct nm_desc *d)
{
    unsigned int ri;
    uint32_t longest;

    for (ri = d->first_rx_ring; ri <= d->last_rx_ring; ri++) {
        const struct netmap_ring *ring = NETMAP_RXRING(d->nifp, ri);

        if (packet_slots(ring, ring->head, &longest) != 0)
            return 1;
    }
    return 0;
}

/* Forward until there is a reason to stop. Returns -1 when a port failed. */
static int
forward(struct path *ab, struct path *ba, double seconds)
{
    struct nm_desc *a = ab->from, *b = ba->from;
    double start = now();

    while (!stop && (seconds <= 0 || now() - start < seconds)) {
        struct pollfd pfd[2] = {{.fd = a->fd, .events = 0, .revents = 0}, {.fd = b->fd, .events = 0, .revents = 0}};
        int ready;

        /* Packets that wait for room: sleep until there is some. Else sleep until packets come. Either way poll()
         * pushes what was queued, and takes back the slots of what was forwarded. */
        if (has_received(a))
            pfd[1].events |= POLLOUT;
        else
            pfd[0].events |= POLLIN;
        if (has_received(b))
            pfd[0].events |= POLLOUT;
        else
            pfd[1].events |= POLLIN;

        ready = poll(pfd, 2, 100);
        if (ready < 0 && errno != EINTR) {
            perror("poll");
            return -1;
        }
        if (ready > 0 && ((pfd[0].revents | pfd[1].revents) & (POLLERR | POLLHUP | POLLNVAL))) {
            fprintf(stderr, "a port failed\n");
            return -1;
        }
        move_port(ab);
        move_port(ba);
    }
    return 0;
}

/* True if the port was not opened for one direction only. */
static int
two_way(const struct nm_desc *d, const char *port)
{
    if ((void *)NETMAP_TXRING(d->nifp, d->first_tx_ring) != (void *)d->nifp &&
        (void *)NETMAP_RXRING(d->nifp, d->first_rx_ring) != (void *)d->nifp)
        return 1;
    fprintf(stderr, "%s: need receive and transmit rings\n", port);
    return 0;
}

static int
failed_to_open(const char *port)
{
    if (errno == 0)
        fprintf(stderr, "%s: not a netmap name\n", port);
    return 1;
}

static void
usage(FILE *to)
{
    fprintf(to,
        "usage: nm-forward -i PORT -i PORT [-c] [-T SECONDS]\n"
        "  -i PORT     what to open: netmap:IF, netmap:IF^, valeS:P, ...\n"
        "  -c          copy packets even if their buffers could be exchanged\n"
        "  -T SECONDS  stop after so many seconds\n");
}

int
main(int argc, char **argv)
{
    static const struct option longs[] = {{"help", no_argument, NULL, 'h'}, {0}};
    const char *ports[2];
    int n_ports = 0, c, failed;
    double seconds = 0;
    struct sigaction sa;
    struct nm_desc *a, *b;
    struct path ab = {0}, ba = {0};

    while ((c = getopt_long(argc, argv, "i:cT:h", longs, NULL)) != -1) {
        switch (c) {
        case 'i':
            if (n_ports == 2) {
                usage(stderr);
                return 2;
            }
            ports[n_ports++] = optarg;
            break;
        case 'c':
            copy = 1;
            break;
        case 'T':
            seconds = strtod(optarg, NULL);
            break;
        case 'h':
            usage(stdout);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    if (n_ports != 2 || optind != argc) {
        usage(stderr);
        return 2;
    }

    /* No SA_RESTART: the signal ends poll(). */
    memset(&sa, 0, sizeof(sa));
    sa.sa_handler = on_signal;
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);

    a = nm_open(ports[0], NULL, 0, NULL);
    if (a == NULL)
        return failed_to_open(ports[0]);
    b = nm_open(ports[1], NULL, NM_OPEN_NO_MMAP, a); /* shares the mapping of a if it is of the same region */
    if (b == NULL) {
        failed = failed_to_open(ports[1]);
        nm_close(a);
        return failed;
    }
    if (!two_way(a, ports[0]) || !two_way(b, ports[1])) {
        nm_close(b);
        nm_close(a);
        return 1;
    }
    if (a->req.nr_arg2 != b->req.nr_arg2)
        copy = 1;
    ab.from = ba.to = a;
    ab.to = ba.from = b;
    fprintf(stderr, "%s <-> %s: ready, %s\n", ports[0], ports[1], copy ? "copy" : "zero-copy");

    failed = forward(&ab, &ba, seconds) != 0;
    ioctl(a->fd, NIOCTXSYNC, NULL); /* push what was moved last */
    ioctl(b->fd, NIOCTXSYNC, NULL);
    nm_close(b);
    nm_close(a);
    printf("forward=%" PRIu64 " back=%" PRIu64 " dropped=%" PRIu64 "\n", ab.packets, ba.packets,
        ab.dropped + ba.dropped);
    return failed;
}
