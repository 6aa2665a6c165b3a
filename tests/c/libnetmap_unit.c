/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libnetmap without a port: contexts, messages, options, memory. Ends with status 0 if all is as it should be; the first
 * check that fails says so and ends it with 1. The argument is a file for extmem, of 8192 bytes.
 */
#define _GNU_SOURCE
#include <libnetmap.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                \
    do {                                                                                \
        if (!(condition)) {                                                             \
            fprintf(stderr, "%s:%d: not so: %s (errno %d, last message: %s)\n", __FILE__, __LINE__, #condition, errno, \
                message);                                                               \
            exit(1);                                                                    \
        }                                                                               \
    } while (0)

static char message[2000];
static int messages;
static int blocks;   /* allocated and not freed */
static int fail_at;  /* the allocation that fails, from 1 on; 0: none */
static int locked, locks;

static void
on_error(struct nmctx *ctx, const char *text)
{
    (void)ctx;
    messages++;
    snprintf(message, sizeof(message), "%s", text);
    errno = E2BIG; /* what a callback leaves there does not count */
}

static void *
on_malloc(struct nmctx *ctx, size_t size)
{
    (void)ctx;
    if (fail_at > 0 && --fail_at == 0)
        return NULL;
    blocks++;
    return malloc(size);
}

static void
on_free(struct nmctx *ctx, void *memory)
{
    (void)ctx;
    if (memory != NULL)
        blocks--;
    free(memory);
}

static void
on_lock(struct nmctx *ctx, int lock)
{
    (void)ctx;
    CHECK(lock == !locked);
    locked = lock;
    locks += lock;
}

static struct nmctx context;

static int
count_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static int
is_mapped(const char *file)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[1000];
    int found = 0;

    while (fgets(line, sizeof(line), maps) != NULL)
        found |= strstr(line, file) != NULL;
    fclose(maps);
    return found;
}

static void
messages_are_formatted(void)
{
    char expected[200], long_text[1200];

    nmctx_ferror(&context, "%s %d %ld %c %.3f %s %x %d %d %lld %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %s %.2Lf", "a", -1,
        1L << 40, 'c', 1.5, "b", 255, 7, 8, 9LL, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, "end", 2.25L);
    snprintf(expected, sizeof(expected),
        "%s %d %ld %c %.3f %s %x %d %d %lld %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %s %.2Lf", "a", -1, 1L << 40, 'c', 1.5,
        "b", 255, 7, 8, 9LL, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, "end", 2.25L);
    CHECK(strcmp(message, expected) == 0);
    nmctx_ferror(&context, "no arguments");
    CHECK(strcmp(message, "no arguments") == 0);

    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    nmctx_ferror(&context, "%s", long_text);
    CHECK(strstr(message, "too long") != NULL);
    nmctx_ferror(&context, "%.999s", long_text);
    CHECK(strlen(message) == 999);

    messages = 0;
    context.verbose = 0;
    nmctx_ferror(&context, "%s", "not said");
    CHECK(nmport_open("nonsense") == NULL && errno == EINVAL);
    CHECK(messages == 0);
    context.verbose = 1;
    CHECK(nmport_open("nonsense") == NULL && errno == EINVAL);
    CHECK(messages == 1 && strstr(message, "nonsense") != NULL);
    memcpy(long_text, "netmap:", 7);
    CHECK(nmport_open(long_text) == NULL && errno == EINVAL && strstr(message, "too long") != NULL);
}

static void
the_default_context_can_be_changed(void)
{
    struct nmctx *first = nmctx_get();
    struct nmctx copy = *first;
    struct nmport_d *d;
    void *memory;

    CHECK(first->verbose == 1 && first->error != NULL && first->lock != NULL && first->mem_descs == NULL);
    CHECK(nmctx_set_default(&copy) == first && nmctx_get() == &copy);
    d = nmport_new();
    CHECK(d != NULL && d->ctx == &copy);
    /* The lock of a copy is the one lock. */
    nmctx_lock(&copy);
    nmctx_unlock(&copy);
    nmport_delete(d);
    copy.lock = NULL;
    nmctx_lock(&copy);
    nmctx_unlock(&copy);

    copy.error = on_error;
    nmctx_set_threadsafe();
    CHECK(nmctx_get() == first && first->error == on_error && first->lock != NULL);
    nmctx_set_threadsafe();
    CHECK(nmctx_get() == first && first->lock != NULL);
    first->error = context.error;
    memory = nmctx_malloc(first, 100);
    CHECK(memory != NULL);
    nmctx_free(first, memory);

    context = *first;
    context.error = on_error;
    context.malloc = on_malloc;
    context.free = on_free;
    context.lock = on_lock;
    CHECK(nmctx_set_default(&context) == first);
}

static void
a_new_port_is_blank(void)
{
    struct nmport_d *d = nmport_new();

    CHECK(d != NULL && d->ctx == &context && d->fd == -1 && d->mem == NULL && d->nifp == NULL && d->clist == NULL);
    CHECK(d->hdr.nr_version == NETMAP_API && d->hdr.nr_reqtype == NETMAP_REQ_REGISTER);
    CHECK(d->hdr.nr_body == (uintptr_t)&d->reg && d->hdr.nr_options == 0 && d->hdr.nr_name[0] == '\0');
    CHECK(!d->register_done && !d->mmap_done && nmport_extmem_getinfo(d) == NULL);

    CHECK(nmport_mmap(d) == -1 && errno == EINVAL);
    CHECK(nmport_inject(d, "", 1) == 0);
    /* A name that cannot be parsed leaves room for one that can. */
    CHECK(nmport_parse(d, "netmap:x@conf:rings=1@offset=1") == -1 && errno == EOPNOTSUPP);
    CHECK(d->reg.nr_tx_rings == 0 && d->hdr.nr_name[0] == '\0' && d->hdr.nr_body == (uintptr_t)&d->reg);
    CHECK(nmport_parse(d, "netmap:x-3") == 0 && d->hdr.nr_version == NETMAP_API && d->reg.nr_ringid == 3);
    nmport_undo_prepare(d);
}

static void
names_are_decoded_in_steps(void)
{
    struct nmreq_header hdr;
    struct nmreq_register reg;
    const char *name = "netmap:eth0-2/x@7@rest", *at = name;

    memset(&hdr, 0x55, sizeof(hdr));
    memset(&reg, 0x55, sizeof(reg));
    reg.nr_mem_id = 0;
    CHECK(nmreq_header_decode(&at, &hdr, &context) == 0);
    CHECK(at == name + 11 && strcmp(hdr.nr_name, "eth0") == 0 && hdr.nr_name[5] == 0x55 && hdr.nr_reqtype == 0x5555);
    CHECK(nmreq_register_decode(&at, &reg, &context) == 0 && strcmp(at, "@rest") == 0);
    CHECK(reg.nr_mode == NR_REG_ONE_NIC && reg.nr_ringid == 2 && reg.nr_flags == NR_EXCLUSIVE && reg.nr_mem_id == 7);
    CHECK(reg.nr_tx_slots == 0x55555555);

    at = "@8";
    CHECK(nmreq_register_decode(&at, &reg, &context) == -1 && errno == EINVAL && strcmp(at, "@8") == 0);
    CHECK(reg.nr_mode == NR_REG_ONE_NIC && reg.nr_mem_id == 7);
    at = "@7";
    CHECK(nmreq_register_decode(&at, &reg, &context) == 0 && *at == '\0' && reg.nr_mode == NR_REG_ALL_NIC);
    at = "eth0";
    CHECK(nmreq_header_decode(&at, &hdr, &context) == -1 && errno == EINVAL && strcmp(at, "eth0") == 0);
    CHECK(strcmp(hdr.nr_name, "eth0") == 0);
    at = NULL;
    CHECK(nmreq_get_mem_id(&at, &context) == -1 && errno == EINVAL);

    nmreq_header_init(&hdr, NETMAP_REQ_PORT_INFO_GET, &reg);
    CHECK(hdr.nr_version == NETMAP_API && hdr.nr_reqtype == NETMAP_REQ_PORT_INFO_GET && hdr.nr_options == 0);
    CHECK(hdr.nr_body == (uintptr_t)&reg && hdr.nr_name[0] == '\0' && hdr.nr_reserved == 0);
}

static void
option_lists_are_lifo(void)
{
    struct nmreq_header hdr;
    struct nmreq_option *o, options[3];
    uint32_t i;

    nmreq_header_init(&hdr, NETMAP_REQ_REGISTER, NULL);
    CHECK(nmreq_find_option(&hdr, 1) == NULL);
    for (i = 0; i < 3; i++) {
        memset(&options[i], 0, sizeof(options[i]));
        options[i].nro_reqtype = i + 1;
        nmreq_push_option(&hdr, &options[i]);
    }
    i = 3;
    nmreq_foreach_option(&hdr, o)
        CHECK(o->nro_reqtype == i--);
    CHECK(i == 0 && nmreq_find_option(&hdr, 2) == &options[1]);
    nmreq_remove_option(&hdr, &options[1]);
    CHECK(nmreq_find_option(&hdr, 2) == NULL && options[1].nro_next == 0);
    CHECK(options[2].nro_next == (uintptr_t)&options[0]);
    nmreq_remove_option(&hdr, &options[1]);
    nmreq_remove_option(&hdr, &options[2]);
    CHECK(hdr.nr_options == (uintptr_t)&options[0]);
    nmreq_remove_option(&hdr, &options[0]);
    CHECK(hdr.nr_options == 0);

    for (i = 0; i < 3; i++)
        nmreq_push_option(&hdr, (struct nmreq_option *)calloc(1, sizeof(*o)));
    nmreq_free_options(&hdr);
    CHECK(hdr.nr_options == 0);

    CHECK(strcmp(nmreq_option_name(NETMAP_REQ_OPT_CSB), "csb") == 0);
    CHECK(strcmp(nmreq_option_name(77), "unknown") == 0);
}

static char seen[500];

static int
on_option(struct nmreq_parse_ctx *p)
{
    int i;

    CHECK(p->ctx == &context && p->token == seen);
    strcat(seen, "[");
    for (i = 0; i < NMREQ_OPT_MAXKEYS; i++) {
        if (p->keys[i] != NULL)
            sprintf(seen + strlen(seen), "%d=%s;", i, p->keys[i]);
    }
    strcat(seen, "]");
    if (p->keys[5] != NULL && strcmp(p->keys[5], "fail") == 0) {
        errno = EDOM;
        return -1;
    }
    return 1;
}

static struct nmreq_opt_parser second = {
    .prefix = "second",
    .parse = on_option,
    .default_key = -1,
    .nr_keys = 2,
    .flags = NMREQ_OPTF_ALLOWEMPTY,
    .keys = { { "one_key", 3, NMREQ_OPTK_ALLOWEMPTY }, { "other", 5, NMREQ_OPTK_MUSTSET } },
};
static struct nmreq_opt_parser first = {
    .prefix = "first",
    .parse = on_option,
    .default_key = 2,
    .nr_keys = 1,
    .next = &second,
    .keys = { { "x", 2, NMREQ_OPTK_DEFAULT } },
};

/* What an option list does to the parsers: what they saw, or an errno. */
static const struct {
    const char *text, *seen;
    int errnum;
} option_tests[] = {
    { "", "", 0 },
    { "@first=v", "[2=v;]", 0 },
    { "@first=a,b:c=d", "[2=a,b:c=d;]", 0 },
    { "@first:x=1@second", "[2=1;][]", 0 },
    { "@second:one-key=1,other=2", "[3=1;5=2;]", 0 },
    { "@second:one_key,other=2", "[3=one_key;5=2;]", 0 },
    { "@second:other=2,one-key", "[3=one_key;5=2;]", 0 },
    { "@second:other=fail@first=v", "[5=fail;]", EDOM },
    { "@first:", "[]", 0 },
    { "@first:x=", "[]", 0 },
    { "first=v", "", EINVAL },
    { "@", "", EINVAL },
    { "@first=v@", "[2=v;]", EINVAL },
    { "@@first=v", "", EINVAL },
    { "@first", "", EINVAL },
    { "@first=", "", EINVAL },
    { "@first:x", "", EINVAL },
    { "@first:x,", "", EINVAL },
    { "@first:x=1,", "", EINVAL },
    { "@first:x=1,x=2", "", EINVAL },
    { "@first:y=1", "", EINVAL },
    { "@first:=1", "", EINVAL },
    { "@second=1", "", EINVAL },
    { "@second:", "", EINVAL },
    { "@second:other=", "", EINVAL },
    { "@second:one-key=1", "", EINVAL },
    { "@third", "", EINVAL },
};

static void
programs_have_options_of_their_own(void)
{
    size_t i;

    for (i = 0; i < sizeof(option_tests) / sizeof(option_tests[0]); i++) {
        int before = messages, result;

        seen[0] = '\0';
        errno = 0;
        snprintf(message, sizeof(message), "in %s", option_tests[i].text);
        result = nmreq_options_decode(option_tests[i].text, &first, seen, &context);
        CHECK(strcmp(seen, option_tests[i].seen) == 0);
        CHECK(result == (option_tests[i].errnum ? -1 : 0) && errno == option_tests[i].errnum);
        CHECK(result == 0 || option_tests[i].errnum == EDOM || messages == before + 1);
    }
    first.flags |= NMREQ_OPTF_DISABLED;
    CHECK(nmreq_options_decode("@first=v", &first, seen, &context) == -1 && errno == EOPNOTSUPP);
    CHECK(nmreq_options_decode("@first=v", NULL, seen, &context) == -1 && errno == EINVAL);
    CHECK(nmport_enable_option("no-such-option") == -1 && errno == EOPNOTSUPP);
    nmport_disable_option("no-such-option");
    nmport_disable_option("conf");
    CHECK(nmport_prepare("netmap:x@conf:rings=1") == NULL && errno == EOPNOTSUPP);
    CHECK(nmport_enable_option("conf") == 0);
}

static void
extmem_is_undone(const char *file)
{
    char name[600];
    struct nmport_d *d, *copy;
    struct nmreq_opt_extmem *option;
    char own[64];

    snprintf(name, sizeof(name), "netmap:x@extmem:file=%s,buf-num=5", file);
    d = nmport_prepare(name);
    CHECK(d != NULL && d->extmem != NULL && is_mapped(file));
    option = (struct nmreq_opt_extmem *)nmreq_find_option(&d->hdr, NETMAP_REQ_OPT_EXTMEM);
    CHECK(option == d->extmem && nmport_extmem_getinfo(d) == &option->nro_info && option->nro_usrptr != 0);
    CHECK(option->nro_info.nr_memsize == 8192 && option->nro_info.nr_buf_pool_objtotal == 5);
    CHECK(nmport_extmem(d, own, sizeof(own)) == -1 && errno == EINVAL && strstr(message, "x: ") == message);
    CHECK(nmport_clone(d) == NULL && errno == EINVAL);
    CHECK(nmport_offset(d, 8, 16, 12, 4) == 0);
    nmport_undo_parse(d);
    CHECK(!is_mapped(file) && d->extmem == NULL && d->hdr.nr_options == 0 && d->clist == NULL);

    CHECK(nmport_parse(d, "netmap:x/T") == 0 && nmport_extmem(d, own, sizeof(own)) == 0);
    CHECK(d->extmem->nro_usrptr == (uintptr_t)own && d->extmem->nro_info.nr_memsize == sizeof(own));
    nmport_undo_prepare(d);

    CHECK(nmport_prepare("netmap:x@extmem=/nonexistent") == NULL && errno == ENOENT && strstr(message, "/nonexistent"));
    snprintf(name, sizeof(name), "netmap:x@extmem=%s@extmem=%s", file, file);
    CHECK(nmport_prepare(name) == NULL && errno == EINVAL && !is_mapped(file));

    d = nmport_prepare("netmap:x^1/R@5@conf:slots=7");
    CHECK(d != NULL && nmport_offset(d, 8, 16, 12, 4) == 0);
    copy = nmport_clone(d);
    CHECK(copy != NULL && copy->hdr.nr_options == 0 && copy->hdr.nr_body == (uintptr_t)&copy->reg && copy->fd == -1);
    CHECK(memcmp(&copy->reg, &d->reg, sizeof(d->reg)) == 0 && strcmp(copy->hdr.nr_name, "x") == 0);
    nmport_close(d);
    nmport_close(copy);
}

/* Every allocation fails once: nothing stays behind, and errno says why. */
static void
lack_of_memory_leaks_nothing(const char *file)
{
    int files = count_files(), n, failures = 0;
    char name[600];
    struct nmport_d *d;

    snprintf(name, sizeof(name), "netmap:x@conf:rings=1@extmem=%s@offset=8", file);
    CHECK(nmport_enable_option("offset") == 0);
    for (n = 1;; n++) {
        fail_at = n;
        d = nmport_prepare(name);
        if (d != NULL)
            break;
        failures++;
        CHECK(errno == ENOMEM && blocks == 0 && !is_mapped(file) && count_files() == files);
    }
    fail_at = 0;
    nmport_close(d);
    CHECK(failures >= 8 && blocks == 0 && !is_mapped(file) && count_files() == files);
    nmport_disable_option("offset");
}

static void
null_is_refused(void)
{
    struct nmreq_header hdr;
    const char *text = "netmap:x";

    nmport_close(NULL);
    nmport_undo_prepare(NULL);
    nmport_delete(NULL);
    nmport_undo_mmap(NULL);
    CHECK(nmport_open(NULL) == NULL && errno == EINVAL);
    CHECK(nmport_parse(NULL, "netmap:x") == -1 && errno == EINVAL);
    CHECK(nmport_inject(NULL, "", 1) == -1 && errno == EINVAL);
    CHECK(nmport_clone(NULL) == NULL && errno == EINVAL);
    CHECK(nmport_extmem_from_file(NULL, "x") == -1 && errno == EINVAL);
    CHECK(nmreq_header_decode(NULL, &hdr, &context) == -1 && errno == EINVAL);
    CHECK(nmreq_header_decode(&text, &hdr, NULL) == -1 && errno == EINVAL);
    CHECK(nmport_enable_option(NULL) == -1);
    nmreq_free_options(NULL);
    nmctx_ferror(NULL, "%d", 1);
    nmctx_lock(NULL);
}

int
main(int argc, char **argv)
{
    CHECK(argc == 2);
    the_default_context_can_be_changed();
    messages_are_formatted();
    a_new_port_is_blank();
    names_are_decoded_in_steps();
    option_lists_are_lifo();
    programs_have_options_of_their_own();
    extmem_is_undone(argv[1]);
    lack_of_memory_leaks_nothing(argv[1]);
    null_is_refused();
    CHECK(blocks == 0 && !locked);
    return 0;
}
