/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random deaths under load: run with the preload and a netmapd.
 *
 *   deaths KILLS SEED    processes of many kinds run traffic over pipes and a switch; KILLS times one of them, taken at random, is
 *                        killed and replaced. Two pairs are never killed, and check what they carry.
 *
 * Prints "moved=1" once every part moves packets; "killed=N" when all are dead that were to die, and every part moves
 * again; "alone" once all but the two pairs are dead; and waits for SIGTERM to kill these too. Any fault is said on
 * standard error and ends with status 99.
 */
#define _GNU_SOURCE
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum kind { SEND, RECEIVE, MONITOR, FORWARD, HOARD };

struct part {
    enum kind kind;
    int stays;
    const char *port, *other;
};

/* Those that stay, first. */
static const struct part parts[] = {
    {SEND, 1, "netmap:keep{1", NULL},
    {RECEIVE, 1, "netmap:keep}1", NULL},
    {SEND, 1, "vale9:keep1", NULL},
    {RECEIVE, 1, "vale9:keep2", NULL},
    {SEND, 0, "netmap:p{1", NULL},
    {RECEIVE, 0, "netmap:p}1", NULL},
    {MONITOR, 0, "netmap:p{1/t", NULL},
    {MONITOR, 0, "netmap:p}1/r", NULL},
    {MONITOR, 0, "netmap:p}1/z", NULL},
    {SEND, 0, "netmap:q{1", NULL},
    {FORWARD, 0, "netmap:q}1", "netmap:q{2"},
    {RECEIVE, 0, "netmap:q}2", NULL},
    {HOARD, 0, "netmap:h{1", NULL},
    {RECEIVE, 0, "netmap:h}1", NULL},
    {SEND, 0, "vale9:a", NULL},
    {SEND, 0, "vale9:b", NULL},
    {RECEIVE, 0, "vale9:c", NULL},
    {RECEIVE, 0, "vale9:d", NULL},
};
#define PARTS ((int)(sizeof parts / sizeof *parts))
#define STAYING 4
#define MAGIC 0x4e4d5844u

static volatile unsigned long *moved; /* by part */
static pid_t pids[PARTS];
static unsigned long long seed;

static unsigned below(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 20) % n;
}

static void fault(const char *what, int part)
{
    fprintf(stderr, "part %d (%s): %s: %s\n", part, parts[part].port, what, strerror(errno));
    kill(getppid(), SIGUSR1);
    _exit(99);
}

static struct nm_desc *open_port(const char *name, int part, unsigned extra)
{
    struct nm_desc base = {.self = &base, .req.nr_arg3 = extra}, *d;

    for (int tries = 0; tries < 20000; tries++) {
        d = nm_open(name, NULL, extra ? NM_OPEN_ARG3 : 0, extra ? &base : NULL);
        if (d)
            return d;
        /* A monitor without its port, or a port that its dead holder has not quite left. */
        usleep(500);
    }
    fault("nm_open", part);
    return NULL;
}

/* A frame for everybody: magic, part, number, and bytes that follow from the number. */
static void fill(char *p, int part, unsigned number)
{
    unsigned words[3] = {MAGIC, (unsigned)part, number};

    memset(p, 0xff, 6);
    memcpy(p + 6, "\2\0\0\0\0", 5);
    p[11] = (char)part;
    memcpy(p + 12, "\x88\xb5", 2);
    memcpy(p + 14, words, sizeof words);
    memset(p + 26, (int)(number & 0x7f), 34);
}

static void check(const char *p, unsigned len, int part, unsigned *last)
{
    unsigned words[3];

    if (len == 0 || len != 60)
        return; /* what a dead sender had reserved */
    memcpy(words, p + 14, sizeof words);
    if (words[0] != MAGIC)
        fault("a frame of nobody's", part);
    for (int i = 26; i < 60; i++)
        if (p[i] != (char)(words[2] & 0x7f))
            fault("a corrupt frame", part);
    /* Only those that stay have one sender that stays. */
    if (parts[part].stays && (int)words[1] == part - 1) {
        if (words[2] <= *last && *last)
            fault("a frame came twice, or late", part);
        *last = words[2];
    }
}

static void send_some(struct nm_desc *d, int part, unsigned *number)
{
    struct netmap_ring *ring = NETMAP_TXRING(d->nifp, d->first_tx_ring);
    unsigned n = nm_ring_space(ring), i = ring->head;

    for (unsigned k = 0; k < n && k < 64; k++) {
        struct netmap_slot *slot = &ring->slot[i];
        fill(NETMAP_BUF(ring, slot->buf_idx), part, ++*number);
        slot->len = 60;
        slot->flags = 0;
        i = nm_ring_next(ring, i);
        moved[part]++;
    }
    ring->head = ring->cur = i;
    ioctl(d->fd, NIOCTXSYNC, NULL);
}

static void receive_some(struct nm_desc *d, int part, unsigned *last)
{
    for (int r = d->first_rx_ring; r <= d->last_rx_ring; r++) {
        struct netmap_ring *ring = NETMAP_RXRING(d->nifp, r);
        while (!nm_ring_empty(ring)) {
            struct netmap_slot *slot = &ring->slot[ring->head];
            check(NETMAP_BUF(ring, slot->buf_idx), slot->len, part, last);
            ring->head = ring->cur = nm_ring_next(ring, ring->head);
            moved[part]++;
        }
    }
}

static void exchange(struct netmap_slot *a, struct netmap_slot *b)
{
    uint32_t idx = a->buf_idx;

    a->buf_idx = b->buf_idx;
    b->buf_idx = idx;
    b->len = a->len;
    a->flags = b->flags = NS_BUF_CHANGED;
}

static void forward(struct nm_desc *from, struct nm_desc *to, int part)
{
    struct netmap_ring *rx = NETMAP_RXRING(from->nifp, 0), *tx = NETMAP_TXRING(to->nifp, 0);
    unsigned n = nm_ring_space(rx), room = nm_ring_space(tx);

    for (n = n < room ? n : room; n > 0; n--) {
        exchange(&rx->slot[rx->head], &tx->slot[tx->head]);
        rx->head = rx->cur = nm_ring_next(rx, rx->head);
        tx->head = tx->cur = nm_ring_next(tx, tx->head);
        moved[part]++;
    }
    ioctl(to->fd, NIOCTXSYNC, NULL);
}

static void run(int part)
{
    const struct part *me = &parts[part];
    struct nm_desc *d, *other = NULL;
    unsigned number = 0, last = 0;
    uint32_t hoard[32];
    int hoarded = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    d = open_port(me->port, part, me->kind == HOARD ? 32 : 0);
    if (me->other)
        other = open_port(me->other, part, 0);
    if (me->kind == HOARD) {
        struct netmap_ring *ring = NETMAP_TXRING(d->nifp, 0);
        /* Off the list, and into the program's own hands. */
        for (uint32_t i = d->nifp->ni_bufs_head; i && hoarded < 32; hoarded++) {
            hoard[hoarded] = i;
            i = *(uint32_t *)NETMAP_BUF(ring, i);
        }
        d->nifp->ni_bufs_head = 0;
        if (hoarded != 32)
            fault("fewer extra buffers than asked for", part);
    }
    for (;;) {
        struct pollfd p = {.fd = d->fd, .events = POLLIN};

        if (me->kind == SEND || me->kind == HOARD)
            p.events = POLLOUT;
        if (poll(&p, 1, 20) < 0 && errno != EINTR)
            fault("poll", part);
        if (p.revents & POLLERR) {
            if (me->kind != MONITOR)
                fault("POLLERR", part);
            /* The monitored port was closed. */
            nm_close(d);
            d = open_port(me->port, part, 0);
            continue;
        }
        switch (me->kind) {
        case SEND:
            send_some(d, part, &number);
            break;
        case HOARD: {
            struct netmap_ring *ring = NETMAP_TXRING(d->nifp, 0);
            if (hoarded > 0 && nm_ring_space(ring) > 0) {
                uint32_t *mine = &hoard[number % (unsigned)hoarded], idx = *mine;
                *mine = ring->slot[ring->head].buf_idx;
                ring->slot[ring->head].buf_idx = idx;
            }
            send_some(d, part, &number);
            break;
        }
        case RECEIVE:
        case MONITOR:
            receive_some(d, part, &last);
            break;
        case FORWARD:
            forward(d, other, part);
            break;
        }
        /* Two cores for all: nobody holds one. */
        if (me->stays)
            usleep(200);
        else
            sched_yield();
    }
}

static void start(int part)
{
    pids[part] = fork();
    if (pids[part] == 0)
        run(part);
    if (pids[part] < 0) {
        perror("fork");
        exit(99);
    }
}

static void stop(int part)
{
    int status;

    kill(pids[part], SIGKILL);
    if (waitpid(pids[part], &status, 0) != pids[part])
        perror("waitpid");
    if (WIFEXITED(status))
        exit(99); /* it has said why */
}

static void on_fault(int signal)
{
    (void)signal;
    _exit(99);
}

static void expect_all_to_move(void)
{
    unsigned long before[PARTS];

    for (int i = 0; i < PARTS; i++)
        before[i] = moved[i];
    for (int i = 0; i < PARTS; i++) {
        int patience = 30000;
        while (moved[i] == before[i] && --patience)
            usleep(1000);
        if (!patience) {
            fprintf(stderr, "part %d (%s) stands still\n", i, parts[i].port);
            exit(99);
        }
    }
}

int main(int argc, char **argv)
{
    int kills = argc > 1 ? atoi(argv[1]) : 100, progress = 0;
    time_t said = time(NULL);
    sigset_t term;
    int got;

    seed = (argc > 2 ? strtoull(argv[2], NULL, 10) : 1) * 0x9e3779b97f4a7c15ull | 1;
    signal(SIGUSR1, on_fault);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    moved = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (moved == MAP_FAILED)
        return 99;
    for (int i = 0; i < PARTS; i++)
        start(i);
    expect_all_to_move();
    printf("moved=1\n");
    fflush(stdout);
    for (int k = 0; k < kills; k++) {
        int victim = STAYING + (int)below(PARTS - STAYING);
        unsigned long before = moved[victim];

        /* Mostly in mid traffic, now and then at once, while it opens its port. */
        for (int wait = below(8) ? 50 : 0; wait > 0 && moved[victim] == before; wait--)
            usleep(200);
        usleep(below(500));
        stop(victim);
        start(victim);
        if (time(NULL) - said >= 5) {
            said = time(NULL);
            printf("so far=%d progress=%lu\n", k, moved[1] + moved[3]);
            fflush(stdout);
        }
        if (++progress % 1000 == 0)
            expect_all_to_move();
    }
    expect_all_to_move();
    printf("killed=%d moved=2\n", kills);
    for (int i = STAYING; i < PARTS; i++)
        stop(i);
    printf("alone\n");
    fflush(stdout);
    sigwait(&term, &got);
    for (int i = 0; i < STAYING; i++)
        stop(i);
    printf("done=1\n");
    return 0;
}
