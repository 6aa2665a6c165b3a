/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nm-send: send frames on a netmap port, as fast as it goes or at a rate; with -V frames that nm-recv -V can check.
 *
 * The whole of sending with netmap is in send_frames(), fill_ring() and drain(): fill slots from head on, move head
 * and cur, poll() to push them out and to wait for room, and do not close before all of them came back.
 */
#define _GNU_SOURCE
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <time.h>

#include "pattern.h"

#define DRAIN_SECONDS 3.0
#define LATE_SECONDS 0.1 /* a sender that is later than this gives up on catching up */

static struct {
    const char *port;
    uint64_t count; /* 0: for ever */
    double rate;    /* frames per second, 0: no limit */
    size_t min, max;
    uint64_t burst;
    double seconds; /* 0: for ever */
    int verify;
} opt = {.min = 60, .max = 60, .burst = 0};

static uint64_t sent;

/* The frame that is sent without -V; with it, room to make those that take several slots. */
static uint8_t frame[65536];

/* Slots of each ring that have not been filled yet. Filled ones stay as they are, and are sent again and again. */
static uint32_t *unfilled;

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

static void
sleep_until(double when)
{
    struct timespec t;

    t.tv_sec = (time_t)when;
    t.tv_nsec = (long)((when - (double)t.tv_sec) * 1e9);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* Put bytes [from, from + len) of the next frame into the slot's buffer. */
static void
fill_slot(struct netmap_ring *ring, uint32_t *fresh, struct netmap_slot *slot, size_t from, size_t len, int whole)
{
    uint8_t *buf = (uint8_t *)NETMAP_BUF(ring, slot->buf_idx);

    if (opt.verify && whole) {
        pattern_fill(buf, len, sent);
    } else if (opt.max > ring->nr_buf_size) {
        memcpy(buf, frame + from, len);
    } else if (*fresh > 0 || (slot->flags & NS_BUF_CHANGED)) {
        memcpy(buf, frame, opt.max); /* not len: the next frame in this slot may be longer */
    }
    if (*fresh > 0)
        (*fresh)--;
    slot->len = (uint16_t)len;
}

/* Queue up to max frames. Returns how many there was room for. */
static uint64_t
fill_ring(struct netmap_ring *ring, uint32_t *fresh, uint64_t max)
{
    uint32_t room = ring->nr_buf_size, space = nm_ring_space(ring), i = ring->head;
    uint64_t n;

    for (n = 0; n < max; n++, sent++) {
        size_t len = pattern_length(sent, opt.min, opt.max), from, piece;
        uint32_t slots = (uint32_t)((len + room - 1) / room);

        if (slots > space)
            break;
        space -= slots;
        if (opt.verify && slots > 1)
            pattern_fill(frame, len, sent);
        for (from = 0; from < len; from += piece) {
            struct netmap_slot *slot = &ring->slot[i];

            piece = len - from < room ? len - from : room;
            fill_slot(ring, fresh, slot, from, piece, slots == 1);
            slot->flags = from + piece < len ? NS_MOREFRAG : 0;
            i = nm_ring_next(ring, i);
        }
    }
    ring->head = i;
    ring->cur = n < max ? ring->tail : i; /* out of room: wake up for more than what is left */
    return n;
}

/* Queue up to max frames on all rings. With -V on the first one only, for there is no order between rings. */
static uint64_t
fill_rings(struct nm_desc *d, uint64_t max)
{
    unsigned int last = opt.verify ? d->first_tx_ring : d->last_tx_ring, ri;
    uint64_t n = 0;

    for (ri = d->first_tx_ring; ri <= last && n < max; ri++)
        n += fill_ring(NETMAP_TXRING(d->nifp, ri), &unfilled[ri - d->first_tx_ring], max - n);
    return n;
}

/* poll() pushes what was queued, and waits for room. Returns -1 when the port failed. */
static int
push_and_wait(struct nm_desc *d, int timeout_ms)
{
    struct pollfd pfd = {.fd = d->fd, .events = POLLOUT, .revents = 0};
    int ready = poll(&pfd, 1, timeout_ms);

    if (ready < 0 && errno != EINTR) {
        perror("poll");
        return -1;
    }
    if (ready > 0 && (pfd.revents & (POLLERR | POLLHUP | POLLNVAL))) {
        fprintf(stderr, "%s: the port failed\n", opt.port);
        return -1;
    }
    return 0;
}

static int
send_frames(struct nm_desc *d)
{
    uint64_t burst = opt.burst, in_burst = 0, goal, done;
    double start = now(), last_print = start, due = start, t;
    uint64_t printed = 0;

    if (burst == 0)
        burst = opt.rate > 0 ? (uint64_t)(opt.rate / 1000) + 1 : 512;
    while (!stop && (opt.count == 0 || sent < opt.count)) {
        t = now();
        if (opt.seconds > 0 && t - start >= opt.seconds)
            break;
        if (t - last_print >= 1) {
            fprintf(stderr, "%" PRIu64 " frames, %.0f per second\n", sent, (double)(sent - printed) / (t - last_print));
            last_print = t;
            printed = sent;
        }

        /* A limited sender sleeps between bursts, in steps short enough to end in time. */
        if (opt.rate > 0 && t < due) {
            sleep_until(due < t + 0.1 ? due : t + 0.1);
            continue;
        }
        if (t > due + LATE_SECONDS)
            due = t;

        goal = burst - in_burst;
        if (opt.count != 0 && goal > opt.count - sent)
            goal = opt.count - sent;
        done = fill_rings(d, goal);
        in_burst += done;
        if (opt.rate > 0 && done == goal) {
            due += (double)in_burst / opt.rate;
            in_burst = 0;
            ioctl(d->fd, NIOCTXSYNC, NULL);
            continue;
        }
        if (opt.rate <= 0)
            in_burst = 0;
        if (push_and_wait(d, 100) != 0)
            return -1;
    }
    return 0;
}

/* Wait until every slot came back, but not for ever: nobody may be reading at the other end. */
static void
drain(struct nm_desc *d)
{
    double end = now() + DRAIN_SECONDS;
    unsigned int ri;

    for (;;) {
        int pending = 0;

        ioctl(d->fd, NIOCTXSYNC, NULL);
        for (ri = d->first_tx_ring; ri <= d->last_tx_ring; ri++)
            pending |= nm_tx_pending(NETMAP_TXRING(d->nifp, ri));
        if (!pending)
            return;
        if (now() > end) {
            fprintf(stderr, "%s: some frames did not leave the ring\n", opt.port);
            return;
        }
        sleep_until(now() + 0.001);
    }
}

static void
usage(FILE *to)
{
    fprintf(to,
        "usage: nm-send -i PORT [-n COUNT] [-R RATE] [-l LENGTH] [-b BURST] [-T SECONDS] [-V]\n"
        "  -i PORT     what to open: netmap:IF, valeS:P, ...\n"
        "  -n COUNT    stop after so many frames\n"
        "  -R RATE     frames per second\n"
        "  -l LENGTH   bytes of a frame without its checksum, default 60; or MIN,MAX\n"
        "  -b BURST    frames between two looks at the clock\n"
        "  -T SECONDS  stop after so many seconds\n"
        "  -V          send frames that nm-recv -V checks, on one ring\n");
}

static int
parse_lengths(const char *text)
{
    char *end;

    opt.min = opt.max = strtoul(text, &end, 0);
    if (*end == ',')
        opt.max = strtoul(end + 1, &end, 0);
    return *end == '\0' && opt.min >= PATTERN_HEADER && opt.min <= opt.max && opt.max <= UINT16_MAX;
}

int
main(int argc, char **argv)
{
    static const struct option longs[] = {{"verify", no_argument, NULL, 'V'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct sigaction sa;
    struct nm_desc *d;
    double start, elapsed;
    unsigned int rings, ri;
    int c, failed;

    while ((c = getopt_long(argc, argv, "i:n:R:l:b:T:Vh", longs, NULL)) != -1) {
        switch (c) {
        case 'i':
            opt.port = optarg;
            break;
        case 'n':
            opt.count = strtoull(optarg, NULL, 0);
            break;
        case 'R':
            opt.rate = strtod(optarg, NULL);
            break;
        case 'l':
            if (!parse_lengths(optarg)) {
                fprintf(stderr, "-l %s: need %d <= MIN <= MAX <= %d\n", optarg, PATTERN_HEADER, UINT16_MAX);
                return 2;
            }
            break;
        case 'b':
            opt.burst = strtoull(optarg, NULL, 0);
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

    /* No SA_RESTART: the signal ends poll() and sleeps. */
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
    if ((void *)NETMAP_TXRING(d->nifp, d->first_tx_ring) == (void *)d->nifp) {
        fprintf(stderr, "%s: opened without transmit rings\n", opt.port);
        nm_close(d);
        return 1;
    }
    rings = d->last_tx_ring - d->first_tx_ring + 1u;
    unfilled = (uint32_t *)calloc(rings, sizeof(*unfilled));
    if (unfilled == NULL) {
        perror("calloc");
        nm_close(d);
        return 1;
    }
    for (ri = 0; ri < rings; ri++) {
        struct netmap_ring *ring = NETMAP_TXRING(d->nifp, d->first_tx_ring + ri);

        unfilled[ri] = ring->num_slots;
        if (opt.verify && ri > 0)
            ring->cur = ring->tail; /* room on a ring that is not used is no reason to wake up */
    }
    memcpy(frame, pattern_ethernet, sizeof(pattern_ethernet));
    fprintf(stderr, "%s: ready, transmit rings %d to %d\n", opt.port, d->first_tx_ring, d->last_tx_ring);

    start = now();
    failed = send_frames(d) != 0;
    elapsed = now() - start;
    if (!failed)
        drain(d);
    nm_close(d);
    free(unfilled);

    if (opt.verify)
        printf("sent=%" PRIu64 "\n", sent);
    else
        printf("sent=%" PRIu64 " seconds=%.2f mpps=%.2f\n", sent, elapsed,
            elapsed > 0 ? (double)sent / elapsed * 1e-6 : 0.0);
    return failed;
}
