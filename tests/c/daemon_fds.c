/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The life of netmap fds with netmapd: run with the preload and NETMAP_XDP_ENGINE=auto or daemon, in a namespace with the
 * interface. An exclusive registration is the probe: it succeeds only while nobody has the port.
 *
 *   daemon_fds lifetimes IF     copies by dup, fork, exec, SCM_RIGHTS and mmap keep the port, the last one frees it
 *   daemon_fds held IF FD       (by itself, after exec) FD is a bound netmap fd: map, sync, poll
 *   daemon_fds passed IF FD     (by itself, after exec) a netmap fd comes over the socket FD, open and not bound: bind it
 *   daemon_fds hold IF [N]      bind (ring N), say so, wait for a signal
 *   daemon_fds exclusive IF     bind exclusively once; the exit code is the errno
 *   daemon_fds mark IF          bind, write a number into a buffer of slot 0, say so, wait for a signal
 *   daemon_fds read IF          bind, and print the number there
 *   daemon_fds late IF          open, say so, bind and use at SIGUSR1
 *   daemon_fds churn IF COUNT   COUNT children that bind and are killed
 *   daemon_fds stay IF SECONDS  send and receive for so long, whatever happens to netmapd; prints packets
 */
#define _GNU_SOURCE
#include <net/netmap.h>
#include <net/netmap_user.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what)                                                                                                      \
    do {                                                                                                                 \
        if (!(what)) {                                                                                                   \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #what, strerror(errno));                              \
            exit(99);                                                                                                    \
        }                                                                                                                \
    } while (0)

static const char *ifname;
static uint64_t memsize;
static uint64_t nifp_offset;

static int bind_fd(int fd, uint32_t mode, uint16_t ring, uint64_t flags)
{
    struct nmreq_header hdr = {.nr_version = NETMAP_API, .nr_reqtype = NETMAP_REQ_REGISTER};
    struct nmreq_register reg = {.nr_mode = mode, .nr_ringid = ring, .nr_flags = flags};

    snprintf(hdr.nr_name, sizeof hdr.nr_name, "%s", ifname);
    hdr.nr_body = (uintptr_t)&reg;
    if (ioctl(fd, NIOCCTRL, &hdr) < 0)
        return errno;
    memsize = reg.nr_memsize;
    nifp_offset = reg.nr_offset;
    return 0;
}

static int open_bound(uint64_t flags)
{
    int fd = open("/dev/netmap", O_RDWR);
    CHECK(fd >= 0);
    CHECK(bind_fd(fd, NR_REG_ALL_NIC, 0, flags) == 0);
    return fd;
}

/* 0 if nobody has the port, else the errno of an exclusive registration. */
static int probe(void)
{
    int fd = open("/dev/netmap", O_RDWR | O_CLOEXEC), why;
    CHECK(fd >= 0);
    why = bind_fd(fd, NR_REG_ALL_NIC, 0, NR_EXCLUSIVE);
    CHECK(close(fd) == 0);
    return why;
}

static struct netmap_if *map(int fd, uint64_t size, uint64_t offset)
{
    char *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(base != MAP_FAILED);
    return NETMAP_IF(base, offset);
}

static void use(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    CHECK(ioctl(fd, NIOCTXSYNC, NULL) == 0);
    CHECK(ioctl(fd, NIOCRXSYNC, NULL) == 0);
    CHECK(poll(&p, 1, 1000) == 1 && p.revents == POLLOUT);
}

static void send_fd(int sock, int fd)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.head = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    char byte = 'x';
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
    CHECK(sendmsg(sock, &msg, 0) == 1);
}

static int receive_fd(int sock)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    int fd;
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    CHECK(recvmsg(sock, &msg, 0) == 1);
    memcpy(&fd, CMSG_DATA(&control.head), sizeof fd);
    return fd;
}

static int ended(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void become(const char *self, const char *mode, int fd)
{
    char number[16], size[32], offset[32];
    snprintf(number, sizeof number, "%d", fd);
    snprintf(size, sizeof size, "%llu", (unsigned long long)memsize);
    snprintf(offset, sizeof offset, "%llu", (unsigned long long)nifp_offset);
    execl(self, self, mode, ifname, number, size, offset, NULL);
    CHECK(!"exec");
}

static void lifetimes(const char *self)
{
    int fd, copy, sock[2], back[2];
    char byte;
    pid_t pid;
    struct netmap_if *nifp;

    CHECK(probe() == 0);
    fd = open_bound(0);
    use(fd);
    CHECK(probe() == EBUSY);
    CHECK(close(fd) == 0);
    CHECK(probe() == 0);

    /* dup, dup2, F_DUPFD */
    fd = open_bound(0);
    copy = dup(fd);
    CHECK(copy > fd && close(fd) == 0 && probe() == EBUSY);
    fd = fcntl(copy, F_DUPFD, 50);
    CHECK(fd >= 50 && close(copy) == 0 && probe() == EBUSY);
    use(fd);
    copy = open("/dev/null", O_RDONLY);
    CHECK(dup2(fd, copy) == copy && close(fd) == 0 && probe() == EBUSY);
    CHECK(close(copy) == 0 && probe() == 0);

    /* A mapping keeps what it maps, as with a device. */
    fd = open_bound(0);
    nifp = map(fd, memsize, nifp_offset);
    CHECK(nifp->ni_tx_rings >= 1 && close(fd) == 0 && probe() == EBUSY);
    CHECK(munmap((char *)nifp - nifp_offset, memsize) == 0);
    CHECK(probe() == 0);

    /* fork: the child's copy counts, and works. */
    CHECK(pipe(back) == 0);
    fd = open_bound(0);
    pid = fork();
    if (pid == 0) {
        use(fd);
        CHECK(read(back[0], &byte, 1) == 1);
        use(fd);
        _exit(0);
    }
    CHECK(close(fd) == 0 && probe() == EBUSY);
    CHECK(write(back[1], "x", 1) == 1);
    CHECK(ended(pid) == 0 && probe() == 0);

    /* fork: the child closes, the parent goes on; then the parent is killed and the child goes on. */
    fd = open_bound(0);
    pid = fork();
    if (pid == 0) {
        CHECK(close(fd) == 0 && probe() == EBUSY);
        _exit(0);
    }
    CHECK(ended(pid) == 0 && probe() == EBUSY);
    use(fd);
    CHECK(close(fd) == 0 && probe() == 0);
    pid = fork();
    if (pid == 0) {
        fd = open_bound(0);
        pid = fork();
        if (pid == 0) {
            CHECK(read(back[0], &byte, 1) == 1);
            use(fd);
            _exit(0);
        }
        raise(SIGKILL);
    }
    CHECK(ended(pid) == 128 && probe() == EBUSY);
    CHECK(write(back[1], "x", 1) == 1);
    for (int i = 0; probe() != 0; i++) {
        CHECK(i < 500);
        usleep(10000);
    }

    /* exec: the fd goes along, the library's own do not. */
    fd = open_bound(0);
    pid = fork();
    if (pid == 0)
        become(self, "held", fd);
    CHECK(close(fd) == 0);
    CHECK(ended(pid) == 0 && probe() == 0);

    /* SCM_RIGHTS: in flight it is open; the receiver binds it, and then the sender finds it bound. */
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sock) == 0);
    fd = open("/dev/netmap", O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    send_fd(sock[0], fd);
    pid = fork();
    if (pid == 0)
        become(self, "passed", sock[1]);
    copy = receive_fd(sock[0]);
    use(fd);
    use(copy);
    CHECK(bind_fd(fd, NR_REG_ALL_NIC, 0, 0) == EBUSY);
    CHECK(ended(pid) == 0 && probe() == EBUSY);
    nifp = map(fd, memsize, nifp_offset);
    CHECK(nifp->ni_tx_rings >= 1);
    CHECK(munmap((char *)nifp - nifp_offset, memsize) == 0);
    CHECK(close(fd) == 0 && probe() == EBUSY);
    use(copy);
    CHECK(close(copy) == 0 && probe() == 0);

    /* A bound one, closed while in flight. */
    fd = open_bound(0);
    send_fd(sock[0], fd);
    CHECK(close(fd) == 0 && probe() == EBUSY);
    fd = receive_fd(sock[1]);
    use(fd);
    CHECK(close(fd) == 0 && probe() == 0);

    /* Ordinary sockets stay what they are. */
    CHECK(ioctl(sock[0], NIOCTXSYNC, NULL) == -1 && errno == ENOTTY);
    CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, sock[0], 0) == MAP_FAILED && errno == ENODEV);
    printf("all=1\n");
}

static void held(int fd, uint64_t size, uint64_t offset)
{
    /* The first call that this process makes on it. */
    struct netmap_if *nifp = map(fd, size, offset);
    CHECK(nifp->ni_tx_rings >= 1 && nifp->ni_version == NETMAP_API);
    CHECK(NETMAP_TXRING(nifp, 0)->num_slots >= 8);
    use(fd);
    CHECK(probe() == EBUSY);
    CHECK(close(fd) == 0 && probe() == EBUSY);
    CHECK(munmap((char *)nifp - offset, size) == 0);
    CHECK(probe() == 0);
}

/* Takes the fd out, binds it, and puts a copy back for the other side. */
static void passed(int sock)
{
    int fd = receive_fd(sock);
    CHECK(bind_fd(fd, NR_REG_ALL_NIC, 0, 0) == 0);
    use(fd);
    send_fd(sock, fd);
    usleep(100000);
}

static void hold(int ring)
{
    int fd = open("/dev/netmap", O_RDWR);
    if (fd < 0)
        exit(errno);
    int why = ring < 0 ? bind_fd(fd, NR_REG_ALL_NIC, 0, 0) : bind_fd(fd, NR_REG_ONE_NIC, (uint16_t)ring, 0);
    if (why != 0)
        exit(why);
    printf("bound\n");
    fflush(stdout);
    for (;;)
        pause();
}

static void mark(int write_it)
{
    int fd = open_bound(0);
    struct netmap_if *nifp = map(fd, memsize, nifp_offset);
    struct netmap_ring *ring = NETMAP_TXRING(nifp, 0);
    uint32_t *word = (uint32_t *)NETMAP_BUF(ring, ring->slot[3].buf_idx);
    if (!write_it) {
        printf("mark=%u\n", *word);
        return;
    }
    *word = 12345;
    printf("marked\n");
    fflush(stdout);
    for (;;)
        pause();
}

static void nothing(int signal)
{
    (void)signal;
}

static void late(void)
{
    struct sigaction action = {.sa_handler = nothing};
    int fd = open("/dev/netmap", O_RDWR), copy = dup(fd);
    CHECK(fd >= 0 && copy >= 0);
    sigaction(SIGUSR1, &action, NULL);
    printf("open\n");
    fflush(stdout);
    pause();
    CHECK(bind_fd(fd, NR_REG_ALL_NIC, 0, 0) == 0);
    use(fd);
    CHECK(close(fd) == 0 && probe() == EBUSY);
    use(copy);
    CHECK(close(copy) == 0 && probe() == 0);
}

static void churn(int count)
{
    for (int i = 0; i < count; i++) {
        int ready[2];
        char byte;
        CHECK(pipe(ready) == 0);
        pid_t pid = fork();
        if (pid == 0) {
            int fd = i % 3 == 0 ? open("/dev/netmap", O_RDWR) : open_bound(0);
            CHECK(fd >= 0);
            if (i % 3 == 1)
                map(fd, memsize, nifp_offset);
            CHECK(write(ready[1], "x", 1) == 1);
            for (;;)
                ioctl(fd, NIOCTXSYNC, NULL);
        }
        close(ready[1]);
        CHECK(read(ready[0], &byte, 1) == 1);
        CHECK(kill(pid, SIGKILL) == 0);
        CHECK(ended(pid) == 128);
        close(ready[0]);
    }
    printf("died=%d\n", count);
}

static void stay(int seconds)
{
    int fd = open_bound(0);
    struct netmap_if *nifp = map(fd, memsize, nifp_offset);
    time_t end = time(NULL) + seconds;
    unsigned long sent = 0, received = 0;
    printf("bound\n");
    fflush(stdout);
    while (time(NULL) < end) {
        struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
        struct netmap_ring *tx = NETMAP_TXRING(nifp, 0), *rx = NETMAP_RXRING(nifp, 0);
        CHECK(poll(&p, 1, 100) >= 0 && !(p.revents & POLLERR));
        for (int i = 0; i < 16 && !nm_ring_empty(tx); i++, sent++) {
            struct netmap_slot *slot = &tx->slot[tx->head];
            memset(NETMAP_BUF(tx, slot->buf_idx), 0xff, 60);
            slot->len = 60;
            tx->head = tx->cur = nm_ring_next(tx, tx->head);
        }
        for (; !nm_ring_empty(rx); received++)
            rx->head = rx->cur = nm_ring_next(rx, rx->head);
        printf("sent=%lu received=%lu\n", sent, received);
        fflush(stdout);
        usleep(2000);
    }
}

int main(int argc, char **argv)
{
    const char *mode = argc > 2 ? argv[1] : "";
    int number = argc > 3 ? atoi(argv[3]) : -1;
    ifname = argc > 2 ? argv[2] : "";
    if (strcmp(mode, "lifetimes") == 0)
        lifetimes(argv[0]);
    else if (strcmp(mode, "held") == 0 && argc == 6)
        held(number, strtoull(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
    else if (strcmp(mode, "passed") == 0)
        passed(number);
    else if (strcmp(mode, "hold") == 0)
        hold(number);
    else if (strcmp(mode, "exclusive") == 0)
        return probe();
    else if (strcmp(mode, "mark") == 0 || strcmp(mode, "read") == 0)
        mark(mode[0] == 'm');
    else if (strcmp(mode, "late") == 0)
        late();
    else if (strcmp(mode, "churn") == 0)
        churn(number);
    else if (strcmp(mode, "stay") == 0)
        stay(number);
    else
        return 2;
    return 0;
}
