/* Calls of a library's constructor, which may run before the preloaded library's own. Linked to transparency.c. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

int early_results[8];

__attribute__((constructor)) static void early(void)
{
    int fd = open("/dev/null", O_RDWR), n = -1;
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    void *at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    early_results[0] = fd >= 0;
    early_results[1] = poll(&p, 1, 0);
    early_results[2] = ioctl(fd, FIONREAD, &n) == 0 ? 0 : errno;
    early_results[3] = at != MAP_FAILED && munmap(at, 4096) == 0;
    early_results[4] = fcntl(fd, F_GETFL) & O_ACCMODE;
    early_results[5] = close(fd);
    early_results[6] = close(fd) == 0 ? 0 : errno;
}
