/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the nic_*.c programs share: checks that end the program with a line, ports bound through NIOCCTRL, frames of
 * pattern.h put into rings and looked for in others. Every wait is bounded.
 */
#ifndef NIC_COMMON_H
#define NIC_COMMON_H

#define _GNU_SOURCE
#include <net/netmap_user.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "../../compat-c/examples/pattern.h"

/* How long anything may take that ought to happen at once, in milliseconds. */
#define SOON 5000

#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #what, strerror(errno));                   \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* How many times as long as elsewhere a program of this kind may take: tests/vm.sh says so. */
static inline unsigned
patience(void)
{
    const char *factor = getenv("NMX_PATIENCE");

    return factor ? (unsigned)atoi(factor) : 1;
}

/* Whether several descriptors may be bound to a queue: the first one alone can map its rings before Linux 6.4. */
static inline int
queues_are_shared(void)
{
    struct utsname kernel;
    int major, minor;

    CHECK(uname(&kernel) == 0 && sscanf(kernel.release, "%d.%d", &major, &minor) == 2);
    if (major > 6 || (major == 6 && minor >= 4))
        return 1;
    fprintf(stderr, "several descriptors of a queue: left out, needs Linux 6.4\n");
    return 0;
}

struct port {
    int fd;
    struct nmreq_register reg;
    char *mem;
    struct netmap_if *nifp;
};

static inline double
now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Processor time of this process so far. */
static inline double
cpu_time(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Register fd with what is in p->reg; as ioctl(). */
static inline int
register_port(struct port *p, const char *name, uint32_t reqtype, uint16_t version)
{
    struct nmreq_header hdr;

    memset(&hdr, 0, sizeof(hdr));
    hdr.nr_version = version;
    hdr.nr_reqtype = (uint16_t)reqtype;
    strncpy(hdr.nr_name, name, sizeof(hdr.nr_name) - 1);
    hdr.nr_body = (uintptr_t)&p->reg;
    return ioctl(p->fd, NIOCCTRL, &hdr);
}

static inline void
map_port(struct port *p)
{
    p->mem = mmap(NULL, p->reg.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0);
    CHECK(p->mem != MAP_FAILED);
    p->nifp = NETMAP_IF(p->mem, p->reg.nr_offset);
}

/* Open, bind what reg asks for, map. */
static inline void
open_port_as(struct port *p, const char *name, struct nmreq_register reg)
{
    p->reg = reg;
    p->fd = open("/dev/netmap", O_RDWR);
    CHECK(p->fd >= 0);
    CHECK(register_port(p, name, NETMAP_REQ_REGISTER, NETMAP_API) == 0);
    map_port(p);
}

static inline void
open_port(struct port *p, const char *name)
{
    struct nmreq_register reg = {.nr_mode = NR_REG_ALL_NIC};

    open_port_as(p, name, reg);
}

static inline void
close_port(struct port *p)
{
    CHECK(munmap(p->mem, p->reg.nr_memsize) == 0);
    CHECK(close(p->fd) == 0);
}

static inline struct netmap_ring *
tx(const struct port *p)
{
    return NETMAP_TXRING(p->nifp, 0);
}

static inline struct netmap_ring *
rx(const struct port *p)
{
    return NETMAP_RXRING(p->nifp, 0);
}

/* poll() of one port: what it reports. */
static inline int
poll_port(const struct port *p, short events, int ms)
{
    struct pollfd pfd = {.fd = p->fd, .events = events, .revents = 0};
    int n = poll(&pfd, 1, ms);

    CHECK(n >= 0 && n == (pfd.revents != 0));
    return pfd.revents;
}

static inline uint8_t *
buffer(struct netmap_ring *ring, uint32_t slot)
{
    return (uint8_t *)NETMAP_BUF(ring, ring->slot[slot].buf_idx);
}

/* Fill the slot at head with frame seq and move head and cur past it. */
static inline void
put_frame(struct netmap_ring *ring, uint64_t seq, size_t len)
{
    CHECK(nm_ring_space(ring) > 0);
    pattern_fill(buffer(ring, ring->head), len, seq);
    ring->slot[ring->head].len = (uint16_t)len;
    ring->head = ring->cur = nm_ring_next(ring, ring->head);
}

static inline uint32_t
available(const struct netmap_ring *ring)
{
    return (ring->tail + ring->num_slots - ring->head) % ring->num_slots;
}

/* Wait until n slots of the receive ring are ours. */
static inline void
wait_frames(struct port *p, uint32_t n)
{
    double end = now() + SOON * 1e-3;

    while (available(rx(p)) < n) {
        CHECK(now() < end);
        CHECK(!(poll_port(p, POLLIN, 100) & POLLERR));
        if (available(rx(p)) < n)
            usleep(200); /* poll reports what is there already, and more may be on its way */
    }
}

/* Whether slot i holds frame seq of len bytes. */
static inline int
holds(struct netmap_ring *ring, uint32_t i, uint64_t seq, size_t len)
{
    uint64_t got;

    return ring->slot[i].len == len && pattern_check(buffer(ring, i), len, &got) == PATTERN_GOOD && got == seq;
}

/* Check the next n received frames, first and up, and give them back. */
static inline void
take_frames(struct port *p, uint64_t first, uint32_t n, size_t len)
{
    uint32_t i;

    wait_frames(p, n);
    for (i = 0; i < n; i++) {
        CHECK(holds(rx(p), rx(p)->head, first + i, len));
        rx(p)->head = rx(p)->cur = nm_ring_next(rx(p), rx(p)->head);
    }
}

/* Send n frames from one port to another, one sync for each, and check them. */
static inline void
transfer(struct port *from, struct port *to, uint64_t first, uint32_t n, size_t len)
{
    uint32_t i;

    for (i = 0; i < n; i++)
        put_frame(tx(from), first + i, len);
    CHECK(ioctl(from->fd, NIOCTXSYNC, NULL) == 0);
    take_frames(to, first, n, len);
}

/* Sync until all slots of the transmit ring came back. */
static inline void
drain(struct port *p)
{
    double end = now() + SOON * 1e-3;

    while (nm_ring_next(tx(p), tx(p)->tail) != tx(p)->head) {
        CHECK(now() < end);
        CHECK(ioctl(p->fd, NIOCTXSYNC, NULL) == 0);
        usleep(100);
    }
}

/* A table of scenarios, and a main that runs one of them or all. */
struct scenario {
    const char *name;
    void (*run)(void);
};

static inline int
run_scenarios(const struct scenario *all, size_t count, int argc, char **argv)
{
    size_t i;
    int ran = 0;

    alarm(60 * patience()); /* nothing here may hang */
    for (i = 0; i < count; i++) {
        if (argc == 2 && (strcmp(argv[1], "all") == 0 || strcmp(argv[1], all[i].name) == 0)) {
            fprintf(stderr, "scenario %s\n", all[i].name);
            all[i].run();
            ran++;
        }
    }
    if (ran == 0) {
        fprintf(stderr, "usage: %s SCENARIO\n", argv[0]);
        return 2;
    }
    printf("ok ran=%d\n", ran);
    return 0;
}

/* Something that another thread does in a while. */
struct later {
    int ms;
    void (*act)(void);
    pthread_t thread;
};

static inline void *
run_later(void *arg)
{
    struct later *l = arg;

    usleep((useconds_t)l->ms * 1000);
    l->act();
    return NULL;
}

static inline void
later(struct later *l, int ms, void (*act)(void))
{
    l->ms = ms;
    l->act = act;
    CHECK(pthread_create(&l->thread, NULL, run_later, l) == 0);
}

#endif /* NIC_COMMON_H */
