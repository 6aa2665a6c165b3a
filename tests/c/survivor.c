/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One frame thrown to and fro between two processes that sleep without a limit: a wake-up that is lost stops them for good.
 *
 *   survivor ping PORT AGAIN     throws a numbered frame, sleeps until it is back, checks it, throws the next one
 *   survivor echo PORT AGAIN     sleeps until a frame comes, and throws it back
 *
 * Prints "open" once PORT is, and "turns=N" every thousand turns. SIGUSR1: opens AGAIN too, keeps it, and prints
 * "again". SIGTERM: closes, and ends with status 0. Any fault is said on standard error and ends with status 99.
 */
#define _GNU_SOURCE
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define FRAME 60
#define HEADER 14

static volatile sig_atomic_t stop, again;

static void on_signal(int sig)
{
    if (sig == SIGUSR1)
        again = 1;
    else
        stop = 1;
}

static void fault(const char *what)
{
    perror(what);
    exit(99);
}

static struct nm_desc *open_port(const char *name)
{
    struct nm_desc *d = nm_open(name, NULL, 0, NULL);

    if (d == NULL)
        fault(name);
    return d;
}

/* The only frame under way, so there is always room. */
static void throw_it(struct nm_desc *d, unsigned long number)
{
    struct netmap_ring *ring = NETMAP_TXRING(d->nifp, d->first_tx_ring);
    struct netmap_slot *slot = &ring->slot[ring->head];
    char *p = NETMAP_BUF(ring, slot->buf_idx);

    if (nm_ring_empty(ring))
        fault("no room for one frame");
    memset(p, 0xff, 6);
    memcpy(p + 6, "\2\0\0\0\0\1\x88\xb5", 8);
    memset(p + HEADER, (int)(number & 0x7f), FRAME - HEADER);
    memcpy(p + HEADER, &number, sizeof number);
    slot->len = FRAME;
    slot->flags = 0;
    ring->head = ring->cur = nm_ring_next(ring, ring->head);
    if (ioctl(d->fd, NIOCTXSYNC, NULL) != 0)
        fault("NIOCTXSYNC");
}

/* Sleeps until the frame is here. Returns 0 when a signal came first. */
static int catch_it(struct nm_desc *d, unsigned long *number)
{
    struct netmap_ring *ring = NETMAP_RXRING(d->nifp, d->first_rx_ring);
    struct pollfd pfd = {.fd = d->fd, .events = POLLIN, .revents = 0};
    const char *p;

    if (poll(&pfd, 1, -1) < 0) {
        if (errno != EINTR)
            fault("poll");
        return 0;
    }
    if (pfd.revents & (POLLERR | POLLHUP | POLLNVAL))
        fault("the port failed");
    if (nm_ring_space(ring) != 1 || ring->slot[ring->head].len != FRAME)
        fault("not the one frame");
    p = NETMAP_BUF(ring, ring->slot[ring->head].buf_idx);
    memcpy(number, p + HEADER, sizeof *number);
    for (unsigned i = HEADER + sizeof *number; i < FRAME; i++)
        if (p[i] != (char)(*number & 0x7f))
            fault("a corrupt frame");
    ring->head = ring->cur = nm_ring_next(ring, ring->head);
    return 1;
}

int main(int argc, char **argv)
{
    struct sigaction sa = {.sa_handler = on_signal}; /* no SA_RESTART: signals end poll() */
    struct nm_desc *d, *second = NULL;
    unsigned long turns = 0, number;
    int ping;

    if (argc != 4)
        return 2;
    ping = strcmp(argv[1], "ping") == 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGUSR1, &sa, NULL);
    d = open_port(argv[2]);
    printf("open\n");
    if (ping)
        throw_it(d, 1);
    while (!stop) {
        if (again && second == NULL) {
            second = open_port(argv[3]);
            printf("again\n");
        }
        if (!catch_it(d, &number))
            continue;
        if (number != turns + 1)
            fault("a frame that is not the next one");
        if (++turns % 1000 == 0)
            printf("turns=%lu\n", turns);
        throw_it(d, ping ? turns + 1 : number);
    }
    if (second != NULL)
        nm_close(second);
    nm_close(d);
    return 0;
}
