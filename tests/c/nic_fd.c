/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The life of a netmap descriptor: copies, fork, exec, mappings, waits. On a veth pair whose ends veth0 and veth1 lie in
 * this namespace; some scenarios change or delete veth0.
 *
 *   nic_fd SCENARIO
 */
#include "nic_common.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/select.h>
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
change_link(const char *how)
{
    char command[128];

    snprintf(command, sizeof(command), "LD_PRELOAD= ip link %s", how);
    CHECK(system(command) == 0);
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

/* -------------------------------------------------------------------------------------------------------- waits */

struct later {
    int ms;
    void (*act)(void);
    pthread_t thread;
};

static void *
run_later(void *arg)
{
    struct later *l = arg;

    usleep((useconds_t)l->ms * 1000);
    l->act();
    return NULL;
}

static void
later(struct later *l, int ms, void (*act)(void))
{
    l->ms = ms;
    l->act = act;
    CHECK(pthread_create(&l->thread, NULL, run_later, l) == 0);
}

static void
send_from_a(void)
{
    put_frame(tx(&a), 9, LEN);
    CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
}

static int pipe_ends[2];

static void
write_to_pipe(void)
{
    CHECK(write(pipe_ends[1], "x", 1) == 1);
}

static void
poll_mixes_ports_and_files(void)
{
    struct pollfd pfd[4];
    struct later l;
    double start;
    char byte;

    open_both();
    CHECK(pipe(pipe_ends) == 0);
    memset(pfd, 0, sizeof(pfd));
    pfd[0].fd = pipe_ends[0];
    pfd[1].fd = b.fd;
    pfd[2].fd = -1;
    pfd[3].fd = 1900; /* not open */
    pfd[0].events = pfd[1].events = pfd[2].events = pfd[3].events = POLLIN;
    CHECK(poll(pfd, 4, SOON) == 1 && pfd[3].revents == POLLNVAL && pfd[0].revents == 0 && pfd[1].revents == 0);
    CHECK(poll(pfd, 3, 50) == 0);

    start = now(); /* the file wakes */
    later(&l, 50, write_to_pipe);
    CHECK(poll(pfd, 3, SOON) == 1 && pfd[0].revents == POLLIN && pfd[1].revents == 0 && pfd[2].revents == 0);
    CHECK(now() - start < SOON * 0.5e-3);
    pthread_join(l.thread, NULL);
    CHECK(read(pipe_ends[0], &byte, 1) == 1);

    start = now(); /* the port wakes */
    later(&l, 50, send_from_a);
    CHECK(poll(pfd, 3, SOON) == 1 && pfd[0].revents == 0 && pfd[1].revents == POLLIN);
    CHECK(now() - start < SOON * 0.5e-3);
    pthread_join(l.thread, NULL);

    write_to_pipe(); /* both are ready */
    CHECK(poll(pfd, 3, 0) == 2 && pfd[0].revents == POLLIN && pfd[1].revents == POLLIN);
    CHECK(poll(pfd, 3, -1) == 2);
    take_frames(&b, 9, 1, LEN);

    pfd[2].fd = a.fd; /* two ports */
    pfd[2].events = POLLIN | POLLOUT;
    CHECK(read(pipe_ends[0], &byte, 1) == 1);
    CHECK(poll(pfd, 3, SOON) == 1 && pfd[2].revents == POLLOUT);
    close_port(&a);
    close_port(&b);
}

static void
select_tells_what_poll_tells(void)
{
    struct timeval limit = {SOON / 1000, 0};
    struct timespec nothing = {0, 50 * 1000 * 1000};
    fd_set in, out, bad;
    struct later l;
    double start;
    int most;

    open_both();
    most = (a.fd > b.fd ? a.fd : b.fd) + 1;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(a.fd, &out);
    FD_SET(b.fd, &in);
    CHECK(select(most, &in, &out, NULL, &limit) == 1 && FD_ISSET(a.fd, &out) && !FD_ISSET(b.fd, &in));
    FD_SET(b.fd, &in);
    start = now();
    CHECK(pselect(most, &in, NULL, NULL, &nothing, NULL) == 0 && !FD_ISSET(b.fd, &in));
    CHECK(now() - start >= 0.05);
    FD_SET(b.fd, &in);
    later(&l, 50, send_from_a);
    limit.tv_sec = SOON / 1000;
    limit.tv_usec = 0;
    CHECK(select(most, &in, NULL, NULL, &limit) == 1 && FD_ISSET(b.fd, &in));
    CHECK(limit.tv_sec < SOON / 1000);
    pthread_join(l.thread, NULL);
    CHECK(pselect(most, &in, NULL, NULL, NULL, NULL) == 1);
    FD_ZERO(&bad);
    FD_SET(b.fd, &bad);
    limit.tv_sec = 0;
    limit.tv_usec = 1000;
    CHECK(select(most, NULL, NULL, &bad, &limit) == 0);
    close_port(&a);
    close_port(&b);
}

static void
on_signal(int sig)
{
    (void)sig;
}

static pthread_t main_thread;

static void
signal_main(void)
{
    pthread_kill(main_thread, SIGUSR1);
}

static void
a_signal_interrupts_a_wait(void)
{
    struct pollfd pfd = {.events = POLLIN};
    struct timespec limit = {SOON / 1000, 0};
    struct sigaction sa;
    struct later l;
    sigset_t blocked, none;
    fd_set in;
    int way;

    open_both();
    pfd.fd = a.fd;
    main_thread = pthread_self();
    memset(&sa, 0, sizeof(sa));
    sa.sa_handler = on_signal;
    sa.sa_flags = SA_RESTART; /* poll and select are not restarted all the same */
    CHECK(sigaction(SIGUSR1, &sa, NULL) == 0);
    sigemptyset(&none);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    for (way = 0; way < 5; way++) {
        double start = now();

        if (way >= 3) /* it arrives in the wait alone */
            CHECK(pthread_sigmask(SIG_BLOCK, &blocked, NULL) == 0);
        later(&l, 50, signal_main);
        FD_ZERO(&in);
        FD_SET(a.fd, &in);
        switch (way) {
        case 0:
            CHECK(poll(&pfd, 1, -1) == -1);
            break;
        case 1:
            CHECK(poll(&pfd, 1, SOON) == -1);
            break;
        case 2:
            CHECK(select(a.fd + 1, &in, NULL, NULL, NULL) == -1);
            break;
        case 3:
            CHECK(ppoll(&pfd, 1, &limit, &none) == -1);
            break;
        default:
            CHECK(pselect(a.fd + 1, &in, NULL, NULL, &limit, &none) == -1);
        }
        CHECK(errno == EINTR);
        CHECK(now() - start < SOON * 0.5e-3);
        pthread_join(l.thread, NULL);
        CHECK(pthread_sigmask(SIG_UNBLOCK, &blocked, NULL) == 0);
    }
    close_port(&a);
    close_port(&b);
}

/* As poll(2) on other files: what has no handler is no reason to return. */
static void
a_program_that_was_stopped_goes_on_waiting(void)
{
    pid_t child;
    struct pollfd pfd[2] = {{.events = POLLIN}, {.fd = -1}};
    int files;

    open_both();
    pfd[0].fd = a.fd;
    CHECK(pipe(pipe_ends) == 0);
    for (files = 0; files < 2; files++) {
        double start = now();

        pfd[1].fd = files ? pipe_ends[0] : -1;
        child = fork();
        if (child == 0) {
            usleep(50 * 1000);
            kill(getppid(), SIGSTOP);
            usleep(50 * 1000);
            kill(getppid(), SIGCONT);
            _exit(0);
        }
        CHECK(poll(pfd, 2, 300) == 0);
        CHECK(now() - start >= 0.3);
        wait_child(child);
    }
    close_port(&a);
    close_port(&b);
}

/* An idle wait ends when it should and costs next to nothing. On a busy machine the best of some counts. */
static void
an_idle_wait_takes_its_time_and_no_processor(void)
{
    static const short asked[] = {POLLIN, 0, POLLIN | POLLOUT};
    size_t k;

    open_both();
    for (k = 0; k < sizeof(asked) / sizeof(asked[0]); k++) {
        double best = 10, cheapest = 10;
        int turn;

        tx(&a)->cur = asked[k] & POLLOUT ? tx(&a)->tail : tx(&a)->head; /* no more room will come */
        for (turn = 0; turn < 5 && (best > 0.15 || cheapest > 0.01); turn++) {
            double start = now(), cpu = cpu_time();

            CHECK(poll_port(&a, asked[k], 100) == 0);
            CHECK(now() - start >= 0.1);
            if (now() - start < best)
                best = now() - start;
            if (cpu_time() - cpu < cheapest)
                cheapest = cpu_time() - cpu;
        }
        fprintf(stderr, "events %#x: %.1f ms, %.2f ms of processor time\n", asked[k], best * 1e3, cheapest * 1e3);
        CHECK(best <= 0.15);
        CHECK(cheapest <= 0.01);
    }
    close_port(&a);
    close_port(&b);
}

static void
two_waiters_on_one_ring_both_wake(void)
{
    struct port other;
    struct later l;
    int turn;

    open_both();
    open_port(&other, "veth1");
    for (turn = 0; turn < 5; turn++) {
        double start = now();
        struct pollfd pfd[2] = {{.fd = b.fd, .events = POLLIN}, {.fd = other.fd, .events = POLLIN}};

        later(&l, 20, send_from_a);
        CHECK(poll(pfd, 2, SOON) == 2);
        CHECK(now() - start < SOON * 0.5e-3);
        pthread_join(l.thread, NULL);
        take_frames(turn % 2 ? &b : &other, 9, 1, LEN);
    }
    close_port(&other);
    close_port(&a);
    close_port(&b);
}

/* ------------------------------------------------------------------------------------------- the interface goes */

static void
delete_link(void)
{
    change_link("del veth0");
}

static void
wait_for_the_end(short events)
{
    struct later l;
    double start, end = 0;
    int got;

    open_both();
    tx(&a)->cur = tx(&a)->tail; /* room is no reason to wake up */
    start = now();
    later(&l, 100, delete_link);
    got = poll_port(&a, events, SOON);
    end = now();
    pthread_join(l.thread, NULL);
    CHECK(got & POLLERR);
    CHECK(end - start < 2.1);
    CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == -1 && errno == EIO);
    CHECK(poll_port(&a, events, SOON) & POLLERR);
    /* A veth takes its peer along; who finds room there learns it when sending. */
    for (end = now() + 2; !((got = poll_port(&b, events, SOON)) & POLLERR);) {
        CHECK(now() < end && got == POLLOUT);
        put_frame(tx(&b), 0, LEN);
    }
    close_port(&a);
    close_port(&b);
    a.reg.nr_mode = NR_REG_ALL_NIC;
    a.fd = open("/dev/netmap", O_RDWR);
    CHECK(register_port(&a, "veth0", NETMAP_REQ_REGISTER, NETMAP_API) == -1 && errno == ENXIO);
    CHECK(close(a.fd) == 0);
}

static void
a_receiver_notices_that_its_interface_is_gone(void)
{
    wait_for_the_end(POLLIN);
}

static void
a_sender_notices_that_its_interface_is_gone(void)
{
    wait_for_the_end(POLLOUT);
}

static void
whoever_waits_for_either_notices_that_the_interface_is_gone(void)
{
    wait_for_the_end(POLLIN | POLLOUT);
}

static void
syncs_alone_notice_that_the_interface_is_gone(void)
{
    double end;

    open_both();
    delete_link();
    end = now() + 2;
    while (ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && ioctl(a.fd, NIOCRXSYNC, NULL) == 0) {
        CHECK(now() < end);
        if (nm_ring_space(tx(&a)) > 0)
            put_frame(tx(&a), 0, LEN);
        usleep(1000);
    }
    CHECK(errno == EIO);
    close_port(&a);
    close_port(&b);
}

static void
an_interface_goes_down_and_up_again(void)
{
    int turn;

    open_both();
    for (turn = 0; turn < 2; turn++) {
        double end = now() + SOON * 1e-3;

        transfer(&a, &b, 0, 20, LEN);
        change_link("set veth0 down");
        CHECK(poll_port(&b, POLLIN, 20) == 0);
        put_frame(tx(&a), 1, LEN);
        CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
        change_link("set veth0 up");
        /* What was sent meanwhile may or may not arrive; what is sent from now on does, once there is carrier. */
        while (available(rx(&b)) == 0) {
            CHECK(now() < end);
            put_frame(tx(&a), 1, LEN);
            CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
            poll_port(&b, POLLIN, 20);
        }
        while (poll_port(&b, POLLIN, 50) == POLLIN)
            rx(&b)->head = rx(&b)->cur = rx(&b)->tail;
        drain(&a);
        transfer(&b, &a, 0, 20, LEN);
    }
    close_port(&a);
    close_port(&b);
}

static void
an_interface_changes_its_name(void)
{
    open_both();
    change_link("set veth0 down");
    change_link("set veth0 name other0");
    change_link("set other0 up");
    usleep(50 * 1000);
    transfer(&b, &a, 0, 20, LEN);
    transfer(&a, &b, 0, 20, LEN);
    close_port(&a);
    open_port(&a, "other0");
    transfer(&a, &b, 0, 20, LEN);
    close_port(&a);
    close_port(&b);
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
        SCENARIO(poll_mixes_ports_and_files),
        SCENARIO(select_tells_what_poll_tells),
        SCENARIO(a_signal_interrupts_a_wait),
        SCENARIO(a_program_that_was_stopped_goes_on_waiting),
        SCENARIO(an_idle_wait_takes_its_time_and_no_processor),
        SCENARIO(two_waiters_on_one_ring_both_wake),
        SCENARIO(a_receiver_notices_that_its_interface_is_gone),
        SCENARIO(a_sender_notices_that_its_interface_is_gone),
        SCENARIO(whoever_waits_for_either_notices_that_the_interface_is_gone),
        SCENARIO(syncs_alone_notice_that_the_interface_is_gone),
        SCENARIO(an_interface_goes_down_and_up_again),
        SCENARIO(an_interface_changes_its_name),
    };

    return run_scenarios(all, sizeof(all) / sizeof(all[0]), argc, argv);
}
