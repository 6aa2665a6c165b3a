/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nm-calls: makes one kind of call again and again, and prints how many there were and the nanoseconds they took.
 *
 * usage: nm-calls txsync|rxsync|poll|foreign-poll|foreign-ioctl DEV|- CORE COUNT
 *
 * DEV is opened as a netmap port, with nothing to send and nobody who sends; `-` opens none. The foreign descriptor is a
 * pipe with nothing in it.
 */
#define _GNU_SOURCE
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <time.h>

/* Not inlined, so that callgrind finds it by its name. */
static __attribute__((noinline)) int
calls_of_interest(const char *kind, int fd, uint64_t count)
{
    struct pollfd p = {.fd = fd, .events = POLLIN, .revents = 0};
    int waiting, failed = 0;

    if (strcmp(kind, "txsync") == 0)
        while (count-- > 0)
            failed |= ioctl(fd, NIOCTXSYNC, NULL);
    else if (strcmp(kind, "rxsync") == 0)
        while (count-- > 0)
            failed |= ioctl(fd, NIOCRXSYNC, NULL);
    else if (strcmp(kind, "foreign-ioctl") == 0)
        while (count-- > 0)
            failed |= ioctl(fd, FIONREAD, &waiting);
    else
        while (count-- > 0)
            failed |= poll(&p, 1, 0);
    return failed;
}

int
main(int argc, char **argv)
{
    struct timespec start, end;
    struct nm_desc *d = NULL;
    char name[64];
    cpu_set_t set;
    uint64_t count;
    int ends[2], failed;

    if (argc != 5) {
        fprintf(stderr, "usage: nm-calls KIND DEV|- CORE COUNT\n");
        return 2;
    }
    CPU_ZERO(&set);
    CPU_SET((size_t)atoi(argv[3]), &set);
    sched_setaffinity(0, sizeof(set), &set);
    count = strtoull(argv[4], NULL, 10);
    if (pipe(ends) != 0) {
        perror("pipe");
        return 1;
    }
    if (strcmp(argv[2], "-") != 0) {
        snprintf(name, sizeof(name), "netmap:%s", argv[2]);
        d = nm_open(name, NULL, 0, NULL);
        if (d == NULL) {
            perror(name);
            return 1;
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    failed = calls_of_interest(argv[1], strncmp(argv[1], "foreign", 7) == 0 || d == NULL ? ends[0] : d->fd, count);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("calls=%" PRIu64 " ns=%" PRId64 "\n", count,
        (int64_t)(end.tv_sec - start.tv_sec) * 1000000000 + (end.tv_nsec - start.tv_nsec));
    if (d != NULL)
        nm_close(d);
    return failed != 0;
}
