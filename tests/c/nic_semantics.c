/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What netmap promises about rings, slots and poll, on a veth pair whose ends veth0 and veth1 lie in this namespace.
 *
 *   nic_semantics SCENARIO | all
 */
#include "nic_common.h"

#define LEN 100

static struct port a, b;

static void
open_both(void)
{
    open_port(&a, "veth0");
    open_port(&b, "veth1");
}

static void
close_both(void)
{
    close_port(&b);
    close_port(&a);
}

/* cur at tail says: what there is is not enough. */
static void
tx_cur_at_tail_waits_for_more_room(void)
{
    open_both();
    tx(&a)->cur = tx(&a)->tail; /* all the room there can be, so more never comes */
    CHECK(poll_port(&a, POLLOUT, 100) == 0);
    CHECK(tx(&a)->head == 0 && tx(&a)->cur == tx(&a)->tail);
    put_frame(tx(&a), 1, LEN);
    tx(&a)->cur = tx(&a)->tail; /* now one slot more comes, when the frame has left */
    CHECK(poll_port(&a, POLLOUT, SOON) == POLLOUT);
    CHECK(tx(&a)->cur != tx(&a)->tail && tx(&a)->head == 1);
    take_frames(&b, 1, 1, LEN);
    tx(&a)->cur = tx(&a)->head;
    CHECK(poll_port(&a, POLLOUT, 0) == POLLOUT);
    close_both();
}

/* How often, of 100 times, a slot has come back when the sync that sent it returns; it always has after the next ones. */
static unsigned
come_back_at_once(uint16_t flags)
{
    unsigned at_once = 0, i;

    for (i = 0; i < 100; i++) {
        uint32_t slot = tx(&a)->head, before = tx(&a)->tail, n = tx(&a)->num_slots;
        double end;

        CHECK((before + 1) % n == slot); /* nothing is under way */
        put_frame(tx(&a), i, LEN);
        tx(&a)->slot[slot].flags = flags;
        CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
        CHECK((tx(&a)->slot[slot].flags & NS_REPORT) == 0); /* taken */
        at_once += tx(&a)->tail == slot;
        for (end = now() + SOON * 1e-3; tx(&a)->tail != slot && now() < end;)
            CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
        CHECK(tx(&a)->tail == slot);
        take_frames(&b, i, 1, LEN);
    }
    return at_once;
}

/* NS_REPORT: the sync that takes the slot also looks whether it was sent, as far as the kernel was so quick. */
static void
a_reported_slot_comes_back_with_its_own_sync(void)
{
    unsigned lazy, reported;

    open_both();
    lazy = come_back_at_once(0);
    reported = come_back_at_once(NS_REPORT);
    printf("at once: %u reported, %u not\n", reported, lazy);
    CHECK(lazy == 0);
    CHECK(reported > 0);
    close_both();
}

/* Slots between head and cur stay the program's, and are no reason to wake up. */
static void
rx_slots_behind_cur_are_held(void)
{
    uint32_t i;

    open_both();
    for (i = 0; i < 3; i++)
        put_frame(tx(&a), i, LEN);
    CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
    wait_frames(&b, 3);
    rx(&b)->cur = rx(&b)->tail;
    CHECK(poll_port(&b, POLLIN, 100) == 0);
    put_frame(tx(&a), 3, LEN);
    CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
    CHECK(poll_port(&b, POLLIN, SOON) == POLLIN);
    CHECK(rx(&b)->head == 0 && rx(&b)->tail == 4);
    for (i = 0; i < 4; i++)
        CHECK(holds(rx(&b), i, i, LEN));
    /* One at a time back; the others stay. */
    rx(&b)->head = 1;
    rx(&b)->cur = 4;
    CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
    for (i = 1; i < 4; i++)
        CHECK(holds(rx(&b), i, i, LEN));
    close_both();
}

static void
poll_for_packets_also_sends(void)
{
    open_both();
    put_frame(tx(&a), 5, LEN);
    CHECK(poll_port(&a, POLLIN, 0) == 0);
    take_frames(&b, 5, 1, LEN);
    put_frame(tx(&a), 6, LEN);
    CHECK(poll_port(&a, 0, 0) == 0);
    take_frames(&b, 6, 1, LEN);
    close_both();
}

static void
sends_only_when_asked(struct port *p)
{
    put_frame(tx(p), 5, LEN);
    CHECK(poll_port(p, POLLIN, 20) == 0);
    CHECK(poll_port(&b, POLLIN, 50) == 0);
    CHECK(poll_port(p, POLLOUT, SOON) == POLLOUT);
    take_frames(&b, 5, 1, LEN);
}

static void
poll_does_not_send_when_told_so(void)
{
    struct nmreq_register reg = {.nr_mode = NR_REG_ALL_NIC, .nr_flags = NR_NO_TX_POLL};
    struct nmreq old;

    open_port(&b, "veth1");
    open_port_as(&a, "veth0", reg);
    sends_only_when_asked(&a);
    close_port(&a);

    /* The same in the words of older programs. */
    memset(&old, 0, sizeof(old));
    old.nr_version = 11;
    old.nr_ringid = NETMAP_NO_TX_POLL;
    old.nr_flags = NR_REG_ALL_NIC;
    strcpy(old.nr_name, "veth0");
    a.fd = open("/dev/netmap", O_RDWR);
    CHECK(a.fd >= 0);
    CHECK(ioctl(a.fd, NIOCREGIF, &old) == 0);
    a.reg.nr_memsize = old.nr_memsize;
    a.reg.nr_offset = old.nr_offset;
    map_port(&a);
    sends_only_when_asked(&a);
    close_both();
}

static void
a_descriptor_that_is_not_bound_reports_an_error(void)
{
    int fd = open("/dev/netmap", O_RDWR);
    struct pollfd pfd = {.fd = fd, .events = POLLIN | POLLOUT, .revents = 0};
    double start = now();

    CHECK(fd >= 0);
    CHECK(poll(&pfd, 1, SOON) == 1 && pfd.revents == POLLERR);
    CHECK(now() - start < SOON * 0.5e-3);
    CHECK(ioctl(fd, NIOCTXSYNC, NULL) == -1 && errno == ENXIO);
    CHECK(ioctl(fd, NIOCRXSYNC, NULL) == -1 && errno == ENXIO);
    CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED);
    CHECK(close(fd) == 0);
    CHECK(close(fd) == -1 && errno == EBADF);
}

static void
a_descriptor_is_bound_once(void)
{
    struct port again;

    open_both();
    again = a;
    CHECK(register_port(&again, "veth1", NETMAP_REQ_REGISTER, NETMAP_API) == -1 && errno == EBUSY);
    CHECK(register_port(&again, "veth0", NETMAP_REQ_REGISTER, NETMAP_API) == -1 && errno == EBUSY);
    transfer(&a, &b, 1, 10, LEN);
    close_both();
}

/* After a drain all slots but one are the program's, and as it left them. */
static void
sent_slots_keep_their_contents(void)
{
    uint32_t i, n, before[64], head;
    uint64_t seq = 0;

    open_both();
    n = tx(&a)->num_slots;
    CHECK(tx(&a)->head == 0 && tx(&a)->tail == n - 1);
    for (i = 0; i < 64; i++)
        before[i] = tx(&a)->slot[i].buf_idx;
    transfer(&a, &b, 0, 64, LEN);
    drain(&a);
    CHECK(tx(&a)->head == 64 && tx(&a)->tail == 63 && nm_ring_space(tx(&a)) == n - 1);
    for (i = 0; i < 64; i++)
        CHECK(tx(&a)->slot[i].buf_idx == before[i] && holds(tx(&a), i, i, LEN));
    /* A generator fills once: after a turn the same slots send the same frames. */
    for (seq = 64; seq < n; seq += 64)
        transfer(&a, &b, seq, seq + 64 <= n ? 64 : n - (uint32_t)seq, LEN);
    drain(&a);
    head = tx(&a)->head;
    CHECK(head == 0);
    tx(&a)->head = tx(&a)->cur = 32;
    CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
    take_frames(&b, 0, 32, LEN);
    drain(&a);
    CHECK(tx(&a)->tail == 31);
    close_both();
}

static void
a_full_ring_is_sent_and_comes_back(void)
{
    uint32_t n, done = 0, part;

    open_both();
    n = tx(&a)->num_slots - 1;
    while (nm_ring_space(tx(&a)) > 0)
        put_frame(tx(&a), done++, LEN);
    CHECK(done == n && nm_ring_empty(tx(&a)));
    CHECK(poll_port(&a, POLLOUT, SOON) == POLLOUT);
    for (done = 0; done < n; done += part) {
        part = n - done < 64 ? n - done : 64;
        take_frames(&b, done, part, LEN);
    }
    drain(&a);
    CHECK(nm_ring_space(tx(&a)) == n);
    close_both();
}

#define MINE 0x5580 /* no flag of netmap's in these bits of a NIC slot */

static void
private_fields_are_left_alone(void)
{
    struct netmap_ring *t, *r;
    uint32_t i, k;

    open_both();
    t = tx(&a);
    r = rx(&b);
    for (k = 0; k < sizeof(t->sem); k++) {
        t->sem[k] = (uint8_t)(k + 1);
        r->sem[k] = (uint8_t)(k + 2);
    }
    for (i = 0; i < r->num_slots; i++)
        r->slot[i].ptr = 0x1234567800000000u + i;
    for (i = 0; i < 32; i++) {
        t->slot[i].ptr = 0x8765432100000000u + i;
        t->slot[i].flags = MINE | NS_REPORT | NS_BUF_CHANGED;
        put_frame(t, i, LEN);
    }
    t->flags = NR_TIMESTAMP | 0x4000;
    CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
    take_frames(&b, 0, 32, LEN);
    drain(&a);
    CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
    for (i = 0; i < 32; i++) {
        CHECK(t->slot[i].ptr == 0x8765432100000000u + i);
        CHECK(t->slot[i].flags == MINE);
    }
    for (i = 0; i < r->num_slots; i++)
        CHECK(r->slot[i].ptr == 0x1234567800000000u + i);
    for (k = 0; k < sizeof(t->sem); k++)
        CHECK(t->sem[k] == (uint8_t)(k + 1) && r->sem[k] == (uint8_t)(k + 2));
    CHECK(t->flags == (NR_TIMESTAMP | 0x4000));
    close_both();
}

static void
a_receive_sync_tells_the_time(void)
{
    struct timeval t;

    open_both();
    memset((void *)(uintptr_t)&rx(&b)->ts, 0, sizeof(rx(&b)->ts));
    transfer(&a, &b, 0, 1, LEN);
    gettimeofday(&t, NULL);
    CHECK(rx(&b)->ts.tv_sec >= t.tv_sec - 10 && rx(&b)->ts.tv_sec <= t.tv_sec);
    CHECK(rx(&b)->ts.tv_usec >= 0 && rx(&b)->ts.tv_usec < 1000000);
    close_both();
}

/* Mark every buffer of a ring, each only once. */
static void
mark_ring(struct netmap_ring *ring, uint8_t *seen)
{
    uint32_t i;

    for (i = 0; i < ring->num_slots; i++) {
        CHECK(ring->slot[i].buf_idx >= 2 && ring->slot[i].buf_idx < 1 << 16);
        CHECK(!seen[ring->slot[i].buf_idx]);
        seen[ring->slot[i].buf_idx] = 1;
    }
}

static uint8_t *
mark_all(void)
{
    uint8_t *seen = calloc(1 << 16, 1);

    CHECK(seen != NULL);
    mark_ring(tx(&a), seen);
    mark_ring(rx(&a), seen);
    mark_ring(tx(&b), seen);
    mark_ring(rx(&b), seen);
    return seen;
}

static void
extra_buffers_are_a_list_and_come_back(void)
{
    struct nmreq_register reg = {.nr_mode = NR_REG_ALL_NIC, .nr_extra_bufs = 1000};
    int turn;

    open_port(&b, "veth1"); /* keeps the region */
    for (turn = 0; turn < 40; turn++) {
        uint32_t i, n = 0, spare;
        struct port other;
        uint8_t *seen;

        open_port_as(&a, "veth0", reg);
        CHECK(a.reg.nr_extra_bufs == 1000);
        seen = mark_all();
        for (i = a.nifp->ni_bufs_head; i != 0; i = *(uint32_t *)(void *)NETMAP_BUF(tx(&a), i)) {
            CHECK(i >= 2 && i < 1 << 16 && !seen[i]);
            seen[i] = 1;
            n++;
        }
        CHECK(n == 1000);
        free(seen);
        /* Send from one of them, and leave the buffer of the slot in the list instead. */
        spare = a.nifp->ni_bufs_head;
        i = tx(&a)->slot[0].buf_idx;
        *(uint32_t *)(void *)NETMAP_BUF(tx(&a), i) = *(uint32_t *)(void *)NETMAP_BUF(tx(&a), spare);
        a.nifp->ni_bufs_head = i;
        tx(&a)->slot[0].buf_idx = spare;
        tx(&a)->slot[0].flags = NS_BUF_CHANGED;
        transfer(&a, &b, (uint64_t)turn, 1, LEN);
        CHECK(tx(&a)->slot[0].buf_idx == spare);
        if (turn % 2 == 1 && queues_are_shared()) {
            /* They may be given back through another descriptor of the port. */
            open_port(&other, "veth0");
            CHECK(other.nifp != a.nifp && other.nifp->ni_bufs_head == 0);
            other.nifp->ni_bufs_head = ((struct netmap_if *)(void *)(other.mem + a.reg.nr_offset))->ni_bufs_head;
            a.nifp->ni_bufs_head = 0;
            close_port(&a);
            close_port(&other);
        } else {
            close_port(&a);
        }
    }
    close_port(&b);
}

static void
one_buffer_may_be_in_several_slots(void)
{
    uint32_t i, kept[8];

    open_both();
    for (i = 0; i < 8; i++) {
        kept[i] = tx(&a)->slot[i].buf_idx;
        tx(&a)->slot[i].buf_idx = kept[0];
        tx(&a)->slot[i].flags = NS_BUF_CHANGED;
        tx(&a)->slot[i].len = LEN;
    }
    pattern_fill(buffer(tx(&a), 0), LEN, 77);
    tx(&a)->head = tx(&a)->cur = 8;
    CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
    for (i = 0; i < 8; i++)
        take_frames(&b, 77, 1, LEN);
    drain(&a);
    CHECK(tx(&a)->tail == 7);
    for (i = 0; i < 8; i++) {
        CHECK(tx(&a)->slot[i].buf_idx == kept[0]);
        tx(&a)->slot[i].buf_idx = kept[i];
    }
    transfer(&a, &b, 0, 50, LEN);
    free(mark_all());
    close_both();
}

/* b sends back what it received without touching it: buffers wander between rings and ports, and none is lost. */
static void
buffers_move_between_rings(void)
{
    uint64_t seq = 0;
    uint32_t i, turn;

    open_both();
    CHECK(a.reg.nr_mem_id == b.reg.nr_mem_id);
    for (turn = 0; turn < 80; turn++) {
        for (i = 0; i < 32; i++)
            put_frame(tx(&a), seq + i, LEN);
        CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
        wait_frames(&b, 32);
        for (i = 0; i < 32; i++) {
            struct netmap_slot *in = &rx(&b)->slot[rx(&b)->head], *out = &tx(&b)->slot[tx(&b)->head];
            uint32_t idx = out->buf_idx;

            CHECK(nm_ring_space(tx(&b)) > 0);
            out->buf_idx = in->buf_idx;
            out->len = in->len;
            in->buf_idx = idx;
            in->flags = out->flags = NS_BUF_CHANGED;
            rx(&b)->head = rx(&b)->cur = nm_ring_next(rx(&b), rx(&b)->head);
            tx(&b)->head = tx(&b)->cur = nm_ring_next(tx(&b), tx(&b)->head);
        }
        CHECK(ioctl(b.fd, NIOCTXSYNC, NULL) == 0);
        take_frames(&a, seq, 32, LEN);
        seq += 32;
    }
    drain(&a);
    drain(&b);
    free(mark_all());
    close_both();
}

/* A swap is read at the sync, not when head moved. */
static void
slots_are_read_by_the_sync(void)
{
    uint32_t idx;

    open_both();
    put_frame(tx(&a), 1, LEN);
    put_frame(tx(&a), 2, LEN);
    idx = tx(&a)->slot[0].buf_idx;
    tx(&a)->slot[0].buf_idx = tx(&a)->slot[1].buf_idx;
    tx(&a)->slot[1].buf_idx = idx;
    CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
    take_frames(&b, 2, 1, LEN);
    take_frames(&b, 1, 1, LEN);
    close_both();
}

static void
one_packet_per_sync(void)
{
    uint32_t i;

    open_both();
    for (i = 0; i < 3000; i++) {
        put_frame(tx(&a), i, 60 + i % 1000);
        CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
        CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
        take_frames(&b, i, 1, 60 + i % 1000);
    }
    drain(&a);
    close_both();
}

static void
a_frame_that_cannot_be_sent_leaves_its_slot(void)
{
    open_both();
    put_frame(tx(&a), 1, LEN);
    tx(&a)->slot[0].len = 0; /* no frame at all */
    put_frame(tx(&a), 2, LEN);
    tx(&a)->slot[1].len = 5; /* not even a header */
    put_frame(tx(&a), 3, 1700); /* more than the MTU */
    put_frame(tx(&a), 4, LEN);
    CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
    take_frames(&b, 4, 1, LEN);
    drain(&a);
    CHECK(tx(&a)->tail == 3);
    close_both();
}

#define SCENARIO(name) {#name, name}

int
main(int argc, char **argv)
{
    static const struct scenario all[] = {
        SCENARIO(tx_cur_at_tail_waits_for_more_room),
        SCENARIO(a_reported_slot_comes_back_with_its_own_sync),
        SCENARIO(rx_slots_behind_cur_are_held),
        SCENARIO(poll_for_packets_also_sends),
        SCENARIO(poll_does_not_send_when_told_so),
        SCENARIO(a_descriptor_that_is_not_bound_reports_an_error),
        SCENARIO(a_descriptor_is_bound_once),
        SCENARIO(sent_slots_keep_their_contents),
        SCENARIO(a_full_ring_is_sent_and_comes_back),
        SCENARIO(private_fields_are_left_alone),
        SCENARIO(a_receive_sync_tells_the_time),
        SCENARIO(extra_buffers_are_a_list_and_come_back),
        SCENARIO(one_buffer_may_be_in_several_slots),
        SCENARIO(buffers_move_between_rings),
        SCENARIO(slots_are_read_by_the_sync),
        SCENARIO(one_packet_per_sync),
        SCENARIO(a_frame_that_cannot_be_sent_leaves_its_slot),
    };

    return run_scenarios(all, sizeof(all) / sizeof(all[0]), argc, argv);
}
