/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libnetmap on real ports: libnetmap_port WHAT PORT [COUNT]. Ends with status 0 if all is as it should be.
 *
 *     send    inject COUNT numbered frames, and wait until they have left
 *     recv    receive COUNT numbered frames; prints "ready", then how many came
 *     rings   what nmport_inject() does to rings, without sending
 *     share   ports that share a region, and what is left when they are closed
 *     fail    opening what cannot be opened leaves nothing behind; PORT does not matter
 *     threads several threads open and close the port at once
 */
#define _GNU_SOURCE
#include <libnetmap.h>

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            fprintf(stderr, "%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

enum { FRAME = 100 };

static void
make_frame(unsigned char *frame, uint32_t number)
{
    memset(frame, (int)(number & 0xff), FRAME);
    memset(frame, 0xff, 6);
    memcpy(frame + 6, "\2\0\0\0\0\1\x88\xb5", 8);
    memcpy(frame + 14, &number, sizeof(number));
}

static int
count_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static void
send_frames(const char *port, uint32_t count)
{
    struct nmport_d *d = nmport_open(port);
    unsigned char frame[FRAME];
    uint32_t i;
    int ring;

    CHECK(d != NULL && d->first_tx_ring <= d->last_tx_ring);
    for (i = 0; i < count;) {
        struct pollfd fd = { .fd = d->fd, .events = POLLOUT, .revents = 0 };

        make_frame(frame, i);
        if (nmport_inject(d, frame, FRAME) == FRAME)
            i++;
        else
            CHECK(poll(&fd, 1, 2000) == 1);
    }
    for (ring = d->first_tx_ring; ring <= d->last_tx_ring; ring++) {
        int turns = 0;

        while (nm_tx_pending(NETMAP_TXRING(d->nifp, ring))) {
            CHECK(ioctl(d->fd, NIOCTXSYNC, NULL) == 0 && turns++ < 2000);
            poll(NULL, 0, 1);
        }
    }
    nmport_close(d);
}

static void
receive_frames(const char *port, uint32_t count)
{
    struct nmport_d *d = nmport_open(port);
    unsigned char frame[FRAME];
    uint32_t got = 0;

    CHECK(d != NULL && d->first_rx_ring <= d->last_rx_ring);
    puts("ready");
    fflush(stdout);
    while (got < count) {
        struct pollfd fd = { .fd = d->fd, .events = POLLIN, .revents = 0 };
        int i;

        CHECK(poll(&fd, 1, 5000) == 1);
        for (i = d->first_rx_ring; i <= d->last_rx_ring; i++) {
            struct netmap_ring *ring = NETMAP_RXRING(d->nifp, i);

            while (!nm_ring_empty(ring)) {
                struct netmap_slot *slot = &ring->slot[ring->head];

                make_frame(frame, got);
                CHECK(slot->len == FRAME && memcmp(NETMAP_BUF(ring, slot->buf_idx), frame, FRAME) == 0);
                ring->head = ring->cur = nm_ring_next(ring, ring->head);
                got++;
            }
        }
    }
    printf("received=%u\n", got);
    nmport_close(d);
}

static void
inject_into_rings(const char *port)
{
    struct nmport_d *d = nmport_open(port);
    unsigned char big[5000], *part;
    struct netmap_ring *ring;
    uint32_t room, size, i;
    int first, rings;

    CHECK(d != NULL);
    first = d->first_tx_ring;
    rings = d->last_tx_ring - first + 1;
    CHECK(rings >= 1 && d->cur_tx_ring == first);
    ring = NETMAP_TXRING(d->nifp, first);
    CHECK(ring->head == 0 && ring->cur == 0);
    room = nm_ring_space(ring);
    size = ring->nr_buf_size;
    CHECK(room > 10 && size < sizeof(big));
    for (i = 0; i < sizeof(big); i++)
        big[i] = (unsigned char)(i * 7 + (i >> 8));

    /* One slot, however full. */
    CHECK(nmport_inject(d, big, size) == (int)size && ring->head == 1 && ring->cur == 1 && ring->slot[0].len == size);
    CHECK(ring->slot[0].flags == 0 && memcmp(NETMAP_BUF(ring, ring->slot[0].buf_idx), big, size) == 0);
    /* Several. */
    CHECK(nmport_inject(d, big, sizeof(big)) == sizeof(big));
    for (i = 1, part = big; part + size < big + sizeof(big); i++, part += size) {
        CHECK(ring->slot[i].len == size && ring->slot[i].flags == NS_MOREFRAG);
        CHECK(memcmp(NETMAP_BUF(ring, ring->slot[i].buf_idx), part, size) == 0);
    }
    CHECK(ring->slot[i].len == big + sizeof(big) - part && ring->slot[i].flags == 0);
    CHECK(memcmp(NETMAP_BUF(ring, ring->slot[i].buf_idx), part, ring->slot[i].len) == 0);
    CHECK(ring->head == i + 1 && ring->cur == ring->head && d->cur_tx_ring == first);

    /* The ring is filled, then the next one, then there is no room, whatever the size. */
    for (i = nm_ring_space(ring); i > 0; i--)
        CHECK(nmport_inject(d, big, 60) == 60 && d->cur_tx_ring == first);
    CHECK(ring->head == ring->tail);
    for (i = (uint32_t)(rings - 1) * room; i > 0; i--)
        CHECK(nmport_inject(d, big, 60) == 60 && d->cur_tx_ring != first);
    CHECK(nmport_inject(d, big, 60) == 0 && nmport_inject(d, big, 0) == 0 && ring->head == ring->tail);
    /* A packet that does not fit leaves the slots alone. */
    ring->head = ring->cur = ring->tail >= 1 ? ring->tail - 1 : ring->num_slots - 1;
    ring->slot[ring->head].len = 77;
    CHECK(nmport_inject(d, big, sizeof(big)) == 0 && ring->slot[ring->head].len == 77);
    /* A cursor out of range does no harm. */
    ring->cur = ring->num_slots;
    CHECK(nmport_inject(d, big, 60) == 0);
    nmport_close(d);
}

static void
share_regions(const char *port)
{
    struct nmctx *ctx = nmctx_get();
    int files = count_files();
    struct nmport_d *d = nmport_open(port), *e, *f;
    char name[200];
    const char *at = port;

    CHECK(d != NULL && d->mem != NULL && d->mem->refcount == 1 && ctx->mem_descs == d->mem);
    CHECK(d->mem->mem_id == d->reg.nr_mem_id && d->mem->size == d->reg.nr_memsize && !d->mem->is_extmem);
    CHECK((char *)d->nifp == (char *)d->mem->mem + d->reg.nr_offset);
    CHECK(d->register_done && d->mmap_done && d->fd >= 0);
    CHECK(nmport_register(d) == -1 && errno == EINVAL && nmport_mmap(d) == -1 && errno == EINVAL);
    CHECK(nmreq_get_mem_id(&at, ctx) == d->reg.nr_mem_id && *at == '\0');

    e = nmport_clone(d);
    CHECK(e != NULL && e->fd == -1 && e->mem == NULL && !e->register_done && e->clist == NULL);
    CHECK(nmport_open_desc(e) == 0 && e->fd != d->fd && e->mem == d->mem && d->mem->refcount == 2);
    CHECK(e->last_tx_ring == d->last_tx_ring && e->last_rx_ring == d->last_rx_ring);

    snprintf(name, sizeof(name), "%s@share=%s", port, port);
    f = nmport_prepare(name);
    CHECK(f != NULL && f->reg.nr_mem_id == d->reg.nr_mem_id);
    CHECK(nmport_open_desc(f) == 0 && f->mem == d->mem && d->mem->refcount == 3);

    /* The region stays while somebody uses it. */
    nmport_close(d);
    CHECK(e->mem->refcount == 2 && ctx->mem_descs == e->mem && NETMAP_TXRING(e->nifp, e->first_tx_ring)->num_slots > 0);
    nmport_undo_mmap(e);
    CHECK(e->mem == NULL && e->nifp == NULL && !e->mmap_done && e->register_done && f->mem->refcount == 1);
    CHECK(nmport_mmap(e) == 0 && e->mem == f->mem);
    nmport_close(e);
    nmport_close(f);
    CHECK(ctx->mem_descs == NULL && count_files() == files);
}

static void
fail_to_open(void)
{
    struct nmctx *ctx = nmctx_get();
    struct nmport_d *d = nmport_open("netmap:lo-4000");
    const char *at = "netmap:no_such_port0";
    int files, i;

    /* The first attempt may leave the connection to the engine open. */
    CHECK(d == NULL);
    files = count_files();
    for (i = 0; i < 3; i++) {
        CHECK(nmport_open("netmap:no_such_port0") == NULL && errno == ENXIO);
        CHECK(nmport_open("netmap:x@share=netmap:no_such_port0") == NULL && errno == ENXIO);
        CHECK(nmreq_get_mem_id(&at, ctx) == -1 && errno == ENXIO);
        CHECK(nmport_open("netmap:lo-4000") == NULL && errno != 0);
    }
    CHECK(strcmp(at, "netmap:no_such_port0") == 0);
    CHECK(ctx->mem_descs == NULL && count_files() == files);
}

static void *
open_and_close(void *port)
{
    int i;

    for (i = 0; i < 20; i++) {
        struct nmport_d *d = nmport_open(port);

        CHECK(d != NULL && d->mem != NULL && NETMAP_TXRING(d->nifp, d->first_tx_ring)->num_slots > 0);
        nmport_undo_mmap(d);
        CHECK(nmport_mmap(d) == 0);
        nmport_close(d);
    }
    return NULL;
}

static void
open_in_threads(char *port)
{
    struct nmport_d *d;
    pthread_t threads[4];
    size_t i;

    nmctx_set_threadsafe();
    /* So that the NIC is not attached anew each time. */
    d = nmport_open(port);
    CHECK(d != NULL);
    for (i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, open_and_close, port) == 0);
    for (i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(d->mem->refcount == 1);
    nmport_close(d);
    CHECK(nmctx_get()->mem_descs == NULL);
}

int
main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    uint32_t count = argc > 3 ? (uint32_t)atoi(argv[3]) : 0;

    if (strcmp(what, "send") == 0)
        send_frames(argv[2], count);
    else if (strcmp(what, "recv") == 0)
        receive_frames(argv[2], count);
    else if (strcmp(what, "rings") == 0)
        inject_into_rings(argv[2]);
    else if (strcmp(what, "share") == 0)
        share_regions(argv[2]);
    else if (strcmp(what, "fail") == 0)
        fail_to_open();
    else if (strcmp(what, "threads") == 0)
        open_in_threads(argv[2]);
    else
        return 2;
    return 0;
}
