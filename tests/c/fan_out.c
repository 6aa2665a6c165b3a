/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One process gives to many: run with the preload and a netmapd.
 *
 *   fan_out hand DEV N     gives frame s of a NIC to pipe s % N on it, by exchanging buffers; drops what finds its pipe full. SIGUSR1:
 *                          takes what is left, waits until all pipes are empty and says what it gave to each; SIGTERM ends it
 *   fan_out take DEV K N   the consumer of pipe K; SIGTERM: says what it got
 *   fan_out spread PORT N BATCHES   sends to N ports of a switch, to each by its address and to all; waits for their receipts
 *   fan_out own PORT K BATCHES      one of these ports, which takes exactly what is its own
 *
 * The digest of what was given and got covers number and buffer of every frame, so equal ones mean: nothing lost, and
 * not copied. Any fault is said on standard error and ends with status 1.
 */
#define _GNU_SOURCE
#define NETMAP_WITH_LIBS
#include "nic_common.h"

#include <signal.h>

#define MOST 16
#define BATCH 64
#define LENGTH 200
/* Seconds that anything may take on a loaded machine. */
#define PATIENCE 30

static volatile sig_atomic_t finish, stop;

static void on_signal(int signal)
{
    if (signal == SIGUSR1)
        finish = 1;
    else
        stop = 1;
}

static struct nm_desc *open_soon(const char *name)
{
    double end = now() + PATIENCE;
    struct nm_desc *d;

    /* A dead holder may not quite have left it. */
    while (!(d = nm_open(name, NULL, 0, NULL)) && now() < end)
        usleep(1000);
    CHECK(d);
    return d;
}

static int ready(struct nm_desc *d, int ms)
{
    struct pollfd p = {.fd = d->fd, .events = POLLIN};

    CHECK(poll(&p, 1, ms) >= 0 || errno == EINTR);
    CHECK(!(p.revents & POLLERR));
    return p.revents & POLLIN;
}

static void say(const char *line)
{
    printf("%s\n", line);
    fflush(stdout);
}

struct account {
    uint64_t frames, digest;
};

static void enter(struct account *a, uint64_t seq, uint32_t buffer)
{
    uint64_t x = (seq << 32 ^ buffer) + 0x9e3779b97f4a7c15u;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    a->digest += (x ^ x >> 27) >> 8;
    a->frames++;
}

static int pipe_is_empty(struct nm_desc *d)
{
    struct netmap_ring *ring = NETMAP_TXRING(d->nifp, 0);

    CHECK(ioctl(d->fd, NIOCTXSYNC, NULL) == 0);
    return nm_ring_next(ring, ring->tail) == ring->head;
}

static int hand(const char *dev, int n)
{
    struct account given[MOST] = {{0, 0}};
    struct nm_desc *nic, *out[MOST];
    uint64_t seq, dropped = 0;
    char name[64];
    double end;
    int k;

    snprintf(name, sizeof(name), "netmap:%s", dev);
    nic = open_soon(name);
    for (k = 0; k < n; k++) {
        snprintf(name, sizeof(name), "netmap:%s{%d", dev, k);
        out[k] = open_soon(name);
        CHECK(out[k]->req.nr_arg2 == nic->req.nr_arg2); /* one region */
    }
    say("ready");
    for (;;) {
        struct netmap_ring *rx = NETMAP_RXRING(nic->nifp, 0);
        int quiet = !ready(nic, 100);

        if (quiet && finish)
            break;
        while (!nm_ring_empty(rx)) {
            struct netmap_slot *from = &rx->slot[rx->head], *to;
            struct netmap_ring *tx;

            CHECK(pattern_check((uint8_t *)NETMAP_BUF(rx, from->buf_idx), from->len, &seq) == PATTERN_GOOD);
            k = (int)(seq % (uint64_t)n);
            tx = NETMAP_TXRING(out[k]->nifp, 0);
            if (nm_ring_empty(tx))
                CHECK(ioctl(out[k]->fd, NIOCTXSYNC, NULL) == 0);
            if (nm_ring_empty(tx)) {
                dropped++;
            } else {
                uint32_t spare;

                to = &tx->slot[tx->head];
                spare = to->buf_idx;
                enter(&given[k], seq, from->buf_idx);
                to->buf_idx = from->buf_idx;
                to->len = from->len;
                from->buf_idx = spare;
                to->flags = from->flags = NS_BUF_CHANGED;
                tx->head = tx->cur = nm_ring_next(tx, tx->head);
            }
            rx->head = rx->cur = nm_ring_next(rx, rx->head);
        }
        for (k = 0; k < n; k++)
            CHECK(ioctl(out[k]->fd, NIOCTXSYNC, NULL) == 0);
    }
    end = now() + PATIENCE;
    for (k = 0; k < n; k++) {
        while (!pipe_is_empty(out[k])) {
            CHECK(now() < end);
            usleep(1000);
        }
        printf("given%d=%llu digest%d=%llu\n", k, (unsigned long long)given[k].frames, k,
            (unsigned long long)given[k].digest);
    }
    printf("dropped=%llu\n", (unsigned long long)dropped);
    say("finished");
    while (!stop)
        usleep(1000);
    return 0;
}

static int take(const char *dev, uint64_t k, uint64_t n)
{
    struct account got = {0, 0};
    uint64_t seq, last = 0;
    struct nm_desc *d;
    char name[64];

    snprintf(name, sizeof(name), "netmap:%s}%d", dev, (int)k);
    d = open_soon(name);
    say("ready");
    while (!stop) {
        struct netmap_ring *rx = NETMAP_RXRING(d->nifp, 0);

        ready(d, 100);
        while (!nm_ring_empty(rx)) {
            struct netmap_slot *slot = &rx->slot[rx->head];

            CHECK(pattern_check((uint8_t *)NETMAP_BUF(rx, slot->buf_idx), slot->len, &seq) == PATTERN_GOOD);
            CHECK(seq % n == k && (got.frames == 0 || seq > last));
            last = seq;
            enter(&got, seq, slot->buf_idx);
            rx->head = rx->cur = nm_ring_next(rx, rx->head);
            if (got.frames % 1000 == 0) {
                printf("sofar=%llu\n", (unsigned long long)got.frames);
                fflush(stdout);
            }
        }
    }
    printf("got=%llu digest=%llu\n", (unsigned long long)got.frames, (unsigned long long)got.digest);
    return 0;
}

/* Frames of the switch: addresses, then the pattern's bytes after its own header, with what it is in front. */
enum kind { HERE = 1, MINE, EVERYBODYS, RECEIPT };

static void address(uint8_t *at, int k)
{
    const uint8_t mac[6] = {2, 0, 0, 0, 7, (uint8_t)k};

    memcpy(at, mac, 6);
}

/* The sender's number is MOST, everybody's is -1. */
static void put(struct nm_desc *d, int from, int to, enum kind kind, uint64_t number)
{
    struct netmap_ring *tx = NETMAP_TXRING(d->nifp, 0);
    double end = now() + PATIENCE;
    uint8_t *p;
    size_t i;

    while (nm_ring_empty(tx)) {
        CHECK(now() < end);
        CHECK(ioctl(d->fd, NIOCTXSYNC, NULL) == 0);
    }
    p = (uint8_t *)NETMAP_BUF(tx, tx->slot[tx->head].buf_idx);
    memset(p, 0xff, 6);
    if (to >= 0)
        address(p, to);
    address(p + 6, from);
    pattern_put(p + 12, 0x88b5, 2);
    p[14] = (uint8_t)kind;
    p[15] = (uint8_t)to;
    pattern_put(p + 16, number, 8);
    for (i = 24; i < LENGTH; i++)
        p[i] = (uint8_t)(pattern_byte(number, i) + to * 3 + kind);
    tx->slot[tx->head].len = LENGTH;
    tx->slot[tx->head].flags = 0;
    tx->head = tx->cur = nm_ring_next(tx, tx->head);
}

/* Takes one frame, whole, if there is one: its kind, or 0. */
static int get(struct nm_desc *d, int *from, int *to, uint64_t *number)
{
    struct netmap_ring *rx = NETMAP_RXRING(d->nifp, 0);
    const uint8_t *p;
    int kind;
    size_t i;

    if (nm_ring_empty(rx))
        return 0;
    p = (const uint8_t *)NETMAP_BUF(rx, rx->slot[rx->head].buf_idx);
    CHECK(rx->slot[rx->head].len == LENGTH && pattern_get(p + 12, 2) == 0x88b5);
    kind = p[14];
    *from = p[11];
    *to = p[15] == 0xff ? -1 : p[15];
    *number = pattern_get(p + 16, 8);
    CHECK(*to < 0 ? p[5] == 0xff : p[5] == *to);
    for (i = 24; i < LENGTH; i++)
        CHECK(p[i] == (uint8_t)(pattern_byte(*number, i) + *to * 3 + kind));
    rx->head = rx->cur = nm_ring_next(rx, rx->head);
    return kind;
}

static void push(struct nm_desc *d)
{
    CHECK(ioctl(d->fd, NIOCTXSYNC, NULL) == 0);
}

/* Waits for one frame of this kind and number from each of n. */
static void gather(struct nm_desc *d, int n, int kind, uint64_t number)
{
    double end = now() + PATIENCE;
    int heard[MOST] = {0}, missing = n, from, to, got;
    uint64_t what;

    while (missing > 0) {
        CHECK(now() < end);
        ready(d, 100);
        while ((got = get(d, &from, &to, &what))) {
            CHECK(got == kind && to == MOST && what == number && from < n && !heard[from]);
            heard[from] = 1;
            missing--;
        }
    }
}

static int spread(const char *port, int n, int batches)
{
    struct nm_desc *d = open_soon(port);
    int b, i, k;

    say("ready");
    gather(d, n, HERE, 0);
    for (b = 0; b < batches; b++) {
        for (i = b * BATCH; i < (b + 1) * BATCH; i++) {
            for (k = 0; k < n; k++)
                put(d, MOST, k, MINE, (uint64_t)i);
            put(d, MOST, -1, EVERYBODYS, (uint64_t)i);
        }
        push(d);
        gather(d, n, RECEIPT, (uint64_t)b);
    }
    printf("sent=%d\n", batches * BATCH);
    return 0;
}

static int own(const char *port, int k, int batches)
{
    struct nm_desc *d = open_soon(port);
    double end = now() + 2 * PATIENCE;
    uint64_t mine = 0, all = 0, number, want = (uint64_t)batches * BATCH;
    int kind, from, to;

    say("ready");
    put(d, k, MOST, HERE, 0);
    push(d);
    while (!stop) {
        CHECK(now() < end);
        ready(d, 100);
        while ((kind = get(d, &from, &to, &number))) {
            if (kind == HERE)
                continue; /* to the sender, before the switch knew where it is */
            CHECK(from == MOST);
            CHECK(kind == MINE ? to == k && number == mine : kind == EVERYBODYS && to == -1 && number == all);
            mine += kind == MINE;
            all += kind == EVERYBODYS;
            if (mine == all && mine % BATCH == 0) {
                put(d, k, MOST, RECEIPT, mine / BATCH - 1);
                push(d);
            }
        }
    }
    /* Until it was told to stop nothing came that is not its own. */
    CHECK(mine == want && all == want);
    printf("mine=%llu all=%llu\n", (unsigned long long)mine, (unsigned long long)all);
    return 0;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_signal};

    CHECK(argc >= 4);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (strcmp(argv[1], "hand") == 0)
        return hand(argv[2], atoi(argv[3]));
    CHECK(argc == 5);
    if (strcmp(argv[1], "take") == 0)
        return take(argv[2], (uint64_t)atoi(argv[3]), (uint64_t)atoi(argv[4]));
    if (strcmp(argv[1], "spread") == 0)
        return spread(argv[2], atoi(argv[3]), atoi(argv[4]));
    CHECK(strcmp(argv[1], "own") == 0);
    return own(argv[2], atoi(argv[3]), atoi(argv[4]));
}
