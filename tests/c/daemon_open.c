/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Opens /dev/netmap, says so, and waits; SIGUSR1: once more. With an argument it ends after the first. The exit code is the
 * errno.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void nothing(int signal)
{
    (void)signal;
}

int main(int argc, char **argv)
{
    (void)argv;
    struct sigaction action = {.sa_handler = nothing};
    sigaction(SIGUSR1, &action, NULL);
    int fd = open("/dev/netmap", O_RDWR);
    if (fd < 0)
        return errno;
    /* Whatever was started for this is none of the program's children. */
    if (fd != 3 || wait(NULL) != -1 || errno != ECHILD)
        return 99;
    printf("open\n");
    fflush(stdout);
    while (argc == 1) {
        pause();
        if (open("/dev/netmap", O_RDWR) < 0)
            return errno;
        printf("again\n");
        fflush(stdout);
    }
    return 0;
}
