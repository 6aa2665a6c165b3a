/*
 * A firewall in the way of its own host: binds the NIC, with or without its host rings, and lets every packet go on to the
 * other side by transparent forwarding (NR_FORWARD), but for UDP to one port.
 *
 *   host_forward PORT DROPPED_UDP_PORT
 *
 * Ends on SIGTERM, with a line of what it saw: `nic=N host=N dropped=N`.
 */
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
	(void)sig;
	stop = 1;
}

static int is_dropped(const unsigned char *p, unsigned len, unsigned port)
{
	unsigned ip = 14, udp = ip + 20;

	return len >= udp + 8 && p[12] == 8 && p[13] == 0 && p[ip] == 0x45 && p[ip + 9] == 17 &&
	       (unsigned)p[udp + 2] * 256 + p[udp + 3] == port;
}

int main(int argc, char **argv)
{
	unsigned long nic = 0, host = 0, dropped = 0;
	struct sigaction sa;
	struct nm_desc *d;
	unsigned port;
	int i;

	if (argc != 3)
		return 2;
	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = on_signal;
	sigaction(SIGTERM, &sa, NULL);
	port = (unsigned)atoi(argv[2]);
	d = nm_open(argv[1], NULL, 0, NULL);
	if (!d) {
		perror("nm_open");
		return 1;
	}
	for (i = d->first_rx_ring; i <= d->last_rx_ring; i++)
		NETMAP_RXRING(d->nifp, i)->flags |= NR_FORWARD;
	printf("ready\n");
	fflush(stdout);
	while (!stop) {
		struct pollfd p = { .fd = d->fd, .events = POLLIN };

		if (poll(&p, 1, 200) < 0)
			continue;
		if (p.revents & POLLERR) {
			fprintf(stderr, "POLLERR\n");
			return 1;
		}
		for (i = d->first_rx_ring; i <= d->last_rx_ring; i++) {
			struct netmap_ring *ring = NETMAP_RXRING(d->nifp, i);

			while (!nm_ring_empty(ring)) {
				struct netmap_slot *slot = &ring->slot[ring->cur];
				const unsigned char *data = (unsigned char *)NETMAP_BUF(ring, slot->buf_idx);

				if (is_dropped(data, slot->len, port)) {
					dropped++;
				} else {
					slot->flags |= NS_FORWARD;
					if (i < (int)d->nifp->ni_rx_rings)
						nic++;
					else
						host++;
				}
				ring->head = ring->cur = nm_ring_next(ring, ring->cur);
			}
		}
	}
	printf("nic=%lu host=%lu dropped=%lu\n", nic, host, dropped);
	nm_close(d);
	return 0;
}
