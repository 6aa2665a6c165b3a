/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Parses each name of the command line and prints what became of it on one line: the request, or the errno. The option
 * `offset` is enabled by -o as the first argument.
 */
#include <libnetmap.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void
print_options(struct nmport_d *d)
{
    struct nmreq_option *o;

    nmreq_foreach_option(&d->hdr, o)
    {
        printf(" %s(", nmreq_option_name(o->nro_reqtype));
        if (o->nro_reqtype == NETMAP_REQ_OPT_OFFSETS) {
            struct nmreq_opt_offsets *offsets = (struct nmreq_opt_offsets *)o;

            printf("%llu %llu %u", (unsigned long long)offsets->nro_initial_offset,
                (unsigned long long)offsets->nro_max_offset, offsets->nro_offset_bits);
        } else if (o->nro_reqtype == NETMAP_REQ_OPT_EXTMEM) {
            struct nmreq_pools_info *info = nmport_extmem_getinfo(d);

            printf("%llu %u*%u %u*%u %u*%u", (unsigned long long)info->nr_memsize, info->nr_if_pool_objtotal,
                info->nr_if_pool_objsize, info->nr_ring_pool_objtotal, info->nr_ring_pool_objsize,
                info->nr_buf_pool_objtotal, info->nr_buf_pool_objsize);
        }
        printf(")");
    }
}

int
main(int argc, char **argv)
{
    int i = 1;

    nmctx_get()->verbose = 0;
    if (argc > 1 && strcmp(argv[1], "-o") == 0) {
        nmport_enable_option("offset");
        i++;
    }
    for (; i < argc; i++) {
        struct nmport_d *d = nmport_prepare(argv[i]);

        if (d == NULL) {
            printf("errno %d\n", errno);
            continue;
        }
        printf("%s mode %u ring %u flags %llx mem %u rings %u %u host %u %u slots %u %u", d->hdr.nr_name, d->reg.nr_mode,
            d->reg.nr_ringid, (unsigned long long)d->reg.nr_flags, d->reg.nr_mem_id, d->reg.nr_tx_rings,
            d->reg.nr_rx_rings, d->reg.nr_host_tx_rings, d->reg.nr_host_rx_rings, d->reg.nr_tx_slots,
            d->reg.nr_rx_slots);
        print_options(d);
        printf("\n");
        nmport_undo_prepare(d);
    }
    return 0;
}
