/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nm-recv: receive on a netmap port and count, or with -V check every byte of what nm-send -V sends.
 *
 * The whole of receiving with netmap is in main() and receive_ring(): poll() for packets, look at the slots from head
 * to tail, give them back by moving head and cur. See pattern.h for the frames that -V understands.
 */
#define _GNU_SOURCE
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <time.h>

#include "pattern.h"

static struct {
    const char *port;
    uint64_t count; /* stop after so many, 0: never */
    double idle;    /* stop after so many seconds without a frame, 0: never */
    double seconds; /* stop after so many seconds, 0: never */
    int verify;
} opt;

static struct {
    uint64_t received; /* with -V: frames that are intact */
    uint64_t lost;     /* numbers that were passed over and did not come later */
    uint64_t reordered;
    uint64_t corrupt;
    uint64_t other;
    uint64_t expected; /* the next number */
} stats;

/* A packet of several slots, put together. */
static uint8_t joined[65536];
static size_t joined_len;

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

static int
all_received(void)
{
    return opt.count != 0 && stats.received >= opt.count;
}

static void
verify_frame(const uint8_t *frame, size_t len)
{
    uint64_t seq;

    switch (pattern_check(frame, len, &seq)) {
    case PATTERN_OTHER:
        stats.other++;
        return;
    case PATTERN_CORRUPT:
        stats.corrupt++;
        return;
    case PATTERN_GOOD:
        break;
    }
    stats.received++;
    if (seq >= stats.expected) {
        stats.lost += seq - stats.expected;
        stats.expected = seq + 1;
    } else {
        stats.reordered++;
        if (stats.lost > 0)
            stats.lost--; /* it was counted as lost when it was passed over */
    }
}

static void
take_slot(const uint8_t *data, size_t len, int more)
{
    if (!opt.verify) {
        stats.received += !more;
        return;
    }
    if (!more && joined_len == 0) {
        verify_frame(data, len);
        return;
    }
    if (len > sizeof(joined) - joined_len)
        len = sizeof(joined) - joined_len;
    memcpy(joined + joined_len, data, len);
    joined_len += len;
    if (!more) {
        verify_frame(joined, joined_len);
        joined_len = 0;
    }
}

static void
receive_ring(struct netmap_ring *ring)
{
    uint32_t i = ring->head, end = ring->tail;

    while (i != end && !all_received()) {
        const struct netmap_slot *slot = &ring->slot[i];

        take_slot((const uint8_t *)NETMAP_BUF(ring, slot->buf_idx), slot->len, slot->flags & NS_MOREFRAG);
        i = nm_ring_next(ring, i);
    }
    ring->head = ring->cur = i;
}

static void
print_second(uint64_t frames, double seconds)
{
    fprintf(stderr, "%" PRIu64 " frames, %.0f per second", stats.received, (double)frames / seconds);
    if (opt.verify)
        fprintf(stderr, ", lost %" PRIu64 ", reordered %" PRIu64 ", corrupt %" PRIu64 ", other %" PRIu64, stats.lost,
            stats.reordered, stats.corrupt, stats.other);
    fputc('\n', stderr);
}

/* Receive until there is a reason to stop. Returns 0, or -1 when the port failed. */
static int
receive(struct nm_desc *d, double *elapsed)
{
    struct pollfd pfd = {.fd = d->fd, .events = POLLIN, .revents = 0};
    double start = now(), last_frame = start, last_print = start, t = start;
    uint64_t printed = 0, before;
    unsigned int ri;
    int ready;

    for (;;) {
        *elapsed = t - start;
        if (stop || all_received() || (opt.seconds > 0 && t - start >= opt.seconds) ||
            (opt.idle > 0 && t - last_frame >= opt.idle))
            return 0;

        ready = poll(&pfd, 1, 100);
        if (ready < 0 && errno != EINTR) {
            perror("poll");
            return -1;
        }
        if (ready > 0 && (pfd.revents & (POLLERR | POLLHUP | POLLNVAL))) {
            fprintf(stderr, "%s: the port failed\n", opt.port);
            return -1;
        }
        before = stats.received;
        if (ready > 0)
            for (ri = d->first_rx_ring; ri <= d->last_rx_ring; ri++)
                receive_ring(NETMAP_RXRING(d->nifp, ri));

        t = now();
        if (stats.received != before)
            last_frame = t;
        if (t - last_print >= 1) {
            print_second(stats.received - printed, t - last_print);
            last_print = t;
            printed = stats.received;
        }
    }
}

static void
usage(FILE *to)
{
    fprintf(to,
        "usage: nm-recv -i PORT [-n COUNT] [-t SECONDS] [-T SECONDS] [-V]\n"
        "  -i PORT     what to open: netmap:IF, valeS:P, ...\n"
        "  -n COUNT    stop after so many frames\n"
        "  -t SECONDS  stop after so many seconds without a frame\n"
        "  -T SECONDS  stop after so many seconds\n"
        "  -V          check the frames of nm-send -V; others are counted and do not matter\n");
}

int
main(int argc, char **argv)
{
    static const struct option longs[] = {{"verify", no_argument, NULL, 'V'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct sigaction sa;
    struct nm_desc *d;
    double elapsed = 0;
    int c, failed;

    while ((c = getopt_long(argc, argv, "i:n:t:T:Vh", longs, NULL)) != -1) {
        switch (c) {
        case 'i':
            opt.port = optarg;
            break;
        case 'n':
            opt.count = strtoull(optarg, NULL, 0);
            break;
        case 't':
            opt.idle = strtod(optarg, NULL);
            break;
        case 'T':
            opt.seconds = strtod(optarg, NULL);
            break;
        case 'V':
            opt.verify = 1;
            break;
        case 'h':
            usage(stdout);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    if (opt.port == NULL || optind != argc) {
        usage(stderr);
        return 2;
    }

    /* No SA_RESTART: the signal ends poll(). */
    memset(&sa, 0, sizeof(sa));
    sa.sa_handler = on_signal;
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);

    d = nm_open(opt.port, NULL, 0, NULL);
    if (d == NULL) {
        if (errno == 0)
            fprintf(stderr, "%s: not a netmap name\n", opt.port);
        return 1;
    }
    if ((void *)NETMAP_RXRING(d->nifp, d->first_rx_ring) == (void *)d->nifp) {
        fprintf(stderr, "%s: opened without receive rings\n", opt.port);
        nm_close(d);
        return 1;
    }
    fprintf(stderr, "%s: ready, receive rings %d to %d\n", opt.port, d->first_rx_ring, d->last_rx_ring);

    failed = receive(d, &elapsed) != 0;
    ioctl(d->fd, NIOCRXSYNC, NULL); /* give back the last slots: the other end of a pipe may wait for them */
    nm_close(d);

    if (!opt.verify) {
        printf("received=%" PRIu64 " seconds=%.2f mpps=%.2f\n", stats.received, elapsed,
            elapsed > 0 ? (double)stats.received / elapsed * 1e-6 : 0.0);
        return failed || stats.received < opt.count;
    }
    if (stats.expected < opt.count)
        stats.lost += opt.count - stats.expected; /* the end never came */
    printf("received=%" PRIu64 " lost=%" PRIu64 " reordered=%" PRIu64 " corrupt=%" PRIu64 " other=%" PRIu64 "\n",
        stats.received, stats.lost, stats.reordered, stats.corrupt, stats.other);
    return failed || stats.received < opt.count || stats.lost || stats.reordered || stats.corrupt;
}
