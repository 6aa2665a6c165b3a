/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a service manager does: listens on a socket and starts a daemon with it as descriptor 3.
 *
 *   activate SOCKET PROGRAM [ARGUMENTS]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    char pid[16];

    if (argc < 3 || fd < 0)
        return 1;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", argv[1]);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 10) != 0)
        return 1;
    if (fd != 3 && dup2(fd, 3) != 3)
        return 1;
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    execv(argv[2], argv + 2);
    return 1;
}
