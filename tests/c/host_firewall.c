/*
 * A firewall between a NIC and its own host, as two descriptors: packets go on by exchange of buffers, but for those of TCP and
 * UDP to or from one port.
 *
 *   host_firewall NIC_PORT HOST_PORT DROPPED_PORT
 *
 * Ends on SIGTERM, with a line of what it saw: `in=N out=N dropped=N`.
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

static unsigned word(const unsigned char *p)
{
	return (unsigned)p[0] * 256 + p[1];
}

/* Whether the frame is TCP or UDP of that port. */
static int is_dropped(const unsigned char *p, unsigned len, unsigned port)
{
	unsigned protocol, at;

	if (len < 14 + 20)
		return 0;
	if (word(p + 12) == 0x0800 && (p[14] & 0x0f) >= 5) {
		protocol = p[14 + 9];
		at = 14 + 4 * (unsigned)(p[14] & 0x0f);
	} else if (word(p + 12) == 0x86dd && len >= 14 + 40) {
		protocol = p[14 + 6];
		at = 14 + 40;
	} else {
		return 0;
	}
	if ((protocol != 6 && protocol != 17) || len < at + 4)
		return 0;
	return word(p + at) == port || word(p + at + 2) == port;
}

/* Moves what there is and finds room; returns how many packets, and adds to those that were dropped. */
static unsigned long move(struct nm_desc *from, struct nm_desc *to, unsigned port, unsigned long *dropped)
{
	unsigned t = to->first_tx_ring;
	unsigned long moved = 0;
	unsigned r;

	for (r = from->first_rx_ring; r <= from->last_rx_ring; r++) {
		struct netmap_ring *rx = NETMAP_RXRING(from->nifp, r);

		while (!nm_ring_empty(rx)) {
			struct netmap_slot *in = &rx->slot[rx->head];
			struct netmap_ring *tx = NETMAP_TXRING(to->nifp, t);

			if (is_dropped((unsigned char *)NETMAP_BUF(rx, in->buf_idx), in->len, port)) {
				++*dropped;
			} else if (nm_ring_empty(tx)) {
				if (t == to->last_tx_ring)
					return moved;
				t++;
				continue;
			} else {
				struct netmap_slot *out = &tx->slot[tx->head];
				unsigned theirs = out->buf_idx;

				out->buf_idx = in->buf_idx;
				out->len = in->len;
				out->flags |= NS_BUF_CHANGED;
				in->buf_idx = theirs;
				in->flags |= NS_BUF_CHANGED;
				tx->head = tx->cur = nm_ring_next(tx, tx->head);
				moved++;
			}
			rx->head = rx->cur = nm_ring_next(rx, rx->head);
		}
	}
	return moved;
}

static int pending(struct nm_desc *d)
{
	unsigned i;

	for (i = d->first_rx_ring; i <= d->last_rx_ring; i++)
		if (!nm_ring_empty(NETMAP_RXRING(d->nifp, i)))
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	unsigned long in = 0, out = 0, dropped = 0;
	struct nm_desc *nic, *host;
	struct sigaction sa;
	unsigned port;

	if (argc != 4)
		return 2;
	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = on_signal;
	sigaction(SIGTERM, &sa, NULL);
	port = (unsigned)atoi(argv[3]);
	nic = nm_open(argv[1], NULL, 0, NULL);
	/* The second descriptor shares the memory of the first. */
	host = nic ? nm_open(argv[2], NULL, NM_OPEN_NO_MMAP, nic) : NULL;
	if (!host) {
		perror("nm_open");
		return 1;
	}
	printf("ready\n");
	fflush(stdout);
	while (!stop) {
		struct pollfd p[2] = { { .fd = nic->fd, .events = POLLIN }, { .fd = host->fd, .events = POLLIN } };

		/* Packets that found no room wait for it, and not for more packets. */
		if (pending(nic))
			p[1].events = POLLOUT | (pending(host) ? 0 : POLLIN);
		if (pending(host))
			p[0].events = POLLOUT | (pending(nic) ? 0 : POLLIN);
		if (poll(p, 2, 200) < 0)
			continue;
		if ((p[0].revents | p[1].revents) & POLLERR) {
			fprintf(stderr, "POLLERR\n");
			return 1;
		}
		in += move(nic, host, port, &dropped);
		out += move(host, nic, port, &dropped);
	}
	printf("in=%lu out=%lu dropped=%lu\n", in, out, dropped);
	nm_close(host);
	nm_close(nic);
	return 0;
}
