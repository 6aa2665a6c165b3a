/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * epoll on netmap descriptors, with the library preloaded: the two ends of a netmap pipe, so no rights are needed.
 *
 *   epoll SCENARIO
 */
#include "nic_common.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/wait.h>

#define LEN 80

static struct port a, b;
static int ep;

static void
open_ends(void)
{
    open_port(&a, "ep{1");
    open_port(&b, "ep}1");
    ep = epoll_create1(EPOLL_CLOEXEC);
    CHECK(ep >= 0);
}

static int
ctl(int op, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data = {.u64 = data}};

    return epoll_ctl(ep, op, fd, &event);
}

static void
put(uint64_t seq)
{
    put_frame(tx(&a), seq, LEN);
    CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
}

static void
drop_all(void)
{
    rx(&b)->head = rx(&b)->cur = rx(&b)->tail;
}

/* What the only event is that comes within ms, 0 if none; its data must be `data`. */
static uint32_t
one(int ms, uint64_t data)
{
    struct epoll_event events[8];
    int n = epoll_wait(ep, events, 8, ms);

    CHECK(n == 0 || (n == 1 && events[0].data.u64 == data));
    return n ? events[0].events : 0;
}

static void
level_triggered_is_told_as_long_as_it_holds(void)
{
    open_ends();
    CHECK(ctl(EPOLL_CTL_ADD, b.fd, EPOLLIN, 77) == 0);
    CHECK(one(0, 77) == 0 && one(30, 77) == 0);
    put(1);
    CHECK(one(SOON, 77) == EPOLLIN && one(SOON, 77) == EPOLLIN);
    drop_all();
    CHECK(one(0, 77) == 0);
    CHECK(ctl(EPOLL_CTL_MOD, b.fd, EPOLLIN | EPOLLOUT, 78) == 0);
    CHECK(one(SOON, 78) == EPOLLOUT);
    put(2);
    CHECK(one(SOON, 78) == (EPOLLIN | EPOLLOUT));
    CHECK(ctl(EPOLL_CTL_DEL, b.fd, 0, 0) == 0);
    CHECK(one(0, 78) == 0);
}

static void
a_wait_sends_what_was_put_into_rings(void)
{
    open_ends();
    CHECK(ctl(EPOLL_CTL_ADD, a.fd, EPOLLIN, 1) == 0);
    put_frame(tx(&a), 5, LEN); /* and no sync */
    CHECK(one(0, 1) == 0);
    CHECK(poll_port(&b, POLLIN, SOON) == POLLIN);
}

static void
edge_triggered_is_told_once_for_each_arrival(void)
{
    int i;

    open_ends();
    put(0);
    CHECK(ctl(EPOLL_CTL_ADD, b.fd, EPOLLIN | EPOLLET, 3) == 0);
    CHECK(one(SOON, 3) == EPOLLIN); /* it was there before */
    for (i = 1; i < 200; i++) {
        CHECK(one(0, 3) == 0);
        if (i % 3 == 0)
            drop_all();
        CHECK(one(0, 3) == 0);
        put(i);
        CHECK(one(SOON, 3) == EPOLLIN);
    }
    CHECK(one(20, 3) == 0);
    CHECK(ctl(EPOLL_CTL_MOD, b.fd, EPOLLIN | EPOLLET, 4) == 0); /* looks afresh */
    CHECK(one(SOON, 4) == EPOLLIN && one(0, 4) == 0);
}

static void
one_shot_is_told_once_until_it_is_set_anew(void)
{
    open_ends();
    CHECK(ctl(EPOLL_CTL_ADD, b.fd, EPOLLIN | EPOLLONESHOT, 5) == 0);
    put(1);
    CHECK(one(SOON, 5) == EPOLLIN);
    put(2);
    CHECK(one(20, 5) == 0);
    CHECK(ctl(EPOLL_CTL_MOD, b.fd, EPOLLIN | EPOLLONESHOT, 6) == 0);
    CHECK(one(SOON, 6) == EPOLLIN && one(0, 6) == 0);
}

static void
other_files_are_told_too_and_nobody_starves(void)
{
    int fds[2], seen[2] = {0, 0}, i;
    struct epoll_event event, both[2];

    open_ends();
    CHECK(pipe(fds) == 0);
    CHECK(ctl(EPOLL_CTL_ADD, fds[0], EPOLLIN, 0) == 0);
    CHECK(ctl(EPOLL_CTL_ADD, b.fd, EPOLLIN, 1) == 0);
    CHECK(write(fds[1], "x", 1) == 1);
    CHECK(one(SOON, 0) == EPOLLIN);
    put(1);
    CHECK(epoll_wait(ep, both, 2, SOON) == 2 && both[0].data.u64 + both[1].data.u64 == 1);
    for (i = 0; i < 20; i++) {
        CHECK(epoll_wait(ep, &event, 1, SOON) == 1 && event.events == EPOLLIN);
        seen[event.data.u64]++;
    }
    CHECK(seen[0] >= 5 && seen[1] >= 5);
    drop_all();
    CHECK(one(SOON, 0) == EPOLLIN);
}

static void
errors_are_those_of_linux(void)
{
    struct epoll_event event;
    int file, dupe;

    open_ends();
    CHECK(ctl(EPOLL_CTL_MOD, b.fd, EPOLLIN, 0) == -1 && errno == ENOENT);
    CHECK(ctl(EPOLL_CTL_DEL, b.fd, 0, 0) == -1 && errno == ENOENT);
    CHECK(ctl(EPOLL_CTL_ADD, b.fd, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 0) == -1 && errno == EINVAL);
    CHECK(ctl(99, b.fd, EPOLLIN, 0) == -1 && errno == EINVAL);
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, b.fd, NULL) == -1 && errno == EFAULT);
    CHECK(epoll_ctl(1900, EPOLL_CTL_ADD, b.fd, &event) == -1 && errno == EBADF);
    file = open("/dev/null", O_RDWR);
    CHECK(epoll_ctl(file, EPOLL_CTL_ADD, b.fd, &event) == -1 && errno == EINVAL);
    CHECK(ctl(EPOLL_CTL_ADD, b.fd, EPOLLIN | EPOLLEXCLUSIVE, 0) == 0);
    CHECK(ctl(EPOLL_CTL_ADD, b.fd, EPOLLIN, 0) == -1 && errno == EEXIST);
    CHECK(ctl(EPOLL_CTL_MOD, b.fd, EPOLLIN, 0) == -1 && errno == EINVAL);
    dupe = dup(b.fd);
    CHECK(ctl(EPOLL_CTL_ADD, dupe, EPOLLIN, 0) == 0); /* another number is another entry */
    CHECK(epoll_wait(ep, &event, 0, 0) == -1 && errno == EINVAL);
}

static void
a_descriptor_that_is_not_bound_is_an_error_until_it_is(void)
{
    struct epoll_event event = {.events = EPOLLIN};
    struct port late = {.reg = {.nr_mode = NR_REG_ALL_NIC}};

    open_ends();
    late.fd = open("/dev/netmap", O_RDWR);
    CHECK(late.fd >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, late.fd, &event) == 0);
    CHECK(one(SOON, 0) == EPOLLERR);
    CHECK(register_port(&late, "ep}1", NETMAP_REQ_REGISTER, NETMAP_API) == 0);
    map_port(&late);
    CHECK(one(0, 0) == 0);
    put(1);
    CHECK(one(SOON, 0) == EPOLLIN);
}

static void
closing_takes_it_out_of_the_set_and_a_copy_keeps_it_there(void)
{
    int copy;

    open_ends();
    copy = dup(b.fd);
    CHECK(ctl(EPOLL_CTL_ADD, b.fd, EPOLLIN, 1) == 0);
    put(1);
    CHECK(close(b.fd) == 0);
    CHECK(one(SOON, 1) == EPOLLIN); /* the file is still open */
    CHECK(close(copy) == 0);
    CHECK(one(0, 1) == 0);
}

static void
send_later(void)
{
    put(9);
}

static void
add_later(void)
{
    CHECK(ctl(EPOLL_CTL_ADD, b.fd, EPOLLIN, 8) == 0);
}

static void
sleepers_are_woken_by_packets_and_by_changes_of_the_set(void)
{
    struct later l;
    double start;
    int i, fds[2];

    open_ends();
    CHECK(ctl(EPOLL_CTL_ADD, a.fd, EPOLLIN, 7) == 0);
    CHECK(ctl(EPOLL_CTL_ADD, b.fd, EPOLLIN, 8) == 0);
    for (i = 0; i < 20; i++) {
        start = now();
        later(&l, i, send_later);
        CHECK(one(SOON, 8) == EPOLLIN);
        CHECK(now() - start < 0.4);
        pthread_join(l.thread, NULL);
        drop_all();
    }
    CHECK(one(0, 8) == 0 && ctl(EPOLL_CTL_DEL, b.fd, 0, 0) == 0);
    put(10);
    start = now(); /* what is added while somebody sleeps counts at once */
    later(&l, 50, add_later);
    CHECK(one(SOON, 8) == EPOLLIN);
    CHECK(now() - start < 0.4);
    pthread_join(l.thread, NULL);
    CHECK(ctl(EPOLL_CTL_DEL, a.fd, 0, 0) == 0 && ctl(EPOLL_CTL_DEL, b.fd, 0, 0) == 0);

    /* The same where the set held nothing of netmap's when the sleep began. */
    CHECK(pipe(fds) == 0 && ctl(EPOLL_CTL_ADD, fds[0], EPOLLIN, 1) == 0);
    start = now();
    later(&l, 50, add_later);
    CHECK(one(SOON, 8) == EPOLLIN);
    CHECK(now() - start < 0.4);
    pthread_join(l.thread, NULL);
}

static volatile int going;
static int told;

static void *
take_edges(void *arg)
{
    struct epoll_event event;

    (void)arg;
    while (going)
        if (epoll_wait(ep, &event, 1, 20) == 1)
            __atomic_fetch_add(&told, 1, __ATOMIC_RELAXED);
    return NULL;
}

/* With EPOLLONESHOT, one of several threads gets each event. */
static void
threads_share_a_set_and_each_event_goes_to_one(void)
{
    pthread_t threads[3];
    double end;
    int i;

    open_ends();
    going = 1;
    CHECK(ctl(EPOLL_CTL_ADD, b.fd, EPOLLIN | EPOLLONESHOT, 1) == 0);
    for (i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, take_edges, NULL) == 0);
    for (i = 1; i <= 100; i++) {
        put(i);
        for (end = now() + SOON * 1e-3; __atomic_load_n(&told, __ATOMIC_RELAXED) < i;) {
            CHECK(now() < end);
            usleep(50);
        }
        drop_all();
        CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
        CHECK(ctl(EPOLL_CTL_MOD, b.fd, EPOLLIN | EPOLLONESHOT, 1) == 0);
    }
    usleep(30000);
    CHECK(told == 100);
    going = 0;
    for (i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
}

static void
copies_children_and_other_waits_see_the_set(void)
{
    struct pollfd pfd;
    struct timespec soon = {.tv_sec = 5};
    struct timeval time = {.tv_sec = 5};
    struct epoll_event event;
    fd_set set;
    int copy, status;
    pid_t child;

    open_ends();
    CHECK(ctl(EPOLL_CTL_ADD, b.fd, EPOLLIN, 4) == 0);
    copy = dup(ep);
    CHECK(epoll_wait(copy, &event, 1, 0) == 0);
    put(1);
    CHECK(epoll_wait(copy, &event, 1, SOON) == 1 && event.data.u64 == 4);
    CHECK(epoll_pwait(copy, &event, 1, SOON, NULL) == 1);
    CHECK(epoll_pwait2(copy, &event, 1, &soon, NULL) == 1);
    pfd = (struct pollfd){.fd = ep, .events = POLLIN};
    CHECK(poll(&pfd, 1, SOON) == 1 && pfd.revents == POLLIN);
    FD_ZERO(&set);
    FD_SET(ep, &set);
    CHECK(select(ep + 1, &set, NULL, NULL, &time) == 1 && FD_ISSET(ep, &set));
    child = fork();
    if (child == 0)
        _exit(epoll_wait(ep, &event, 1, SOON) == 1 && event.data.u64 == 4 ? 0 : 1);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    drop_all();
    CHECK(poll(&pfd, 1, 0) == 0);
    CHECK(close(ep) == 0);
    ep = epoll_create1(0); /* the number again, and nothing in it */
    put(2);
    CHECK(epoll_wait(ep, &event, 1, 0) == 0);
    CHECK(epoll_wait(copy, &event, 1, SOON) == 1);
    CHECK(dup2(ep, copy) == copy && epoll_wait(copy, &event, 1, 0) == 0);
}

static int cleaned;

static void
clean_up(void *arg)
{
    (void)arg;
    cleaned++;
}

static void *
sleep_for_ever(void *arg)
{
    struct pollfd pfd = {.fd = b.fd, .events = POLLIN};
    struct epoll_event event;
    fd_set set;

    FD_ZERO(&set);
    FD_SET(b.fd, &set);
    pthread_cleanup_push(clean_up, NULL);
    if (*(int *)arg == 0)
        poll(&pfd, 1, -1);
    else if (*(int *)arg == 1)
        select(b.fd + 1, &set, NULL, NULL, NULL);
    else
        epoll_wait(ep, &event, 1, -1);
    pthread_cleanup_pop(0);
    return NULL;
}

static void
a_thread_that_sleeps_on_a_port_can_be_cancelled(void)
{
    pthread_t thread;
    double start;
    void *end;
    int how;

    open_ends();
    CHECK(ctl(EPOLL_CTL_ADD, b.fd, EPOLLIN, 4) == 0);
    for (how = 0; how < 3; how++) {
        CHECK(pthread_create(&thread, NULL, sleep_for_ever, &how) == 0);
        usleep(30000);
        start = now();
        CHECK(pthread_cancel(thread) == 0 && pthread_join(thread, &end) == 0);
        CHECK(end == PTHREAD_CANCELED && cleaned == how + 1 && now() - start < 2);
    }
    put(1);
    CHECK(one(SOON, 4) == EPOLLIN);
}

static void
longer_waits_than_one_slice_keep_their_limits_and_their_sets(void)
{
    struct timeval time = {.tv_usec = 600000};
    double start = now();
    fd_set set;

    open_ends();
    FD_ZERO(&set);
    FD_SET(b.fd, &set);
    CHECK(select(b.fd + 1, &set, NULL, NULL, &time) == 0 && !FD_ISSET(b.fd, &set));
    CHECK(now() - start >= 0.6 && time.tv_sec == 0 && time.tv_usec == 0);
    start = now();
    CHECK(poll_port(&b, POLLIN, 600) == 0 && now() - start >= 0.6);
}

static void
on_alarm(int signal)
{
    (void)signal;
}

static void
limits_and_signals_end_a_wait(void)
{
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval timer = {.it_value = {.tv_usec = 50000}};
    struct epoll_event event;
    double start;

    open_ends();
    CHECK(ctl(EPOLL_CTL_ADD, b.fd, EPOLLIN, 4) == 0);
    start = now();
    CHECK(epoll_wait(ep, &event, 1, 60) == 0 && now() - start >= 0.06);
    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &timer, NULL) == 0);
    CHECK(epoll_wait(ep, &event, 1, SOON) == -1 && errno == EINTR);
    CHECK(now() - start < SOON * 1e-3);
}

#define SCENARIO(name)                                                                                                 \
    {                                                                                                                  \
        #name, name                                                                                                    \
    }

int
main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } all[] = {
        SCENARIO(level_triggered_is_told_as_long_as_it_holds),
        SCENARIO(a_wait_sends_what_was_put_into_rings),
        SCENARIO(edge_triggered_is_told_once_for_each_arrival),
        SCENARIO(one_shot_is_told_once_until_it_is_set_anew),
        SCENARIO(other_files_are_told_too_and_nobody_starves),
        SCENARIO(errors_are_those_of_linux),
        SCENARIO(a_descriptor_that_is_not_bound_is_an_error_until_it_is),
        SCENARIO(closing_takes_it_out_of_the_set_and_a_copy_keeps_it_there),
        SCENARIO(sleepers_are_woken_by_packets_and_by_changes_of_the_set),
        SCENARIO(threads_share_a_set_and_each_event_goes_to_one),
        SCENARIO(copies_children_and_other_waits_see_the_set),
        SCENARIO(limits_and_signals_end_a_wait),
        SCENARIO(a_thread_that_sleeps_on_a_port_can_be_cancelled),
        SCENARIO(longer_waits_than_one_slice_keep_their_limits_and_their_sets),
    };
    size_t i;

    for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (argc == 2 && strcmp(argv[1], all[i].name) == 0) {
            all[i].run();
            puts("ok");
            return 0;
        }
    fprintf(stderr, "no such scenario\n");
    return 2;
}
