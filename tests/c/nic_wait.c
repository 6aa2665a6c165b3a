/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Waits on netmap descriptors: poll and select with and without other files, signals, time limits, and interfaces that go
 * down, change their names or vanish. On a veth pair whose ends veth0 and veth1 lie in this namespace.
 *
 *   nic_wait SCENARIO
 */
#include "nic_common.h"

#include <dirent.h>
#include <signal.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define LEN 100

static struct port a, b;

static void
open_both(void)
{
    open_port(&a, "veth0");
    open_port(&b, "veth1");
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
        double best = 10, cheapest = 10, little = 0.01 * patience();
        int turn;

        tx(&a)->cur = asked[k] & POLLOUT ? tx(&a)->tail : tx(&a)->head; /* no more room will come */
        for (turn = 0; turn < 5 && (best > 0.15 || cheapest > little); turn++) {
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
        CHECK(cheapest <= little);
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

    if (!queues_are_shared())
        return;
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

static volatile int syncing;

static void *
sync_b(void *arg)
{
    (void)arg;
    while (syncing)
        ioctl(b.fd, NIOCRXSYNC, NULL);
    return NULL;
}

/* What somebody else's sync takes in wakes who sleeps on the ring, each time: a sleeper that was passed over would look after
 * its ring by itself only half a second later. */
static void
wake_in_time(int turns)
{
    struct later l;
    int turn;

    for (turn = 0; turn < turns; turn++) {
        double start = now();

        later(&l, turn % 3, send_from_a);
        CHECK(poll_port(&b, POLLIN, SOON) == POLLIN);
        CHECK(now() - start < 0.4);
        pthread_join(l.thread, NULL);
        rx(&b)->head = rx(&b)->cur = rx(&b)->tail;
        CHECK(poll_port(&b, 0, 0) == 0);
    }
}

static void
a_waiter_wakes_while_another_thread_syncs(void)
{
    pthread_t thread;

    open_both();
    syncing = 1;
    CHECK(pthread_create(&thread, NULL, sync_b, NULL) == 0);
    wake_in_time(500);
    syncing = 0;
    pthread_join(thread, NULL);
    close_port(&a);
    close_port(&b);
}

static void
a_waiter_wakes_while_another_process_syncs(void)
{
    volatile int *on = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child;

    CHECK(on != MAP_FAILED);
    open_both();
    *on = 1;
    child = fork();
    if (child == 0) {
        while (*on)
            ioctl(b.fd, NIOCRXSYNC, NULL);
        _exit(0);
    }
    wake_in_time(500);
    *on = 0;
    wait_child(child);
    close_port(&a);
    close_port(&b);
}

static volatile int sleepers_on;

static void *
sleep_on_b(void *arg)
{
    int *woken = arg;

    while (sleepers_on) {
        *woken += poll_port(&b, POLLIN, 20) == POLLIN;
        usleep(100);
    }
    return NULL;
}

/* Several sleep on one ring, and none takes the other's wake-up away. */
static void
every_sleeper_on_a_ring_is_woken(void)
{
    pthread_t threads[3];
    int i, woken[3] = {0};

    open_both();
    sleepers_on = 1;
    for (i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, sleep_on_b, &woken[i]) == 0);
    wake_in_time(300);
    sleepers_on = 0;
    for (i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
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

/* How many AF_XDP sockets lie in epoll sets of this process. */
static int
watched_sockets(void)
{
    DIR *dir = opendir("/proc/self/fdinfo");
    struct dirent *entry;
    char path[300], line[256];
    int fd, domain, watched = 0;
    socklen_t len;
    FILE *f;

    CHECK(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        snprintf(path, sizeof(path), "/proc/self/fdinfo/%s", entry->d_name);
        f = fopen(path, "r");
        while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
            len = sizeof(domain);
            if (sscanf(line, "tfd: %d", &fd) == 1 && getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0)
                watched += domain == AF_XDP;
        }
        if (f != NULL)
            fclose(f);
    }
    closedir(dir);
    return watched;
}

/* Each would cost the kernel a callback for every packet that it receives, also while nobody sleeps. */
static void
a_receiver_that_slept_leaves_nothing_in_wait_queues(void)
{
    struct pollfd pfd;

    open_both();
    pfd.fd = b.fd;
    pfd.events = POLLIN;
    CHECK(poll(&pfd, 1, 20) == 0);
    CHECK(watched_sockets() == 0);
    transfer(&a, &b, 0, 20, LEN);
    CHECK(poll(&pfd, 1, 20) == 0);
    CHECK(watched_sockets() == 0);
    close_port(&a);
    close_port(&b);
}

#define SCENARIO(name) {#name, name}

int
main(int argc, char **argv)
{
    static const struct scenario all[] = {
        SCENARIO(poll_mixes_ports_and_files),
        SCENARIO(select_tells_what_poll_tells),
        SCENARIO(a_signal_interrupts_a_wait),
        SCENARIO(a_program_that_was_stopped_goes_on_waiting),
        SCENARIO(an_idle_wait_takes_its_time_and_no_processor),
        SCENARIO(two_waiters_on_one_ring_both_wake),
        SCENARIO(a_waiter_wakes_while_another_thread_syncs),
        SCENARIO(a_waiter_wakes_while_another_process_syncs),
        SCENARIO(every_sleeper_on_a_ring_is_woken),
        SCENARIO(a_receiver_notices_that_its_interface_is_gone),
        SCENARIO(a_sender_notices_that_its_interface_is_gone),
        SCENARIO(whoever_waits_for_either_notices_that_the_interface_is_gone),
        SCENARIO(syncs_alone_notice_that_the_interface_is_gone),
        SCENARIO(an_interface_goes_down_and_up_again),
        SCENARIO(an_interface_changes_its_name),
        SCENARIO(a_receiver_that_slept_leaves_nothing_in_wait_queues),
    };

    return run_scenarios(all, sizeof(all) / sizeof(all[0]), argc, argv);
}
