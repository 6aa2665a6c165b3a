/*
 * Says what libc does: results, errno and outputs of the functions that libnetmap_xdp.so interposes, on descriptors that
 * have nothing to do with netmap. tests/transparency.rs runs it with and without the library and compares what it says.
 *
 * Arguments: a directory to write in, and what to do. "nothing": as said. "netmap": hold a netmap fd meanwhile, out of the
 * way at a high number; "plain": a file there, to compare with. "overflow": run into a check of _FORTIFY_SOURCE.
 * Everything printed must be the same from run to run: no addresses, no times.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifdef EARLY
extern int early_results[8];
#endif

/* Not known when compiling, so that _FORTIFY_SOURCE takes its checking functions. */
static volatile int rdonly = O_RDONLY, one = 1, two = 2, zero;

#define SAY(call)                                                                     \
    do {                                                                              \
        errno = 77;                                                                   \
        long r_ = (long)(call);                                                       \
        int e_ = errno;                                                               \
        printf("%d: %s = %ld, errno %d\n", __LINE__, #call, r_, r_ < 0 ? e_ : 0);     \
        if (r_ >= 0 && e_ != 77)                                                      \
            printf("    errno changed to %d\n", e_);                                  \
    } while (0)

/* Whether a call took at least or about a time, as words. */
static struct timespec began;
static void start(void) { clock_gettime(CLOCK_MONOTONIC, &began); }
static const char *took(long ms)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long t = (now.tv_sec - began.tv_sec) * 1000 + (now.tv_nsec - began.tv_nsec) / 1000000;
    return t < ms ? "too short" : t > ms + 2000 ? "too long" : "as long as asked";
}

static void *no_access(void)
{
    return mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void opens(const char *dir)
{
    char name[256];
    void *hole = no_access();
    snprintf(name, sizeof name, "%s/file", dir);
    int fd;

    SAY(fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0640));
    struct stat st;
    SAY(fstat(fd, &st));
    printf("mode %o\n", st.st_mode & 0777);
    SAY(open(name, O_RDWR | O_CREAT | O_EXCL, 0640));
    SAY(close(fd));
    SAY(close(fd));
    SAY(fd = open(name, rdonly));
    SAY(close(fd));
    SAY(fd = open64(name, rdonly | O_CLOEXEC));
    SAY(fcntl(fd, F_GETFD));
    SAY(close(fd));
    int at;
    SAY(at = open(dir, O_RDONLY | O_DIRECTORY));
    SAY(fd = openat(at, "file", rdonly));
    SAY(close(fd));
    SAY(fd = openat64(at, "file", rdonly));
    SAY(close(fd));
    SAY(fd = openat(at, "other", O_WRONLY | O_CREAT, 0600));
    SAY(close(fd));
    SAY(unlinkat(at, "other", 0));
    SAY(fd = openat(at, ".", O_TMPFILE | O_RDWR, 0600));
    SAY(close(fd));
    SAY(fd = openat(-1, name, O_PATH));
    SAY(close(fd));
    SAY(close(at));
    SAY(openat(-1, "file", O_RDONLY));
    SAY(openat(zero, "file", O_RDONLY));
    SAY(open("/nowhere/at/all", O_RDONLY));
    SAY(open("", O_RDONLY));
    SAY(open("/dev/netmapx", O_RDONLY));
    SAY(open("/dev/netma", rdonly));
    SAY(open("/dev/netmap", O_RDONLY | O_DIRECTORY));
    SAY(open("/dev/netmap", O_PATH));
    SAY(open(NULL, rdonly));
    SAY(open((char *)1, rdonly));
    SAY(open((char *)-1L, rdonly));
    SAY(open(hole, rdonly));
    SAY(open(hole, rdonly | O_CREAT, 0600));
    SAY(open((char *)hole + 4094, rdonly | O_CREAT, 0600));
    SAY(openat(AT_FDCWD, hole, rdonly));
    /* A name that ends with the last byte before a hole. */
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(page + 4096, 4096, PROT_NONE);
    memcpy(page + 4096 - 5, "/dev", 5);
    SAY(open(page + 4096 - 5, O_RDWR));
    SAY(open(page + 4096 - 5, O_RDWR | O_CREAT, 0600));
    memcpy(page + 4096 - 11, "/dev/netmap", 11);
    SAY(open(page + 4096 - 11, O_RDWR | O_CREAT, 0600));
    SAY(open(page + 4096 - 11, O_RDWR));
    SAY(munmap(page, 8192));
    SAY(munmap(hole, 4096));
    SAY(unlink(name));
}

static void copies(void)
{
    int p[2], fd, old_limit;
    struct flock lock = { .l_type = F_WRLCK };

    SAY(pipe(p));
    SAY(fd = dup(p[0]));
    SAY(close(fd));
    SAY(fd = dup2(p[0], 60));
    SAY(dup2(60, 60));
    SAY(dup2(-1, 60));
    SAY(dup2(61, 61));
    SAY(dup2(p[0], -1));
    SAY(dup2(p[0], 1 << 30));
    SAY(dup3(p[0], 61, O_CLOEXEC));
    SAY(fcntl(61, F_GETFD));
    SAY(dup3(p[0], 61, 0));
    SAY(fcntl(61, F_GETFD));
    SAY(dup3(p[0], 62, O_NONBLOCK));
    SAY(dup3(p[0], p[0], 0));
    SAY(dup(-1));
    SAY(dup(999));
    SAY(fcntl(p[0], F_DUPFD, 70));
    SAY(fcntl(p[0], F_DUPFD_CLOEXEC, 70));
    SAY(fcntl(71, F_GETFD));
    SAY(fcntl(p[0], F_DUPFD, -1));
    SAY(fcntl(p[0], F_DUPFD, 1 << 30));
    SAY(fcntl(999, F_DUPFD, 0));
    SAY(fcntl(p[0], F_GETFL));
    SAY(fcntl(p[0], F_SETFL, O_NONBLOCK));
    SAY(fcntl(p[0], F_GETFL));
    SAY(fcntl(p[0], F_SETFL, 0));
    SAY(fcntl(p[0], F_SETFD, FD_CLOEXEC));
    SAY(fcntl(p[0], F_GETFD));
    SAY(old_limit = fcntl(p[1], F_GETPIPE_SZ));
    SAY(fcntl(p[1], F_SETLK, &lock));
    SAY(fcntl(p[1], F_SETLK, (void *)8));
    SAY(fcntl(p[1], 31337, 0));
    for (fd = 60; fd < 72; fd++)
        close(fd);

    for (fd = 100; fd < 110; fd++)
        dup2(p[0], fd);
    SAY(close_range(101, 103, 0));
    for (fd = 99; fd < 111; fd++)
        printf("%d%s ", fd, fcntl(fd, F_GETFD) < 0 ? " closed" : " open");
    printf("\n");
    SAY(close_range(104, 105, CLOSE_RANGE_CLOEXEC));
    SAY(fcntl(104, F_GETFD));
    SAY(close_range(106, 107, CLOSE_RANGE_UNSHARE));
    SAY(fcntl(107, F_GETFD));
    SAY(close_range(5, 4, 0));
    SAY(close_range(100, 101, 64));
    SAY(close_range(100, 110, 0));
    SAY(close(p[0]));
    SAY(close(p[1]));
    SAY(close(-1));
}

static void controls(void)
{
    int p[2], s, n = -1, on = 1;
    struct winsize size;

    SAY(pipe(p));
    SAY(write(p[1], "four", 4));
    SAY(ioctl(p[0], FIONREAD, &n));
    printf("%d bytes\n", n);
    SAY(ioctl(p[0], TIOCGWINSZ, &size));
    SAY(ioctl(p[0], FIONBIO, &on));
    SAY(fcntl(p[0], F_GETFL));
    SAY(ioctl(p[0], FIOCLEX));
    SAY(fcntl(p[0], F_GETFD));
    SAY(ioctl(p[0], FIONREAD, NULL));
    SAY(ioctl(-1, FIONREAD, &n));
    SAY(ioctl(999, FIONREAD, &n));
    SAY(ioctl(p[0], 0xdeadbeef, &n));
    /* netmap's requests on what is no netmap fd: NIOCGINFO, NIOCTXSYNC, NIOCCTRL. */
    SAY(ioctl(p[0], 0xc0586991, &n));
    SAY(ioctl(p[0], 0x6994, 0));
    SAY(ioctl(p[0], 0xc0586997, &n));
    SAY(ioctl(999, 0xc0586997, &n));
    SAY(s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    SAY(ioctl(s, 0xc0586997, &n));
    SAY(ioctl(s, FIONREAD, &n));
    SAY(close(s));
    SAY(close(p[0]));
    SAY(close(p[1]));
}

static void maps(const char *dir)
{
    char name[256];
    snprintf(name, sizeof name, "%s/map", dir);
    int fd;
    char *at, *other;

    SAY(fd = open(name, O_RDWR | O_CREAT, 0600));
    SAY(ftruncate(fd, 8192));
    at = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    printf("mapped %d\n", at != MAP_FAILED);
    strcpy(at, "text");
    other = mmap64(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    printf("%s\n", other);
    printf("fixed %d\n", mmap(at, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
    SAY(*at);
    SAY(munmap(at, 8192));
    SAY(munmap(other, 4096));
    SAY(munmap((void *)1, 4096));
    SAY(munmap(NULL, 0));
    SAY(mmap(NULL, 0, PROT_READ, MAP_PRIVATE, fd, 0));
    SAY(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 1));
    SAY(mmap64(NULL, 4096, PROT_READ, MAP_PRIVATE, -1, 0));
    SAY(mmap(NULL, 4096, PROT_READ, 0, fd, 0));
    SAY(mmap(NULL, (size_t)-1, PROT_READ, MAP_PRIVATE, fd, 0));
    SAY(close(fd));
    SAY(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0));
    SAY(unlink(name));
}

static void show(struct pollfd *p, int n)
{
    for (int i = 0; i < n; i++)
        printf("    %d asked %x got %x\n", i, p[i].events, p[i].revents);
}

static void polls(void)
{
    int p[2], q[2], ev;
    SAY(pipe(p));
    SAY(socketpair(AF_UNIX, SOCK_STREAM, 0, q));
    SAY(ev = eventfd(0, 0));
    struct pollfd fds[4] = {
        { p[0], POLLIN, 99 }, { p[1], POLLOUT, 99 }, { q[0], POLLIN | POLLOUT | POLLRDNORM, 99 }, { ev, POLLIN | POLLOUT, 99 },
    };
    struct timespec none = { 0, 0 }, soon = { 0, 30000000 }, wrong = { 0, 1000000000 }, minus = { -1, 0 };

    SAY(poll(fds, 2 * two, 0));
    show(fds, 4);
    SAY(poll(fds, 2 * two, -1));
    SAY(write(p[1], "x", 1));
    SAY(write(q[1], "x", 1));
    SAY(eventfd_write(ev, 3));
    SAY(poll(fds, 2 * two, 1000));
    show(fds, 4);
    SAY(ppoll(fds, 2 * two, &none, NULL));
    show(fds, 4);
    SAY(ppoll(fds, 2 * two, NULL, NULL));
    SAY(ppoll(fds, two, &wrong, NULL));
    SAY(ppoll(fds, two, &minus, NULL));
    char c;
    SAY(read(p[0], &c, 1));
    start();
    SAY(poll(fds, one, 30));
    printf("%s\n", took(29));
    start();
    SAY(ppoll(fds, one, &soon, NULL));
    printf("%s\n", took(29));
    printf("limit stays %ld %ld\n", (long)soon.tv_sec, soon.tv_nsec);
    start();
    SAY(poll(NULL, zero, 30));
    printf("%s\n", took(29));
    SAY(poll(NULL, one, 0));
    SAY(poll((struct pollfd *)-64L, one, 0));
#ifndef _FORTIFY_SOURCE /* which ends the program: see overflow() */
    SAY(poll(fds, -1, 0));
#endif
    fds[1].fd = 999;
    fds[2].fd = -5;
    SAY(poll(fds, 2 * two, 1000));
    show(fds, 4);
    SAY(close(p[1]));
    SAY(close(q[1]));
    fds[1].fd = p[0];
    fds[1].events = 0;
    fds[2].fd = q[0];
    SAY(poll(fds, 2 * two, 1000));
    show(fds, 4);
    SAY(close(p[0]));
    SAY(close(q[0]));
    SAY(close(ev));
}

static void show_sets(int n, fd_set *s[3])
{
    for (int i = 0; i < 3; i++) {
        printf("    set %d:", i);
        for (int fd = 0; s[i] && fd < n; fd++)
            if (FD_ISSET(fd, s[i]))
                printf(" %d", fd);
        printf("\n");
    }
}

static void selects(void)
{
    int p[2], q[2];
    SAY(pipe(p));
    SAY(socketpair(AF_UNIX, SOCK_STREAM, 0, q));
    fd_set r, w, x, *s[3] = { &r, &w, &x };
    struct timeval limit, none = { 0, 0 }, minus = { -1, 0 }, plus = { 1, 2000000 };
    struct timespec soon = { 0, 30000000 }, wrong = { 0, -1 };

#define ALL()             \
    do {                  \
        FD_ZERO(&r);      \
        FD_ZERO(&w);      \
        FD_ZERO(&x);      \
        FD_SET(p[0], &r); \
        FD_SET(q[0], &r); \
        FD_SET(p[1], &w); \
        FD_SET(q[0], &w); \
        FD_SET(q[0], &x); \
        FD_SET(40, &r);   \
        FD_SET(200, &w);  \
    } while (0)
    ALL();
    SAY(select(20, &r, &w, &x, &none));
    show_sets(64, s);
    ALL();
    SAY(write(p[1], "x", 1));
    limit = (struct timeval){ 5, 0 };
    SAY(select(20, &r, &w, &x, &limit));
    printf("left %d\n", limit.tv_sec == 4 && limit.tv_usec > 0);
    show_sets(64, s);
    ALL();
    SAY(select(41, &r, &w, &x, &none));
    show_sets(256, s);
    FD_CLR(40, &r);
    SAY(select(FD_SETSIZE, &r, &w, &x, NULL));
    ALL();
    SAY(select(-1, &r, &w, &x, &none));
    SAY(select(20, &r, &w, &x, &minus));
    SAY(select(20, &r, NULL, NULL, NULL));
    show_sets(20, s);
    ALL();
    SAY(select(20, NULL, &w, NULL, &plus));
    printf("left %ld %d\n", (long)plus.tv_sec, plus.tv_usec > 0 && plus.tv_usec < 1000000);
    SAY(select(20, (fd_set *)-64L, NULL, NULL, &none));
    ALL();
    start();
    limit = (struct timeval){ 0, 30000 };
    FD_CLR(p[0], &r);
    SAY(select(20, &r, NULL, NULL, &limit));
    printf("%s, left %ld %ld\n", took(29), (long)limit.tv_sec, (long)limit.tv_usec);
    show_sets(256, s);
    start();
    limit = (struct timeval){ 0, 30000 };
    SAY(select(0, NULL, NULL, NULL, &limit));
    printf("%s\n", took(29));
    ALL();
    SAY(pselect(20, &r, &w, &x, &soon, NULL));
    printf("limit stays %ld %ld\n", (long)soon.tv_sec, soon.tv_nsec);
    ALL();
    SAY(pselect(20, &r, &w, &x, &wrong, NULL));
    SAY(close(q[1]));
    ALL();
    SAY(pselect(20, &r, &w, &x, &soon, NULL));
    show_sets(20, s);
    /* Nothing but a hang-up on a descriptor that is asked for exceptions. */
    SAY(close(p[1]));
    FD_ZERO(&x);
    FD_SET(p[0], &x);
    start();
    SAY(pselect(20, NULL, NULL, &x, &soon, NULL));
    printf("%s\n", took(29));
    SAY(close(p[0]));
    SAY(close(q[0]));
}

static void show_events(struct epoll_event *e, int n)
{
    for (int i = 0; i < n; i++)
        printf("    %u for %llu\n", e[i].events, (unsigned long long)e[i].data.u64);
}

static void epolls(void)
{
    int p[2], q[2], ep, copy, n;
    struct epoll_event e = { EPOLLIN, { .u64 = 5 } }, got[4];
    struct timespec soon = { 0, 30000000 }, wrong = { 0, -1 };
    struct pollfd pfd;

    SAY(ep = epoll_create1(EPOLL_CLOEXEC));
    SAY(pipe(p));
    SAY(socketpair(AF_UNIX, SOCK_STREAM, 0, q));
    SAY(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &e));
    SAY(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &e));
    SAY(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &e));
    e = (struct epoll_event){ EPOLLIN | EPOLLOUT | EPOLLET, { .u64 = 6 } };
    SAY(epoll_ctl(ep, EPOLL_CTL_ADD, q[0], &e));
    SAY(epoll_ctl(ep, EPOLL_CTL_ADD, q[1], (struct epoll_event *)8));
    SAY(epoll_ctl(p[0], EPOLL_CTL_ADD, q[1], &e));
    SAY(epoll_ctl(ep, 99, q[1], &e));
    SAY(epoll_ctl(ep, EPOLL_CTL_ADD, 250, &e));
    SAY(n = epoll_wait(ep, got, 4, 0));
    show_events(got, n);
    SAY(n = epoll_wait(ep, got, 4, 0));
    SAY(write(p[1], "x", 1));
    SAY(n = epoll_wait(ep, got, 4, -1));
    show_events(got, n);
    pfd = (struct pollfd){ ep, POLLIN, 0 };
    SAY(poll(&pfd, one, -1));
    SAY(copy = dup(ep));
    SAY(n = epoll_pwait(copy, got, 4, 5000, NULL));
    show_events(got, n);
    SAY(n = epoll_pwait2(copy, got, 4, &soon, NULL));
    show_events(got, n);
    SAY(epoll_pwait2(copy, got, 4, &wrong, NULL));
    SAY(epoll_wait(ep, got, zero, 0));
    SAY(epoll_wait(p[0], got, 4, 0));
    SAY(epoll_wait(250, got, 4, 0));
    SAY(epoll_ctl(ep, EPOLL_CTL_DEL, p[0], NULL));
    start();
    SAY(epoll_wait(ep, got, 4, 30));
    printf("%s\n", took(30));
    SAY(close(p[0]));
    SAY(close(p[1]));
    SAY(close(q[0]));
    SAY(close(q[1]));
    SAY(close(ep));
    SAY(close(copy));
}

static volatile int ticks;
static void tick(int sig) { (void)sig, ticks++; }

/* A timer that ticks every 20 ms, so that a tick before the wait does no harm. */
static void ticking(int on)
{
    struct itimerval t = { { 0, on * 20000 }, { 0, on * 20000 } };
    setitimer(ITIMER_REAL, &t, NULL);
}

static void signals(void)
{
    int p[2];
    struct sigaction act = { .sa_handler = tick };
    sigset_t all, none;
    struct timeval limit = { 5, 0 };
    struct timespec soon = { 0, 50000000 };
    fd_set r;

    SAY(pipe(p));
    SAY(sigaction(SIGALRM, &act, NULL));
    struct pollfd pfd = { p[0], POLLIN, 0 };
    ticking(1);
    SAY(poll(&pfd, one, 5000));
    SAY(ppoll(&pfd, one, NULL, NULL));
    FD_ZERO(&r);
    FD_SET(p[0], &r);
    SAY(select(p[0] + 1, &r, NULL, NULL, &limit));
    printf("left %d, set %d\n", limit.tv_sec == 4, FD_ISSET(p[0], &r));
    SAY(pselect(p[0] + 1, &r, NULL, NULL, NULL, NULL));
    sigfillset(&all);
    SAY(ppoll(&pfd, one, &soon, &all));
    SAY(pselect(p[0] + 1, &r, NULL, NULL, &soon, &all));
    sigprocmask(SIG_BLOCK, &all, NULL);
    sigemptyset(&none);
    SAY(ppoll(&pfd, one, NULL, &none));
    ticking(0);
    sigprocmask(SIG_UNBLOCK, &all, NULL);
    printf("ticked %d\n", ticks >= 4);
    SAY(close(p[0]));
    SAY(close(p[1]));
}

static int cleanups;
static void cleanup(void *arg) { (void)arg, cleanups++; }

static void *sleeper(void *arg)
{
    int *p = arg;
    struct pollfd pfd = { p[0], POLLIN, 0 };
    fd_set r;
    FD_ZERO(&r);
    FD_SET(p[0], &r);
    pthread_cleanup_push(cleanup, NULL);
    if (p[2] == 0)
        poll(&pfd, one, -1);
    else if (p[2] == 1)
        ppoll(&pfd, one, NULL, NULL);
    else if (p[2] == 2)
        select(p[0] + 1, &r, NULL, NULL, NULL);
    else if (p[2] == 4)
        epoll_wait(p[0], (struct epoll_event[1]){ { 0, { 0 } } }, one, -1);
    else
        pselect(p[0] + 1, &r, NULL, NULL, NULL, NULL);
    pthread_cleanup_pop(0);
    return NULL;
}

/* Waits end when their thread is cancelled. */
static void cancellation(void)
{
    int p[3];
    SAY(pipe(p));
    for (p[2] = 0; p[2] < 5; p[2]++) {
        pthread_t t;
        void *end;
        if (p[2] == 4)
            p[0] = epoll_create1(0);
        pthread_create(&t, NULL, sleeper, p);
        usleep(20000);
        pthread_cancel(t);
        pthread_join(t, &end);
        printf("cancelled %d, cleaned up %d\n", end == PTHREAD_CANCELED, cleanups);
    }
    SAY(close(p[0]));
    SAY(close(p[1]));
}

/* With _FORTIFY_SOURCE, libc ends the program here. */
static void overflow(void)
{
    struct pollfd fds[1] = { { 0, 0, 0 } };
    SAY(poll(fds, two, 0));
}

static void closing(void)
{
    int p[2];
    SAY(pipe(p));
    SAY(dup2(1, 300));
    closefrom(500);
    SAY(fcntl(300, F_GETFD));
    closefrom(3);
    SAY(fcntl(300, F_GETFD));
    SAY(fcntl(p[0], F_GETFD));
    SAY(fcntl(1, F_GETFD));
}

int main(int argc, char **argv)
{
    const char *dir = argv[1], *hold = argc > 2 ? argv[2] : "nothing";

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strcmp(hold, "netmap") == 0 || strcmp(hold, "plain") == 0) {
        int fd = open(strcmp(hold, "netmap") == 0 ? "/dev/netmap" : "/dev/zero", O_RDWR);
        if (fd < 0 || fcntl(fd, F_DUPFD, 400) != 400 || close(fd) != 0) {
            perror(hold);
            return 1;
        }
    }
#ifdef EARLY
    for (int i = 0; i < 8; i++)
        printf("early %d: %d\n", i, early_results[i]);
#endif
    if (strcmp(hold, "overflow") == 0) {
        overflow();
        return 0;
    }
    opens(dir);
    copies();
    controls();
    maps(dir);
    polls();
    selects();
    epolls();
    signals();
    cancellation();
    closing();
    return 0;
}
