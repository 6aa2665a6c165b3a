/* Memory of programs through netmapd: two processes meet in a file, and a file that is cut off harms nobody.
 * Usage: daemon_extmem FILE; prints a line per step that held. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <net/netmap_user.h>

#define SIZE (8 << 20)

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static struct nmreq_register bind_in(int fd, const char *port, void *mem)
{
	struct nmreq_opt_extmem ext;
	struct nmreq_header hdr;
	struct nmreq_register reg;

	memset(&ext, 0, sizeof(ext));
	ext.nro_opt.nro_reqtype = NETMAP_REQ_OPT_EXTMEM;
	ext.nro_usrptr = (uintptr_t)mem;
	ext.nro_info.nr_memsize = SIZE;
	memset(&reg, 0, sizeof(reg));
	reg.nr_mode = NR_REG_ALL_NIC;
	reg.nr_tx_slots = reg.nr_rx_slots = 64;
	memset(&hdr, 0, sizeof(hdr));
	hdr.nr_version = NETMAP_API;
	hdr.nr_reqtype = NETMAP_REQ_REGISTER;
	strncpy(hdr.nr_name, port, sizeof(hdr.nr_name) - 1);
	hdr.nr_body = (uintptr_t)&reg;
	hdr.nr_options = mem ? (uintptr_t)&ext : 0;
	if (ioctl(fd, NIOCCTRL, &hdr) < 0)
		fail(port);
	return reg;
}

static void *map(const char *file, int *fd)
{
	void *mem;

	*fd = open(file, O_RDWR | O_CREAT, 0600);
	if (*fd < 0 || ftruncate(*fd, SIZE) < 0)
		fail(file);
	mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (mem == MAP_FAILED)
		fail("mmap");
	return mem;
}

static void child(const char *file)
{
	struct nmreq_register reg;
	struct netmap_ring *ring;
	int fd, mem_fd;
	char *mem = map(file, &mem_fd);

	/* The path alone must do. */
	close(mem_fd);
	fd = open("/dev/netmap", O_RDWR);
	reg = bind_in(fd, "mem}1", mem);
	ring = NETMAP_TXRING(NETMAP_IF(mem, reg.nr_offset), 0);
	strcpy(NETMAP_BUF(ring, ring->slot[0].buf_idx), "from the other process");
	ring->slot[0].len = 60;
	ring->head = ring->cur = 1;
	if (ioctl(fd, NIOCTXSYNC, NULL) < 0)
		fail("NIOCTXSYNC");
	_exit(0);
}

int main(int argc, char **argv)
{
	struct nmreq_register reg;
	struct netmap_ring *ring;
	struct pollfd pfd;
	int fd, mem_fd, status;
	char *mem;
	pid_t pid;

	if (argc != 2)
		return 2;
	mem = map(argv[1], &mem_fd);
	fd = open("/dev/netmap", O_RDWR);
	if (fd < 0)
		fail("/dev/netmap");
	reg = bind_in(fd, "mem{1", mem);
	ring = NETMAP_RXRING(NETMAP_IF(mem, reg.nr_offset), 0);
	pid = fork();
	if (pid == 0)
		child(argv[1]);
	pfd.fd = fd;
	pfd.events = POLLIN;
	if (poll(&pfd, 1, 10000) != 1 || ring->head == ring->tail)
		fail("nothing came");
	if (strcmp(NETMAP_BUF(ring, ring->slot[0].buf_idx), "from the other process"))
		fail("something else came");
	if (waitpid(pid, &status, 0) != pid || status != 0)
		fail("the other process");
	printf("two processes met in the file\n");

	/* netmapd reads the rings when the port goes, after the file has lost its pages. */
	munmap(mem, SIZE);
	if (ftruncate(mem_fd, 0) < 0)
		fail("ftruncate");
	close(fd);
	fd = open("/dev/netmap", O_RDWR);
	bind_in(fd, "mem{1", NULL);
	printf("the file was cut off\n");
	return 0;
}
