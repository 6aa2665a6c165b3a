/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rings that the program spoils: cursors, lengths and buffer indexes of every kind, also while other threads sync. On a veth
 * pair of two queues whose ends veth0 and veth1 lie in this namespace; ring 1 of both is never spoilt and must not notice.
 *
 *   nic_scribble SCENARIO
 */
#include "nic_common.h"

#include <pthread.h>

#define LEN 100

static struct port a, b;   /* ring 0 of each end */
static struct port a1, b1; /* ring 1 of each end */

static const uint32_t bad[] = {1u << 31, UINT32_MAX, 1024, 1025, 65536, 0x7fffffff};

/* As put_frame and so on, for ring 1. */
static void
other_port_works(void)
{
    struct netmap_ring *t = NETMAP_TXRING(a1.nifp, 1), *r = NETMAP_RXRING(b1.nifp, 1);
    double end = now() + SOON * 1e-3;
    static uint64_t seq;

    put_frame(t, ++seq, LEN);
    CHECK(ioctl(a1.fd, NIOCTXSYNC, NULL) == 0);
    while (nm_ring_empty(r)) {
        CHECK(now() < end);
        CHECK(!(poll_port(&b1, POLLIN, 100) & POLLERR));
    }
    CHECK(holds(r, r->head, seq, LEN));
    r->head = r->cur = nm_ring_next(r, r->head);
}

static void
open_all(void)
{
    struct nmreq_register zero = {.nr_mode = NR_REG_ONE_NIC, .nr_ringid = 0};
    struct nmreq_register one = {.nr_mode = NR_REG_ONE_NIC, .nr_ringid = 1};

    open_port_as(&a, "veth0", zero);
    open_port_as(&b, "veth1", zero);
    open_port_as(&a1, "veth0", one);
    open_port_as(&b1, "veth1", one);
    transfer(&a, &b, 0, 5, LEN);
    CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
    other_port_works();
}

static void
close_all(void)
{
    other_port_works();
    close_port(&a);
    other_port_works();
    close_port(&b);
    other_port_works();
    close_port(&a1);
    close_port(&b1);
}

/* The ring is such as nobody can object to. */
static void
ring_is_sane(const struct netmap_ring *ring)
{
    uint32_t n = ring->num_slots;

    CHECK(ring->head < n && ring->cur < n && ring->tail < n);
    CHECK((ring->cur + n - ring->head) % n <= (ring->tail + n - ring->head) % n);
}

/* Both directions of ring 0 carry packets. */
static void
traffic_flows(void)
{
    static uint64_t seq = 1000;

    transfer(&a, &b, seq, 20, LEN);
    transfer(&b, &a, seq, 20, LEN);
    drain(&a);
    /* What is not given back would be there again after a ring was mended. */
    CHECK(ioctl(a.fd, NIOCRXSYNC, NULL) == 0 && ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
    seq += 20;
    other_port_works();
}

/* What was just written into a ring of a is noticed once, and mended. */
static void
is_noticed(struct netmap_ring *ring, short events)
{
    CHECK(poll_port(&a, events, 1000) & POLLERR);
    ring_is_sane(ring);
    CHECK(!(poll_port(&a, events, 0) & POLLERR));
    traffic_flows();
}

static void
bad_cursors_are_noticed_and_mended(void)
{
    struct netmap_ring *ring[2];
    size_t i, k;

    open_all();
    ring[0] = tx(&a);
    ring[1] = rx(&a);
    for (k = 0; k < 2; k++) {
        short events = k == 0 ? POLLOUT : POLLIN;

        for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
            ring[k]->head = bad[i];
            is_noticed(ring[k], events);
            ring[k]->cur = bad[i];
            is_noticed(ring[k], events);
            ring[k]->head = ring[k]->cur = bad[i];
            is_noticed(ring[k], events);
        }
        /* tail is not read. */
        ring[k]->tail = bad[0];
        CHECK(ioctl(a.fd, k == 0 ? NIOCTXSYNC : NIOCRXSYNC, NULL) == 0);
        ring_is_sane(ring[k]);
        traffic_flows();
    }
    close_all();
}

/* Within the ring, but in the wrong order. */
static void
cursors_out_of_order_are_noticed_and_mended(void)
{
    struct netmap_ring *t, *r;
    uint32_t turn, head;

    open_all();
    t = tx(&a);
    r = rx(&a);
    for (turn = 0; turn < 4; turn++) {
        put_frame(tx(&b), 1, LEN);
        put_frame(tx(&b), 2, LEN);
        CHECK(ioctl(b.fd, NIOCTXSYNC, NULL) == 0);
        wait_frames(&a, 2);
        head = r->head;
        switch (turn) {
        case 0: /* both past tail */
            r->head = r->cur = nm_ring_next(r, r->tail);
            break;
        case 1:
            r->cur = nm_ring_next(r, r->tail);
            break;
        case 2: /* head goes back */
            r->head = (r->head + r->num_slots - 1) % r->num_slots;
            break;
        default: /* cur behind head */
            r->head = r->tail;
        }
        CHECK(poll_port(&a, POLLIN, 1000) & POLLERR);
        CHECK(r->head == head && r->cur == head);
        take_frames(&a, 1, 2, LEN); /* what was not given back is still there */
        CHECK(ioctl(a.fd, NIOCRXSYNC, NULL) == 0);
        traffic_flows();

        head = t->head;
        put_frame(t, 1, LEN);
        put_frame(t, 2, LEN);
        t->cur = nm_ring_next(t, head); /* behind head */
        CHECK(poll_port(&a, POLLOUT, 1000) & POLLERR);
        CHECK(t->head == head && t->cur == head); /* and nothing was sent */
        traffic_flows();
    }
    close_all();
}

/* The syncs by ioctl mend too, without an error, as in the module. */
static void
syncs_mend_bad_cursors(void)
{
    size_t i;

    open_all();
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        tx(&a)->head = bad[i];
        rx(&a)->cur = bad[i];
        CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && ioctl(a.fd, NIOCRXSYNC, NULL) == 0);
        ring_is_sane(tx(&a));
        ring_is_sane(rx(&a));
        traffic_flows();
    }
    close_all();
}

static void
bad_buffers_are_noticed_and_mended(void)
{
    static const uint32_t index[] = {0, 1, 1u << 20, UINT32_MAX, 1u << 31};
    size_t i;

    open_all();
    for (i = 0; i < sizeof(index) / sizeof(index[0]); i++) {
        uint32_t at = tx(&a)->head, kept = tx(&a)->slot[at].buf_idx;

        put_frame(tx(&a), 1, LEN);
        tx(&a)->slot[at].buf_idx = index[i];
        tx(&a)->slot[at].flags = NS_BUF_CHANGED;
        CHECK(poll_port(&a, POLLOUT, 1000) & POLLERR);
        ring_is_sane(tx(&a));
        tx(&a)->slot[at].buf_idx = kept;
        traffic_flows();

        /* A received slot goes back with a bad one. */
        put_frame(tx(&b), 2, LEN);
        CHECK(ioctl(b.fd, NIOCTXSYNC, NULL) == 0);
        wait_frames(&a, 1);
        at = rx(&a)->head;
        kept = rx(&a)->slot[at].buf_idx;
        rx(&a)->slot[at].buf_idx = index[i];
        rx(&a)->head = rx(&a)->cur = nm_ring_next(rx(&a), at);
        CHECK(poll_port(&a, POLLIN, 1000) & POLLERR);
        ring_is_sane(rx(&a));
        traffic_flows();
        (void)kept; /* lost to the ring, which works on with one less */
    }
    close_all();
}

static void
bad_lengths_and_flags_do_no_harm(void)
{
    static const uint16_t length[] = {0, 1, 13, 2049, 32768, 65535};
    static const uint16_t flags[] = {0xffdf, 0xff00, 0x0010, 0x0004};
    size_t i;

    open_all();
    for (i = 0; i < sizeof(length) / sizeof(length[0]); i++) {
        uint32_t at = tx(&a)->head;

        put_frame(tx(&a), 1, LEN);
        tx(&a)->slot[at].len = length[i];
        CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
        drain(&a);
        while (poll_port(&b, POLLIN, 20) == POLLIN) { /* a length that is too large is cut, and may fit the MTU */
            CHECK(rx(&b)->slot[rx(&b)->head].len <= 2048);
            rx(&b)->head = rx(&b)->cur = rx(&b)->tail;
        }
        traffic_flows();
    }
    for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        uint32_t at = tx(&a)->head;

        put_frame(tx(&a), 7, LEN);
        tx(&a)->slot[at].flags = flags[i];
        tx(&a)->slot[at].ptr = 0x1000;
        CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
        take_frames(&b, 7, 1, LEN);
        traffic_flows();
    }
    close_all();
}

/* A frame that never ends does not block the ring for ever. */
static void
an_endless_chain_is_dropped(void)
{
    uint32_t i, n;

    open_all();
    drain(&a);
    n = nm_ring_space(tx(&a));
    CHECK(n == tx(&a)->num_slots - 1);
    for (i = 0; i < n; i++) {
        tx(&a)->slot[tx(&a)->head].flags = NS_MOREFRAG;
        put_frame(tx(&a), i, LEN);
    }
    CHECK(!(poll_port(&a, POLLOUT, 1000) & POLLERR));
    drain(&a);
    for (i = 0; i < tx(&a)->num_slots; i++)
        tx(&a)->slot[i].flags = 0;
    traffic_flows();
    close_all();
}

/* ---------------------------------------------------------------------------------------------- at the same time */

static volatile int stop;

static uint32_t
noise(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

static void *
scribble(void *arg)
{
    struct netmap_ring *ring = arg;
    uint32_t state = 12345;

    while (!stop) {
        uint32_t what = noise(&state) % 8, value = noise(&state), slot = noise(&state) % ring->num_slots;

        if (noise(&state) % 2)
            value %= 2 * ring->num_slots;
        switch (what) {
        case 0:
            ring->head = value;
            break;
        case 1:
            ring->cur = value;
            break;
        case 2:
            ring->tail = value;
            break;
        case 3:
            ring->head = ring->cur = value % ring->num_slots;
            break;
        case 4:
            ring->slot[slot].len = (uint16_t)value;
            break;
        case 5:
            ring->slot[slot].flags = (uint16_t)value;
            break;
        case 6:
            ring->slot[slot].buf_idx = value;
            break;
        default:
            ring->slot[slot].ptr = value;
        }
    }
    return NULL;
}

static void *
sync_all_the_time(void *arg)
{
    struct port *p = arg;

    while (!stop) {
        ioctl(p->fd, NIOCTXSYNC, NULL);
        ioctl(p->fd, NIOCRXSYNC, NULL);
        poll_port(p, POLLIN | POLLOUT, 0);
    }
    return NULL;
}

/* Only this ring is spoilt, and only ring 0 of its port may suffer. */
static void
spoil(struct netmap_ring *ring)
{
    uint32_t n = ring->num_slots, i, kept[1024];
    pthread_t threads[3];
    double end, last;

    CHECK(n <= 1024);
    for (i = 0; i < n; i++)
        kept[i] = ring->slot[i].buf_idx;
    stop = 0;
    CHECK(pthread_create(&threads[0], NULL, scribble, ring) == 0);
    CHECK(pthread_create(&threads[1], NULL, sync_all_the_time, &a) == 0);
    CHECK(pthread_create(&threads[2], NULL, sync_all_the_time, &a) == 0);
    for (end = now() + 0.5; now() < end;) {
        other_port_works();
        poll_port(&b, POLLIN | POLLOUT, 0); /* takes what comes */
        rx(&b)->head = rx(&b)->cur = rx(&b)->tail;
    }
    stop = 1;
    for (i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);

    /* The program comes to its senses: its cursors are mended by a sync, its slots by itself. */
    poll_port(&a, POLLIN | POLLOUT, 0);
    poll_port(&a, POLLIN | POLLOUT, 0);
    ring_is_sane(ring);
    for (i = 0; i < n; i++) {
        ring->slot[i].buf_idx = kept[i];
        ring->slot[i].len = LEN;
        ring->slot[i].flags = 0;
    }
    for (last = now() + 0.1; now() < last;) { /* until nothing of it is under way any more */
        if (poll_port(&b, POLLIN, 10) & POLLIN)
            last = now() + 0.1;
        rx(&b)->head = rx(&b)->cur = rx(&b)->tail;
        ioctl(b.fd, NIOCRXSYNC, NULL);
        ioctl(a.fd, NIOCTXSYNC, NULL);
    }
}

static void
a_transmit_ring_is_spoilt_while_it_works(void)
{
    open_all();
    spoil(tx(&a));
    traffic_flows();
    traffic_flows();
    close_all();
}

static void
a_receive_ring_is_spoilt_while_it_works(void)
{
    open_all();
    spoil(rx(&a));
    /* Buffers that the program forgot are gone for this ring; sending does not need them, and others do not care. */
    transfer(&a, &b, 0, 20, LEN);
    transfer(&a, &b, 20, 20, LEN);
    close_port(&a);
    open_port_as(&a, "veth0", (struct nmreq_register){.nr_mode = NR_REG_ONE_NIC});
    traffic_flows();
    close_all();
}

#define SCENARIO(name) {#name, name}

int
main(int argc, char **argv)
{
    static const struct scenario all[] = {
        SCENARIO(bad_cursors_are_noticed_and_mended),
        SCENARIO(cursors_out_of_order_are_noticed_and_mended),
        SCENARIO(syncs_mend_bad_cursors),
        SCENARIO(bad_buffers_are_noticed_and_mended),
        SCENARIO(bad_lengths_and_flags_do_no_harm),
        SCENARIO(an_endless_chain_is_dropped),
        SCENARIO(a_transmit_ring_is_spoilt_while_it_works),
        SCENARIO(a_receive_ring_is_spoilt_while_it_works),
    };

    return run_scenarios(all, sizeof(all) / sizeof(all[0]), argc, argv);
}
