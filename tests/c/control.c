/* What only a C program shows of the control path: calls on the descriptor itself, and what is not netmap's.
 * Usage: control SCENARIO; preloaded. Needs no rights. */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/ethtool.h>
#include <linux/sockios.h>

#include <net/netmap_user.h>

#define CHECK(what) \
	do { \
		if (!(what)) { \
			fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #what, errno); \
			exit(1); \
		} \
	} while (0)

static struct nmreq_register bind_port(int fd, const char *port, uint32_t mode, uint16_t mem_id)
{
	struct nmreq_header hdr;
	struct nmreq_register reg;

	memset(&reg, 0, sizeof(reg));
	reg.nr_mode = mode;
	reg.nr_mem_id = mem_id;
	reg.nr_tx_slots = reg.nr_rx_slots = 64;
	reg.nr_tx_rings = reg.nr_rx_rings = 2;
	memset(&hdr, 0, sizeof(hdr));
	hdr.nr_version = NETMAP_API;
	hdr.nr_reqtype = NETMAP_REQ_REGISTER;
	strncpy(hdr.nr_name, port, sizeof(hdr.nr_name) - 1);
	hdr.nr_body = (uintptr_t)&reg;
	CHECK(ioctl(fd, NIOCCTRL, &hdr) == 0);
	return reg;
}

static int netmap(void)
{
	int fd = open("/dev/netmap", O_RDWR);

	CHECK(fd >= 0);
	return fd;
}

static void interface_requests(void)
{
	int fd = netmap(), sock = socket(AF_INET, SOCK_DGRAM, 0);
	struct ethtool_value value = {ETHTOOL_GLINK, 0};
	struct ifreq ifr;
	short before;
	int on = 1;

	memset(&ifr, 0, sizeof(ifr));
	strcpy(ifr.ifr_name, "lo");
	CHECK(sock >= 0);
	bind_port(fd, "sioc{1", NR_REG_ALL_NIC, 0);
	/* The original on Linux knows none of them on its own descriptor. */
	CHECK(ioctl(fd, SIOCGIFFLAGS, &ifr) == -1 && errno == EOPNOTSUPP);
	CHECK(ioctl(fd, SIOCGIFADDR, &ifr) == -1 && errno == EOPNOTSUPP);
	CHECK(ioctl(fd, SIOCETHTOOL, &ifr) == -1 && errno == EOPNOTSUPP);
	CHECK(ioctl(fd, FIONBIO, &on) == 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
	/* Beside it, a socket is the kernel's. */
	CHECK(ioctl(sock, SIOCGIFFLAGS, &ifr) == 0);
	before = ifr.ifr_flags;
	CHECK((before & IFF_LOOPBACK) != 0);
	ifr.ifr_flags |= IFF_PROMISC;
	if (ioctl(sock, SIOCSIFFLAGS, &ifr) == 0) {
		CHECK(ioctl(sock, SIOCGIFFLAGS, &ifr) == 0 && (ifr.ifr_flags & IFF_PROMISC) != 0);
		ifr.ifr_flags = before;
		CHECK(ioctl(sock, SIOCSIFFLAGS, &ifr) == 0);
	} else {
		CHECK(errno == EPERM);
	}
	ifr.ifr_data = (void *)&value;
	CHECK(ioctl(sock, SIOCETHTOOL, &ifr) == 0 && value.data <= 1);
	strcpy(ifr.ifr_name, "nosuchdev");
	CHECK(ioctl(sock, SIOCGIFMTU, &ifr) == -1 && errno == ENODEV);
}

static void mapping(void)
{
	int fd = netmap();
	struct nmreq_register reg;
	struct netmap_if *nifp;
	size_t size;
	char *at;

	CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EINVAL);
	reg = bind_port(fd, "map{1", NR_REG_ALL_NIC, 0);
	size = reg.nr_memsize;
	CHECK(reg.nr_offset + sizeof(*nifp) < size);
	CHECK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) == MAP_FAILED && errno == EINVAL);
	CHECK(mmap(NULL, size + 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EINVAL);
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(at != MAP_FAILED);
	nifp = NETMAP_IF(at, reg.nr_offset);
	CHECK(nifp->ni_tx_rings == 2 && nifp->ni_rx_rings == 2 && NETMAP_TXRING(nifp, 1)->num_slots == 64);
	/* The port stays as long as its mapping. */
	close(fd);
	CHECK(NETMAP_RXRING(nifp, 1)->num_slots == 64 && munmap(at, size) == 0);
}

static void null_port(void)
{
	int fd = netmap();
	struct nmreq_register reg = bind_port(fd, "nothing", NR_REG_NULL, 1);
	char *at = mmap(NULL, reg.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct netmap_ring *ring;
	int i;

	CHECK(at != MAP_FAILED && reg.nr_mem_id == 1);
	ring = NETMAP_TXRING(NETMAP_IF(at, reg.nr_offset), 1);
	for (i = 0; i < 200; i++) {
		ring->slot[ring->head].len = 60;
		ring->head = ring->cur = nm_ring_next(ring, ring->head);
		CHECK(ioctl(fd, NIOCTXSYNC, NULL) == 0);
	}
	CHECK(nm_ring_space(NETMAP_RXRING(NETMAP_IF(at, reg.nr_offset), 0)) == 0);
}

static long parameter(const char *name, const char *mode)
{
	char path[128];
	long value = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/module/netmap/parameters/%s", name);
	f = fopen(path, mode);
	if (f == NULL)
		return -errno;
	if (fscanf(f, "%ld", &value) != 1)
		value = -1;
	fclose(f);
	return value;
}

static void parameters(void)
{
	static const char size[] = "/sys/module/netmap/parameters/buf_size";
	char text[16];
	int fd;

	CHECK(parameter("buf_size", "r") == 2048 && parameter("ring_num", "re") > 0);
	CHECK(parameter("buf_size", "r+") == -EACCES && parameter("buf_size", "w") == -EACCES);
	CHECK(parameter("no_such", "r") == -ENOENT && parameter("", "r") < 0 && parameter("buf_size/", "r") == -ENOENT);
	CHECK(parameter("a_name_that_is_far_too_long_to_be_a_parameter", "r") == -ENOENT);
	fd = open(size, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
	CHECK(read(fd, text, sizeof(text)) == 5 && memcmp(text, "2048\n", 5) == 0 && close(fd) == 0);
	fd = openat(AT_FDCWD, size, O_RDONLY);
	CHECK(fd >= 0 && fcntl(fd, F_GETFD) == 0 && close(fd) == 0);
	CHECK(open(size, O_WRONLY) == -1 && errno == EACCES);
	CHECK(access(size, R_OK) == 0 && access(size, F_OK) == 0 && access(size, W_OK) == -1 && errno == EACCES);
	CHECK(access("/sys/module/netmap/parameters/no_such", F_OK) == -1 && errno == ENOENT);
	CHECK(open("/sys/module/netmap/parameters", O_RDONLY) == -1 && errno == ENOENT);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} all[] = {{"interface_requests", interface_requests}, {"mapping", mapping}, {"null_port", null_port},
	    {"parameters", parameters}};
	size_t i;

	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (argc == 2 && strcmp(argv[1], all[i].name) == 0) {
			all[i].run();
			printf("ok\n");
			return 0;
		}
	return 2;
}
