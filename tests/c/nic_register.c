/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One registration, as asked for on the command line; prints `result=ok` or `result=ENXIO` and the like.
 *
 *   nic_register [-l] [-v VERSION] [-m MODE] [-r RING] [-s SLOTS] [-e EXTRA] [-i MEMID] [-f FLAGS] [-w] IF
 *
 * -l uses the request of older programs, NIOCREGIF. -w then waits for one frame, and says `received`.
 */
#include "nic_common.h"

#include <getopt.h>

static const char *
name_of(int error)
{
    static const struct {
        int error;
        const char *name;
    } all[] = {{0, "ok"}, {ENXIO, "ENXIO"}, {EINVAL, "EINVAL"}, {EPERM, "EPERM"}, {EBUSY, "EBUSY"}, {ENOMEM, "ENOMEM"},
        {EOPNOTSUPP, "EOPNOTSUPP"}, {ENOENT, "ENOENT"}, {EIO, "EIO"}, {EMFILE, "EMFILE"}, {EACCES, "EACCES"}};
    size_t i;

    for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (all[i].error == error)
            return all[i].name;
    return strerror(error);
}

static int
register_old(struct port *p, const char *name, uint32_t version)
{
    struct nmreq old;
    int done;

    memset(&old, 0, sizeof(old));
    old.nr_version = version;
    old.nr_flags = p->reg.nr_mode;
    old.nr_ringid = p->reg.nr_ringid;
    strncpy(old.nr_name, name, sizeof(old.nr_name) - 1);
    done = ioctl(p->fd, NIOCREGIF, &old);
    p->reg.nr_memsize = old.nr_memsize;
    p->reg.nr_offset = old.nr_offset;
    return done;
}

int
main(int argc, char **argv)
{
    struct port p = {.reg = {.nr_mode = NR_REG_ALL_NIC}};
    uint32_t version = NETMAP_API;
    int c, old = 0, wait = 0, error;

    alarm(20);
    while ((c = getopt(argc, argv, "lv:m:r:s:e:i:f:w")) != -1) {
        unsigned long n = optarg != NULL ? strtoul(optarg, NULL, 0) : 0;

        switch (c) {
        case 'l':
            old = 1;
            break;
        case 'v':
            version = (uint32_t)n;
            break;
        case 'm':
            p.reg.nr_mode = (uint32_t)n;
            break;
        case 'r':
            p.reg.nr_ringid = (uint16_t)n;
            break;
        case 's':
            p.reg.nr_tx_slots = p.reg.nr_rx_slots = (uint32_t)n;
            break;
        case 'e':
            p.reg.nr_extra_bufs = (uint32_t)n;
            break;
        case 'i':
            p.reg.nr_mem_id = (uint16_t)n;
            break;
        case 'f':
            p.reg.nr_flags = n;
            break;
        case 'w':
            wait = 1;
            break;
        default:
            return 2;
        }
    }
    if (optind + 1 != argc)
        return 2;
    p.fd = open("/dev/netmap", O_RDWR);
    CHECK(p.fd >= 0);
    error = 0;
    if ((old ? register_old(&p, argv[optind], version)
             : register_port(&p, argv[optind], NETMAP_REQ_REGISTER, (uint16_t)version)) != 0)
        error = errno;
    printf("result=%s slots=%u extra=%u\n", name_of(error), p.reg.nr_tx_slots, p.reg.nr_extra_bufs);
    fflush(stdout);
    if (error == 0 && wait) {
        map_port(&p);
        do
            CHECK(!(poll_port(&p, POLLIN, 1000) & POLLERR));
        while (nm_ring_empty(rx(&p)));
        printf("received\n");
    }
    return 0;
}
