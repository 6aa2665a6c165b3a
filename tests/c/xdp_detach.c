/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * xdp_detach PROG: detaches the bpf_link of the program with this id, as an administrator may do with bpftool.
 */
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int
bpf(int command, union bpf_attr *attr)
{
    return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

int
main(int argc, char **argv)
{
    uint32_t wanted = argc == 2 ? (uint32_t)atoi(argv[1]) : 0, id = 0;
    int detached = 0;

    for (;;) {
        struct bpf_link_info info;
        union bpf_attr attr;
        int fd;

        memset(&attr, 0, sizeof(attr));
        attr.start_id = id;
        if (bpf(BPF_LINK_GET_NEXT_ID, &attr) != 0)
            break;
        id = attr.next_id;
        memset(&attr, 0, sizeof(attr));
        attr.link_id = id;
        fd = bpf(BPF_LINK_GET_FD_BY_ID, &attr);
        if (fd < 0)
            continue;
        memset(&attr, 0, sizeof(attr));
        memset(&info, 0, sizeof(info));
        attr.info.bpf_fd = (uint32_t)fd;
        attr.info.info = (uintptr_t)&info;
        attr.info.info_len = sizeof(info);
        if (wanted != 0 && bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) == 0 && info.prog_id == wanted) {
            memset(&attr, 0, sizeof(attr));
            attr.link_detach.link_fd = (uint32_t)fd;
            detached += bpf(BPF_LINK_DETACH, &attr) == 0;
        }
        close(fd);
    }
    printf("detached=%d\n", detached);
    return detached == 0;
}
