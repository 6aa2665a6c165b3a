/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Prints the structures and constants of libnetmap.h, one "name value" per line. tests/tests/libnetmap.rs compares them
 * with the Rust side. It compiles as C and as C++, and against the original's header too.
 */
#include <libnetmap.h>

#include <stddef.h>
#include <stdio.h>

#define T(type) printf("%s %zu\n", #type, sizeof(struct type));
#define F(type, field) printf("%s.%s %zu\n", #type, #field, offsetof(struct type, field));
#define C(name) printf("%s %llu\n", #name, (unsigned long long)(name));

int
main(void)
{
    T(nmport_d)
    F(nmport_d, hdr)
    F(nmport_d, reg)
    F(nmport_d, mem)
    F(nmport_d, ctx)
    F(nmport_d, register_done)
    F(nmport_d, mmap_done)
    F(nmport_d, extmem)
    F(nmport_d, fd)
    F(nmport_d, nifp)
    F(nmport_d, first_tx_ring)
    F(nmport_d, last_tx_ring)
    F(nmport_d, first_rx_ring)
    F(nmport_d, last_rx_ring)
    F(nmport_d, cur_tx_ring)
    F(nmport_d, cur_rx_ring)
    F(nmport_d, clist)

    T(nmctx)
    F(nmctx, verbose)
    F(nmctx, error)
    F(nmctx, malloc)
    F(nmctx, free)
    F(nmctx, lock)
    F(nmctx, mem_descs)

    T(nmem_d)
    F(nmem_d, mem_id)
    F(nmem_d, refcount)
    F(nmem_d, mem)
    F(nmem_d, size)
    F(nmem_d, is_extmem)
    F(nmem_d, next)
    F(nmem_d, prev)

    T(nmreq_opt_key)
    F(nmreq_opt_key, key)
    F(nmreq_opt_key, id)
    F(nmreq_opt_key, flags)

    T(nmreq_opt_parser)
    F(nmreq_opt_parser, prefix)
    F(nmreq_opt_parser, parse)
    F(nmreq_opt_parser, default_key)
    F(nmreq_opt_parser, nr_keys)
    F(nmreq_opt_parser, flags)
    F(nmreq_opt_parser, next)
    F(nmreq_opt_parser, keys)
    printf("nmreq_opt_parser:align %zu\n", __alignof__(struct nmreq_opt_parser));

    T(nmreq_parse_ctx)
    F(nmreq_parse_ctx, ctx)
    F(nmreq_parse_ctx, token)
    F(nmreq_parse_ctx, keys)

    C(NMREQ_OPT_MAXKEYS)
    C(NMREQ_OPTK_ALLOWEMPTY)
    C(NMREQ_OPTK_MUSTSET)
    C(NMREQ_OPTK_DEFAULT)
    C(NMREQ_OPTF_DISABLED)
    C(NMREQ_OPTF_ALLOWEMPTY)
    return 0;
}
