/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nm-pairs: the C contender of the `pipe`, `vale` and `wakeup` benchmarks, a plain netmap program. The loops are those of
 * benches/src/pairs.rs.
 *
 * usage: nm-pairs tx|rx PORT CORE MILLISECONDS LENGTH BATCH LOOK
 *        nm-pairs sealed-tx|sealed-rx PORT CORE PACKETS LENGTH BATCH LOOK
 *        nm-pairs call|answer PORT CORE COUNT
 *        nm-pairs sealed-call|sealed-answer PORT CORE COUNT
 *
 * CORE beyond those of the machine: anywhere. A sealed end, when it has warmed up, asks the kernel to kill it at its first
 * system call; one of a call, which sleeps, at its first but for those that sleep and wake.
 */
#define _GNU_SOURCE
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

#include <inttypes.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#define WARM_UP 100000000u
#define TURNS 16u
#define PAUSE 300000
#define WARM_PACKETS 10000u

static uint64_t packets, window, warm, start, start_cpu, start_packets, seen, sealed;
static uint32_t turns, length = 60, batch = 256;
static int look;

static uint64_t
read_clock(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/*
 * From here on only the end of the process and what it prints are allowed. And the clock, which is no system call but on
 * machines whose clock the kernel does not let programs read. `sleeps`: and to sleep, to take the edges that woke it, and
 * to write to eventfds.
 */
static void
seal(int sleeps)
{
    static const uint32_t sleeping[] = {SYS_ppoll, SYS_epoll_pwait, SYS_clock_nanosleep, SYS_write};
    static const uint32_t always[] = {SYS_exit_group, SYS_clock_gettime};
    const struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    const struct sock_filter last[] = {
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 1),
        allow,
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_filter code[32] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    struct sock_fprog program = {.len = 1, .filter = code};
    const uint32_t *lists[] = {always, sleeping};
    size_t i, j, of[] = {sizeof(always) / sizeof(always[0]), sleeps ? sizeof(sleeping) / sizeof(sleeping[0]) : 0};

    for (i = 0; i < 2; i++) {
        for (j = 0; j < of[i]; j++) {
            code[program.len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, lists[i][j], 0, 1);
            code[program.len++] = allow;
        }
    }
    memcpy(code + program.len, last, sizeof(last));
    program.len += sizeof(last) / sizeof(last[0]);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        perror("seccomp");
        exit(1);
    }
}

/* Ends a sealed process with as little as it may do. */
static void
finish_sealed(void)
{
    static const char done[] = "sealed=1\n";
    ssize_t n = write(1, done, sizeof(done) - 1);

    syscall(SYS_exit_group, n != (ssize_t)sizeof(done) - 1);
}

static int
look_at_clock(void)
{
    uint64_t t = read_clock(CLOCK_MONOTONIC);

    if (start == 0) {
        if (t >= warm) {
            start = t;
            start_cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID);
            start_packets = packets;
        }
    } else if (t >= start + window) {
        printf("packets=%" PRIu64 " ns=%" PRIu64 " cpu=%" PRIu64 "\n", packets - start_packets, t - start,
            read_clock(CLOCK_PROCESS_CPUTIME_ID) - start_cpu);
        return 0;
    }
    return 1;
}

/* Whether the loop is to go on; asked once a turn. When not, the result is printed. */
static inline int
goes_on(void)
{
    if (sealed > 0) {
        if (start == 0 && packets >= WARM_PACKETS) {
            start = 1;
            seal(0);
        }
        return packets < sealed;
    }
    return ++turns % TURNS != 0 || look_at_clock();
}

static inline void
spin(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static inline uint32_t
least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void
make_frame(uint8_t *frame, uint8_t to, uint8_t from)
{
    memset(frame, 0, length);
    frame[0] = frame[6] = 2;
    frame[5] = to;
    frame[11] = from;
    frame[12] = 0x88;
    frame[13] = 0xb5;
}

static void
transmit(struct nm_desc *d)
{
    struct netmap_ring *ring = NETMAP_TXRING(d->nifp, 0);
    uint32_t i, n, head, fresh = ring->num_slots;

    while (goes_on()) {
        n = least(nm_ring_space(ring), batch);
        head = ring->head;
        for (i = 0; i < n; i++) {
            struct netmap_slot *slot = &ring->slot[head];

            if (fresh > 0) {
                make_frame((uint8_t *)NETMAP_BUF(ring, slot->buf_idx), 2, 1);
                fresh--;
            }
            slot->len = (uint16_t)length;
            slot->flags = 0;
            head = nm_ring_next(ring, head);
        }
        ring->head = ring->cur = head;
        packets += n;
        if (n == 0)
            spin();
        ioctl(d->fd, NIOCTXSYNC, NULL);
    }
}

/* A switch learns where the receiver is: it sends a packet to nobody. */
static void
announce(struct nm_desc *d)
{
    struct netmap_ring *ring = NETMAP_TXRING(d->nifp, 0);
    struct netmap_slot *slot = &ring->slot[ring->head];
    uint32_t full = length;

    length = 60;
    make_frame((uint8_t *)NETMAP_BUF(ring, slot->buf_idx), 3, 2);
    length = full;
    slot->len = 60;
    ring->head = ring->cur = nm_ring_next(ring, ring->head);
    ioctl(d->fd, NIOCTXSYNC, NULL);
}

static void
receive(struct nm_desc *d)
{
    struct netmap_ring *ring = NETMAP_RXRING(d->nifp, 0);
    uint32_t i, n, head;

    while (goes_on()) {
        ioctl(d->fd, NIOCRXSYNC, NULL);
        n = least(nm_ring_space(ring), batch);
        head = ring->head;
        for (i = 0; i < n; i++) {
            struct netmap_slot *slot = &ring->slot[head];

            seen ^= slot->len;
            if (look) {
                uint64_t first;

                memcpy(&first, NETMAP_BUF(ring, slot->buf_idx), sizeof(first));
                seen ^= first;
            }
            head = nm_ring_next(ring, head);
        }
        ring->head = ring->cur = head;
        packets += n;
        if (n == 0)
            spin();
    }
}

static void
call(struct nm_desc *d, uint64_t count)
{
    struct netmap_ring *ring = NETMAP_TXRING(d->nifp, 0);
    struct timespec pause = {.tv_sec = 0, .tv_nsec = PAUSE};
    uint64_t t;

    while (count-- > 0) {
        struct netmap_slot *slot = &ring->slot[ring->head];
        uint8_t *buf = (uint8_t *)NETMAP_BUF(ring, slot->buf_idx);

        if (sealed > 0 && count == sealed / 2)
            seal(1);
        nanosleep(&pause, NULL);
        make_frame(buf, 2, 1);
        t = read_clock(CLOCK_MONOTONIC);
        memcpy(buf + 16, &t, sizeof(t));
        slot->len = 60;
        slot->flags = 0;
        ring->head = ring->cur = nm_ring_next(ring, ring->head);
        ioctl(d->fd, NIOCTXSYNC, NULL);
    }
}

static void
answer(struct nm_desc *d, uint64_t count)
{
    struct netmap_ring *ring = NETMAP_RXRING(d->nifp, 0);
    struct pollfd p = {.fd = d->fd, .events = POLLIN, .revents = 0};
    uint64_t t, sent, i, got = 0, *times = calloc(count, sizeof(*times));

    if (times == NULL)
        exit(1);
    puts("ready");
    fflush(stdout);
    while (got < count) {
        if (sealed > 0 && start == 0 && got >= count / 2) {
            start = 1;
            seal(1);
        }
        poll(&p, 1, -1);
        t = read_clock(CLOCK_MONOTONIC);
        while (!nm_ring_empty(ring) && got < count) {
            memcpy(&sent, NETMAP_BUF(ring, ring->slot[ring->head].buf_idx) + 16, sizeof(sent));
            times[got++] = t - sent;
            ring->head = ring->cur = nm_ring_next(ring, ring->head);
        }
    }
    for (i = 0; i < count; i++)
        printf("took=%" PRIu64 "\n", times[i]);
    fflush(stdout);
    free(times);
}

int
main(int argc, char **argv)
{
    const char *end;
    struct nm_desc *d;
    uint64_t number;
    cpu_set_t set;

    if (argc != 5 && argc != 8) {
        fprintf(stderr, "usage: nm-pairs END PORT CORE NUMBER [LENGTH BATCH LOOK]\n");
        return 2;
    }
    end = argv[1];
    CPU_ZERO(&set);
    CPU_SET((size_t)atoi(argv[3]), &set);
    sched_setaffinity(0, sizeof(set), &set);
    number = strtoull(argv[4], NULL, 10);
    if (argc == 8) {
        length = (uint32_t)atoi(argv[5]);
        batch = (uint32_t)atoi(argv[6]);
        look = atoi(argv[7]);
    }
    if (strncmp(end, "sealed-", 7) == 0) {
        sealed = number;
        end += 7;
    }
    window = number * 1000000u;
    d = nm_open(argv[2], NULL, 0, NULL);
    if (d == NULL) {
        perror(argv[2]);
        return 1;
    }
    if (strncmp(argv[2], "vale", 4) == 0 && (strcmp(end, "rx") == 0 || strcmp(end, "answer") == 0))
        announce(d);
    if (sealed > 0 && strcmp(end, "answer") != 0) {
        puts("ready");
        fflush(stdout);
    }
    warm = read_clock(CLOCK_MONOTONIC) + WARM_UP;
    if (strcmp(end, "tx") == 0)
        transmit(d);
    else if (strcmp(end, "rx") == 0)
        receive(d);
    else if (strcmp(end, "call") == 0)
        call(d, number);
    else
        answer(d, number);
    if (sealed > 0)
        finish_sealed();
    nm_close(d);
    return seen == 1;
}
