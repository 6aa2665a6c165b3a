/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nic_mishap recv|send PORT...: receives, or sends 2000 frames a second by the first port, until POLLERR or SIGTERM. Says every
 * 50 ms how many frames it was and what processor time it took, and at the end how it ended. A port is an interface, or
 * DEV/0: one ring; DEV/^: host rings; DEV/+: all. All rings of a port count. Of what it receives it also says the sum, and the
 * sum of squares, of the numbers that stand where UDP over IPv4 has its data: which frames came, and not just how many.
 */
#include "nic_common.h"

#include <signal.h>

static volatile sig_atomic_t stop;

static void
on_signal(int sig)
{
    (void)sig;
    stop = 1;
}

#define PORTS 4

static void
bind_port(struct port *p, const char *what)
{
    struct nmreq_register reg = {.nr_mode = NR_REG_ALL_NIC};
    char name[32];
    char *dash;

    snprintf(name, sizeof(name), "%s", what);
    dash = strchr(name, '/');
    if (dash != NULL) {
        *dash = '\0';
        reg.nr_mode = dash[1] == '^' ? NR_REG_SW : dash[1] == '+' ? NR_REG_NIC_SW : NR_REG_ONE_NIC;
        reg.nr_ringid = reg.nr_mode == NR_REG_ONE_NIC ? (uint16_t)atoi(dash + 1) : 0;
    }
    open_port_as(p, name, reg);
}

#define UDP_DATA 42 /* after Ethernet, IPv4 and UDP headers */

static uint64_t sum, squares;

static void
add(const struct netmap_ring *ring, uint32_t i)
{
    uint64_t number;

    if (ring->slot[i].len < UDP_DATA + sizeof(number))
        return;
    memcpy(&number, NETMAP_BUF(ring, ring->slot[i].buf_idx) + UDP_DATA, sizeof(number));
    sum += number;
    squares += number * number;
}

static uint64_t
receive(const struct port *p, uint32_t rings)
{
    uint64_t n = 0;
    uint32_t i, j;

    for (i = 0; i < rings; i++) {
        struct netmap_ring *ring = NETMAP_RXRING(p->nifp, i);

        if (((char *)ring - (char *)p->nifp) == 0)
            continue; /* not bound */
        n += available(ring);
        for (j = ring->head; j != ring->tail; j = nm_ring_next(ring, j))
            add(ring, j);
        ring->head = ring->cur = ring->tail;
    }
    return n;
}

int
main(int argc, char **argv)
{
    struct port p[PORTS];
    double told = 0, start;
    uint64_t count = 0;
    int sends, i, ports = argc - 2, revents = 0;

    CHECK(ports >= 1 && ports <= PORTS);
    sends = strcmp(argv[1], "send") == 0;
    signal(SIGTERM, on_signal);
    for (i = 0; i < ports; i++)
        bind_port(&p[i], argv[2 + i]);
    printf("ready rings=%u\n", p[0].reg.nr_rx_rings);
    fflush(stdout);
    alarm(60); /* nothing here may hang */
    start = now();
    while (!stop && !(revents & POLLERR)) {
        struct pollfd pfd[PORTS];

        for (i = 0; i < ports; i++)
            pfd[i] = (struct pollfd){.fd = p[i].fd, .events = sends ? POLLOUT : POLLIN, .revents = 0};
        if (poll(pfd, (nfds_t)ports, 50) < 0 && errno != EINTR)
            return 1;
        for (i = 0, revents = 0; i < ports; i++) {
            revents |= pfd[i].revents;
            if (!sends)
                count += receive(&p[i], p[i].nifp->ni_rx_rings + p[i].nifp->ni_host_rx_rings);
        }
        if (revents & POLLOUT) {
            while (count < (uint64_t)((now() - start) * 2000) && nm_ring_space(tx(&p[0])) > 0)
                put_frame(tx(&p[0]), count++, 60);
            usleep(500);
        }
        if (now() - told > 0.05) {
            told = now();
            printf("count=%llu sum=%llu squares=%llu cpu_ms=%d\n", (unsigned long long)count,
                (unsigned long long)sum, (unsigned long long)squares, (int)(cpu_time() * 1000));
            fflush(stdout);
        }
    }
    printf("%s count=%llu\n", revents & POLLERR ? "failed" : "stopped", (unsigned long long)count);
    fflush(stdout);
    for (i = 0; i < ports; i++)
        close_port(&p[i]);
    return 0;
}
