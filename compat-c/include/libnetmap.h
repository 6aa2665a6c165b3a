/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libnetmap.h: netmap ports by name. Link with -lnetmap (or -lnetmap_xdp, which is the same library).
 *
 *     struct nmport_d *d = nmport_open("netmap:eth0-1/R");
 *     ... rings d->first_rx_ring to d->last_rx_ring: NETMAP_RXRING(d->nifp, i); poll() on d->fd ...
 *     nmport_close(d);
 *
 * Names:
 *
 *     netmap:IF[PIPE][RINGS][FLAGS][@MEMID][OPTION]...     a network interface
 *     valeS:P[PIPE][RINGS][FLAGS][@MEMID][OPTION]...       port P of switch S; S may be empty
 *
 *     PIPE     {ID or }ID     an end of pipe ID between users of that port
 *     RINGS    nothing        all rings of the NIC
 *              -N             pair N of them
 *              ^              the host rings
 *              ^N             pair N of them
 *              *              NIC and host rings
 *     FLAGS    / and any of   x exclusive, z monitor without copies, t monitor transmission, r monitor reception,
 *                             R receive rings only, T transmit rings only
 *     @MEMID   a number       the memory region to open the port in; may stand before the flags too
 *     OPTION   @share=PORT    open the port in the region of that port (netmap:... or vale...)
 *              @conf:KEY=N,KEY=N...
 *                             how many rings and slots to make: rings, host-rings, slots for both directions, or
 *                             tx-rings, rx-rings, host-tx-rings, host-rx-rings, tx-slots, rx-slots, which win; they
 *                             count for the first who opens the port
 *              @extmem=FILE or @extmem:file=FILE,KEY=N...
 *                             make the region in that file; if-num, if-size, ring-num, ring-size, buf-num, buf-size
 *                             divide it, and are chosen for you where they are not given
 *              @offset=N or @offset:initial=N,bits=N
 *                             start packets N bytes into their buffers; disabled unless the program enables it
 *
 * Identifiers S and ID consist of letters, digits and underscores.
 *
 * A function that fails returns -1 or NULL, sets errno, and sends a message to the error() function of the context. One
 * port belongs to one thread at a time; different ports may be used in parallel.
 */
#ifndef LIBNETMAP_H_
#define LIBNETMAP_H_

#include <net/netmap_user.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct nmctx;
struct nmem_d;
struct nmport_cleanup_d;
struct nmport_d;
struct nmreq_opt_parser;
struct nmreq_parse_ctx;

/* ---------------------------------------------------------------------------------------------------------------------
 * Ports
 */

struct nmport_d {
    /* The request. A program may change it between nmport_prepare() and nmport_open_desc(); all below is to be read
     * only. */
    struct nmreq_header hdr;
    struct nmreq_register reg; /* the body of hdr; once registered, what was granted */

    struct nmem_d *mem; /* the region: two ports with the same one can exchange buffers */
    struct nmctx *ctx;  /* what the port was made with */

    int register_done; /* nmport_register() succeeded */
    int mmap_done;     /* nmport_mmap() succeeded */
    struct nmreq_opt_extmem *extmem; /* among the options of hdr, or NULL */

    int fd;                 /* for poll() and the sync ioctls; -1 if not open */
    struct netmap_if *nifp; /* for NETMAP_TXRING() and NETMAP_RXRING() */
    uint16_t first_tx_ring; /* the rings that were bound; none if the first is above the last */
    uint16_t last_tx_ring;
    uint16_t first_rx_ring;
    uint16_t last_rx_ring;
    uint16_t cur_tx_ring; /* where nmport_inject() goes on */
    uint16_t cur_rx_ring; /* for the program */

    struct nmport_cleanup_d *clist; /* of the library */
};

/* Open a port: all of what follows in one. NULL on failure. */
struct nmport_d *nmport_open(const char *portspec);

/* Close and free it. d may be NULL. */
void nmport_close(struct nmport_d *d);

/* Copy a packet into a transmit ring, over several slots if it does not fit into one. The next txsync or poll() sends
 * it. Returns size, or 0 if no ring has room. */
int nmport_inject(struct nmport_d *d, const void *buf, size_t size);

/*
 * The same in steps, for programs that want to change the request or to use only a part:
 *
 *     nmport_open()    nmport_prepare()      nmport_new()
 *                                            nmport_parse()
 *                      nmport_open_desc()    nmport_register()
 *                                            nmport_mmap()
 *     nmport_close()   nmport_undo_open_desc()  nmport_undo_mmap()
 *                                               nmport_undo_register()
 *                      nmport_undo_prepare()    nmport_undo_parse()
 *                                               nmport_delete()
 *
 * A step that fails undoes itself.
 */

/* A port without a name, made with the default context. */
struct nmport_d *nmport_new(void);
void nmport_delete(struct nmport_d *d);

/* Fill in the request. Options may map a file (extmem) or look a port up (share). */
int nmport_parse(struct nmport_d *d, const char *portspec);
void nmport_undo_parse(struct nmport_d *d);

/* Open /dev/netmap and bind the port. */
int nmport_register(struct nmport_d *d);
void nmport_undo_register(struct nmport_d *d);

/* Map the region, unless another port of the context has mapped it already or it is the program's (extmem). */
int nmport_mmap(struct nmport_d *d);
void nmport_undo_mmap(struct nmport_d *d);

struct nmport_d *nmport_prepare(const char *portspec);
void nmport_undo_prepare(struct nmport_d *d);
int nmport_open_desc(struct nmport_d *d);
void nmport_undo_open_desc(struct nmport_d *d);

/* A prepared port with the request and the context of d, but without its options. A d with extmem has to be
 * registered. */
struct nmport_d *nmport_clone(struct nmport_d *d);

/*
 * Before a port is registered: let its region be made in memory of the program's, or in a file, which is mapped and in
 * the end unmapped by the library. nmport_extmem_getinfo() gives access to how it is divided, to be set before
 * registration and read afterwards; NULL if there is no extmem.
 */
int nmport_extmem(struct nmport_d *d, void *base, size_t size);
int nmport_extmem_from_file(struct nmport_d *d, const char *fname);
struct nmreq_pools_info *nmport_extmem_getinfo(struct nmport_d *d);

/*
 * Before a port is registered: let packets start anywhere in their buffers, as the low `bits` bits of slot.ptr say
 * (NETMAP_ROFFSET() and its likes; 0: all bits). All slots begin with offset `initial`, none may go beyond `maxoff`.
 * With a `mingap` that is not 0, no more than that many bytes are written for a slot.
 */
int nmport_offset(struct nmport_d *d, uint64_t initial, uint64_t maxoff, uint64_t bits, uint64_t mingap);

/* Refuse (EOPNOTSUPP) or accept an option in names, for the whole program. Enabling an unknown one fails with
 * EOPNOTSUPP. */
void nmport_disable_option(const char *opt);
int nmport_enable_option(const char *opt);

/* ---------------------------------------------------------------------------------------------------------------------
 * Requests
 */

/* Set version, kind and body; zero all else. */
void nmreq_header_init(struct nmreq_header *hdr, uint16_t reqtype, void *body);

/*
 * The parts of a name, one after the other: the port into hdr->nr_name; rings, flags and memory id into nr_mode,
 * nr_ringid, nr_flags and nr_mem_id of reg (a memory id that is set already may only be confirmed). The pointer moves
 * behind what was understood: nmreq_register_decode() stops at the end or at an '@' that no number follows. On failure,
 * EINVAL mostly, nothing changes.
 */
int nmreq_header_decode(const char **ppspec, struct nmreq_header *hdr, struct nmctx *ctx);
int nmreq_register_decode(const char **pmode, struct nmreq_register *reg, struct nmctx *ctx);

/* The memory id of the port that *portname begins with; the pointer moves behind its name. */
int32_t nmreq_get_mem_id(const char **portname, struct nmctx *ctx);

/*
 * Options of a program's own. nmreq_options_decode() takes "@opt@opt=value@opt:key=value,key=value..." apart and calls
 * the parser of each option, which finds the values by the ids of their keys. Values live as long as that call. A
 * parser returns a negative number, with errno set, to end it all; what others have done stays done.
 */
#define NMREQ_OPT_MAXKEYS 16

typedef int (*nmreq_opt_parser_cb)(struct nmreq_parse_ctx *);

struct nmreq_opt_key {
    const char *key; /* with '_', not '-'; NULL behind the last one */
    int id;          /* index in nmreq_parse_ctx.keys */
    unsigned int flags;
};

/* nmreq_opt_key.flags */
#define NMREQ_OPTK_ALLOWEMPTY 1U /* may stand without a value; its value is its name then */
#define NMREQ_OPTK_MUSTSET 2U    /* has to be there, if there are keys */
#define NMREQ_OPTK_DEFAULT 4U    /* the one that default_key names */

struct nmreq_opt_parser {
    const char *prefix; /* the name of the option */
    nmreq_opt_parser_cb parse;
    int default_key; /* id of the key that "@option=value" sets, or -1 */
    int nr_keys;
    unsigned int flags;
    struct nmreq_opt_parser *next;
    struct nmreq_opt_key keys[NMREQ_OPT_MAXKEYS];
} __attribute__((__aligned__(16)));

/* nmreq_opt_parser.flags */
#define NMREQ_OPTF_DISABLED 1U   /* refused with EOPNOTSUPP */
#define NMREQ_OPTF_ALLOWEMPTY 2U /* "@option" may stand alone */

struct nmreq_parse_ctx {
    struct nmctx *ctx;
    void *token;                         /* the one given to nmreq_options_decode() */
    const char *keys[NMREQ_OPT_MAXKEYS]; /* values; NULL where there is none */
};

int nmreq_options_decode(const char *opt, struct nmreq_opt_parser *parsers, void *token, struct nmctx *ctx);

/* The options that hang on a request. nmreq_free_options() calls free() for each. */
void nmreq_push_option(struct nmreq_header *hdr, struct nmreq_option *option);
void nmreq_remove_option(struct nmreq_header *hdr, struct nmreq_option *option);
struct nmreq_option *nmreq_find_option(struct nmreq_header *hdr, uint32_t reqtype);
void nmreq_free_options(struct nmreq_header *hdr);
const char *nmreq_option_name(uint32_t reqtype);

#define NMREQ_OPTION_AT_(address) ((struct nmreq_option *)(uintptr_t)(address))
#define nmreq_foreach_option(hdr, option)                                                      \
    for ((option) = NMREQ_OPTION_AT_((hdr)->nr_options); (option) != NULL;                     \
         (option) = NMREQ_OPTION_AT_((option)->nro_next))

/* ---------------------------------------------------------------------------------------------------------------------
 * Contexts
 *
 * A context says where messages go, where memory comes from and how threads exclude each other, and knows the regions
 * that its ports have mapped. Ports are made with the default context. A program that wants its own sets its functions
 * in the default context, or copies that, changes the copy and makes it the default. The functions must return.
 */

typedef void (*nmctx_error_cb)(struct nmctx *, const char *);
typedef void *(*nmctx_malloc_cb)(struct nmctx *, size_t);
typedef void (*nmctx_free_cb)(struct nmctx *, void *);
typedef void (*nmctx_lock_cb)(struct nmctx *, int); /* lock if not 0, else unlock */

struct nmctx {
    int verbose; /* 0: no messages */
    nmctx_error_cb error;
    nmctx_malloc_cb malloc;
    nmctx_free_cb free;
    nmctx_lock_cb lock; /* may be NULL */

    struct nmem_d *mem_descs; /* the regions, under the lock */
};

/* A region that is mapped. */
struct nmem_d {
    uint16_t mem_id;
    int refcount; /* ports that use it */
    void *mem;
    size_t size;
    int is_extmem; /* the memory is the program's */
    struct nmem_d *next;
    struct nmem_d *prev;
};

/* The default context, and a new one: that returns the one before. */
struct nmctx *nmctx_get(void);
struct nmctx *nmctx_set_default(struct nmctx *ctx);

/* Make a context with a lock the default; its functions are those of the default before. There is no need to call it
 * unless the program has made a context without a lock the default: the one that the library begins with has a lock. */
void nmctx_set_threadsafe(void);

/* The functions of a context: message (as printf() formats it), memory, lock. */
void nmctx_ferror(struct nmctx *ctx, const char *format, ...) __attribute__((__format__(__printf__, 2, 3)));
void *nmctx_malloc(struct nmctx *ctx, size_t size);
void nmctx_free(struct nmctx *ctx, void *memory);
void nmctx_lock(struct nmctx *ctx);
void nmctx_unlock(struct nmctx *ctx);

#ifdef __cplusplus
}
#endif

#endif /* LIBNETMAP_H_ */
