/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nic_mishap recv|send PORT: receives, or sends 2000 frames a second, until POLLERR or SIGTERM. Says every 50 ms how many frames
 * it was and what processor time it took, and at the end how it ended. Also with host rings: all rings of the port count.
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

static uint64_t
receive(const struct port *p, uint32_t rings)
{
    uint64_t n = 0;
    uint32_t i;

    for (i = 0; i < rings; i++) {
        struct netmap_ring *ring = NETMAP_RXRING(p->nifp, i);

        if (((char *)ring - (char *)p->nifp) == 0)
            continue; /* not bound */
        n += available(ring);
        ring->head = ring->cur = ring->tail;
    }
    return n;
}

int
main(int argc, char **argv)
{
    char name[32];
    struct port p;
    struct nmreq_register reg = {.nr_mode = NR_REG_ALL_NIC};
    double told = 0, start;
    uint64_t count = 0;
    int sends, revents = 0;
    char *dash;

    CHECK(argc == 3);
    sends = strcmp(argv[1], "send") == 0;
    snprintf(name, sizeof(name), "%s", argv[2]);
    dash = strchr(name, '/');
    if (dash != NULL) { /* DEV/0: one ring; DEV/^: host rings; DEV/+: all */
        *dash = '\0';
        reg.nr_mode = dash[1] == '^' ? NR_REG_SW : dash[1] == '+' ? NR_REG_NIC_SW : NR_REG_ONE_NIC;
        reg.nr_ringid = reg.nr_mode == NR_REG_ONE_NIC ? (uint16_t)atoi(dash + 1) : 0;
    }
    signal(SIGTERM, on_signal);
    open_port_as(&p, name, reg);
    printf("ready rings=%u\n", p.reg.nr_rx_rings);
    fflush(stdout);
    alarm(60); /* nothing here may hang */
    start = now();
    while (!stop && !(revents & POLLERR)) {
        struct pollfd pfd = {.fd = p.fd, .events = sends ? POLLOUT : POLLIN, .revents = 0};

        if (poll(&pfd, 1, 50) < 0 && errno != EINTR)
            return 1;
        revents = pfd.revents;
        if (!sends) {
            count += receive(&p, p.nifp->ni_rx_rings + p.nifp->ni_host_rx_rings);
        } else if (revents & POLLOUT) {
            while (count < (uint64_t)((now() - start) * 2000) && nm_ring_space(tx(&p)) > 0)
                put_frame(tx(&p), count++, 60);
            usleep(500);
        }
        if (now() - told > 0.05) {
            told = now();
            printf("count=%llu cpu_ms=%d\n", (unsigned long long)count, (int)(cpu_time() * 1000));
            fflush(stdout);
        }
    }
    printf("%s count=%llu\n", revents & POLLERR ? "failed" : "stopped", (unsigned long long)count);
    fflush(stdout);
    close_port(&p);
    return 0;
}
