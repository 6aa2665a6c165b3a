/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every byte of the buffer pool is accounted for: all buffers are painted, frames cross from veth0 to veth1 and back, and
 * after each of them nothing but the received bytes has changed anywhere. Frames may take several slots on their way in.
 *
 *   nic_buffers LENGTH
 */
#include "nic_common.h"

static uint32_t buffers, size;
static uint8_t *shadow; /* what each buffer should hold */

static uint8_t *
pool(struct port *p, uint32_t i)
{
    return (uint8_t *)NETMAP_BUF(tx(p), i);
}

static uint32_t
count_buffers(struct port *p)
{
    struct nmreq_pools_info info;
    struct nmreq_header hdr;

    memset(&info, 0, sizeof(info));
    memset(&hdr, 0, sizeof(hdr));
    hdr.nr_version = NETMAP_API;
    hdr.nr_reqtype = NETMAP_REQ_POOLS_INFO_GET;
    strcpy(hdr.nr_name, "veth0");
    hdr.nr_body = (uintptr_t)&info;
    CHECK(ioctl(p->fd, NIOCCTRL, &hdr) == 0);
    CHECK(info.nr_buf_pool_objsize == tx(p)->nr_buf_size);
    return info.nr_buf_pool_objtotal;
}

static void
compare(struct port *p)
{
    uint32_t i;

    for (i = 0; i < buffers; i++) {
        if (memcmp(pool(p, i), shadow + (size_t)i * size, size) != 0) {
            size_t at = 0;

            while (pool(p, i)[at] == shadow[(size_t)i * size + at])
                at++;
            fprintf(stderr, "buffer %u of %u changed at byte %zu\n", i, buffers, at);
            exit(1);
        }
    }
}

/* What a program that looks at the module's parameters finds. */
static unsigned
parameter(void)
{
    FILE *f = fopen("/sys/module/netmap/parameters/buf_size", "r");
    unsigned n = 0;

    CHECK(f != NULL && fscanf(f, "%u", &n) == 1);
    fclose(f);
    return n;
}

/* One frame; the same is done to the shadow. */
static void
cross(struct port *from, struct port *to, uint64_t seq, size_t len)
{
    struct netmap_slot *out = &tx(from)->slot[tx(from)->head], *in;
    size_t at = 0;

    put_frame(tx(from), seq, len);
    memcpy(shadow + (size_t)out->buf_idx * size, pool(from, out->buf_idx), len);
    CHECK(ioctl(from->fd, NIOCTXSYNC, NULL) == 0);
    do {
        uint8_t *sent = shadow + (size_t)out->buf_idx * size + at;

        wait_frames(to, 1);
        in = &rx(to)->slot[rx(to)->head];
        CHECK(in->len > 0 && in->len <= size && in->len <= len - at);
        CHECK(memcmp(buffer(rx(to), rx(to)->head), sent, in->len) == 0);
        memcpy(shadow + (size_t)in->buf_idx * size, sent, in->len);
        at += in->len;
        rx(to)->head = rx(to)->cur = nm_ring_next(rx(to), rx(to)->head);
    } while (in->flags & NS_MOREFRAG);
    CHECK(at == len);
}

int
main(int argc, char **argv)
{
    size_t len = argc == 2 ? strtoul(argv[1], NULL, 0) : 0, at;
    struct port a, b;
    uint32_t seq;

    alarm(20);
    if (len < PATTERN_HEADER) {
        fprintf(stderr, "usage: nic_buffers LENGTH\n");
        return 2;
    }
    open_port(&a, "veth0");
    open_port(&b, "veth1");
    CHECK(a.reg.nr_mem_id == b.reg.nr_mem_id);
    size = tx(&a)->nr_buf_size;
    CHECK(len <= size && size == rx(&a)->nr_buf_size && size == rx(&b)->nr_buf_size);
    CHECK(parameter() == size);
    CHECK(pool(&a, 3) - pool(&a, 2) == (ptrdiff_t)size);
    buffers = count_buffers(&a);
    CHECK(buffers >= 4 * 64);
    shadow = malloc((size_t)buffers * size);
    CHECK(shadow != NULL);
    for (at = 0; at < (size_t)buffers * size; at++)
        shadow[at] = (uint8_t)(at / size * 37 + at % size * 3 + 1);
    for (seq = 0; seq < buffers; seq++)
        memcpy(pool(&a, seq), shadow + (size_t)seq * size, size);
    compare(&b);
    /* Twice around every ring. */
    for (seq = 0; seq < 2 * tx(&a)->num_slots; seq++) {
        cross(&a, &b, seq, len);
        cross(&b, &a, seq, len);
        if (seq % 16 == 0)
            compare(&a);
    }
    drain(&a);
    drain(&b);
    compare(&b);
    close_port(&b);
    close_port(&a);
    printf("ok buffers=%u size=%u\n", buffers, size);
    return 0;
}
