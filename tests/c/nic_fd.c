/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The life of a netmap descriptor: copies, fork, exec, mappings. On a veth pair whose ends veth0 and veth1 lie in this
 * namespace.
 *
 *   nic_fd SCENARIO
 */
#include "nic_common.h"

#include <dirent.h>
#include <sys/wait.h>

#define LEN 100

static struct port a, b;

static void
open_both(void)
{
    open_port(&a, "veth0");
    open_port(&b, "veth1");
}

/* Whether nobody has a ring of the port: it can be had exclusively. */
static int
is_free(const char *name)
{
    struct port p = {.reg = {.nr_mode = NR_REG_ALL_NIC, .nr_flags = NR_EXCLUSIVE}};
    int done;

    p.fd = open("/dev/netmap", O_RDWR);
    CHECK(p.fd >= 0);
    done = register_port(&p, name, NETMAP_REQ_REGISTER, NETMAP_API);
    CHECK(done == 0 || errno == EBUSY);
    CHECK(close(p.fd) == 0);
    return done == 0;
}

/* Other processes free a port when they get to it. */
static void
wait_free(const char *name)
{
    double end = now() + SOON * 1e-3;

    while (!is_free(name)) {
        CHECK(now() < end);
        usleep(2000);
    }
}

static void
wait_child(pid_t child)
{
    int status;

    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ------------------------------------------------------------------------------------------------------- copies */

static void
a_duplicate_is_the_same_port(void)
{
    int first, high;

    open_both();
    first = a.fd;
    a.fd = dup(first);
    CHECK(a.fd >= 0 && a.fd != first);
    CHECK(close(first) == 0);
    transfer(&a, &b, 0, 10, LEN);
    high = fcntl(a.fd, F_DUPFD_CLOEXEC, 300);
    CHECK(high >= 300 && (fcntl(high, F_GETFD) & FD_CLOEXEC));
    CHECK(close(a.fd) == 0);
    a.fd = high;
    transfer(&b, &a, 0, 10, LEN);
    CHECK(!is_free("veth0"));
    close_port(&a);
    CHECK(is_free("veth0"));
    close_port(&b);
}

static void
dup2_releases_what_it_replaces(void)
{
    int null, number;

    open_both();
    null = open("/dev/null", O_RDWR);
    CHECK(null >= 0);
    /* A file takes the number of a port. */
    CHECK(munmap(a.mem, a.reg.nr_memsize) == 0);
    CHECK(dup2(null, a.fd) == a.fd);
    CHECK(is_free("veth0"));
    CHECK(write(a.fd, "x", 1) == 1 && ioctl(a.fd, NIOCTXSYNC, NULL) == -1);
    /* A port takes the number of a file, and of another port. */
    number = a.fd;
    open_port(&a, "veth0");
    CHECK(dup2(a.fd, number) == number);
    CHECK(close(a.fd) == 0);
    a.fd = number;
    transfer(&a, &b, 0, 10, LEN);
    CHECK(munmap(b.mem, b.reg.nr_memsize) == 0);
    CHECK(dup3(a.fd, b.fd, O_CLOEXEC) == b.fd);
    CHECK(is_free("veth1"));
    CHECK(dup2(a.fd, a.fd) == a.fd);
    CHECK(close(b.fd) == 0 && !is_free("veth0"));
    close_port(&a);
    CHECK(is_free("veth0"));
    CHECK(close(null) == 0);
}

static void
a_mapping_keeps_the_port(void)
{
    struct port other;

    if (!queues_are_shared())
        return;
    open_both();
    CHECK(close(a.fd) == 0);
    CHECK(!is_free("veth0"));
    open_port(&other, "veth0");
    put_frame(tx(&a), 3, LEN); /* through the old mapping */
    CHECK(ioctl(other.fd, NIOCTXSYNC, NULL) == 0);
    take_frames(&b, 3, 1, LEN);
    close_port(&other);
    CHECK(!is_free("veth0"));
    /* One page less is not none. */
    CHECK(munmap(a.mem, 4096) == 0 && !is_free("veth0"));
    CHECK(munmap(a.mem, a.reg.nr_memsize) == 0);
    CHECK(is_free("veth0"));
    close_port(&b);
}

static void
a_port_that_is_never_mapped_works(void)
{
    struct port rings, waiter = {.reg = {.nr_mode = NR_REG_ALL_NIC}};

    if (!queues_are_shared())
        return;
    open_port(&b, "veth1");
    open_port(&rings, "veth0");
    waiter.fd = open("/dev/netmap", O_RDWR);
    CHECK(register_port(&waiter, "veth0", NETMAP_REQ_REGISTER, NETMAP_API) == 0);
    put_frame(tx(&rings), 1, LEN);
    CHECK(poll_port(&waiter, POLLOUT, SOON) == POLLOUT);
    take_frames(&b, 1, 1, LEN);
    CHECK(close(waiter.fd) == 0);
    close_port(&rings);
    close_port(&b);
}

/* --------------------------------------------------------------------------------------------------------- fork */

static void
a_child_that_exits_leaves_the_port_alone(void)
{
    int way;

    open_both();
    for (way = 0; way < 4; way++) {
        pid_t child = fork();

        if (child == 0) {
            if (way == 0)
                _exit(0);
            if (way == 1)
                exit(0);
            CHECK(close(a.fd) == 0);
            if (way == 3)
                CHECK(munmap(a.mem, a.reg.nr_memsize) == 0);
            exit(0);
        }
        wait_child(child);
        transfer(&a, &b, 0, 20, LEN);
        transfer(&b, &a, 0, 20, LEN);
    }
    close_port(&a);
    close_port(&b);
    CHECK(is_free("veth0") && is_free("veth1"));
}

static void
a_child_uses_the_port_of_its_parent(void)
{
    pid_t child;

    open_both();
    transfer(&a, &b, 0, 10, LEN);
    child = fork();
    if (child == 0) {
        transfer(&a, &b, 10, 10, LEN);
        transfer(&b, &a, 0, 30, LEN);
        exit(0);
    }
    wait_child(child);
    transfer(&a, &b, 20, 10, LEN);
    transfer(&b, &a, 30, 10, LEN);
    close_port(&a);
    close_port(&b);
}

static void
a_child_keeps_what_its_parent_closed(void)
{
    int go[2];
    char byte = 0;
    pid_t child;

    open_both();
    CHECK(pipe(go) == 0);
    child = fork();
    if (child == 0) {
        CHECK(read(go[0], &byte, 1) == 1);
        transfer(&a, &b, 0, 30, LEN);
        transfer(&b, &a, 0, 30, LEN);
        close_port(&a);
        close_port(&b);
        exit(0);
    }
    close_port(&a);
    close_port(&b);
    CHECK(!is_free("veth0"));
    CHECK(write(go[1], &byte, 1) == 1);
    wait_child(child);
    wait_free("veth0");
    wait_free("veth1");
}

/* As daemon(3): the parent is gone before the child has done anything. */
static void
a_daemon_keeps_the_port_of_its_dead_parent(void)
{
    int done[2];
    char byte = 0;
    pid_t parent;

    CHECK(pipe(done) == 0);
    parent = fork();
    if (parent == 0) {
        pid_t ours = getpid();

        open_both();
        if (fork() != 0)
            _exit(0);
        while (getppid() == ours)
            usleep(1000);
        transfer(&a, &b, 0, 30, LEN);
        transfer(&b, &a, 0, 30, LEN);
        close_port(&a);
        CHECK(is_free("veth0"));
        close_port(&b);
        CHECK(write(done[1], &byte, 1) == 1);
        _exit(0);
    }
    wait_child(parent);
    CHECK(close(done[1]) == 0);
    CHECK(read(done[0], &byte, 1) == 1);
    wait_free("veth0"); /* by us, who have an engine of our own */
}

static void
exec_releases_the_port(void)
{
    open_both();
    CHECK(fcntl(b.fd, F_SETFD, FD_CLOEXEC) == 0);
    transfer(&a, &b, 0, 10, LEN);
    execl("/proc/self/exe", "nic_fd", "after_exec", (char *)NULL);
    CHECK(!"exec failed");
}

static void
after_exec(void)
{
    wait_free("veth0");
    wait_free("veth1");
    open_both();
    transfer(&a, &b, 0, 10, LEN);
    close_port(&a);
    close_port(&b);
}

static void
a_program_that_runs_another_keeps_its_port(void)
{
    open_both();
    CHECK(system("true") == 0);
    CHECK(system("LD_PRELOAD= true") == 0);
    transfer(&a, &b, 0, 10, LEN);
    close_port(&a);
    close_port(&b);
}

static void
closing_every_unknown_descriptor_keeps_the_port(void)
{
    int fd;

    open_both();
    for (fd = 3; fd < 2048; fd++)
        if (fd != a.fd && fd != b.fd)
            close(fd);
    transfer(&a, &b, 0, 10, LEN);
    CHECK(poll_port(&a, POLLIN, 20) == 0);
    close_port(&a);
    close_port(&b);
    CHECK(is_free("veth0"));
}

/* ---------------------------------------------------------------------------------------------------------- the end */

/* Descriptors and mappings of this process. */
static void
count_own(int *fds, int *maps)
{
    DIR *dir = opendir("/proc/self/fd");
    FILE *f = fopen("/proc/self/maps", "r");
    int c;

    CHECK(dir != NULL && f != NULL);
    for (*fds = 0; readdir(dir) != NULL;)
        ++*fds;
    for (*maps = 0; (c = fgetc(f)) != EOF;)
        *maps += c == '\n';
    CHECK(closedir(dir) == 0 && fclose(f) == 0);
}

static void
many_openings_leave_nothing_behind(void)
{
    struct nmreq_register one = {.nr_mode = NR_REG_ONE_NIC, .nr_flags = NR_RX_RINGS_ONLY};
    int fds[2], maps[2], i;

    if (!queues_are_shared())
        return;
    for (i = 0; i < 210; i++) {
        if (i == 10)
            count_own(&fds[0], &maps[0]);
        open_port(&b, "veth1");
        if (i % 10 == 0) {
            open_port(&a, "veth0");
            transfer(&a, &b, 0, 1, LEN);
            close_port(&a);
        }
        for (; i % 10 < 9; i++) { /* a second descriptor is cheap: no program is loaded for it */
            open_port_as(&a, "veth1", one);
            if (i % 2 == 0)
                close_port(&a);
            CHECK(i % 2 == 0 || (close(a.fd) == 0 && munmap(a.mem, a.reg.nr_memsize) == 0));
        }
        close_port(&b);
    }
    count_own(&fds[1], &maps[1]);
    fprintf(stderr, "descriptors %d then %d, mappings %d then %d\n", fds[0], fds[1], maps[0], maps[1]);
    CHECK(fds[0] == fds[1]);
    CHECK(maps[1] <= maps[0] + 4); /* the heap may grow */
}

static void
exit_without_a_close(void)
{
    open_both();
    transfer(&a, &b, 0, 10, LEN);
}

/* Until it is killed. */
static void
open_and_close_for_ever(void)
{
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        open_both();
        transfer(&a, &b, 0, 5, LEN);
        close_port(&a);
        close_port(&b);
    }
}

#define SCENARIO(name) {#name, name}

int
main(int argc, char **argv)
{
    static const struct scenario all[] = {
        SCENARIO(a_duplicate_is_the_same_port),
        SCENARIO(dup2_releases_what_it_replaces),
        SCENARIO(a_mapping_keeps_the_port),
        SCENARIO(a_port_that_is_never_mapped_works),
        SCENARIO(a_child_that_exits_leaves_the_port_alone),
        SCENARIO(a_child_uses_the_port_of_its_parent),
        SCENARIO(a_child_keeps_what_its_parent_closed),
        SCENARIO(a_daemon_keeps_the_port_of_its_dead_parent),
        SCENARIO(exec_releases_the_port),
        SCENARIO(after_exec),
        SCENARIO(a_program_that_runs_another_keeps_its_port),
        SCENARIO(closing_every_unknown_descriptor_keeps_the_port),
        SCENARIO(many_openings_leave_nothing_behind),
        SCENARIO(exit_without_a_close),
        SCENARIO(open_and_close_for_ever),
    };

    return run_scenarios(all, sizeof(all) / sizeof(all[0]), argc, argv);
}
